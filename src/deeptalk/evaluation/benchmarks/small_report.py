"""The paper's tables in small as Markdown, and the words that its page shares with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deeptalk.evaluation.benchmarks.report_text import table_lines
from deeptalk.evaluation.benchmarks.small_cells import Cell
from deeptalk.evaluation.benchmarks.small_runs import Run
from deeptalk.evaluation.benchmarks.small_tables import LOADS, Table

TITLE = "The paper's tables in small"
NOT_RUN = "*not run*"
FIGURE = "pocket/load.png"
"""Where the picture of the shipped model's load lies beside the text."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Part:
    """A table with its cells and what follows from them."""

    table: Table
    cells: tuple[Cell, ...]
    finding: str

    def rows(self) -> dict[str, dict[str, Cell]]:
        """Cells by row and column."""
        found: dict[str, dict[str, Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell.row, {})[cell.column] = cell
        return found


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Report:
    """All tables; ``runs`` are those that were trained, ``figure`` is the picture of a load (PNG)."""

    parts: tuple[Part, ...]
    runs: Mapping[str, Sequence[Run]]
    figure: bytes | None = None


def markdown(report: Report) -> str:
    """The report as text."""
    lines = [
        f"# {TITLE}",
        "",
        *(line for text in introduction(report) for line in (text, "")),
        "## What is seen",
        "",
    ]
    lines += [f"- **{part.table.title}.** {part.finding}" for part in report.parts]
    for part in report.parts:
        lines += ["", *table_text(part)]
        if part.table.name == LOADS.name and report.figure is not None:
            lines += [f"![Load of the shipped model]({FIGURE})", ""]
    lines += ["## The runs", "", *table_lines(RUN_HEADER, run_rows(report.runs))]
    lines += stale_lines(report.runs)
    return "\n".join(lines).rstrip() + "\n"


def table_text(part: Part) -> list[str]:
    """One table with its sentence."""
    lines = [f"## {part.table.title}", "", part.finding, ""]
    lines += table_lines(header_of(part), rows_of(part))
    if part.table.note:
        lines += [part.table.note, ""]
    if part.table.printed is not None:
        lines += ["The paper:", "", *table_lines(part.table.printed.header, part.table.printed.rows)]
    return lines


def header_of(part: Part) -> list[str]:
    """Row, then every column with the paper's values beside it where it has any, then what a row is of."""
    header = [""]
    for column in part.table.columns:
        header += [column.name, "paper"] if _has_paper(part, column.name) else [column.name]
    return [*header, "n", "runs", "minutes", "MB"]


def rows_of(part: Part) -> list[list[str]]:
    """The rows under `header_of`."""
    found = []
    for name, cells in part.rows().items():
        row = [name]
        for column in part.table.columns:
            cell = cells.get(column.name)
            row.append("" if cell is None else shown(cell))
            if _has_paper(part, column.name):
                row.append("" if cell is None or cell.paper is None else f"{cell.paper:g}")
        known = [cell for cell in cells.values() if cell.is_run]
        numbers = dict.fromkeys(str(cell.n) for cell in known if cell.n)
        first = known[0] if known else Cell(table="", row="", column="")
        number = str(len(first.runs)) if known else ""
        cost = ["–" if v is None else f"{v:.0f}" for v in (first.minutes, first.peak_memory_mb)]
        found.append([*row, " / ".join(numbers), number, *(cost if known else ("", ""))])
    return found


def shown(cell: Cell) -> str:
    """A value with its interval and its runs' spread."""
    if cell.value is None:
        return NOT_RUN
    notes = []
    if cell.low is not None and cell.high is not None:
        notes.append(f"{cell.low:.{digits(cell)}f} to {cell.high:.{digits(cell)}f}")
    if cell.lowest is not None and cell.highest is not None:
        notes.append(f"runs {cell.lowest:.{digits(cell)}f} to {cell.highest:.{digits(cell)}f}")
    return f"{cell.value:.{digits(cell)}f}" + (f" ({'; '.join(notes)})" if notes else "")


def digits(cell: Cell) -> int:
    """Decimals that a value is shown with."""
    return 2 if cell.unit == "x" else 1


RUN_HEADER = ("run", "seed", "what", "commit", "when", "positions", "parameters", "minutes", "MB", "recipes")


def run_rows(runs: Mapping[str, Sequence[Run]]) -> list[list[str]]:
    """A row for each run, with all recipe hashes in order."""
    return [
        [
            run.name,
            str(run.seed),
            run.about + ("" if run.is_complete else " (not finished)"),
            run.commit,
            run.when,
            f"{run.positions:,}",
            " ".join(f"{stage.trainable_parameters:,}" for stage in run.stages),
            "–" if run.minutes is None else f"{run.minutes:.1f}",
            "–" if run.peak_memory_mb is None else f"{run.peak_memory_mb:.0f}",
            " ".join(stage.recipe_hash for stage in run.stages),
        ]
        for group in runs.values()
        for run in group
    ]


def stale_lines(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """What is kept of other recipes than today's and so was left out."""
    told = [
        f"{run.name} (seed {run.seed}): {', '.join(run.stale)}"
        for g in runs.values()
        for run in g
        if run.stale
    ]
    return [f"Left out, as their recipes have changed since: {'; '.join(told)}.", ""] if told else []


def budget(report: Report) -> str:
    """What a variant was trained on, in plain numbers."""
    trained = [
        run for name, group in report.runs.items() for run in group if name != "start" and run.is_complete
    ]
    start = [run for run in report.runs.get("start", ()) if run.is_complete]
    hardware = dict.fromkeys(run.hardware for group in report.runs.values() for run in group if run.hardware)
    told = []
    if start:
        told.append(
            f"The common text backbone and stage 1 saw {start[0].positions:,} positions in "
            f"{'' if start[0].is_timed else 'more than '}{start[0].minutes or 0:.0f} processor minutes"
        )
    if trained:
        positions = sorted({run.positions for run in trained})
        minutes = [run.minutes for run in trained if run.minutes is not None]
        told.append(f"each of {len(trained)} runs after it {_span(positions)} positions")
        if minutes:
            told[-1] += f" in {_span(minutes)} minutes"
    where = f" Hardware: {', '.join(hardware)}." if hardware else ""
    return f"{'; '.join(told)}.{where}" if told else "No variant has been run."


def _span(values: Sequence[float]) -> str:
    ends = [f"{end:,.0f}" for end in (min(values), max(values))]
    return " to ".join(dict.fromkeys(ends))


def introduction(report: Report) -> tuple[str, ...]:
    """What the figures are of, in paragraphs."""
    return (
        "Written by deeptalk reproduce, which trains and measures what is missing. Every figure is of a file "
        "in docs/results/pocket/runs, of the package's assets/pocket, or the paper's own (arXiv 2506.21864).",
        f"The budget is short, equal for all variants, and far below the shipped model's. {budget(report)} "
        "Stages of one kind see the same samples in the same order, at the same learning rates: none was "
        "searched for any variant. Parameters are those that train, stage by stage. The committed runs "
        "were made beside other work on the same cores; minutes are processor time of the training process, "
        "in which waiting doesn't count (of DPO with making its pairs), and MB the most memory of it. "
        "A dash stands where nothing was trained for a row; what the shipped model's stages took, "
        "docs/recipes.md says.",
        "Variants are asked every third question of the built-in set, in voices that training never hears, "
        "the shipped model every one; all answer greedily. Speech is scored by the judge with its closed "
        "bigram. In brackets are 95 % intervals: Wilson for one run, drawn questions for means of runs and "
        "for changes, normal over utterances for WER. They say nothing of other seeds; for these, runs gives "
        "the lowest and the highest. A missing figure is not run.",
    )


def _has_paper(part: Part, column: str) -> bool:
    return any(cell.column == column and cell.paper is not None for cell in part.cells)
