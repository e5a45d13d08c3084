"""Runs that differ in their seed alone, and what a drawn figure is worth: its mean and its range."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deeptalk.errors import DataError, reason
from deeptalk.evaluation.benchmarks.records import claimed

LEAST = 3
"""Fewer runs say nothing of a range."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """One run's scores by name as ``(value, unit)``, its seed, and all else that it is of."""

    place: str
    seed: int
    of: Mapping[str, Any]
    scores: Mapping[str, tuple[float, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeated:
    """A score over all runs; ``values`` in the order of ``seeds``."""

    name: str
    unit: str
    mean: float
    lowest: float
    highest: float
    values: tuple[float, ...]
    seeds: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def read_repeat(path: Path) -> Repeat:
    """A report that `eval score-... --out` has written of a run in which something was drawn.

    Raises:
        DataError: the file is none, or tells of no run that has drawn.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        run, about = values["about"]["run"], values["about"]
        scores = {name: (float(one["value"]), str(one["unit"])) for name, one in values["scores"].items()}
        drawn, seed, told = (None, 0, {}) if run is None else (run["decoding"], run["seed"], claimed(run))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no report of a run, as `deeptalk eval score-... --out` writes ({reason(error)})."
        ) from error
    if not isinstance(drawn, dict):
        raise DataError(f"{path}: nothing was drawn in this run, so that all of its repeats are the same.")
    of = {
        "run": {name: value for name, value in told.items() if name != "seed"},
        "recogniser": about.get("recogniser"),
        **{name: values.get(name) for name in ("kind", "data", "rules")},
    }
    return Repeat(place=str(path), seed=int(seed), of=of, scores=scores)


def repeats(runs: Sequence[Repeat]) -> tuple[Repeated, ...]:
    """Mean, lowest and highest of every score that all runs have.

    Raises:
        DataError: there are too few, a seed comes twice, or they differ in more than their seeds.
    """
    if len(runs) < LEAST:
        raise DataError(f"a range needs {LEAST} runs of different seeds at least, got {len(runs)}.")
    first, seeds = runs[0], tuple(run.seed for run in runs)
    for run in runs[1:]:
        apart = [name for name in first.of if run.of.get(name) != first.of[name]]
        if apart:
            raise DataError(
                f"{first.place} and {run.place} differ in more than the seed: {', '.join(apart)}."
            )
    if len(set(seeds)) < len(seeds):
        raise DataError(
            f"a seed comes twice: {', '.join(map(str, seeds))}; runs of one seed are the same run."
        )
    found = []
    for name, (_, unit) in first.scores.items():
        if all(name in run.scores for run in runs):
            values = tuple(run.scores[name][0] for run in runs)
            found.append(
                Repeated(
                    name=name,
                    unit=unit,
                    mean=sum(values) / len(values),
                    lowest=min(values),
                    highest=max(values),
                    values=values,
                    seeds=seeds,
                )
            )
    return tuple(found)
