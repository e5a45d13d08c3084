"""``deeptalk eval score-answers`` and its neighbours: what any model gave for a public benchmark."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeptalk.cli.arguments import Json

if TYPE_CHECKING:
    from deeptalk.evaluation.benchmarks.llm_judge import LlmJudge
    from deeptalk.evaluation.benchmarks.scoring import BenchmarkReport

Out = Annotated[
    Path | None, typer.Option("--out", metavar="F.json", help="A file for the scores and every item.")
]
AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing", help="Exit with 0 though something is missing; it counts as wrong all the same."
    ),
]
BootstrapSeed = Annotated[
    int, typer.Option("--seed", metavar="N", help="Which items the intervals draw.", min=0)
]

QuestionSet = Annotated[
    Path, typer.Argument(metavar="QUESTIONS", help="The set: a file, or a folder of OpenAudioBench.")
]
Layout = Annotated[
    str | None,
    typer.Option("--layout", metavar="NAME", help="Layout of QUESTIONS; told from its fields else."),
]
AnswerColumn = Annotated[
    str | None,
    typer.Option("--answer-column", metavar="NAME", help="Right answers of the layout ultraeval."),
]


def score_answers(
    questions: QuestionSet,
    answers: Annotated[Path, typer.Argument(metavar="ANSWERS", help="What the model answered.")],
    layout: Layout = None,
    answer_column: AnswerColumn = None,
    field: Annotated[
        str,
        typer.Option("--field", metavar="NAME", help="Field of ANSWERS: text, or transcript of the speech."),
    ] = "text",
    rules: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="NAME", help="contain-words, has-answer, whole-words; repeatable."),
    ] = None,
    judge_url: Annotated[
        str | None,
        typer.Option("--judge-url", metavar="URL", help="A judge, as http://127.0.0.1:8000/v1."),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option("--judge-model", metavar="NAME", help="The judge's model.")
    ] = None,
    judge_prompt: Annotated[
        Path | None,
        typer.Option("--judge-prompt", metavar="FILE", help="What the judge reads; a built-in text else."),
    ] = None,
    judge_replies: Annotated[
        Path | None,
        typer.Option("--judge-replies", metavar="F.jsonl", help="Keeps replies: none is asked for twice."),
    ] = None,
    judge_key: Annotated[
        str | None,
        typer.Option(
            "--judge-key", envvar="DEEPTALK_JUDGE_KEY", metavar="KEY", help="Better given by the environment."
        ),
    ] = None,
    allow_missing: AllowMissing = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Score the answers to spoken questions by named rules.

    Without --rule, contain-words and has-answer stand side by side.
    """
    from deeptalk.cli.evaluation import check_place
    from deeptalk.evaluation.benchmarks.question_sets import read_answers, read_questions
    from deeptalk.evaluation.benchmarks.scoring import score_questions
    from deeptalk.files import digest_of

    judge = _judge(judge_url, judge_model, judge_prompt, judge_replies, judge_key)
    items = read_questions(questions, layout=layout, answer_column=answer_column)
    given = read_answers(answers, items, field=field)
    file = questions / f"{questions.name}.csv" if questions.is_dir() else questions
    if out is not None:
        check_place(out)
    report = score_questions(
        items,
        given,
        rules=rules or ("contain-words", "has-answer"),
        data=digest_of(file) or "",
        judge=judge,
    )
    _finish(report, out, allow_missing=allow_missing, is_json=json)


def score_transcripts(
    references: Annotated[
        Path,
        typer.Argument(metavar="REFERENCES", help="Folder of Kaldi, .tsv with .wrd, .jsonl, .lst, or text."),
    ],
    transcripts: Annotated[
        Path,
        typer.Argument(metavar="TRANSCRIPTS", help="What was heard: .jsonl, or an id and a text a line."),
    ],
    names: Annotated[
        list[str], typer.Option("--normalizer", metavar="NAME", help="As wenet or whisper-en; repeatable.")
    ],
    field: Annotated[
        str,
        typer.Option(
            "--field", metavar="NAME", help="Field of TRANSCRIPTS, if it is .jsonl: text unless given."
        ),
    ] = "text",
    allow_missing: AllowMissing = False,
    seed: BootstrapSeed = 0,
    out: Out = None,
    json: Json = False,
) -> None:
    """Word or character error rates of transcripts, by named normalisers.

    The rate over the corpus comes first, then the mean over utterances. An utterance without a transcript has
    lost all its words.
    """
    from deeptalk.cli.evaluation import check_place
    from deeptalk.evaluation.benchmarks.normalizers import normalizer
    from deeptalk.evaluation.benchmarks.scoring import score_speech
    from deeptalk.evaluation.benchmarks.speech_lists import read_references, read_transcripts
    from deeptalk.files import digest_of

    chosen = [normalizer(name) for name in dict.fromkeys(names)]
    texts, file = read_references(references)
    heard = read_transcripts(transcripts, field=field)
    if out is not None:
        check_place(out)
    report = score_speech(texts, heard, normalizers=chosen, data=digest_of(file) or "", seed=seed)
    _finish(report, out, allow_missing=allow_missing, is_json=json)


