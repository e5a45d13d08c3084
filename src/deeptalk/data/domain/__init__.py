"""The text domain: questions with one exact answer each, refusals, and sentences to read aloud.

All text is English in plain ASCII letters with numbers in words. ``build_domain`` gives training items,
``eval_questions`` those held out of it, whatever the two seeds are.
"""

import random
from collections import defaultdict
from functools import lru_cache

from .arithmetic import build_arithmetic
from .dialogues import build_dialogues
from .facts import all_facts, build_facts
from .item import CATEGORIES, DomainItem, Message, build_item
from .numbers import say_number
from .reading import read_evaluation, read_sentences
from .reasoning import build_reasoning
from .refusals import REFUSAL, build_refusals
from .smalltalk import build_smalltalk
from .strings import build_strings
from .vocabulary import collect_words

__all__ = [
    "CATEGORIES",
    "REFUSAL",
    "DomainItem",
    "Message",
    "all_facts",
    "build_domain",
    "build_reading",
    "eval_questions",
    "number_words",
    "words",
]

# Spoken evaluation questions per category; facts are split into text-only and spoken ones below.
NUM_EVAL = {"reasoning": 70, "arithmetic": 60, "strings": 70, "smalltalk": 60, "dialogue": 80, "refusal": 80}
NUM_EVAL_TEXT_ONLY, NUM_EVAL_SPOKEN, NUM_EVAL_READING = 90, 90, 80


def build_domain(*, seed: int) -> list[DomainItem]:
    """All training items of every category but reading, in a shuffled order that the seed decides.

    No dialogue opens with a question that is held out on its own.
    """
    everything = _build_all(seed)
    held_out = {i.messages[0].text for i in everything if i.split == "eval" and i.category != "dialogue"}
    items = [i for i in everything if i.split == "train" and i.messages[0].text not in held_out]
    random.Random(f"{seed} order").shuffle(items)
    return items


def build_reading(*, seed: int, count: int) -> list[str]:
    """So many different training sentences to read aloud, with every word of the domain in them."""
    return read_sentences(words(), rare=_silent_words(), seed=seed, count=count)


def eval_questions(*, seed: int) -> list[DomainItem]:
    """Colloquial evaluation items that no training of any seed contains, grouped by category."""
    rng = random.Random(f"{seed} evaluation")
    groups = defaultdict(list)
    for item in _build_all(seed):
        if item.split == "eval" and item.style == "colloquial":
            groups[item.category].append(item)
    chosen = [item for text_only in (True, False) for item in _choose_facts(rng, groups["facts"], text_only)]
    for category, count in NUM_EVAL.items():
        spoken = [item for item in groups[category] if not item.text_only]
        chosen += _spread(rng, spoken, count)
    return chosen + [
        build_item((text, text), category="reading", style="colloquial", fact="reading", is_eval=True)
        for text in read_evaluation(words(), seed=seed, count=NUM_EVAL_READING)
    ]


@lru_cache(maxsize=1)
def words() -> tuple[str, ...]:
    """Every word of the domain, of training and evaluation, sorted."""
    return collect_words(message.text for item in _build_all(0) for message in item.messages)


def number_words() -> list[str]:
    """The numbers from zero to ninety nine as one-word sentences, for the training of isolated numbers."""
    return [f"{say_number(number).capitalize()}." for number in range(100)]


@lru_cache(maxsize=1)
def _silent_words() -> tuple[str, ...]:
    """Words that speech would never contain if it were not for reading: those of text-only facts alone."""
    spoken = collect_words(
        message.text for item in _build_all(0) if not item.text_only for message in item.messages
    )
    heard = {word.lower() for word in spoken}
    return tuple(word for word in words() if word.lower() not in heard)


@lru_cache(maxsize=2)
def _build_all(seed: int) -> tuple[DomainItem, ...]:
    singles = [
        *build_facts(),
        *build_reasoning(seed=seed),
        *build_arithmetic(),
        *build_strings(seed=seed),
        *build_smalltalk(),
        *build_refusals(seed=seed),
    ]
    training = [item for item in singles if item.split == "train"]
    return (*singles, *build_dialogues(training, seed=seed))


def _choose_facts(rng: random.Random, items: list[DomainItem], text_only: bool) -> list[DomainItem]:
    count = NUM_EVAL_TEXT_ONLY if text_only else NUM_EVAL_SPOKEN
    return _spread(rng, [item for item in items if item.text_only == text_only], count)


def _spread(rng: random.Random, items: list[DomainItem], count: int) -> list[DomainItem]:
    """So many items, taken in turn from each kind of fact, no fact twice (but for small talk)."""
    groups = defaultdict(list)
    seen = set()
    for item in rng.sample(items, len(items)):
        if item.fact in seen and item.category != "smalltalk":
            continue
        seen.add(item.fact)
        kind = item.fact if item.category == "smalltalk" else item.fact.split("/")[0]
        groups[kind].append(item)
    chosen: list[DomainItem] = []
    while len(chosen) < count and any(groups.values()):
        for kind in sorted(groups):
            if groups[kind] and len(chosen) < count:
                chosen.append(groups[kind].pop())
    return chosen
