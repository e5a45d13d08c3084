"""``deeptalk eval report``: the pocket model's full report from its results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from deeptalk.cli.arguments import Json

NUM_SAMPLES, TITLE = 6, "Pocket model"


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
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="DIR", help="The measured model, or 'pocket', to speak the samples."),
    ] = None,
    num_samples: Annotated[
        int, typer.Option("--samples", metavar="N", help="At most so many samples.", min=1)
    ] = NUM_SAMPLES,
    stages: Annotated[
        list[str] | None,
        typer.Option(
            "--stage", metavar="NAME=F.json", help="Results of an earlier stage, for the curve; repeatable."
        ),
    ] = None,
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="The report's title.")] = TITLE,
    json: Json = False,
) -> None:
    """Write the full report of a measured model: JSON, Markdown, and one page with drawings and sounds.

    Every figure with its count and interval, results by category and voice, what was said instead, errors.
    """
    from deeptalk.cli.output import console, print_json

    counts = write_report(
        results,
        out,
        questions=questions,
        answers=answers,
        model=model,
        num_samples=num_samples,
        stages=_stages(stages),
        title=title,
    )
    if json:
        print_json({"report": str(out / "report.json"), **counts})
    else:
        console().print(
            f"{out / 'report.html'}: {counts['num_met']} of {counts['num_asked']} bounds met, "
            f"{counts['num_errors']} errors, {counts['num_samples']} samples"
        )


def write_report(
    results: Path,
    out: Path,
    *,
    questions: Path | None = None,
    answers: Path | None = None,
    model: str | None = None,
    num_samples: int = NUM_SAMPLES,
    stages: Mapping[str, Path] | None = None,
    title: str = TITLE,
) -> dict[str, int]:
    """Write the three files of a report; how many figures, bounds met, errors and samples it has."""
    from deeptalk.cli.evaluation import QUESTIONS, check_place, write_json
    from deeptalk.cli.targets import TARGETS
    from deeptalk.errors import ConfigError
    from deeptalk.evaluation.benchmarks.full_report import build_report
    from deeptalk.evaluation.benchmarks.pocket_results import read_results
    from deeptalk.evaluation.benchmarks.report_page import page
    from deeptalk.evaluation.benchmarks.report_text import markdown
    from deeptalk.evaluation.questions import EvalSet
    from deeptalk.files import digest_of, write_text

    found = read_results(results)
    earlier = {name: read_results(path) for name, path in (stages or {}).items()}
    asked = EvalSet(questions or QUESTIONS)
    check_place(out / "report.html")
    samples = []
    if answers is not None or model is not None:
        from deeptalk.cli.opening import open_model
        from deeptalk.cli.samples import read_samples, speak_samples

        if answers is not None and model is not None:
            raise ConfigError("samples are read from --answers or spoken by --model, not both.")
        if answers is not None:
            samples = read_samples(found, asked, answers, number=num_samples)
        else:
            samples = speak_samples(found, asked, open_model(model or ""), number=num_samples)
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
    return {
        "num_figures": len(values["figures"]),
        "num_asked": len(asked_of),
        "num_met": sum(figure["is_met"] for figure in asked_of),
        "num_errors": len(values["errors"]),
        "num_samples": len(samples),
    }


def _stages(given: list[str] | None) -> dict[str, Path]:
    from deeptalk.errors import ConfigError

    found = {}
    for text in given or []:
        name, equals, path = text.partition("=")
        if not name or not equals or not path or name in found:
            raise ConfigError(f"--stage takes NAME=F.json, each name once, got {text!r}.")
        found[name] = Path(path)
    return found
