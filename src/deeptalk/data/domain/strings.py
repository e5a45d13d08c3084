"""Operations on words and lists in the manner of code: spell, index, reverse, count, append, remove."""

import random

from . import lexicon
from .item import DomainItem, Wording
from .numbers import say_number
from .puzzle import Puzzle, PuzzleKind, build_puzzles, combine, listed

INDEXES = (("first", 0), ("second", 1), ("last", 2))


def build_strings(*, seed: int) -> list[DomainItem]:
    """Questions about words and lists; combinations of words are held out of training."""
    return build_puzzles(KINDS, category="strings", seed=seed)


def _index(rng: random.Random) -> Puzzle:
    trio = rng.sample(lexicon.POOL, 3)
    ordinal, at = rng.choice(INDEXES)
    slots = {"list": listed(trio), "nth": ordinal}
    return Puzzle(slots=slots, answer=f"the {ordinal} word is {trio[at]}.", combination=combine(trio))


def _reverse(rng: random.Random) -> Puzzle:
    trio = rng.sample(lexicon.POOL, 3)
    answer = f"the reversed list is {listed(trio[::-1])}."
    return Puzzle(slots={"list": listed(trio)}, answer=answer, combination=combine(trio))


def _count(rng: random.Random) -> Puzzle:
    chosen = rng.sample(lexicon.POOL, rng.randint(2, 5))
    answer = f"the list has {say_number(len(chosen))} words."
    return Puzzle(slots={"list": listed(chosen)}, answer=answer, combination=combine(chosen))


def _contains(rng: random.Random) -> Puzzle:
    a, b, c, other = rng.sample(lexicon.POOL, 4)
    asked = rng.choice((rng.choice((a, b, c)), other))
    answer = f"no, {asked} is not in the list." if asked == other else f"yes, {asked} is in the list."
    return Puzzle(
        slots={"list": listed((a, b, c)), "word": asked}, answer=answer, combination=combine((a, b, c))
    )


def _append(rng: random.Random) -> Puzzle:
    a, b, new = rng.sample(lexicon.POOL, 3)
    answer = f"the list is now {a}, {b}, {new}."
    return Puzzle(
        slots={"list": listed((a, b)), "word": new}, answer=answer, combination=combine((a, b, new))
    )


def _remove(rng: random.Random) -> Puzzle:
    trio = rng.sample(lexicon.POOL, 3)
    gone = rng.choice(trio)
    answer = f"the list is now {listed(word for word in trio if word != gone)}."
    return Puzzle(slots={"list": listed(trio), "word": gone}, answer=answer, combination=combine(trio))


def _swap(rng: random.Random) -> Puzzle:
    a, b = rng.sample(lexicon.POOL, 2)
    return Puzzle(slots={"a": a, "b": b}, answer=f"swapped, it is {b} and {a}.", combination=combine((a, b)))


def _repeat(rng: random.Random) -> Puzzle:
    word = rng.choice(lexicon.POOL)
    times, count = rng.choice((("twice", 2), ("three times", 3)))
    answer = f"okay, {listed([word] * count)}."
    return Puzzle(slots={"word": word, "times": times}, answer=answer, combination="")


def _longer(rng: random.Random) -> Puzzle:
    while True:
        a, b = rng.sample(lexicon.POOL, 2)
        if abs(len(a) - len(b)) >= 3:
            break
    more, answer = rng.choice((("longer", max(a, b, key=len)), ("shorter", min(a, b, key=len))))
    slots = {"a": a, "b": b, "more": more}
    return Puzzle(slots=slots, answer=f"the {more} word is {answer}.", combination=combine((a, b)))


def _alphabet(rng: random.Random) -> Puzzle:
    while True:
        a, b = rng.sample(lexicon.POOL, 2)
        if a[0] != b[0]:
            break
    answer = f"in the alphabet, {min(a, b)} comes first."
    return Puzzle(slots={"a": a, "b": b}, answer=answer, combination=combine((a, b)))


def _spell(rng: random.Random) -> Puzzle:
    word = rng.choice(_SPELLED)
    return Puzzle(slots={"word": word}, answer=f"{listed(word.upper())}.", combination="")


def _letter(rng: random.Random) -> Puzzle:
    word = rng.choice(lexicon.POOL)
    nth, at = rng.choice((("first", 0), ("last", -1)))
    answer = f"the {nth} letter of {word} is {word[at].upper()}."
    return Puzzle(slots={"word": word, "nth": nth}, answer=answer, combination="")


def _length(rng: random.Random) -> Puzzle:
    word = rng.choice(lexicon.POOL)
    answer = f"the word {word} has {say_number(len(word))} letters."
    return Puzzle(slots={"word": word}, answer=answer, combination="")


