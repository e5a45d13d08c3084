"""``deeptalk eval``: every figure of the pocket model by one command, and scores on public benchmarks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeptalk.cli.arguments import Json, Model, Voice
from deeptalk.cli.duplex import converse, score_duplex
from deeptalk.cli.generate import Devices, Language, Limit, Recogniser, Whisper, Work, answer, say, transcribe
from deeptalk.cli.latency import latency
from deeptalk.cli.report import report
from deeptalk.cli.retained import MaxTextDrop, OtherBackbone, check_drop, text
from deeptalk.cli.score import (
    AllowMissing,
    JudgeKey,
    JudgeModel,
    JudgePrompt,
    JudgeReplies,
    JudgeUrl,
    compare,
    open_judge,
    repeated,
    score_answers,
    score_transcripts,
    table3,
    unpack,
    write_answers,
)
from deeptalk.cli.synthesis import recode, score_speech

if TYPE_CHECKING:
    from deeptalk.evaluation.metrics import Score
    from deeptalk.evaluation.pocket import PocketReport


evaluate = typer.Typer(help="Measure a model, or score what one gave for a benchmark.", no_args_is_help=True)


@evaluate.callback(invoke_without_command=True)
def suites(
    context: typer.Context,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            metavar="NAME",
            help="paper, or a table of it: synthesis, questions, text, recognition, latency.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Folder of the test sets, by their names (docs/benchmarks.md)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the runs and of the report; out/SUITE unless given."
        ),
    ] = None,
    model: Model = "pocket",
    devices: Devices = None,
    voice: Voice = None,
    recogniser: Recogniser = None,
    whisper: Whisper = None,
    language: Language = None,
    text_results: Annotated[
        Path | None,
        typer.Option("--text", metavar="F.json", help="What `eval text --out` wrote, for table 3."),
    ] = None,
    latency_results: Annotated[
        Path | None,
        typer.Option(
            "--latency", metavar="F.json", help="What `eval latency --out` wrote; else measured here."
        ),
    ] = None,
    turns: Annotated[
        int, typer.Option("--turns", metavar="N", help="Answers that are timed, without --latency.", min=2)
    ] = 50,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_prompt: JudgePrompt = None,
    judge_replies: JudgeReplies = None,
    judge_key: JudgeKey = None,
    limit: Limit = None,
    allow_missing: AllowMissing = False,
    json: Json = False,
) -> None:
    """Measure a model, or score what one gave for a benchmark.

    With --suite, fill the paper's tables from the sets that are in --data: paper, ours, difference. What is
    not there is not run; an interrupted suite goes on by the same command.
    """
    from deeptalk.cli.suite import run_suite
    from deeptalk.cli.suite_tables import Given
    from deeptalk.errors import ConfigError

    if context.invoked_subcommand is not None:
        if suite is not None:
            raise ConfigError("--suite is a measurement of its own; leave it out, or the verb behind it.")
        return
    if suite is None:
        raise ConfigError("say what to measure: a verb, as in `deeptalk eval pocket`, or --suite NAME.")
    work = Work(
        out=out or Path("out") / suite,
        model=model,
        devices=devices,
        mode="text",
        voice=voice,
        recogniser=recogniser,
        whisper=whisper,
        language=language,
        max_text_tokens=160,
    )
    replies = judge_replies or (work.out / "judge.jsonl" if judge_url else None)
    given = Given(
        work=work,
        judge=open_judge(judge_url, judge_model, judge_prompt, replies, judge_key),
        data=data,
        text=text_results,
        latency=latency_results,
        turns=turns,
        limit=limit,
        allow_missing=allow_missing,
    )
    run_suite(suite, given, is_json=json)


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
    other_backbone: OtherBackbone = False,
    max_drop: MaxTextDrop = None,
    voice: Annotated[str, typer.Option("--voice", metavar="NAME", help="Voice of the answers.")] = "rms",
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", help="At most so many questions of each kind.", min=1),
    ] = None,
    judge: Annotated[bool, typer.Option(help="Judge the speech with pocketsphinx.")] = True,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="F.json", help="A file for all figures and every answer.")
    ] = None,
    report_folder: Annotated[
        Path | None,
        typer.Option("--report", metavar="DIR", help="Write the full report too, as `eval report` does."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure a model and print its figures beside what is asked of them.

    With --out or --report an interrupted evaluation goes on by the same command, with the part it was at.
    """
    import sys
    from tempfile import TemporaryDirectory

    from deeptalk.cli.evaluation import check_place, evaluate_pocket
    from deeptalk.cli.output import print_json
    from deeptalk.cli.report import write_report

    if report_folder is not None:
        check_place(report_folder / "report.html")

    with TemporaryDirectory() as folder:
        results = out
        if out is None and report_folder is not None:
            results = Path(folder) / "results.json"
        place = out or (report_folder and report_folder / "results.json")
        kept = place and place.with_name(f".{place.name}.progress")
        try:
            report = evaluate_pocket(
                model=model,
                questions=questions,
                fsdd=fsdd,
                backbone=backbone,
                voice=voice,
                limit=limit,
                has_judge=judge,
                is_other=other_backbone,
                out=results,
                kept=kept,
            )
        except KeyboardInterrupt:
            goes_on = f"; the same command goes on with {place.parent}" if place else ""
            print(f"interrupted{goes_on}", file=sys.stderr)
            raise typer.Exit(130) from None
        if report_folder is not None and results is not None:
            write_report(results, report_folder, questions=questions, model=model)
        if kept:
            kept.unlink(missing_ok=True)
    if json:
        print_json(report.to_dict())
    else:
        print_report(report)
    drops = [score.value for score in report.scores if score.name == "text_to_text/drop"]
    check_drop(drops[0] if drops else None, max_drop)


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
    repeated,
    latency,
    unpack,
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
