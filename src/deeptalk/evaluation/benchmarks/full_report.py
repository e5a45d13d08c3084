"""The pocket model's full report: every figure with its interval, and where the model errs.

Built from the file of `deeptalk eval pocket --out` and the questions; nothing is asked of the model.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Protocol

from deeptalk.evaluation.benchmarks.intervals import bootstrap_interval
from deeptalk.evaluation.benchmarks.pocket_results import (
    DIGITS_ROW,
    TRANSCRIPTION_ROW,
    PlacedItem,
    PocketResults,
    answer_categories,
    place_items,
    rows_of,
)
from deeptalk.evaluation.benchmarks.report_schema import SCHEMA, check_report
from deeptalk.evaluation.metrics import Score, share_score, wer_score
from deeptalk.evaluation.normalize import plain
from deeptalk.evaluation.pocket import DIGITS
from deeptalk.evaluation.questions import EvalSet

FORMAT = 1
FORGETTING = "text_to_text/mean"
"""The figure that tells what speech has cost of the text."""

RIGHT, OTHER, NOTHING = "right", "other words", "nothing"
"""Columns of a confusion: a right answer, words that are no answer of the set, and no words."""

PROTOCOL = {
    "scorer": "own",
    "normalizer": "plain-en 1",
    "decoding": "greedy, at most 60 text tokens and 120 frames",
    "rule": "exact: equal to the right answer after the normaliser",
}


class Target(Protocol):
    """What is asked of a figure, by the name of its score."""

    @property
    def score(self) -> str:
        """The figure's name."""
        ...

    @property
    def title(self) -> str:
        """Its words."""
        ...

    @property
    def must(self) -> float:
        """The bound that counts."""
        ...

    @property
    def goal(self) -> float:
        """The bound that is hoped for."""
        ...

    @property
    def at_most(self) -> bool:
        """Whether less is better."""
        ...

    def is_met(self, value: float) -> bool:
        """Whether the *must* bound holds."""
        ...


def build_report(
    results: PocketResults,
    questions: EvalSet,
    *,
    targets: Sequence[Target],
    digest: str,
    stages: Mapping[str, PocketResults] | None = None,
    samples: Sequence[str] = (),
) -> dict[str, Any]:
    """The report of some results, of the form that `report_schema` tells.

    Every figure has ``count`` of ``total`` and a 95 % interval, ``low`` to ``high``; ``interval`` tells
    its kind: ``wilson``, ``utterances`` (normal, over utterances), ``bootstrap``, or ``range`` (lowest and
    highest, no interval). A mean over categories, in which each weighs the same, is bounded here.

    Args:
        results: as read.
        questions: the set that was asked.
        targets: what is asked of the figures; one that was not measured stands in ``not_run``.
        digest: SHA-256 of the file of the results.
        stages: results of the model's earlier stages by name, in order, for the curve of forgetting.
        samples: ids of the questions that can be heard in the page.

    Raises:
        DataError: the results are of other questions.
    """
    items = place_items(results, questions)
    known = answer_categories(questions)
    curve = {**stages, "this model": results} if stages else {}
    about = dict.fromkeys(SCHEMA["properties"]["about"]["properties"])
    report: dict[str, Any] = {
        "kind": "pocket-report",
        "format": FORMAT,
        "results": digest,
        "about": about | {name: value for name, value in results.about.items() if name in about},
        "protocol": PROTOCOL,
        "num_runaway": results.num_runaway,
        "not_run": [*results.not_run, *_unmeasured(results, targets)],
        "figures": _figures(results, items, targets),
        "breakdowns": [
            {"row": row, "cells": breakdown([item for item in items if item.result.row == row])}
            for row in rows_of(items)
        ],
        "confusions": _confusions(items, known),
        "errors": [_error(item, known) for item in items if not item.result.is_right],
        "stages": [_stage(name, stage, questions) for name, stage in curve.items()],
        "samples": list(samples),
    }
    check_report(report)
    return report


def breakdown(items: Sequence[PlacedItem]) -> list[dict[str, Any]]:
    """Of one row the figure of every category, of every voice, and of both together.

    Shares of right answers, or word error rates of transcription; null is for all.
    """
    groups: dict[tuple[str | None, str | None], list[PlacedItem]] = {}
    for item in items:
        for category, voice in product((item.category, None), (item.voice, None)):
            groups.setdefault((category, voice), []).append(item)
    return [
        {"category": category, "voice": voice, **_measured(_score_of(group))}
        for (category, voice), group in groups.items()
    ]


def taken_for(item: PlacedItem, known: Mapping[str, frozenset[str]]) -> str:
    """The column of a confusion: ``right``, the category whose answer was given, other words, or nothing."""
    given = plain(item.result.given)
    if item.result.is_right:
        return RIGHT
    if not given:
        return NOTHING
    categories = known.get(given, frozenset())
    return item.category if item.category in categories else min(categories, default=OTHER)


