"""``deeptalk reproduce``: the pocket model from nothing."""

from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Compiled, Root


def reproduce(
    root: Root = Path("build/pocket"),
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", help="Synthesisers at a time.", min=1)
    ] = 2,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", help="Training processes at a time.", min=1)
    ] = 2,
    compiled: Compiled = False,
    evaluate: Annotated[bool, typer.Option(help="Evaluate the result.")] = True,
) -> None:
    """Make the pocket model again, from nothing.

    Data, every stage of training, the folder that ships, its evaluation. Stages that don't wait for each
    other train side by side, one thread each; those with several micro-batches share them out. What is done
    is kept, so that an interrupted run goes on where it was. Seconds stand in ROOT/times.json, those of all
    training stages together as "training".
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
    from deeptalk.recipes.pocket import POCKET_TEXT

    screen, times = console(), Times(root / "times.json")
    with times.measure("data"):
        prepare(Corpus.POCKET, out=root / "data", workers=workers)
    with times.measure("training"), bars() as show:
        is_done = run_pipeline(
            POCKET_PIPELINE, root=root, processes=processes, show=show, times=times, compiled=compiled
        )
    if not is_done:
        screen.print("interrupted; the same command goes on from here")
        raise typer.Exit(130)
    target = root / "pocket"
    export(root / POCKET_PIPELINE[-1].name / "model", target)
    screen.print(f"{target} · {times.seconds['training'] / 3600:.2f} hours of training")
    if evaluate:
        backbone, results = root / POCKET_TEXT.name / "model", root / "evaluation.json"
        print_report(evaluate_pocket(model=str(target), backbone=backbone, out=results))
