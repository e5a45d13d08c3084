"""Reasoning: chains of order, comparisons, parity, sequences, possession and the odd one out."""

import random

from . import animals, lexicon, things
from .item import DomainItem, Wording, split_words, with_article
from .numbers import say_number
from .puzzle import Puzzle, PuzzleKind, build_puzzles, combine, listed

LARGEST_NUMBER = 99
# Comparative and superlative of both poles.
SCALES = (
    ("taller", "tallest", "shorter", "shortest"),
    ("older", "oldest", "younger", "youngest"),
    ("faster", "fastest", "slower", "slowest"),
    ("stronger", "strongest", "weaker", "weakest"),
    ("richer", "richest", "poorer", "poorest"),
    ("happier", "happiest", "sadder", "saddest"),
)
# Letters that are hard to mistake for another when heard.
CLEAR_LETTERS = split_words("A F H I L O Q R U W X Y")
OBJECTS = split_words("ball key book cup lamp hat ring drum kite coin map pen box flag bell rope")
ODD_KINDS = {
    "animal": split_words("dog cat cow horse tiger rabbit monkey zebra camel frog"),
    "fruit": split_words("banana lemon cherry mango melon peach grape kiwi"),
    "vehicle": split_words("car bus truck train bicycle tractor motorcycle taxi"),
    "tool": split_words("hammer saw screwdriver wrench drill shovel rake"),
    "flower": split_words("rose tulip daisy orchid sunflower daffodil"),
}


def build_reasoning(*, seed: int) -> list[DomainItem]:
    """Reasoning questions; combinations of names, numbers or words are held out of training."""
    return build_puzzles(KINDS, category="reasoning", seed=seed)


def _chain(rng: random.Random) -> Puzzle:
    more, most, less, least = rng.choice(SCALES)
    if rng.random() < 0.5:
        more, most, less, least = less, least, more, most
    first, second, third = rng.sample(lexicon.NAMES, 3)
    premises = [(first, second), (second, third)]
    rng.shuffle(premises)
    asked, answer = rng.choice(((most, first), (least, third)))
    (a, b), (c, d) = premises
    slots = {"a": a, "b": b, "c": c, "d": d, "more": more, "most": asked}
    return Puzzle(
        slots=slots, answer=f"{answer} is the {asked}.", combination=combine((first, second, third))
    )


def _pair(rng: random.Random) -> Puzzle:
    more, _, less, _ = rng.choice(SCALES)
    if rng.random() < 0.5:
        more, less = less, more
    first, second = rng.sample(lexicon.NAMES, 2)
    asked, answer = rng.choice(((more, first), (less, second)))
    slots = {"a": first, "b": second, "more": more, "asked": asked}
    return Puzzle(slots=slots, answer=f"{answer} is {asked}.", combination=combine((first, second)))


def _possession(rng: random.Random) -> Puzzle:
    a, b = rng.sample(lexicon.NAMES, 2)
    x, y = rng.sample(OBJECTS, 2)
    owner, thing = rng.choice(((a, x), (b, y)))
    slots = {"a": a, "b": b, "x": with_article(x), "y": with_article(y), "thing": thing}
    return Puzzle(slots=slots, answer=f"{owner} has the {thing}.", combination=combine((a, b, x, y)))


def _compare_numbers(rng: random.Random) -> Puzzle:
    a, b = rng.sample(range(LARGEST_NUMBER + 1), 2)
    more, answer = rng.choice((("bigger", max(a, b)), ("smaller", min(a, b))))
    slots = {"a": say_number(a), "b": say_number(b), "more": more}
    answer_text = f"the {more} number is {say_number(answer)}."
    return Puzzle(slots=slots, answer=answer_text, combination=combine((str(a), str(b))))


def _extreme_number(rng: random.Random) -> Puzzle:
    numbers = rng.sample(range(LARGEST_NUMBER + 1), 3)
    most, answer = rng.choice((("largest", max(numbers)), ("smallest", min(numbers))))
    slots = {"list": listed(say_number(n) for n in numbers), "most": most}
    answer_text = f"the {most} number is {say_number(answer)}."
    return Puzzle(slots=slots, answer=answer_text, combination=combine(map(str, numbers)))


def _compare_animals(rng: random.Random) -> Puzzle:
    ranks = rng.sample(range(len(animals.BY_SIZE)), 2)
    more, rank = rng.choice((("bigger", max(ranks)), ("smaller", min(ranks))))
    a, b = (with_article(animals.BY_SIZE[r]) for r in ranks)
    slots = {"a": a, "b": b, "more": more}
    return Puzzle(slots=slots, answer=f"the {animals.BY_SIZE[rank]} is {more}.", combination="")


def _parity(rng: random.Random) -> Puzzle:
    number = rng.randrange(LARGEST_NUMBER + 1)
    parity = "odd" if number % 2 else "even"
    said = say_number(number)
    return Puzzle(slots={"a": said}, answer=f"{said} is {parity}.", combination="")


def _neighbor(rng: random.Random) -> Puzzle:
    unit, names, wraps = rng.choice(_SEQUENCES)
    step = rng.choice((-1, 1))
    allowed = [i for i in range(len(names)) if wraps or 0 <= i + step < len(names)]
    at = rng.choice(allowed)
    if unit == "letter":
        at = rng.choice([i for i in allowed if names[i] in CLEAR_LETTERS])
    side = "after" if step > 0 else "before"
    neighbor = names[(at + step) % len(names)]
    slots = {"unit": unit, "side": side, "a": names[at]}
    return Puzzle(slots=slots, answer=f"{side} {names[at]} comes {neighbor}.", combination="")


