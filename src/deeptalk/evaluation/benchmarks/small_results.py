"""All that was measured for the paper's tables in small, gathered from its files, and the report of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deeptalk.evaluation.benchmarks.small_cells import cells_of
from deeptalk.evaluation.benchmarks.small_findings import finding
from deeptalk.evaluation.benchmarks.small_loads import load_runs, shipped_load
from deeptalk.evaluation.benchmarks.small_report import Part, Report
from deeptalk.evaluation.benchmarks.small_runs import (
    CASCADE,
    LATENCY,
    LOAD,
    TABLE_1,
    RecipesOf,
    Run,
    read_latency,
    read_measured,
    read_rows,
    read_runs,
    read_shipped,
    shipped_hash,
)
from deeptalk.evaluation.benchmarks.small_tables import TABLES, Table, forgetting
from deeptalk.experts.load import read_load, read_provenance

START_LOAD = "load-start"
"""The load by which audio experts are chosen: of the model that stage 2.1 begins with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where results lie: of runs, of the shipped model, its full report, and the picture of its load."""

    runs: Path
    assets: Path
    report: Path
    figure: Path


def tables(variants: Sequence[str]) -> tuple[Table, ...]:
    """Every table and figure, for some variants by name."""
    return (*TABLES, forgetting(variants))


def read_all(places: Places, variants: Sequence[str], *, recipes_of: RecipesOf) -> dict[str, Sequence[Run]]:
    """Everything that is there, by the names that the tables' rows use.

    ``variants`` are the names of the runs that are trained; ``recipes_of`` gives their recipes of today.

    Raises:
        DataError: a file of results can't be read.
    """
    trained = read_runs(places.runs, variants, recipes_of=recipes_of)
    model = shipped_hash(places.assets)
    found: dict[str, Sequence[Run]] = {**trained}
    found |= read_shipped(places.assets, places.report if places.report.is_file() else None)
    found[CASCADE] = read_measured(places.runs / f"{CASCADE}.json", CASCADE, model=model)
    found[LATENCY] = read_latency(places.runs / f"{LATENCY}.json", model=model)
    return found | read_rows(places.runs / f"{TABLE_1}.json", model=model) | _loads(places, trained)


def build_report(places: Places, variants: Sequence[str], *, recipes_of: RecipesOf) -> Report:
    """The report of all that `read_all` finds."""
    found = read_all(places, variants, recipes_of=recipes_of)
    stages = {name: [recipe.name for recipe in recipes_of(name, 1)] for name in variants}
    parts = tuple(
        Part(table=table, cells=cells_of(table, found, stages=stages), finding=finding(table.name, found))
        for table in tables(variants)
    )
    return Report(
        parts=parts,
        runs={name: found[name] for name in variants if name in found},
        figure=places.figure.read_bytes() if places.figure.is_file() else None,
    )


def _loads(places: Places, trained: Mapping[str, Sequence[Run]]) -> dict[str, tuple[Run, ...]]:
    start, shipped = places.runs / f"{START_LOAD}.json", places.runs / f"{LOAD}.json"
    found = load_runs(trained, read_load(start)) if start.is_file() else {}
    if not shipped.is_file() or read_provenance(shipped).get("model_hash") != shipped_hash(places.assets):
        return found
    return found | shipped_load(places.assets, read_load(shipped))