_SPELLED = [word for word in lexicon.POOL if len(word) <= 6]
KINDS = (
    PuzzleKind(
        name="index",
        sample=_index,
        num_items=3500,
        wording=Wording(
            formal=(
                "What is the {nth} element of the list {list}?",
                "Return the {nth} element of the list {list}.",
                "Name the {nth} element in {list}.",
            ),
            colloquial=(
                "What's the {nth} word in {list}?",
                "Tell me the {nth} word of {list}.",
                "Here is a list, {list}. What's the {nth} word?",
            ),
        ),
    ),
    PuzzleKind(
        name="reverse",
        sample=_reverse,
        num_items=2500,
        wording=Wording(
            formal=("Reverse the list {list}.", "What is the list {list} in reverse order?"),
            colloquial=("Can you say {list} backwards?", "Turn around the list {list}."),
        ),
    ),
    PuzzleKind(
        name="count",
        sample=_count,
        num_items=2000,
        wording=Wording(
            formal=("How many elements are in the list {list}?", "Count the elements of the list {list}."),
            colloquial=("How many words are in {list}?", "Tell me how many words I say, {list}."),
        ),
    ),
    PuzzleKind(
        name="contains",
        sample=_contains,
        num_items=2000,
        wording=Wording(
            formal=("Is {word} in the list {list}?", "Does the list {list} contain {word}?"),
            colloquial=("Here is a list, {list}. Is {word} in it?", "Tell me if {word} is in {list}."),
        ),
    ),
    PuzzleKind(
        name="append",
        sample=_append,
        num_items=2000,
        wording=Wording(
            formal=("Append {word} to the list {list}.", "What is the list {list} after appending {word}?"),
            colloquial=("Put {word} at the end of {list}.", "Add {word} to the end of {list}."),
        ),
    ),
    PuzzleKind(
        name="remove",
        sample=_remove,
        num_items=2000,
        wording=Wording(
            formal=("Remove {word} from the list {list}.", "What is the list {list} after removing {word}?"),
            colloquial=("Take {word} out of {list}.", "Can you drop {word} from {list}?"),
        ),
    ),
    PuzzleKind(
        name="swap",
        sample=_swap,
        num_items=1000,
        wording=Wording(
            formal=("Swap the words {a} and {b}.", "Exchange the words {a} and {b}."),
            colloquial=("Can you swap {a} and {b}?", "Say {a} and {b} the other way around."),
        ),
    ),
    PuzzleKind(
        name="repeat",
        sample=_repeat,
        num_items=2000,
        wording=Wording(
            formal=("Repeat the word {word} {times}.", "Print the word {word} {times}."),
            colloquial=("Say {word} {times}.", "Can you say {word} {times}?"),
        ),
    ),
    PuzzleKind(
        name="longer",
        sample=_longer,
        num_items=2000,
        wording=Wording(
            formal=("Which word is {more}, {a} or {b}?", "Name the {more} word, {a} or {b}."),
            colloquial=("Which one is the {more} word, {a} or {b}?", "What's the {more} word, {a} or {b}?"),
        ),
    ),
    PuzzleKind(
        name="alphabet",
        sample=_alphabet,
        num_items=2000,
        wording=Wording(
            formal=(
                "Which word is first in alphabetical order, {a} or {b}?",
                "Which of {a} and {b} comes first in the alphabet?",
            ),
            colloquial=(
                "What comes first in the alphabet, {a} or {b}?",
                "Tell me what's first in the alphabet, {a} or {b}.",
            ),
        ),
    ),
    PuzzleKind(
        name="spell",
        sample=_spell,
        num_items=3000,
        wording=Wording(
            formal=(
                "Spell the word {word}.",
                "How is the word {word} spelled?",
                "State the letters of {word}.",
            ),
            colloquial=("How do you spell {word}?", "Can you spell {word}?", "Spell {word} for me."),
        ),
    ),
    PuzzleKind(
        name="letter",
        sample=_letter,
        num_items=3000,
        wording=Wording(
            formal=("What is the {nth} letter of {word}?", "Return the {nth} letter of the word {word}."),
            colloquial=(
                "What's the {nth} letter of {word}?",
                "Which letter comes {nth} in {word}?",
                "Tell me the {nth} letter of {word}.",
            ),
        ),
    ),
    PuzzleKind(
        name="length",
        sample=_length,
        num_items=1500,
        wording=Wording(
            formal=("How many letters are in the word {word}?", "What is the length of the word {word}?"),
            colloquial=("How many letters does {word} have?", "Tell me how many letters are in {word}."),
        ),
    ),
)
