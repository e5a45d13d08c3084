"""``deeptalk eval``: every figure of the pocket model by one command, and scores on public benchmarks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeptalk.cli.arguments import Json, Model
from deeptalk.cli.duplex import converse, score_duplex
from deeptalk.cli.generate import answer, say, transcribe
from deeptalk.cli.latency import latency
from deeptalk.cli.report import report
from deeptalk.cli.retained import text
from deeptalk.cli.score import compare, score_answers, score_transcripts, table3, write_answers
from deeptalk.cli.synthesis import recode, score_speech

if TYPE_CHECKING:
    from deeptalk.evaluation.metrics import Score
    from deeptalk.evaluation.pocket import PocketReport


evaluate = typer.Typer(help="Measure a model, or score what one gave for a benchmark.", no_args_is_help=True)


@evaluate.command()
def pocket(
    model: Model = "pocket",
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions", metavar="DIR", help="Folder of the questions; the built-in ones unless given."
        ),
    ] = None,
    fsdd: Annotated[
        Path | None,
        typer.Option("--fsdd", metavar="DIR", help="Recordings of the Free Spoken Digit Dataset."),
    ] = None,
    backbone: Annotated[
        Path | None,
        typer.Option("--backbone", metavar="DIR", help="The text backbone before any speech, for the drop."),
    ] = None,
    voice: Annotated[str, typer.Option("--voice", metavar="NAME", help="Voice of the answers.")] = "rms",
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", help="At most so many questions of each kind.", min=1),
    ] = None,
    judge: Annotated[bool, typer.Option(help="Judge the speech with pocketsphinx.")] = True,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="F.json", help="A file for all figures and every answer.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure a model and print its figures beside what is asked of them."""
    from deeptalk.cli.evaluation import evaluate_pocket
    from deeptalk.cli.output import print_json

    report = evaluate_pocket(
        model=model,
        questions=questions,
        fsdd=fsdd,
        backbone=backbone,
        voice=voice,
        limit=limit,
        has_judge=judge,
        out=out,
    )
    if json:
        print_json(report.to_dict())
    else:
        print_report(report)


for verb in (
    report,
    text,
    answer,
    transcribe,
    say,
    recode,
    converse,
    score_duplex,
    score_answers,
    score_transcripts,
    score_speech,
    write_answers,
    compare,
    latency,
    table3,
):
    evaluate.command()(verb)


def print_report(report: "PocketReport") -> None:
    """The table, then all other figures."""
    from rich.table import Table

    from deeptalk.cli.output import console
    from deeptalk.cli.targets import other_scores, table_rows

    table = Table(box=None, padding=(0, 1, 0, 0), title="pocket model", title_justify="left")
    for name in ("figure", "must", "goal", "measured", "95 %", ""):
        table.add_column(name, justify="left" if name == "figure" else "right", no_wrap=True)
    for target, score in table_rows(report.scores):
        bound = "≤" if target.at_most else "≥"
        asked = (target.title, f"{bound} {target.must:g}", f"{bound} {target.goal:g}")
        if score is None:
            table.add_row(*asked, "not run", "", "")
        else:
            mark = "✓" if target.is_met(score.value) else "✗"
            table.add_row(*asked, _value(score), _interval(score), mark)
    screen = console()
    screen.print(table)
    for score in other_scores(report.scores):
        screen.print(f"  {score.name:<40}{_value(score):>12}  of {score.total}", style="dim")
    screen.print(f"  answers cut off at their longest: {report.num_runaway}", style="dim")
    for reason in report.not_run:
        screen.print(f"  not run: {reason}", style="dim")


def _value(score: "Score") -> str:
    unit = score.unit.split()[0]
    return f"{score.value:.2f} {unit}" if abs(score.value) < 10 else f"{score.value:.1f} {unit}"


def _interval(score: "Score") -> str:
    return f"{score.low:.0f}–{score.high:.0f}" if score.unit not in ("ms", "x", "points") else ""
