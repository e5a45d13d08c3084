"""Figures of runs: one run's score, the mean over several, and how far two groups of runs are apart.

Every question is asked of all of them, so intervals draw questions, each with its mean over the runs. They
tell nothing of what another seed would give; for that the lowest and the highest run stand beside.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deeptalk.evaluation.benchmarks.intervals import Difference, bootstrap_interval, paired_bootstrap
from deeptalk.evaluation.benchmarks.small_runs import Run, StageRun

CHANGE, CHANGE_PERCENT = "change", "change_percent"
"""Scores made of two runs: text to text against the text backbone, in points and in per cent of it."""

TEXT, HEARD, SPOKEN = "text_to_text/all", "speech_to_text/all", "speech_to_speech/bigram"
READ_ALOUD = "read_aloud_wer/bigram"
_ROWS = {TEXT: "text_to_text", HEARD: "speech_to_text", SPOKEN: SPOKEN}


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A value of ``n`` items with its 95 % interval; ``lowest`` and ``highest`` of several runs."""

    value: float
    unit: str
    n: int
    low: float | None = None
    high: float | None = None
    lowest: float | None = None
    highest: float | None = None


def figure_of(
    runs: Sequence[Run], score: str, *, stage: str | None = None, baselines: Sequence[Run] = ()
) -> Figure | None:
    """The mean of a score over the runs that have it; None where none does.

    ``stage`` ends the name of the stage's recipe, the last one unless given. A change is measured
    against that of the ``baselines`` which has the run's seed, or the first.
    """
    if score in (CHANGE, CHANGE_PERCENT):
        return _change(runs, baselines, stage, in_percent=score != CHANGE)
    kept = having(runs, score, stage)
    if not kept:
        return None
    scores = [_stage(run, stage).scores[score] for run in kept]
    value = sum(one.value for one in scores) / len(scores)
    first = scores[0]
    if len(scores) == 1:
        return Figure(
            value=value, unit=first.unit, n=first.total, low=_real(first.low), high=_real(first.high)
        )
    spread = {
        "lowest": min(one.value for one in scores),
        "highest": max(one.value for one in scores),
    }
    low, high = _bounds(kept, score, stage)
    return Figure(value=value, unit=first.unit, n=first.total, low=low, high=high, **spread)


def having(runs: Sequence[Run], score: str, stage: str | None = None) -> list[Run]:
    """Those of the runs that a score was measured of, or what a change is made of."""
    needed = TEXT if score in (CHANGE, CHANGE_PERCENT) else score
    return [run for run in runs if (found := run.stage(stage)) is not None and needed in found.scores]


def apart(
    left: Sequence[Run], right: Sequence[Run], score: str, *, stage: str | None = None
) -> Difference | None:
    """Right minus left in points, over the questions that both were asked; None where there are none."""
    return _apart(
        right_means(having(left, score, stage), score, stage),
        right_means(having(right, score, stage), score, stage),
    )


def right_means(runs: Sequence[Run], score: str, stage: str | None = None) -> dict[str, float]:
    """Of every question the part of the runs that answered it right; empty without verdicts."""
    row = _ROWS.get(score)
    tables = [_stage(run, stage).verdicts.get(row, {}) for run in runs] if row else []
    return _means(tables)


def _means(tables: Sequence[Mapping[str, bool]]) -> dict[str, float]:
    if not tables or any(table.keys() != tables[0].keys() for table in tables):
        return {}
    return {name: sum(table[name] for table in tables) / len(tables) for name in tables[0]}


def _apart(left: Mapping[str, float], right: Mapping[str, float]) -> Difference | None:
    names = sorted(left.keys() & right.keys())
    if not names:
        return None
    pairs = [[(table[name], 1.0) for name in names] for table in (left, right)]
    return paired_bootstrap(*pairs).in_points()


def _change(
    runs: Sequence[Run], baselines: Sequence[Run], stage: str | None, *, in_percent: bool
) -> Figure | None:
    """What text to text has gained, with the interval of the pairs where there are any."""
    kept, known = having(runs, TEXT, stage), having(baselines, TEXT)
    if not kept or not known:
        return None
    before = [next((one for one in known if one.seed == run.seed), known[0]) for run in kept]
    ends = [_stage(run, stage).scores[TEXT].value for run in kept]
    starts = [_stage(run, None).scores[TEXT].value for run in before]
    if in_percent and not all(starts):
        return None
    scales = [100 / start if in_percent else 1.0 for start in starts]
    values = [scale * (end - start) for scale, end, start in zip(scales, ends, starts, strict=True)]
    found = _apart(right_means(before, TEXT), right_means(kept, TEXT, stage))
    scale = sum(scales) / len(scales)
    bounds = {} if found is None else {"low": scale * found.low, "high": scale * found.high}
    if len(values) > 1:
        bounds |= {"lowest": min(values), "highest": max(values)}
    return Figure(
        value=sum(values) / len(values),
        unit="%" if in_percent else "points",
        n=_stage(kept[0], stage).scores[TEXT].total,
        **bounds,
    )


def _bounds(runs: Sequence[Run], score: str, stage: str | None) -> tuple[float | None, float | None]:
    """Of the mean over runs: by drawing questions; without verdicts the widest of the runs' own."""
    means = right_means(runs, score, stage)
    if means:
        low, high = bootstrap_interval([(means[name], 1.0) for name in sorted(means)])
        return 100 * low, 100 * high
    scores = [_stage(run, stage).scores[score] for run in runs]
    return _real(min(one.low for one in scores)), _real(max(one.high for one in scores))


def _stage(run: Run, stage: str | None) -> StageRun:
    found = run.stage(stage)
    assert found is not None
    return found


def _real(value: float) -> float | None:
    return value if math.isfinite(value) else None
