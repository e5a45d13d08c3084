"""What speech has cost of the text: a model and its untouched backbone on the same items, task by task."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
        scores = {name: asdict(getattr(self, name)) for name in ("model", "backbone")}
        for score in scores.values():
            del score["name"]
        change = {
            "difference": self.difference.value,
            "low": self.difference.low,
            "high": self.difference.high,
        }
        return {"task": self.task, **scores, **change, "is_clear": self.difference.is_clear}


def retained(model: TaskScores, backbone: TaskScores, *, seed: int = 0) -> tuple[Retained, ...]:
    """Every task of both.

    Raises:
        DataError: they were run on different tasks or items.
    """
    sizes = [{task: len(scores) for task, scores in side.items()} for side in (model, backbone)]
    if sizes[0] != sizes[1] or not model:
        raise DataError(
            f"model and backbone were run on different tasks or items, {sizes[0]} and {sizes[1]}."
        )
    return tuple(_retained(task, model[task], backbone[task], seed) for task in model)


def mean_drop(tasks: Sequence[Retained]) -> Drop | None:
    """The drop over all tasks, as the paper gives it; None where the backbone has nothing right in one."""
    if not all(task.backbone.value for task in tasks):
        return None
    left, right = ({task.task: getattr(task, side).value for task in tasks} for side in ("model", "backbone"))
    return text_drop(left, right)


def _retained(task: str, model: Sequence[float], backbone: Sequence[float], seed: int) -> Retained:
    change = paired_bootstrap([(s, 1.0) for s in backbone], [(s, 1.0) for s in model], seed=seed)
    return Retained(
        task=task,
        model=_score(task, model, seed),
        backbone=_score(task, backbone, seed),
        difference=change.in_points(),
    )


def _score(task: str, scores: Sequence[float], seed: int) -> Score:
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
