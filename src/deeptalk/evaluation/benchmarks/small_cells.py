"""The cells of the paper's tables in small, each with what it is of; one that is missing has no value."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from deeptalk.evaluation.benchmarks.report_schema import NUMBER_OR_NULL, TEXT, list_of, object_of, of
from deeptalk.evaluation.benchmarks.small_figures import figure_of, having
from deeptalk.evaluation.benchmarks.small_runs import START, Run
from deeptalk.evaluation.benchmarks.small_tables import BEFORE, Column, Row, Table

Runs = Mapping[str, Sequence[Run]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A figure and where it comes from; None in ``value`` where nothing was run.

    ``low`` and ``high`` bound the value in 95 % of draws of questions, ``lowest`` and ``highest`` are of the
    runs. ``minutes`` (processor time of training) and ``peak_memory_mb`` are sums and the most of ``runs``.
    """

    table: str
    row: str
    column: str
    value: float | None = None
    unit: str = ""
    n: int = 0
    low: float | None = None
    high: float | None = None
    lowest: float | None = None
    highest: float | None = None
    runs: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    commit: str = ""
    recipe_hash: str = ""
    minutes: float | None = None
    peak_memory_mb: float | None = None
    paper: float | None = None

    @property
    def is_run(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"is_run": self.is_run}


CELL = object_of(
    table=TEXT,
    row=TEXT,
    column=TEXT,
    value=NUMBER_OR_NULL,
    unit=TEXT,
    n=of("integer"),
    low=NUMBER_OR_NULL,
    high=NUMBER_OR_NULL,
    lowest=NUMBER_OR_NULL,
    highest=NUMBER_OR_NULL,
    runs=list_of(TEXT),
    seeds=list_of(of("integer")),
    commit=TEXT,
    recipe_hash=TEXT,
    minutes=NUMBER_OR_NULL,
    peak_memory_mb=NUMBER_OR_NULL,
    paper=NUMBER_OR_NULL,
    is_run=of("boolean"),
)
"""What `Cell.to_dict` gives, as a JSON Schema."""


def cells_of(
    table: Table, runs: Runs, *, stages: Mapping[str, Sequence[str]] | None = None
) -> tuple[Cell, ...]:
    """Every cell of a table, row by row.

    ``stages`` has the names of the recipes of every run: a stage that a run has no part in has no cell.
    """
    known = stages or {}
    return tuple(
        _cell(table, row, column, runs, known)
        for row in table.rows
        for column in table.columns
        if column.score not in row.skips and _has_stage(row, column, known)
    )


def _has_stage(row: Row, column: Column, stages: Mapping[str, Sequence[str]]) -> bool:
    if column.stage in (None, BEFORE):
        return True
    return any(stage.endswith(column.stage) for name in row.runs for stage in stages.get(name, ()))


def _cell(table: Table, row: Row, column: Column, runs: Runs, stages: Mapping[str, Sequence[str]]) -> Cell:
    empty = Cell(table=table.name, row=row.name, column=column.name, paper=row.paper.get(column.name))
    wanted = [START if column.stage == BEFORE and not _own_start(name, stages) else name for name in row.runs]
    seeds = {run.seed for name in row.runs for run in runs.get(name, ())}
    group = [run for name in wanted for run in runs.get(name, ()) if run.seed in seeds]
    baselines = runs.get(row.baseline, ())
    figure = figure_of(group, column.score, stage=column.stage, baselines=baselines)
    if figure is None:
        return empty
    kept = having(group, column.score, column.stage)
    last = [stage for run in kept if (stage := run.stage(column.stage)) is not None]
    costs = [run.minutes for run in kept if run.minutes is not None]
    memory = [run.peak_memory_mb for run in kept if run.peak_memory_mb is not None]
    return replace(
        empty,
        value=figure.value,
        unit=figure.unit,
        n=figure.n,
        low=figure.low,
        high=figure.high,
        lowest=figure.lowest,
        highest=figure.highest,
        runs=tuple(run.name for run in kept),
        seeds=tuple(run.seed for run in kept),
        commit=_joined(run.commit for run in kept),
        recipe_hash=_joined(stage.recipe_hash for stage in last),
        minutes=sum(costs) if costs else None,
        peak_memory_mb=max(memory, default=None),
    )


def _own_start(name: str, stages: Mapping[str, Sequence[str]]) -> bool:
    return any(stage.endswith(BEFORE) for stage in stages.get(name, ()))


def _joined(words: Any) -> str:
    return ", ".join(dict.fromkeys(word for word in words if word))
