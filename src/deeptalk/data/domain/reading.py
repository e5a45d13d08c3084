"""Sentences to read aloud and to transcribe: random but grammatical, and every word of the domain many times."""

import random
from collections.abc import Callable, Sequence

from . import animals, countries, things, words
from .item import capitalise, is_held_out, with_article
from .numbers import say_number
from .puzzle import listed

LARGEST_NUMBER = 99
VERBS = (
    "sees finds likes paints buys sells carries draws wants needs hides loses brings keeps holds washes "
    "follows remembers forgets watches catches opens moves takes"
).split()
ADJECTIVES = (
    "small big old new red blue green yellow white black brown heavy light clean dirty cheap strange "
    "beautiful broken empty quiet loud soft young happy lazy famous simple lovely tiny"
).split()
ADVERBS = "today tomorrow again slowly quickly often never always early late together alone outside".split()
PREPOSITIONS = "near behind under above beside before after without".split()
THINGS = [name for kind in things.KINDS.values() for name in kind.split()] + list(things.USES)


class _Reader:
    """Draws sentences; the words of the domain come round one after the other."""

    def __init__(self, vocabulary: Sequence[str], rng: random.Random) -> None:
        self._rng, self._vocabulary, self._queue = rng, list(vocabulary), []
        self._animals, self._jobs = list(animals.GROUP_OF), list(things.WORKPLACES)
        self._frames: tuple[tuple[Callable[[], str], int], ...] = (
            (self._action, 20), (self._journey, 8), (self._owning, 10), (self._counting, 12), (self._place, 10),
            (self._word, 10), (self._word_list, 22), (self._number, 4), (self._number_list, 4), (self._letters, 2),
            (self._names, 4), (self._country_list, 6),
        )

    def sentence(self) -> str:
        """The next sentence, not necessarily a new one."""
        frame = self._rng.choices([f for f, _ in self._frames], [weight for _, weight in self._frames])[0]
        return capitalise(frame())

    def _next_word(self) -> str:
        if not self._queue:
            self._queue = self._rng.sample(self._vocabulary, len(self._vocabulary))
        return self._queue.pop()

    def _noun(self) -> str:
        return self._rng.choice(self._rng.choice((self._animals, THINGS, self._jobs)))

    def _thing(self) -> str:
        noun = self._noun()
        if self._rng.random() < 0.6:
            noun = f"{self._rng.choice(ADJECTIVES)} {noun}"
        return with_article(noun) if self._rng.random() < 0.5 else f"the {noun}"

    def _person(self) -> str:
        if self._rng.random() < 0.6:
            return self._rng.choice(words.NAMES)
        return f"the {self._rng.choice(self._jobs)}"

    def _country(self) -> str:
        return self._rng.choice(list(countries.CONTINENTS))

    def _action(self) -> str:
        end = f" {self._rng.choice(ADVERBS)}" if self._rng.random() < 0.3 else ""
        return f"{self._person()} {self._rng.choice(VERBS)} {self._thing()}{end}."

    def _journey(self) -> str:
        return f"{self._person()} travels from {self._country()} to {self._country()}."

    def _owning(self) -> str:
        return f"{self._person()} has {self._thing()} and {self._thing()}."

    def _counting(self) -> str:
        number = say_number(self._rng.randint(0, LARGEST_NUMBER))
        return f"{self._person()} counts {number} {self._rng.choice(list(words.PLURALS.values()))}."

    def _place(self) -> str:
        return f"there is {with_article(self._noun())} {self._rng.choice(PREPOSITIONS)} {self._thing()}."

    def _word(self) -> str:
        return f"{self._next_word()}."

    def _word_list(self) -> str:
        return f"{listed(self._next_word() for _ in range(self._rng.randint(2, 6)))}."

    def _number(self) -> str:
        return f"{say_number(self._rng.randint(0, LARGEST_NUMBER))}."

    def _number_list(self) -> str:
        count = self._rng.randint(2, 4)
        return f"{listed(say_number(self._rng.randint(0, LARGEST_NUMBER)) for _ in range(count))}."

    def _letters(self) -> str:
        return f"{listed(self._rng.choices(things.LETTERS, k=self._rng.randint(2, 6)))}."

    def _names(self) -> str:
        return f"{listed(self._rng.sample(words.NAMES, self._rng.randint(2, 4)))}."

    def _country_list(self) -> str:
        places = [*countries.CONTINENTS, *countries.CAPITALS.values(), *things.DAYS, *things.MONTHS]
        return f"{listed(self._rng.sample(places, self._rng.randint(2, 3)))}."


def read_sentences(vocabulary: Sequence[str], *, seed: int, count: int, is_eval: bool) -> list[str]:
    """Different sentences of 1 to about 12 words; those of evaluation never appear in training."""
    rng = random.Random(f"{seed} reading {is_eval}")
    reader = _Reader(vocabulary, rng)
    sentences: dict[str, None] = {}
    if not is_eval:
        numbers = (say_number(n) for n in range(LARGEST_NUMBER + 1))
        sentences = dict.fromkeys(f"{capitalise(word)}." for word in (*numbers, *vocabulary))
    while len(sentences) < count:
        sentence = reader.sentence()
        if _is_eval_sentence(sentence) == is_eval:
            sentences[sentence] = None
    ordered = list(sentences)
    rng.shuffle(ordered)
    return ordered[:count]


def _is_eval_sentence(sentence: str) -> bool:
    """Whether the sentence is held out; single words and numbers always belong to training."""
    return len(sentence.split()) > 2 and is_held_out(sentence)
