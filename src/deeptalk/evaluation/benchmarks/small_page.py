"""The paper's tables in small as one page that needs no other file, with drawings."""

from base64 import b64encode
from html import escape

from deeptalk.evaluation.benchmarks.charts import Bar, Line, bar_chart, line_chart
from deeptalk.evaluation.benchmarks.report_page import html_page, html_table
from deeptalk.evaluation.benchmarks.small_report import (
    RUN_HEADER,
    TITLE,
    Part,
    Report,
    header_of,
    introduction,
    rows_of,
    run_rows,
    stale_lines,
)
from deeptalk.evaluation.benchmarks.small_tables import LOADS

CURVES, MARKED = "forgetting", "adaptive"
"""The table that is drawn as curves, and the run whose curve stands out."""


def page(report: Report) -> str:
    """The report as HTML."""
    findings = "".join(
        f"<li><b>{escape(part.table.title)}.</b> {escape(part.finding)}</li>" for part in report.parts
    )
    parts = [
        *(f"<p>{escape(text)}</p>" for text in introduction(report)),
        f"<h2>What is seen</h2><ul>{findings}</ul>",
        *(_part(part, report.figure) for part in report.parts),
        "<h2>The runs</h2>" + html_table(RUN_HEADER, run_rows(report.runs), name="words"),
        *(f"<p>{escape(text)}</p>" for text in stale_lines(report.runs) if text),
    ]
    return html_page(TITLE, parts)


def _part(part: Part, figure: bytes | None) -> str:
    rows = [[text.replace("*", "") for text in row] for row in rows_of(part)]
    found = [
        f"<h2>{escape(part.table.title)}</h2><p>{escape(part.finding)}</p>",
        html_table(header_of(part), rows),
        f'<p class="soft">{escape(part.table.note)}</p>' if part.table.note else "",
        _curves(part) if part.table.name == CURVES else _bars(part),
    ]
    if part.table.name == LOADS.name and figure is not None:
        picture = f"data:image/png;base64,{b64encode(figure).decode()}"
        found.append(f'<p>The shipped model:</p><img style="width:100%" alt="load" src="{picture}">')
    if part.table.printed is not None:
        shown = html_table(part.table.printed.header, part.table.printed.rows)
        found.append(f"<details><summary>The paper's table</summary>{shown}</details>")
    return "\n".join(found)


def _bars(part: Part) -> str:
    """Bars of every column of shares or error rates."""
    drawn = []
    for column in part.table.columns:
        kept = [c for c in part.cells if c.column == column.name and c.is_run and c.unit.startswith("%")]
        bars = [
            Bar(label=c.row, value=c.value, low=c.low, high=c.high, goal=c.paper)
            for c in kept
            if c.value is not None and c.value >= 0
        ]
        if len(bars) > 1 and len(bars) == len(kept):
            marks = " Dotted: the paper, on its own questions." if any(c.paper for c in kept) else ""
            drawn.append(f"<p><small>{escape(column.name)}, %.{marks}</small></p>{bar_chart(bars)}")
    return "".join(drawn)


def _curves(part: Part) -> str:
    steps = [column.name for column in part.table.columns]
    lines = [
        Line(
            label=name,
            values=[cells[step].value if step in cells else None for step in steps],
            is_marked=name == MARKED,
        )
        for name, cells in part.rows().items()
    ]
    lines = [line for line in lines if any(value is not None for value in line.values[1:])]
    return line_chart(steps, lines) if lines else ""
