"""Scores as pure functions: exact share with its interval, corpus word error rate."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deeptalk.evaluation.normalize import plain, plain_words
from deeptalk.training.edit_distance import edit_distance


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One figure: ``value`` in ``unit``, ``count`` (right answers, errors) of ``total`` (items, words)."""

    name: str
    value: float
    unit: str
    count: int
    total: int
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the name."""
        return {key: value for key, value in asdict(self).items() if key != "name"}


def exact_score(name: str, predictions: Sequence[str], references: Sequence[str]) -> Score:
    """The share of predictions equal to their reference after ``plain``, with a 95 % Wilson interval."""
    right = sum(plain(p) == plain(r) for p, r in zip(predictions, references, strict=True))
    return share_score(name, right, len(references))


def share_score(name: str, count: int, total: int) -> Score:
    """``count`` of ``total`` in per cent with a 95 % Wilson interval; 0 of 0 is not a number."""
    if total == 0:
        return Score(name=name, value=math.nan, unit="%", count=0, total=0, low=math.nan, high=math.nan)
    z, rate = 1.959964, count / total
    centre = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    return Score(
        name=name,
        value=100 * rate,
        unit="%",
        count=count,
        total=total,
        low=100 * max(0.0, centre - half),
        high=100 * min(1.0, centre + half),
    )


def word_errors(prediction: Sequence[str], reference: Sequence[str]) -> int:
    """Substitutions, deletions and insertions that turn ``reference`` into ``prediction``."""
    return edit_distance(reference, prediction)


def wer_score(name: str, predictions: Sequence[str], references: Sequence[str]) -> Score:
    """Corpus word error rate in per cent: all errors over all reference words (no cap at 100 %).

    The interval is the normal one over utterances (delta method): errors within an utterance go together.
    """
    errors = [
        word_errors(plain_words(p), plain_words(r)) for p, r in zip(predictions, references, strict=True)
    ]
    words = [len(plain_words(r)) for r in references]
    total = sum(words)
    if total == 0:
        return Score(name=name, value=math.nan, unit="% WER", count=0, total=0, low=math.nan, high=math.nan)
    rate, n = sum(errors) / total, len(words)
    spread = sum((e - rate * w) ** 2 for e, w in zip(errors, words, strict=True))
    half = 1.959964 * math.sqrt(spread * n / max(1, n - 1)) / total
    return Score(
        name=name,
        value=100 * rate,
        unit="% WER",
        count=sum(errors),
        total=total,
        low=100 * max(0.0, rate - half),
        high=100 * (rate + half),
    )
