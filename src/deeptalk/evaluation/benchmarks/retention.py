"""What speech has cost of the text: a model and its untouched backbone on the same items, task by task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deeptalk.errors import DataError
from deeptalk.evaluation.benchmarks.intervals import Difference, bootstrap_interval, paired_bootstrap
from deeptalk.evaluation.benchmarks.paper_tables import Drop, text_drop
from deeptalk.evaluation.metrics import Score, share_score

TaskScores = Mapping[str, Sequence[float]]
"""By task and metric (``mmlu_law/acc``) the score of every item, in the order of the data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retained:
    """A task's score of both, in per cent, and model minus backbone in points, drawn in pairs.

    ``count`` of a score is the number of right items, or the rounded sum where items can be partly right.
    """

    task: str
    model: Score
    backbone: Score
    difference: Difference

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "task": self.task,
            "model": self.model.to_dict(),
            "backbone": self.backbone.to_dict(),
            "difference": self.difference.value,
            "low": self.difference.low,
            "high": self.difference.high,
            "is_clear": self.difference.is_clear,
        }


def retained(model: TaskScores, backbone: TaskScores, *, seed: int = 0) -> tuple[Retained, ...]:
    """Every task of both whose items have scores from 0 to 1; others are no shares, and left out.

    Raises:
        DataError: they were run on different tasks or items, or no task is of that kind.
    """
    sizes = [{task: len(scores) for task, scores in side.items()} for side in (model, backbone)]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"model and backbone were run on different tasks or items, {sizes[0]} and {sizes[1]}."
        )
    shares = [task for task in model if all(0 <= s <= 1 for s in (*model[task], *backbone[task]))]
    if not shares:
        raise DataError(f"no task gives its items scores from 0 to 1, of: {', '.join(model) or 'none'}.")
    return tuple(_retained(task, model[task], backbone[task], seed) for task in shares)


def mean_drop(tasks: Sequence[Retained]) -> Drop | None:
    """The drop over all tasks and metrics alike, in the paper's form; None where a backbone's score is 0."""
    if not all(task.backbone.value for task in tasks):
        return None
    left, right = ({task.task: getattr(task, side).value for task in tasks} for side in ("model", "backbone"))
    return text_drop(left, right)


def _retained(task: str, model: Sequence[float], backbone: Sequence[float], seed: int) -> Retained:
    change = paired_bootstrap([(s, 1.0) for s in backbone], [(s, 1.0) for s in model], seed=seed)
    return Retained(
        task=task,
        model=items_score(task, model, seed=seed),
        backbone=items_score(task, backbone, seed=seed),
        difference=change.in_points(),
    )


def items_score(task: str, scores: Sequence[float], *, seed: int = 0) -> Score:
    """The mean of items' scores from 0 to 1, in per cent: Wilson where they are 0 or 1, else bootstrap."""
    share = share_score(task, round(sum(scores)), len(scores))
    if set(scores) <= {0.0, 1.0}:
        return share
    low, high = bootstrap_interval([(score, 1.0) for score in scores], seed=seed)
    return Score(
        name=task,
        value=100 * sum(scores) / len(scores),
        unit="%",
        count=share.count,
        total=share.total,
        low=100 * low,
        high=100 * high,
    )
