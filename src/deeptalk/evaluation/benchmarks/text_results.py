"""What `eval text --out` has written, by the paper's twelve sets: the tasks of the harness by their names."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeptalk.errors import DataError, reason
from deeptalk.evaluation.benchmarks.retention import items_score
from deeptalk.evaluation.metrics import Score

TASKS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "CEval": (("ceval",), ("acc",)),
    "CMMLU": (("cmmlu",), ("acc",)),
    "MMLU": (("mmlu",), ("acc", "exact_match")),
    "BBH": (("bbh",), ("exact_match",)),
    "ARC-c": (("arc_challenge",), ("acc_norm", "acc", "exact_match")),
    "GPQA": (("gpqa",), ("acc_norm", "acc", "exact_match")),
    "HellaSwag": (("hellaswag",), ("acc_norm", "acc")),
    "WinoGrande": (("winogrande",), ("acc",)),
    "MATH": (("hendrycks_math", "minerva_math"), ("math_verify", "exact_match")),
    "GSM8K": (("gsm8k",), ("exact_match,flexible-extract", "exact_match")),
    "HumanEval": (("humaneval",), ("pass@1", "pass_at_1")),
    "MBPP": (("mbpp",), ("pass_at_1", "pass@1")),
}
"""By set how its tasks begin in lm-evaluation-harness, and metrics: the first one that is there counts."""


_SIDES = ("model", "backbone")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextResults:
    """By set the scores of model and backbone, over the items of all its tasks, and the protocol."""

    model: Mapping[str, Score]
    backbone: Mapping[str, Score]
    protocols: Mapping[str, str]


def read_text_results(path: Path, *, model: str) -> TextResults:
    """The sets that a file has; ``model`` is the hash that it must be of.

    Items of a set's tasks count alike, whatever task they are of.

    Raises:
        DataError: the file is none, or is of another model.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        of, engine = values["about"]["model"], values["engine"]
        told = f"{engine['scorer']} {engine['version']}"
        told += ", as chats" if engine.get("template") == "chat" else ""
        tasks = {task["task"]: task["items"] for task in values["tasks"]}
        parts = {side: {t: [float(s) for s in items[side]] for t, items in tasks.items()} for side in _SIDES}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not what `deeptalk eval text --out` writes ({reason(error)}).") from error
    if of != model:
        raise DataError(f"{path}: the results are of another model than --model; run `eval text` anew.")
    found: dict[str, dict[str, Score]] = {side: {} for side in _SIDES}
    protocols = {}
    for name in TASKS:
        chosen = _tasks_of(name, parts["model"])
        if chosen is None:
            continue
        metric, names = chosen
        protocols[name] = f"{told}, {metric} of {len(names)} tasks"
        for side in _SIDES:
            scores = [score for task in names for score in parts[side][task]]
            found[side][name] = items_score(name, scores)
    return TextResults(model=found["model"], backbone=found["backbone"], protocols=protocols)


def _tasks_of(name: str, tasks: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    """The metric that counts, and the tasks of a set that have it."""
    beginnings, metrics = TASKS[name]
    by_metric: defaultdict[str, list[str]] = defaultdict(list)
    for task in tasks:
        full, _, metric = task.partition("/")
        if full.startswith(beginnings):
            by_metric[metric].append(task)
    return next(((metric, by_metric[metric]) for metric in metrics if metric in by_metric), None)
