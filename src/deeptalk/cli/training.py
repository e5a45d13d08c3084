"""A stage while it trains: a bar for each set that is encoded first, then one with losses beside it."""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from deeptalk.cli.progress import bars
from deeptalk.training.loop import StepReport
from deeptalk.training.recipe import Recipe
from deeptalk.training.retention import TextBound
from deeptalk.training.run import run_stage


def train_stage(
    recipe: Recipe,
    *,
    root: Path,
    data: Path,
    resume: bool,
    anew: bool = False,
    compiled: bool = False,
    shared: bool = False,
    dense: bool = False,
    expert_parallel: int = 1,
    keep_going: bool = False,
    text_bound: TextBound | None = None,
) -> StepReport | None:
    """Run a recipe to its end or its interruption; the last report, None where it was finished before.

    Of several processes the first shows how far it is.
    """
    last, held_out = None, ""
    with bars() if is_first_process() else nullcontext(_show_nothing) as show:
        for report in run_stage(
            recipe,
            root=root,
            data=data,
            resume=resume,
            anew=anew,
            compiled=compiled,
            shared=shared,
            dense=dense,
            expert_parallel=expert_parallel,
            keep_going=keep_going,
            text_bound=text_bound,
            progress=show,
        ):
            held_out = f" · held out {_figures(report.evaluation)}" if report.evaluation else held_out
            skipped = f" · {report.skipped} skipped" if report.skipped else ""
            note = f"loss {report.loss:.3f}  {_figures(report.losses)}{held_out}{skipped}"
            show(recipe.name, report.step, report.num_steps, note)
            last = report
    return last


def is_first_process() -> bool:
    """Whether this process tells how it goes: the only one, or the first that was launched."""
    return os.environ.get("RANK", "0") == "0"


def _show_nothing(*_: object) -> None:
    """What the other processes tell."""


def _figures(figures: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in figures.items())
