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
DropMissing = Annotated[
    bool,
    typer.Option(
        "--drop-missing",
        help="Leave out what is missing, as some tools do; the figure is labelled, and stands in no table.",
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


JudgeUrl = Annotated[
    str | None, typer.Option("--judge-url", metavar="URL", help="A judge, as http://127.0.0.1:8000/v1.")
]
JudgeModel = Annotated[str | None, typer.Option("--judge-model", metavar="NAME", help="The judge's model.")]
JudgePrompt = Annotated[
    Path | None,
    typer.Option("--judge-prompt", metavar="FILE", help="What the judge reads; a built-in text else."),
]
JudgeReplies = Annotated[
    Path | None,
    typer.Option("--judge-replies", metavar="F.jsonl", help="Keeps replies: none is asked for twice."),
]
JudgeKey = Annotated[
    str | None,
    typer.Option(
        "--judge-key", envvar="DEEPTALK_JUDGE_KEY", metavar="KEY", help="Better given by the environment."
    ),
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
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_prompt: JudgePrompt = None,
    judge_replies: JudgeReplies = None,
    judge_key: JudgeKey = None,
    allow_missing: AllowMissing = False,
    drop_missing: DropMissing = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Score the answers to spoken questions by named rules.

    Without --rule, contain-words and has-answer stand side by side.
    """
    from deeptalk.cli.evaluation import check_place
    from deeptalk.cli.progress import bars
    from deeptalk.evaluation.benchmarks.question_sets import question_file, read_answers, read_questions
    from deeptalk.evaluation.benchmarks.scoring import about_answers, score_questions, without_missing
    from deeptalk.files import digest_of

    judge = open_judge(judge_url, judge_model, judge_prompt, judge_replies, judge_key)
    items = read_questions(questions, layout=layout, answer_column=answer_column)
    given = read_answers(answers, items, field=field)
    file = question_file(questions)
    if out is not None:
        check_place(out)
    kept = without_missing(items, lambda item: item.id, given) if drop_missing else items
    shrunk = len(items) if len(kept) < len(items) else None
    with bars() as show:
        report = score_questions(
            kept,
            given,
            rules=rules or ("contain-words", "has-answer"),
            data=digest_of(file) or "",
            judge=judge,
            about=about_answers(answers, set_name=file.stem, field=field, shrunk_from=shrunk),
            progress=lambda done, total: None if judge is None else show("judged", done, total),
        )
    finish(report, out, allow_missing=allow_missing, is_json=json)


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
    drop_missing: DropMissing = False,
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
    from deeptalk.evaluation.benchmarks.scoring import about_answers, score_speech, without_missing
    from deeptalk.evaluation.benchmarks.speech_lists import read_references, read_transcripts
    from deeptalk.files import digest_of

    chosen = [normalizer(name) for name in dict.fromkeys(names)]
    texts, file = read_references(references)
    heard = read_transcripts(transcripts, field=field)
    if out is not None:
        check_place(out)
    kept = without_missing(list(texts), str, heard) if drop_missing else list(texts)
    shrunk = len(texts) if len(kept) < len(texts) else None
    set_name = references.resolve().name if references.is_dir() else file.stem
    report = score_speech(
        {name: texts[name] for name in kept},
        heard,
        normalizers=chosen,
        data=digest_of(file) or "",
        seed=seed,
        about=about_answers(transcripts, set_name=set_name, field=field, shrunk_from=shrunk),
    )
    finish(report, out, allow_missing=allow_missing, is_json=json)


def compare(
    left: Annotated[Path, typer.Argument(metavar="LEFT", help="Scores of one model, by --out.")],
    right: Annotated[Path, typer.Argument(metavar="RIGHT", help="Scores of another, of the same set.")],
    mixed: Annotated[
        bool,
        typer.Option("--mixed", help="Show reports of other data or rules too; each row tells what differs."),
    ] = False,
    seed: BootstrapSeed = 0,
    json: Json = False,
) -> None:
    """Compare two models item by item: left, right, right minus left with its 95 % interval.

    Files of `eval score-...`, `eval pocket` and `eval text`. Those of other data, or of other versions of a
    rule, are refused without --mixed.
    """
    from deeptalk.cli.output import console, print_json
    from deeptalk.evaluation.benchmarks.comparable import read_comparable
    from deeptalk.evaluation.benchmarks.comparison import compare_reports

    sides = (read_comparable(left), read_comparable(right))
    for found in compare_reports(*sides, seed=seed, is_mixed=mixed):
        change = found.difference
        if json:
            names = ("value", "low", "high", "share_not_above", "is_clear")
            told = {name: None if change is None else getattr(change, name) for name in names}
            told = {"difference": told.pop("value"), **told}
            values = {"name": found.name, "left": found.left, "right": found.right}
            print_json(values | told | {"apart": found.apart or None})
        else:
            values = "".join(f"{'–' if v is None else f'{v:.2f}':>8}" for v in (found.left, found.right))
            end = f"  do not compare: {found.apart}"
            if change is not None:
                end = f"{change.value:>+9.2f}  [{change.low:+.2f}, {change.high:+.2f}]"
                end += "" if change.is_clear else "  not clear"
            console().print(f"{found.name:<28}{values}{end}")


def repeated(
    reports: Annotated[
        list[Path], typer.Argument(metavar="REPORT...", help="Scores of runs that drew otherwise, by --out.")
    ],
    json: Json = False,
) -> None:
    """Mean and range of every score over runs that differ in their seed alone; three runs at least."""
    from deeptalk.cli.output import console, print_json
    from deeptalk.evaluation.benchmarks.repeats import read_repeat, repeats

    for one in repeats([read_repeat(path) for path in reports]):
        if json:
            print_json(one.to_dict())
        else:
            seeds = ", ".join(map(str, one.seeds))
            console().print(
                f"{one.name:<28}{one.mean:>8.2f} {one.unit:<7}[{one.lowest:.2f}, {one.highest:.2f}] of "
                f"{len(one.seeds)} runs, seeds {seeds}"
            )


def write_answers(
    questions: QuestionSet,
    answers: Annotated[Path, typer.Argument(metavar="ANSWERS", help="A run's answers.jsonl.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files.")],
    layout: Layout = None,
    answer_column: AnswerColumn = None,
    model: Annotated[
        str, typer.Option("--name", metavar="NAME", help="The model's name in the names of files.")
    ] = "deeptalk",
    json: Json = False,
) -> None:
    """Write answers as other people's scorers read them: VITA-Audio's lists and VoiceBench's lines.

    NAME_hyp_ref_text.json and ..._speech.json, and MODEL-SET-test-text.jsonl and ...-audio.jsonl; an answer
    that is missing is empty there, so that those scorers see all questions.
    """
    from deeptalk.cli.evaluation import check_place
    from deeptalk.cli.output import console, print_json
    from deeptalk.evaluation.benchmarks.question_sets import (
        question_file,
        read_answers,
        read_questions,
        write_vita,
        write_voicebench,
    )

    items = read_questions(questions, layout=layout, answer_column=answer_column)
    name, written = question_file(questions).stem, []
    check_place(out / name)
    for field, vita, modality in (("text", "text", "text"), ("transcript", "speech", "audio")):
        given = read_answers(answers, items, field=field)
        if field == "transcript" and not given:
            continue  # nobody has listened
        written += [out / f"{name}_hyp_ref_{vita}.json", out / f"{model}-{name}-test-{modality}.jsonl"]
        write_vita(written[-2], items, given)
        write_voicebench(written[-1], items, given)
    for path in written:
        if json:
            print_json({"file": str(path), "num_items": len(items)})
        else:
            console().print(f"{path}: {len(items)} questions")


def unpack(
    packed: Annotated[
        Path, typer.Argument(metavar="SET.parquet", help="A set with its sounds inside, as VoiceBench's.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for questions.jsonl and audio/.")],
    answer_column: Annotated[
        str | None,
        typer.Option(
            "--answer-column", metavar="NAME", help="Right answers; else reference, answers, answer."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Unpack a set that is published as Parquet into questions.jsonl and files of sound."""
    from deeptalk.cli.evaluation import check_place
    from deeptalk.cli.output import console, print_json
    from deeptalk.evaluation.benchmarks.unpack import QUESTIONS
    from deeptalk.evaluation.benchmarks.unpack import unpack as write_questions

    check_place(out / QUESTIONS)
    num_items, num_sounds = write_questions(packed, out, answer_column=answer_column)
    if json:
        print_json({"questions": str(out / QUESTIONS), "num_items": num_items, "num_sounds": num_sounds})
    else:
        console().print(f"{out / QUESTIONS}: {num_items} questions, {num_sounds} with a recording")


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


def open_judge(
    url: str | None, model: str | None, prompt: Path | None, replies: Path | None, key: str | None
) -> "LlmJudge | None":
    """The judge of some options; None without any, ConfigError for half of them or a text without fields."""
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


def finish(report: "BenchmarkReport", out: Path | None, *, allow_missing: bool, is_json: bool) -> None:
    """Write and print a report; leave with 1 where something is missing that may not be."""
    import sys

    from deeptalk.cli.evaluation import write_json
    from deeptalk.cli.output import console, finite, print_json
    from deeptalk.evaluation.benchmarks.report_schema import SCORED, check_report

    check_report(finite(report.to_dict(has_items=False)), SCORED)
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
        runaway = report.about.get("num_runaway")
        screen.print(
            f"items {report.num_items}  missing {report.num_missing}  not judged {report.num_unjudged}  "
            f"cut off {'not told' if runaway is None else runaway}  data {report.data}",
            style="dim",
        )
        if report.about.get("shrunk_from"):
            screen.print(f"{report.num_items} shrunk from {report.about['shrunk_from']}: for no table")
    if (report.num_missing or report.num_unjudged) and not allow_missing:
        print(
            f"{report.num_missing} of {report.num_items} items are missing and {report.num_unjudged} were "
            "not judged; all of them count as wrong (with --allow-missing this is no failure).",
            file=sys.stderr,
        )
        raise typer.Exit(1)