def _figures(
    results: PocketResults, items: Sequence[PlacedItem], targets: Sequence[Target]
) -> list[dict[str, Any]]:
    """Those that something is asked of first, then all others."""
    asked = {target.score: target for target in targets}
    ranks = {name: rank for rank, name in enumerate(asked)}
    order = sorted(results.scores, key=lambda score: ranks.get(score.name, len(ranks)))
    found = []
    for score in order:
        target, measured = asked.get(score.name), _measured(score, median_bounds=results.median_bounds)
        if score.name.endswith("/mean"):
            measured |= _mean_interval([i for i in items if i.result.row == score.name.removesuffix("/mean")])
        found.append(
            {
                "name": score.name,
                "title": target.title.strip() if target else score.name,
                **measured,
                "must": target and target.must,
                "goal": target and target.goal,
                "at_most": target and target.at_most,
                "is_met": target and target.is_met(score.value),
            }
        )
    return found


def _unmeasured(results: PocketResults, targets: Sequence[Target]) -> Iterable[str]:
    told = " ".join(results.not_run)
    return [
        target.score
        for target in targets
        if results.score(target.score) is None and target.score.split("/")[0] not in told
    ]


def _measured(score: Score, *, median_bounds: str = "range") -> dict[str, Any]:
    """A score with the kind of its bounds, if it has any."""
    kinds = {"ms": median_bounds, "x": median_bounds, "points": "bootstrap", "%": "wilson"}
    kind = kinds.get(score.unit, "utterances")
    has_bounds = math.isfinite(score.low)
    return {
        "value": score.value if math.isfinite(score.value) else None,
        "unit": score.unit,
        "count": score.count,
        "total": score.total,
        "low": score.low if has_bounds else None,
        "high": score.high if has_bounds else None,
        "interval": kind if has_bounds else None,
    }


def _mean_interval(items: Sequence[PlacedItem]) -> dict[str, Any]:
    """Bounds of the mean over categories, in which each weighs the same; none without verdicts."""
    sizes = Counter(item.category for item in items)
    parts = [(item.result.is_right / sizes[item.category], 1 / sizes[item.category]) for item in items]
    if not parts:
        return {"low": None, "high": None, "interval": None}
    low, high = bootstrap_interval(parts)
    return {"low": 100 * low, "high": 100 * high, "interval": "bootstrap"}


def _score_of(items: Sequence[PlacedItem]) -> Score:
    results = [item.result for item in items]
    if results[0].row == TRANSCRIPTION_ROW:
        return wer_score("", [result.given for result in results], [result.answer for result in results])
    return share_score("", sum(result.is_right for result in results), len(results))


def _confusions(items: Sequence[PlacedItem], known: Mapping[str, frozenset[str]]) -> list[dict[str, Any]]:
    """Of every row of answers what was given instead, by category and by voice; of digits which for which."""
    found = []
    for row in rows_of(items):
        kept = [item for item in items if item.result.row == row]
        if row == DIGITS_ROW:
            cells = [(item.result.answer, _digit(item.result.given)) for item in kept]
            found.append(_table(row, "digit", cells, columns=[*DIGITS, OTHER, NOTHING]))
        elif row != TRANSCRIPTION_ROW:
            told = [(item, taken_for(item, known)) for item in kept]
            categories = sorted({column for _, column in told} - {RIGHT, OTHER, NOTHING})
            columns = [RIGHT, *categories, OTHER, NOTHING]
            for by in ("category", "voice"):
                cells = [(getattr(item, by), column) for item, column in told]
                found.append(_table(row, by, cells, columns=columns))
    return found


def _table(row: str, by: str, cells: Sequence[tuple[str, str]], *, columns: Sequence[str]) -> dict[str, Any]:
    counts = Counter(cells)
    labels = [digit for digit in DIGITS if by == "digit"] or list(dict.fromkeys(label for label, _ in cells))
    lines = [{"label": label, "counts": [counts[label, column] for column in columns]} for label in labels]
    return {"row": row, "by": by, "columns": list(columns), "lines": lines}


def _digit(given: str) -> str:
    words = plain(given)
    return words if words in DIGITS else OTHER if words else NOTHING


def _error(item: PlacedItem, known: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    result = item.result
    is_answer = result.row not in (TRANSCRIPTION_ROW, DIGITS_ROW)
    return {
        **{name: getattr(result, name) for name in ("row", "id")},
        **{name: getattr(item, name) for name in ("category", "voice")},
        **{name: getattr(result, name) for name in ("question", "answer", "given")},
        "taken_for": taken_for(item, known) if is_answer else None,
    }


def _stage(name: str, results: PocketResults, questions: EvalSet) -> dict[str, Any]:
    score = results.score(FORGETTING) or share_score(FORGETTING, 0, 0)
    items = [i for i in place_items(results, questions) if i.result.row == FORGETTING.partition("/")[0]]
    return {"name": name, **_measured(score), **_mean_interval(items)}
