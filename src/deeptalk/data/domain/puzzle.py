"""One generated question with its answer, before it is worded: what reasoning and strings are made of."""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .item import DomainItem, Wording, build_item, capitalise, is_held_out


@dataclass(frozen=True, kw_only=True, slots=True)
class Puzzle:
    """The slots of a question, its answer, and the combination of words that is held out as a whole."""

    slots: Mapping[str, str]
    answer: str
    combination: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PuzzleKind:
    """A kind of question: its wording and a sampler; ``num_items`` are drawn, repetitions are dropped."""

    name: str
    wording: Wording
    sample: Callable[[random.Random], Puzzle]
    num_items: int


def build_puzzles(kinds: Iterable[PuzzleKind], *, category: str, seed: int) -> list[DomainItem]:
    """Distinct questions of each kind; whole combinations of words are held out of training."""
    items: dict[str, DomainItem] = {}
    for kind in kinds:
        rng = random.Random(f"{seed} {kind.name}")
        wordings = list(kind.wording.styled())
        for _ in range(kind.num_items):
            style, template = rng.choice(wordings)
            puzzle = kind.sample(rng)
            question = capitalise(template.format(**puzzle.slots))
            combination = f"{kind.name}/{puzzle.combination}" if puzzle.combination else question
            items[question] = build_item(
                (question, capitalise(puzzle.answer)),
                category=category,
                style=style,
                fact=f"{kind.name}/{puzzle.combination or puzzle.answer}".lower().replace(" ", "_"),
                is_eval=is_held_out(combination),
            )
    return list(items.values())


def combine(parts: Iterable[str]) -> str:
    """The key of a combination of words, whatever their order."""
    return ",".join(sorted(parts))


def listed(parts: Iterable[str]) -> str:
    """The words as a spoken list without "and"."""
    return ", ".join(parts)
