"""The full report as Markdown: its tables, and the first errors of every row."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_ERRORS = 10
"""Errors of a row that the text shows; the page and the JSON have all."""


INTERVALS = (
    "95 % intervals: Wilson for shares, bootstrap over questions for means, drops and medians, normal over "
    "utterances for word error rates; in brackets the lowest and the highest."
)
"""How figures are bounded, in words."""


def shown_value(figure: Mapping[str, Any]) -> str:
    """A figure with its unit; "not run" where there is none."""
    if figure["value"] is None:
        return "not run"
    unit = figure["unit"].split()[0]
    return f"{figure['value']:.{2 if abs(figure['value']) < 10 else 1}f} {unit}"


def shown_bounds(figure: Mapping[str, Any]) -> str:
    """The bounds of a figure; a dash where there are none, the range of what is no share in brackets."""
    if figure["low"] is None:
        return "–"
    digits = 2 if abs(figure["high"]) < 1 else 1
    bounds = f"{figure['low']:.{digits}f} to {figure['high']:.{digits}f}"
    return f"[{bounds}]" if figure["interval"] == "range" else bounds


def shown_count(figure: Mapping[str, Any]) -> str:
    """How many of how many."""
    return f"{figure['count']} of {figure['total']}"


def shown_bound(figure: Mapping[str, Any], name: str) -> str:
    """What is asked: at least or at most so much."""
    return f"{'≤' if figure['at_most'] else '≥'} {figure[name]:g}"


def asked_figures(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The figures that something is asked of."""
    return [figure for figure in report["figures"] if figure["must"] is not None]


def other_figures(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The figures that nothing is asked of."""
    return [figure for figure in report["figures"] if figure["must"] is None]


def grid(cells: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str], dict[Any, Mapping[str, Any]]]:
    """The categories and the voices of a breakdown, and its cells by both; None is for all."""
    table = {(cell["category"], cell["voice"]): cell for cell in cells}
    categories = [category for category, voice in table if category is not None and voice is None]
    voices = [voice for category, voice in table if category is None and voice is not None]
    return categories, voices, table


def markdown(report: Mapping[str, Any], *, title: str) -> str:
    """The report as text."""
    about = {name: value for name, value in report["about"].items() if value is not None}
    facts = [f"{name} `{value}`" for name, value in about.items() if name != "judges"]
    facts += [f"judge {name} `{value}`" for name, value in (about.get("judges") or {}).items()]
    lines = [
        f"# {title}",
        "",
        f"Results `{report['results']}`. "
        + (" · ".join(facts) if facts else "The results don't tell their model."),
        "",
        " · ".join(f"{name}: {value}" for name, value in report["protocol"].items()),
        "",
        INTERVALS,
        "",
        "## Figures",
        "",
        *table_lines(
            ("figure", "must", "goal", "measured", "count", "95 %", ""),
            [
                (
                    *(f["title"], shown_bound(f, "must"), shown_bound(f, "goal"), shown_value(f)),
                    *(shown_count(f), shown_bounds(f), "✓" if f["is_met"] else "✗"),
                )
                for f in asked_figures(report)
            ],
        ),
        *table_lines(
            ("other figure", "measured", "count", "95 %"),
            [(f["title"], shown_value(f), shown_count(f), shown_bounds(f)) for f in other_figures(report)],
        ),
        f"Answers cut off at their longest: {report['num_runaway']}.",
        *(f"Not run: {reason}." for reason in report["not_run"]),
        "",
    ]
    if report["stages"]:
        stages = [(s["name"], shown_value(s), shown_count(s), shown_bounds(s)) for s in report["stages"]]
        lines += [
            "## What speech cost of the text",
            "",
            *table_lines(("stage", "measured", "count", "95 %"), stages),
        ]
    for part in report["breakdowns"]:
        categories, voices, cells = grid(part["cells"])
        rows = [
            (str(category or "all"), *(_cell(cells.get((category, voice))) for voice in (*voices, None)))
            for category in (*categories, None)
        ]
        lines += [f"## {part['row']} by category and voice", "", *table_lines(("", *voices, "all"), rows)]
    for part in report["confusions"]:
        rows = [(line["label"], *map(str, line["counts"])) for line in part["lines"]]
        lines += [
            f"## {part['row']}: what was given, by {part['by']}",
            "",
            *table_lines(("", *part["columns"]), rows),
        ]
    for row in dict.fromkeys(error["row"] for error in report["errors"]):
        wrong = [error for error in report["errors"] if error["row"] == row]
        rows = [(e["question"], e["answer"], e["given"] or "(nothing)") for e in wrong[:MOST_ERRORS]]
        lines += [f"## {row}: {len(wrong)} errors, the first {len(rows)}", ""]
        lines += table_lines(("question", "right", "given"), rows)
    return "\n".join(lines)


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None or cell["value"] is None:
        return ""
    return f"{cell['value']:.1f} ({cell['count']}/{cell['total']})"


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table and a blank line; nothing where there are no rows."""
    if not rows:
        return []
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines] + [""]
