"""``deeptalk eval report``: the pocket model's full report from its results."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeptalk.cli.arguments import Json

if TYPE_CHECKING:
    from deeptalk.evaluation.benchmarks.pocket_results import PocketResults
    from deeptalk.evaluation.benchmarks.report_page import Sample
    from deeptalk.evaluation.pocket import ItemResult
    from deeptalk.evaluation.questions import EvalItem, EvalSet

SPOKEN, HEARD = "speech_to_text", "speech_to_speech/bigram"


def report(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="What `deeptalk eval pocket --out` wrote.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for report.json, report.md and report.html.")
    ],
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions", metavar="DIR", help="Folder of the questions; the built-in ones unless given."
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--answers", metavar="DIR", help="Spoken answers, ID.wav, for samples that can be heard."
        ),
    ] = None,
    num_samples: Annotated[
        int, typer.Option("--samples", metavar="N", help="At most so many samples; needs --answers.", min=1)
    ] = 12,
    stages: Annotated[
        list[str] | None,
        typer.Option(
            "--stage", metavar="NAME=F.json", help="Results of an earlier stage, for the curve; repeatable."
        ),
    ] = None,
    title: Annotated[
        str, typer.Option("--title", metavar="TEXT", help="The report's title.")
    ] = "Pocket model",
    json: Json = False,
) -> None:
    """Write the full report of a measured model: JSON, Markdown, and one page with drawings and sounds.

    Every figure with its count and interval, results by category and voice, what was said instead, errors.
    """
    from deeptalk.cli.evaluation import QUESTIONS, check_place, write_json
    from deeptalk.cli.output import console, print_json
    from deeptalk.cli.targets import TARGETS
    from deeptalk.evaluation.benchmarks.full_report import build_report
    from deeptalk.evaluation.benchmarks.pocket_results import read_results
    from deeptalk.evaluation.benchmarks.report_page import page
    from deeptalk.evaluation.benchmarks.report_text import markdown
    from deeptalk.evaluation.questions import EvalSet
    from deeptalk.files import digest_of, write_text

    found = read_results(results)
    earlier = {name: read_results(path) for name, path in _stages(stages).items()}
    asked = EvalSet(questions or QUESTIONS)
    check_place(out / "report.html")
    samples = [] if answers is None else choose_samples(found, asked, answers, number=num_samples)
    values = build_report(
        found,
        asked,
        targets=TARGETS,
        digest=digest_of(results) or "",
        stages=earlier,
        samples=[sample.id for sample in samples],
    )
    write_json(out / "report.json", values)
    write_text(out / "report.md", markdown(values, title=title))
    write_text(out / "report.html", page(values, title=title, samples=samples))
    asked_of = [figure for figure in values["figures"] if figure["is_met"] is not None]
    counts = {
        "num_figures": len(values["figures"]),
        "num_asked": len(asked_of),
        "num_met": sum(figure["is_met"] for figure in asked_of),
        "num_errors": len(values["errors"]),
        "num_samples": len(samples),
    }
    if json:
        print_json({"report": str(out / "report.json"), **counts})
    else:
        console().print(
            f"{out / 'report.html'}: {counts['num_met']} of {counts['num_asked']} bounds met, "
            f"{counts['num_errors']} errors, {counts['num_samples']} samples"
        )


def choose_samples(
    results: "PocketResults", asked: "EvalSet", folder: Path, *, number: int
) -> list["Sample"]:
    """Questions whose spoken answer is in a folder, right and wrong ones of every category in turn.

    Raises:
        DataError: there is none.
    """
    from deeptalk.errors import DataError

    verdicts = {row: {i.id: i for i in results.items if i.row == row} for row in (SPOKEN, HEARD)}
    judged = verdicts[HEARD] or verdicts[SPOKEN]
    groups: defaultdict[tuple[str, bool], list[EvalItem]] = defaultdict(list)
    for item in asked.items:
        if item.id in judged and item.id in verdicts[SPOKEN] and (folder / f"{item.id}.wav").is_file():
            groups[item.category, judged[item.id].is_right].append(item)
    if not groups:
        raise DataError(f"{folder}: no file ID.wav of a question that the results have an answer to.")
    longest = max(map(len, groups.values()))
    in_turn = [group[n] for n in range(longest) for group in groups.values() if n < len(group)]
    return [_sample(item, asked, folder, verdicts) for item in in_turn[:number]]


def _sample(
    item: "EvalItem", asked: "EvalSet", folder: Path, verdicts: "Mapping[str, Mapping[str, ItemResult]]"
) -> "Sample":
    from deeptalk.audio import load_waveform
    from deeptalk.evaluation.benchmarks.clips import clip_of
    from deeptalk.evaluation.benchmarks.report_page import Sample

    rate = 24_000
    said, heard = verdicts[SPOKEN][item.id], verdicts[HEARD].get(item.id)
    turn = item.turns[0]
    return Sample(
        id=item.id,
        category=item.category,
        voice=turn.voice,
        question=turn.text,
        answer=item.answers[-1],
        given=said.given,
        heard=None if heard is None else heard.given,
        is_right=(heard or said).is_right,
        asked_clip=clip_of(asked.speech(turn), sample_rate=16_000),
        given_clip=clip_of(load_waveform(folder / f"{item.id}.wav", sample_rate=rate), sample_rate=rate),
    )


def _stages(given: list[str] | None) -> dict[str, Path]:
    from deeptalk.errors import ConfigError

    found = {}
    for text in given or []:
        name, equals, path = text.partition("=")
        if not name or not equals or not path or name in found:
            raise ConfigError(f"--stage takes NAME=F.json, each name once, got {text!r}.")
        found[name] = Path(path)
    return found