def compare(
    left: Annotated[Path, typer.Argument(metavar="LEFT", help="Scores of one model, by --out.")],
    right: Annotated[Path, typer.Argument(metavar="RIGHT", help="Scores of another, of the same set.")],
    seed: BootstrapSeed = 0,
    json: Json = False,
) -> None:
    """Compare two models item by item: left, right, right minus left with its 95 % interval.

    Reports of other data, or of other versions of a rule, are refused.
    """
    from deeptalk.cli.output import console, print_json
    from deeptalk.evaluation.benchmarks.comparison import compare_reports
    from deeptalk.evaluation.benchmarks.scoring import read_report

    for found in compare_reports(read_report(left), read_report(right), seed=seed):
        change = found.difference
        if json:
            values = {"name": found.name, "left": found.left, "right": found.right}
            bounds = {"difference": change.value, "low": change.low, "high": change.high}
            chance = {"share_not_above": change.share_not_above, "is_clear": change.is_clear}
            print_json(values | bounds | chance)
        else:
            interval = f"[{change.low:+.2f}, {change.high:+.2f}]"
            console().print(
                f"{found.name:<28}{found.left:>8.2f}{found.right:>8.2f}{change.value:>+9.2f}  {interval}"
                f"{'' if change.is_clear else '  not clear'}"
            )


def table3(json: Json = False) -> None:
    """The paper's table 3, text benchmarks: means, drops, and where they don't follow from its values."""
    from deeptalk.cli.output import console, print_json
    from deeptalk.evaluation.benchmarks.paper_tables import TABLE_3, check_table, drop_of, mean_score

    for row in TABLE_3:
        drop = drop_of(row)
        values = {"mean": mean_score(row), "drop": drop and drop.of_means}
        if json:
            sets = {"mean_of_set_drops": drop and drop.mean_of_sets, "num_sets": len(row.mean_of)}
            print_json({"model": row.model, "backbone": row.backbone} | values | sets)
        else:
            lost = "" if drop is None else f"{drop.of_means:>+9.2f} %  against {row.backbone}"
            console().print(f"{row.model:<18}{values['mean']:>7.2f}{lost}")
    for complaint in check_table():
        if json:
            print_json({"complaint": complaint})
        else:
            console().print(f"! {complaint}")


def _judge(
    url: str | None, model: str | None, prompt: Path | None, replies: Path | None, key: str | None
) -> "LlmJudge | None":
    from time import sleep

    from deeptalk.cli.evaluation import check_place
    from deeptalk.errors import ConfigError
    from deeptalk.evaluation.benchmarks.llm_judge import PROMPT, JudgeSettings, LlmJudge

    if url is None and model is None:
        return None
    if url is None or model is None:
        raise ConfigError("a judge needs both --judge-url and --judge-model.")
    if replies is not None:
        check_place(replies)
    try:
        text = PROMPT if prompt is None else prompt.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{prompt}: can't be read ({error}).") from error
    return LlmJudge(JudgeSettings(url=url, model=model, key=key, prompt=text), wait=sleep, replies=replies)


def _finish(report: "BenchmarkReport", out: Path | None, *, allow_missing: bool, is_json: bool) -> None:
    """Write and print a report; leave with 1 where something is missing that may not be."""
    import sys

    from deeptalk.cli.evaluation import write_json
    from deeptalk.cli.output import console, print_json

    if out is not None:
        write_json(out, report.to_dict(has_items=True))
    if is_json:
        print_json(report.to_dict(has_items=False))
    else:
        screen = console()
        for score in report.scores:
            shown = f"{score.count} of {score.total}"
            screen.print(
                f"{score.name:<28}{score.value:>7.2f} {score.unit:<6}{shown:>18}  "
                f"[{score.low:.2f}, {score.high:.2f}]  {report.rules[score.name]}"
            )
        if report.errors is not None:
            screen.print("  ".join(f"{name} {count}" for name, count in report.errors.items()), style="dim")
        screen.print(
            f"items {report.num_items}  missing {report.num_missing}  not judged {report.num_unjudged}  "
            f"data {report.data}",
            style="dim",
        )
    if (report.num_missing or report.num_unjudged) and not allow_missing:
        print(
            f"{report.num_missing} of {report.num_items} items are missing and {report.num_unjudged} were "
            "not judged; all of them count as wrong (with --allow-missing this is no failure).",
            file=sys.stderr,
        )
        raise typer.Exit(1)
