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
    compiled: Compiled = False,
    evaluate: Annotated[bool, typer.Option(help="Evaluate the result.")] = True,
) -> None:
    """Make the pocket model again, from nothing.

    Data, every stage of training, the folder that ships, its evaluation. What is done is kept, so that an
    interrupted run goes on where it was. Times stand in ROOT/times.json.
    """
    from deeptalk.cli.evaluate import print_report
    from deeptalk.cli.evaluation import evaluate_pocket
    from deeptalk.cli.export import export
    from deeptalk.cli.output import console
    from deeptalk.cli.prepare import Corpus, prepare
    from deeptalk.cli.times import Times
    from deeptalk.cli.training import train_stage
    from deeptalk.recipes import POCKET_PIPELINE
    from deeptalk.recipes.pocket import POCKET_TEXT

    screen, times = console(), Times(root / "times.json")
    with times.measure("data"):
        prepare(Corpus.POCKET, out=root / "data", workers=workers)
    for recipe in POCKET_PIPELINE:
        screen.print(f"{recipe.name}: {recipe.paper}", style="bold")
        with times.measure(recipe.name):
            last = train_stage(recipe, root=root, data=root / "data", resume=True, compiled=compiled)
        if last is not None and last.is_interrupted:
            screen.print("interrupted; the same command goes on from here")
            raise typer.Exit(130)
    target = root / "pocket"
    export(root / POCKET_PIPELINE[-1].name / "model", target)
    screen.print(f"{target} · {times.total_hours:.2f} hours in all")
    if evaluate:
        backbone, results = root / POCKET_TEXT.name / "model", root / "evaluation.json"
        print_report(evaluate_pocket(model=str(target), backbone=backbone, out=results))
