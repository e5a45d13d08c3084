"""``deeptalk reproduce``: the paper's tables in small, and the pocket model from nothing."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeptalk.cli.arguments import Compiled, Json, Root
from deeptalk.errors import ConfigError

if TYPE_CHECKING:
    from deeptalk.evaluation.benchmarks.small_results import Places

MODEL = "model"
"""Stands among the tables for the pocket model itself."""
_INTERRUPTED = 130


class Size(StrEnum):
    """How large what is reproduced is; the paper's own size needs GPUs and is not offered."""

    POCKET = "pocket"


def reproduce(
    size: Annotated[Size, typer.Option("--size", help="Of the models.")] = Size.POCKET,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAME",
            help="A table or figure, as table-8, or 'model', the pocket model from nothing; repeatable.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what was interrupted; so it does anyway.")
    ] = False,
    run: Annotated[
        bool, typer.Option("--run/--no-run", help="Run what is missing, or report what is there.")
    ] = True,
    root: Root = Path("build/pocket"),
    results: Annotated[
        Path, typer.Option("--results", metavar="DIR", help="Folder of the figures of all runs.")
    ] = Path("docs/results/pocket/runs"),
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for pocket.md and pocket.html.")
    ] = Path("docs/results"),
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", help="Training seeds of every variant.", min=1)
    ] = 1,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", help="Synthesisers at a time.", min=1)
    ] = 2,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", help="Training processes at a time.", min=1)
    ] = 2,
    compiled: Compiled = False,
    evaluate: Annotated[bool, typer.Option(help="Evaluate the model that was made.")] = True,
    json: Json = False,
) -> None:
    """Train and measure what the paper's tables lack, in small, and write the report.

    Figures of earlier runs count as long as their recipes are those of today, so that on a fresh clone
    nothing is run; what was interrupted goes on where it was. The report has all tables, --only says which of
    them are made complete and printed. With --only model the pocket model is made again from nothing: data,
    every stage, the folder that ships, its evaluation; seconds stand in ROOT/times.json, --compile is for it.
    """
    from deeptalk.cli.missing import keep_load, run_missing
    from deeptalk.cli.varied import START
    from deeptalk.evaluation.benchmarks.small_results import tables
    from deeptalk.recipes.variants import VARIANTS

    known = {table.name: table for table in tables((START, *VARIANTS))}
    names = _checked(only or list(known), [*known, MODEL])
    if MODEL in names and not run:
        raise ConfigError("--no-run only reports, and 'model' is nothing to report: leave one of them out.")
    if MODEL in names and json:
        raise ConfigError("--json lists the cells of tables, and 'model' has none: leave one of them out.")
    if MODEL in names:
        make_model(root, workers=workers, processes=processes, compiled=compiled, evaluate=evaluate)
    asked = [known[name] for name in names if name != MODEL]
    if not asked:
        return
    places = places_of(results)
    if run:
        from deeptalk.cli.progress import bars

        try:
            with bars() as show:
                is_done = run_missing(
                    asked,
                    root=root,
                    places=places,
                    seeds=seeds,
                    processes=processes,
                    workers=workers,
                    show=show,
                )
        except KeyboardInterrupt:  # while data are made
            is_done = False
        if not is_done:
            _tell_interruption()
    keep_load(root, places)
    _report(places, out, [table.name for table in asked], json=json)


def places_of(results: Path) -> "Places":
    """Where the figures of runs, of the shipped model, and the picture of its load lie."""
    from deeptalk.evaluation.benchmarks.small_results import Places

    return Places(
        runs=results,
        assets=Path(str(files("deeptalk"))) / "assets" / "pocket",
        report=results.parent / "report.json",
        figure=results.parent / "load.png",
    )


def make_model(root: Path, *, workers: int, processes: int, compiled: bool, evaluate: bool) -> None:
    """The pocket model from nothing: data, every stage of training, the folder that ships, its evaluation.

    Stages that don't wait for each other train side by side, one thread each; those with several
    micro-batches share them out. What is done is kept.
    """
    from deeptalk.cli.evaluate import print_report
    from deeptalk.cli.evaluation import evaluate_pocket
    from deeptalk.cli.export import export
    from deeptalk.cli.output import console
    from deeptalk.cli.pipeline import run_pipeline
    from deeptalk.cli.prepare import Corpus, prepare
    from deeptalk.cli.progress import bars
    from deeptalk.cli.times import Times
    from deeptalk.recipes import POCKET_PIPELINE
    from deeptalk.recipes.pocket import POCKET_SENTENCE_SECONDS, POCKET_TEXT

    screen, times = console(), Times(root / "times.json")
    with times.measure("data"):
        prepare(Corpus.POCKET, out=root / "data", workers=workers)
    with times.measure("training"), bars() as show:
        is_done = run_pipeline(
            POCKET_PIPELINE, root=root, processes=processes, show=show, times=times, compiled=compiled
        )
    if not is_done:
        _tell_interruption()
    target = root / "pocket"
    export(root / POCKET_PIPELINE[-1].name / "model", target, sentence_seconds=POCKET_SENTENCE_SECONDS)
    screen.print(f"{target} · {times.seconds['training'] / 3600:.2f} hours of training")
    if evaluate:
        backbone, results = root / POCKET_TEXT.name / "model", root / "evaluation.json"
        print_report(evaluate_pocket(model=str(target), backbone=backbone, out=results))


def _report(places: "Places", out: Path, asked: Sequence[str], *, json: bool) -> None:
    from deeptalk.cli.output import console, print_json
    from deeptalk.cli.varied import START, stages_of
    from deeptalk.evaluation.benchmarks.small_page import page
    from deeptalk.evaluation.benchmarks.small_report import markdown, table_text
    from deeptalk.evaluation.benchmarks.small_results import build_report
    from deeptalk.files import write_text
    from deeptalk.recipes.variants import VARIANTS

    report = build_report(places, (START, *VARIANTS), recipes_of=stages_of)
    write_text(out / "pocket.md", markdown(report))
    write_text(out / "pocket.html", page(report))
    parts = [part for part in report.parts if part.table.name in asked]
    if json:
        for part in parts:
            for cell in part.cells:
                print_json(cell.to_dict())
        return
    screen = console()
    for part in parts:
        screen.print("\n".join(table_text(part)))
    cells = [cell for part in parts for cell in part.cells]
    missing = sum(not cell.is_run for cell in cells)
    screen.print(f"{out / 'pocket.html'}: {len(cells) - missing} of {len(cells)} cells filled")


def _checked(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The names, each once; `ConfigError` with the nearest where one is unknown."""
    from difflib import get_close_matches

    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"--only: there is no {name!r}; {hint}Names are {', '.join(known)}.")
    return list(dict.fromkeys(names))


def _tell_interruption() -> None:
    print("interrupted; the same command goes on from here", file=sys.stderr)
    raise typer.Exit(_INTERRUPTED)