def _days_later(rng: random.Random) -> Puzzle:
    at, distance = rng.randrange(7), rng.choice((2, 3))
    side = rng.choice(("after", "before"))
    day = things.DAYS[(at + (distance if side == "after" else -distance)) % 7]
    said = f"{say_number(distance)} days {side} {things.DAYS[at]}"
    return Puzzle(slots={"when": said}, answer=f"{said} comes {day}.", combination="")


def _odd_one_out(rng: random.Random) -> Puzzle:
    kind, other = rng.sample(sorted(ODD_KINDS), 2)
    odd = rng.choice(ODD_KINDS[other])
    trio = [*rng.sample(ODD_KINDS[kind], 2), odd]
    rng.shuffle(trio)
    a, b, c = (with_article(word) for word in trio)
    slots = {"a": a, "b": b, "c": c, "kind": with_article(kind)}
    return Puzzle(slots=slots, answer=f"the {odd} is not {slots['kind']}.", combination=combine(trio))


_SEQUENCES = (
    ("day", things.DAYS, True),
    ("month", things.MONTHS, True),
    ("season", things.SEASONS, True),
    ("number", [say_number(n) for n in range(LARGEST_NUMBER + 1)], False),
    ("letter", things.LETTERS, False),
)
KINDS = (
    PuzzleKind(
        name="chain",
        sample=_chain,
        num_items=7000,
        wording=Wording(
            formal=(
                "{a} is {more} than {b}. {c} is {more} than {d}. Who is the {most}?",
                "Given that {a} is {more} than {b} and {c} is {more} than {d}, who is the {most}?",
            ),
            colloquial=(
                "{a} is {more} than {b}, and {c} is {more} than {d}. Who's the {most}?",
                "So {a} is {more} than {b}. {c} is {more} than {d}. Tell me who is the {most}.",
            ),
        ),
    ),
    PuzzleKind(
        name="pair",
        sample=_pair,
        num_items=2500,
        wording=Wording(
            formal=(
                "{a} is {more} than {b}. Who is {asked}?",
                "Given that {a} is {more} than {b}, who is {asked}?",
            ),
            colloquial=(
                "{a} is {more} than {b}. So who's {asked}?",
                "If {a} is {more} than {b}, who's {asked}?",
            ),
        ),
    ),
    PuzzleKind(
        name="possession",
        sample=_possession,
        num_items=2000,
        wording=Wording(
            formal=(
                "{a} has {x}. {b} has {y}. Who has the {thing}?",
                "Given that {a} has {x} and {b} has {y}, who has the {thing}?",
            ),
            colloquial=(
                "{a} has {x}, and {b} has {y}. So who has the {thing}?",
                "{a} has {x} and {b} has {y}. Tell me who has the {thing}.",
            ),
        ),
    ),
    PuzzleKind(
        name="compare",
        sample=_compare_numbers,
        num_items=3500,
        wording=Wording(
            formal=("Which number is {more}, {a} or {b}?", "Name the {more} number, {a} or {b}."),
            colloquial=(
                "What's {more}, {a} or {b}?",
                "Hey, which is {more}, {a} or {b}?",
                "Tell me which is {more}, {a} or {b}.",
            ),
        ),
    ),
    PuzzleKind(
        name="extreme",
        sample=_extreme_number,
        num_items=2000,
        wording=Wording(
            formal=(
                "What is the {most} number in the list {list}?",
                "Name the {most} of the numbers {list}.",
            ),
            colloquial=("What's the {most} number here, {list}?", "Which number is the {most}, {list}?"),
        ),
    ),
    PuzzleKind(
        name="size",
        sample=_compare_animals,
        num_items=4000,
        wording=Wording(
            formal=("Which animal is {more}, {a} or {b}?", "Name the {more} animal, {a} or {b}."),
            colloquial=(
                "What's {more}, {a} or {b}?",
                "Which one is {more}, {a} or {b}?",
                "Tell me what's {more}, {a} or {b}.",
            ),
        ),
    ),
    PuzzleKind(
        name="parity",
        sample=_parity,
        num_items=3000,
        wording=Wording(
            formal=(
                "Is {a} even or odd?",
                "State whether {a} is even or odd.",
                "Is the number {a} even or odd?",
            ),
            colloquial=(
                "Hey, is {a} even or odd?",
                "Tell me if {a} is even or odd.",
                "Do you know if {a} is even or odd?",
            ),
        ),
    ),
    PuzzleKind(
        name="neighbor",
        sample=_neighbor,
        num_items=8000,
        wording=Wording(
            formal=(
                "What {unit} comes {side} {a}?",
                "Which {unit} is directly {side} {a}?",
                "Name the {unit} {side} {a}.",
            ),
            colloquial=(
                "What's the {unit} {side} {a}?",
                "Hey, which {unit} comes {side} {a}?",
                "Tell me the {unit} that comes {side} {a}.",
            ),
        ),
    ),
    PuzzleKind(
        name="days_later",
        sample=_days_later,
        num_items=1000,
        wording=Wording(
            formal=("What day is {when}?", "Which day comes {when}?"),
            colloquial=("What's the day {when}?", "Tell me what day it is {when}."),
        ),
    ),
    PuzzleKind(
        name="odd_one",
        sample=_odd_one_out,
        num_items=2000,
        wording=Wording(
            formal=(
                "Which of these is not {kind}, {a}, {b} or {c}?",
                "Name what is not {kind}, {a}, {b} or {c}.",
            ),
            colloquial=("Which one isn't {kind}, {a}, {b} or {c}?", "What isn't {kind}, {a}, {b} or {c}?"),
        ),
    ),
)
