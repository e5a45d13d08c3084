"""Sentences to read aloud and to transcribe: random but grammatical, with every word of the domain."""

import random
from collections.abc import Callable, Sequence

from . import animals, countries, lexicon, things
from .item import capitalise, is_held_out, split_words, with_article
from .numbers import say_number
from .puzzle import listed

LARGEST_NUMBER = 99
VERBS = split_words(
    "sees finds likes paints buys sells carries draws wants needs hides loses brings keeps holds washes "
    "follows remembers forgets watches catches opens moves takes"
)
ADJECTIVES = split_words(
    "small big old new red blue green yellow white black brown heavy light clean dirty cheap strange "
    "beautiful broken empty quiet loud soft young happy lazy famous simple lovely tiny"
)
ADVERBS = split_words(
    "today tomorrow again slowly quickly often never always early late together alone outside"
)
PREPOSITIONS = split_words("near behind under above beside before after without")
PORTABLE = ("musical instrument", "flower", "vehicle", "piece of clothing", "tool", "gemstone", "boat", "toy")
THINGS = [name for kind in PORTABLE for name in things.KINDS[kind].split()] + list(things.USES)
# Words that sound like another word of the domain: trained in lists, but never asked of a transcription.
HOMOPHONES = frozenset(
    split_words(
        "B be bee C sea see El L Frank franc Lyon lion O Oh au oh P pea Penh pen R are our Seoul sol T "
        "tea U you Y why ant aunt ate eight brothers brother's buy by bye flour flower for four hear here "
        "hi high hour it's its know no knows nose krone la law mail male miner minor one won passed past "
        "peace piece read red real riel right write road rode son sun steal steel to two weigh way weak "
        "week wear where weather whether wood would you're your war wore when win nice niece A a an or I "
        "i eye deer dear "
    )
)
MOST_WORDS = 10


class _Reader:
    """Draws sentences; the words of the domain come round one after the other."""

    def __init__(self, vocabulary: Sequence[str], rng: random.Random) -> None:
        self._rng, self._vocabulary, self._queue = rng, list(vocabulary), []
        self._animals, self._jobs = list(animals.GROUP_OF), list(things.WORKPLACES)
        self._frames: tuple[tuple[Callable[[], str], int], ...] = (
            (self._action, 18),
            (self._journey, 6),
            (self._owning, 8),
            (self._counting, 10),
            (self._place, 8),
            (self._word_list, 34),
            (self._number_list, 6),
            (self._letters, 2),
            (self._names, 4),
            (self._country_list, 6),
            (self._place_names, 4),
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
        return self._rng.choice(self._rng.choice((self._animals, THINGS)))

    def _thing(self) -> str:
        noun = self._noun()
        if self._rng.random() < 0.6:
            noun = f"{self._rng.choice(ADJECTIVES)} {noun}"
        return with_article(noun) if self._rng.random() < 0.5 else f"the {noun}"

    def _person(self) -> str:
        if self._rng.random() < 0.6:
            return self._rng.choice(lexicon.NAMES)
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
        return f"{self._person()} counts {number} {self._rng.choice(list(lexicon.PLURALS.values()))}."

    def _place(self) -> str:
        return f"there is {with_article(self._noun())} {self._rng.choice(PREPOSITIONS)} {self._thing()}."

    def _word_list(self) -> str:
        return f"{listed(self._next_word() for _ in range(self._rng.randint(2, 6)))}."

    def _number_list(self) -> str:
        count = self._rng.randint(2, 4)
        return f"{listed(say_number(self._rng.randint(0, LARGEST_NUMBER)) for _ in range(count))}."

    def _letters(self) -> str:
        return f"{listed(self._rng.choices(things.LETTERS, k=self._rng.randint(2, 6)))}."

    def _names(self) -> str:
        return f"{listed(self._rng.sample(lexicon.NAMES, self._rng.randint(2, 4)))}."

    def _country_list(self) -> str:
        return f"{listed(self._rng.sample(list(countries.CONTINENTS), self._rng.randint(1, 3)))}."

    def _place_names(self) -> str:
        places = [*countries.CAPITALS.values(), *things.DAYS, *things.MONTHS]
        return f"{listed(self._rng.sample(places, self._rng.randint(1, 3)))}."


def read_sentences(vocabulary: Sequence[str], *, rare: Sequence[str], seed: int, count: int) -> list[str]:
    """Different training sentences of 1 to 10 words; the rare words come round three times as often.

    Every word and every number stands alone in one of them, as far as ``count`` allows.
    """
    rng = random.Random(f"{seed} reading")
    alone = [*(say_number(n) for n in range(LARGEST_NUMBER + 1)), *vocabulary]
    sentences = dict.fromkeys(f"{capitalise(word)}." for word in alone if len(word) > 1)
    reader = _Reader((*vocabulary, *rare, *rare), rng)
    return _draw(reader, sentences, rng=rng, count=count, is_eval=False)


def read_evaluation(vocabulary: Sequence[str], *, seed: int, count: int) -> list[str]:
    """Different sentences that no training contains, without words that sound like others."""
    rng = random.Random(f"{seed} reading evaluation")
    reader = _Reader([word for word in vocabulary if word not in HOMOPHONES], rng)
    return _draw(reader, {}, rng=rng, count=count, is_eval=True)


def _draw(
    reader: _Reader, sentences: dict[str, None], *, rng: random.Random, count: int, is_eval: bool
) -> list[str]:
    while len(sentences) < count:
        sentence = reader.sentence()
        if _is_eval_sentence(sentence) == is_eval and len(sentence.split()) <= MOST_WORDS:
            sentences[sentence] = None
    ordered = list(sentences)
    rng.shuffle(ordered)
    return ordered[:count]


def _is_eval_sentence(sentence: str) -> bool:
    """Whether the sentence is held out; one or two words always belong to training."""
    return len(sentence.split()) > 2 and is_held_out(sentence)
