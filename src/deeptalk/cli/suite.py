"""``deeptalk eval --suite paper``: the paper's tables, filled from the sets that are here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deeptalk.cli.suite_tables import (
    Filled,
    Given,
    fill_latency,
    fill_questions,
    fill_recognition,
    fill_synthesis,
    fill_text,
)
from deeptalk.errors import DataError

if TYPE_CHECKING:
    from deeptalk.decoding import LoadedModel
    from deeptalk.evaluation.benchmarks.paper_suite import Table
    from deeptalk.evaluation.benchmarks.report_page import Sample

ITEMS, REPORT, MARKDOWN, PAGE, SUITE = "items.jsonl", "report.json", "report.md", "report.html", "suite.json"

SAMPLES_OF_A_SET = 4
"""So many answers of each set can be heard in the page, wrong ones and right ones in turn."""


def run_suite(name: str, given: Given, *, is_json: bool) -> None:
    """Run what can be run, write the report, print paper, ours and difference.

    Exit status 2 where a set could not be run, 1 where items are missing that may not be.
    """
    import sys

    from deeptalk.cli.evaluation import about_model, check_place, write_json
    from deeptalk.cli.opening import open_model
    from deeptalk.cli.output import finite, print_json
    from deeptalk.evaluation.benchmarks.generation import BATCH_SIZE, claim_folder
    from deeptalk.evaluation.benchmarks.paper_suite import (
        cells_of,
        nearest_suite,
        question_means,
        suite_markdown,
        suite_report,
    )
    from deeptalk.evaluation.benchmarks.report_schema import SUITE as SUITE_SCHEMA
    from deeptalk.evaluation.benchmarks.report_schema import check_report
    from deeptalk.evaluation.benchmarks.suite_page import suite_page
    from deeptalk.evaluation.benchmarks.workers import check_device
    from deeptalk.files import write_text
    from deeptalk.model.weights import model_folder

    tables, work = nearest_suite(name), given.work
    check_place(work.out / REPORT)
    if given.data is not None and not given.data.is_dir():
        raise DataError(f"{given.data}: no folder; --data takes one that holds the sets.")
    loaded = open_model(work.model, device=check_device((work.devices or ["cpu"])[0]))
    about = about_model(loaded, model_folder(work.model))
    claim_folder(work.out / SUITE, about)
    filled = Filled()
    fillers: "dict[Table, Callable[[Given, LoadedModel, Filled], None]]" = {
        "synthesis": fill_synthesis,
        "questions": fill_questions,
        "text": fill_text,
        "recognition": fill_recognition,
        "latency": fill_latency,
    }
    for table in tables:
        fillers[table](given, loaded, filled)
    filled.ours |= question_means(filled.ours)
    if "questions" in tables:
        filled.not_run.setdefault("mean", "not all three sets were run")
    about |= {"batch_size": BATCH_SIZE, "template": "chat", "decoding": "greedy", "limit": given.limit}
    report = suite_report(cells_of(tables), filled.ours, filled.not_run, suite=name, about=about)
    report |= {"extra": filled.extra, "num_failed": len(filled.failed)}
    check_report(finite(report), SUITE_SCHEMA)
    write_json(work.out / REPORT, report)
    write_text(work.out / MARKDOWN, suite_markdown(report))
    _write_items(work.out / ITEMS, filled.items)
    write_text(work.out / PAGE, suite_page(report, filled.items, samples=_samples(given, filled.items)))
    if is_json:
        print_json(report)
    else:
        _show(report)
    for complaint in filled.failed:
        print(complaint, file=sys.stderr)
    missing = sum(one.num_missing for one in filled.ours.values())
    if missing and not given.allow_missing:
        print(
            f"{missing} items are missing; they count as wrong (with --allow-missing this is no failure).",
            file=sys.stderr,
        )
    if filled.num_unjudged and not given.allow_missing:
        print(
            f"{filled.num_unjudged} answers were not judged; they count as wrong in the judge's row (with "
            "--allow-missing this is no failure).",
            file=sys.stderr,
        )
    if filled.failed:
        raise typer.Exit(2)
    if (missing or filled.num_unjudged) and not given.allow_missing:
        raise typer.Exit(1)


def _samples(given: Given, items: Sequence[dict[str, Any]]) -> "list[Sample]":
    """Spoken answers of every set with their sounds; none where matplotlib is not installed."""
    from itertools import chain, zip_longest

    from deeptalk.errors import ConfigError
    from deeptalk.evaluation.benchmarks.clips import clip_of
    from deeptalk.evaluation.benchmarks.generation import ANSWERS, read_sound
    from deeptalk.evaluation.benchmarks.records import read_json
    from deeptalk.evaluation.benchmarks.report_page import Sample
    from deeptalk.evaluation.benchmarks.suite_page import is_wrong
    from deeptalk.evaluation.recognisers import SAMPLE_RATE

    found: list[Sample] = []
    for name in dict.fromkeys(item["set"] for item in items):
        of_set = {item["id"]: item for item in items if item["set"] == name}  # the last figure is of speech
        folder = next((f for f in _spoken_runs(given, name) if (f / ANSWERS).is_file()), None)
        if folder is None:
            continue
        lines = {row.text("id"): row.values for row in read_json(folder / ANSWERS) if row.values["audio"]}
        known = [item for key, item in of_set.items() if key in lines]
        sides = [[item for item in known if is_wrong(item) is wrong] for wrong in (True, False)]
        in_turn = [item for item in chain.from_iterable(zip_longest(*sides)) if item is not None]
        for item in in_turn[:SAMPLES_OF_A_SET]:
            line = lines[item["id"]]
            try:
                clip = clip_of(read_sound(folder / line["audio"]), sample_rate=SAMPLE_RATE)
            except ConfigError:
                return []
            found.append(
                Sample(
                    id=item["id"],
                    category=name,
                    voice=item["figure"],
                    question=item.get("asked") or "",
                    answer=item.get("right") or "",
                    given=line["text"] or "",
                    heard=line["transcript"],
                    is_right=not is_wrong(item),
                    asked_clip=None,
                    given_clip=clip,
                )
            )
    return found


def _spoken_runs(given: Given, name: str) -> tuple[Path, ...]:
    """Where a set's spoken answers lie, if it has any: of questions, or of texts that were read aloud."""
    return (given.work.out / name / "speech", given.work.out / name)


def _write_items(path: Path, items: Sequence[dict[str, Any]]) -> None:
    import json

    from deeptalk.files import write_text

    write_text(path, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))


def _show(report: dict[str, Any]) -> None:
    from rich.table import Table

    from deeptalk.cli.output import console
    from deeptalk.evaluation.benchmarks.paper_suite import TITLES, shown_row

    screen = console()
    for table, title in TITLES.items():
        rows = [row for row in report["rows"] if row["table"] == table]
        if not rows:
            continue
        shown = Table(box=None, padding=(0, 1, 0, 0), title=title, title_justify="left")
        for column in ("set", "figure", "paper", "ours", "difference", "count", "95 %", ""):
            shown.add_column(column, justify="left" if column in ("set", "figure", "") else "right")
        for row in rows:
            shown.add_row(*shown_row(row))
        screen.print(shown)
