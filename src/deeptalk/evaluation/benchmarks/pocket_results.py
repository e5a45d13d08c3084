"""The pocket evaluation's figures and verdicts, read again from its file, each beside its question."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeptalk.errors import DataError, reason
from deeptalk.evaluation.metrics import Score
from deeptalk.evaluation.normalize import plain
from deeptalk.evaluation.pocket import ItemResult
from deeptalk.evaluation.questions import EvalItem, EvalSet
from deeptalk.files import digest_of

DIGITS_ROW, TRANSCRIPTION_ROW, WRITTEN_ROW = "real_digits", "transcription", "text_to_text"

WRITTEN = "written"
"""Stands for the voice of a question that nobody said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PocketResults:
    """What ``deeptalk eval pocket --out`` wrote; ``items`` and ``about`` are empty in a file without them.

    ``median_bounds`` tells what bounds medians have: ``bootstrap``, or the ``range`` in files that are older.
    """

    scores: tuple[Score, ...]
    items: tuple[ItemResult, ...]
    num_runaway: int
    not_run: tuple[str, ...]
    about: Mapping[str, Any]
    median_bounds: str = "range"

    def score(self, name: str) -> Score | None:
        """The figure of a name, if it was measured."""
        return next((score for score in self.scores if score.name == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedItem:
    """A verdict, with the kind of question that it is about and the voice that asked it."""

    result: ItemResult
    category: str
    voice: str


def read_results(path: Path) -> PocketResults:
    """The results in a file; DataError where it holds none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return PocketResults(
            scores=tuple(_score(name, score) for name, score in values["scores"].items()),
            items=tuple(map(_item, values.get("items", ()))),
            num_runaway=int(values["num_runaway"]),
            not_run=tuple(str(reason) for reason in values["not_run"]),
            about=dict(values.get("about", {})),
            median_bounds=str(values.get("median_bounds", "range")),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no results, as `deeptalk eval pocket --out` writes ({reason(error)})."
        ) from error


def place_items(results: PocketResults, questions: EvalSet) -> tuple[PlacedItem, ...]:
    """Every verdict beside its question; a digit of a real person has the speaker for its voice.

    Raises:
        DataError: the results are of other questions.
    """
    asked = results.about.get("questions")
    if asked not in (None, digest_of(questions.folder / "questions.jsonl")):
        raise DataError(f"the results are of other questions than those of {questions.folder}.")
    by_id = {item.id: item for item in questions.items}
    return tuple(_placed(result, by_id) for result in results.items)


def answer_categories(questions: EvalSet) -> dict[str, frozenset[str]]:
    """Of every right answer of the set, after ``plain``, the categories that it is an answer in."""
    found: dict[str, frozenset[str]] = {}
    for item in questions.items:
        for answer in map(plain, item.answers):
            found[answer] = found.get(answer, frozenset()) | {item.category}
    return found


def _score(name: str, values: Mapping[str, Any]) -> Score:
    numbers = {
        key: math.nan if values[key] is None else float(values[key]) for key in ("value", "low", "high")
    }
    return Score(name=name, unit=values["unit"], count=values["count"], total=values["total"], **numbers)


def _item(values: Mapping[str, Any]) -> ItemResult:
    if not all(isinstance(value, str | bool) for value in values.values()):
        raise ValueError(f"no verdict: {values}")
    return ItemResult(**values)


def _placed(result: ItemResult, by_id: Mapping[str, EvalItem]) -> PlacedItem:
    if result.row == DIGITS_ROW:
        speaker = result.id.partition("_")[2].rpartition("_")[0]
        return PlacedItem(result=result, category="digits", voice=speaker)
    if result.id not in by_id:
        raise DataError(f"the results are of other questions: {result.id!r} is not among these.")
    item = by_id[result.id]
    voice = WRITTEN if result.row == WRITTEN_ROW else item.turns[0].voice
    return PlacedItem(result=result, category=item.category, voice=voice)


def rows_of(items: Sequence[PlacedItem]) -> list[str]:
    """The rows that have verdicts, in the order of the evaluation."""
    return list(dict.fromkeys(item.result.row for item in items))
