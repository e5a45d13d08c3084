"""What two models can be compared by, item by item: scored sets, the pocket evaluation, text benchmarks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deeptalk.errors import DataError, reason
from deeptalk.evaluation.benchmarks.error_rates import count_errors
from deeptalk.evaluation.benchmarks.intervals import bootstrap_interval
from deeptalk.evaluation.benchmarks.pocket_results import TRANSCRIPTION_ROW, read_results
from deeptalk.evaluation.benchmarks.scoring import BenchmarkReport, ScoredItem, read_report
from deeptalk.evaluation.metrics import Score
from deeptalk.evaluation.normalize import plain_words

_Parts = Sequence[tuple[str, str | None, tuple[float, float]]]
"""Of every item its id, what was given for it if that is told, and its share of the score."""


def read_comparable(path: Path) -> BenchmarkReport:
    """What `eval score-...`, `eval pocket` or `eval text` has written by --out, as one kind of report.

    Raises:
        DataError: the file is none of them, or has no items.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind = values.get("kind")
        if kind == "text":
            return _of_text(values)
        if kind is None and "median_bounds" in values:
            return _of_pocket(path, values)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no report, as `deeptalk eval ... --out` writes ({reason(error)})."
        ) from error
    return read_report(path)


def _of_pocket(path: Path, values: Mapping[str, Any]) -> BenchmarkReport:
    """A score for every row: what share is exactly right, or of transcription which words are wrong."""
    by_row: dict[str, list[tuple[str, str | None, tuple[float, float]]]] = {}
    for item in read_results(path).items:
        share = (float(item.is_right), 1.0)
        if item.row == TRANSCRIPTION_ROW:
            errors = count_errors(plain_words(item.answer), plain_words(item.given))
            share = (float(errors.total), float(errors.num_units))
        by_row.setdefault(item.row, []).append((item.id, item.given, share))
    about = values["about"]
    rules = dict.fromkeys(by_row, f"exact, plain-en 1, voice {about.get('voice')}")
    return _report("pocket", str(about.get("questions")), by_row, rules, about)


def _of_text(values: Mapping[str, Any]) -> BenchmarkReport:
    """A score for every task: that of the model, not of its backbone."""
    engine = values["engine"]
    by_task = {
        task["task"]: [(str(n), None, (float(one), 1.0)) for n, one in enumerate(task["items"]["model"])]
        for task in values["tasks"]
    }
    version = f"{engine['scorer']} {engine['version']}, {engine['template']}"
    return _report("text", str(engine["data"]), by_task, dict.fromkeys(by_task, version), values["about"])


def _report(
    kind: str, data: str, parts: Mapping[str, _Parts], rules: Mapping[str, str], about: Mapping[str, Any]
) -> BenchmarkReport:
    """An item is of one score; of the others it has no share."""
    if not parts:
        raise LookupError("items")
    none = dict.fromkeys(parts, (0.0, 0.0))
    items = [
        ScoredItem(id=f"{name} {id}", given=given, parts=none | {name: share})
        for name, of_one in parts.items()
        for id, given, share in of_one
    ]
    return BenchmarkReport(
        kind=kind,
        data=data,
        rules=dict(rules),
        scores=tuple(_score(name, [share for _, _, share in of_one]) for name, of_one in parts.items()),
        num_items=len(items),
        num_missing=0,
        num_unjudged=0,
        errors=None,
        items=tuple(items),
        about=about,
    )


def _score(name: str, shares: Sequence[tuple[float, float]]) -> Score:
    above, below = (sum(side) for side in zip(*shares, strict=True))
    low, high = bootstrap_interval(shares)
    return Score(
        name=name,
        value=100 * above / below,
        unit="% WER" if name == TRANSCRIPTION_ROW else "%",
        count=round(above),
        total=round(below),
        low=100 * low,
        high=100 * high,
    )
