"""The full report as one page that needs no other file: tables, drawings, errors, sounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from deeptalk.evaluation.benchmarks.charts import Bar, bar_chart, curve_chart
from deeptalk.evaluation.benchmarks.clips import Clip
from deeptalk.evaluation.benchmarks.report_text import (
    INTERVALS,
    asked_figures,
    grid,
    other_figures,
    shown_bound,
    shown_bounds,
    shown_count,
    shown_value,
)

STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1c2733, #e3e8ee); --paper: light-dark(#fff, #14191f);
  --soft: light-dark(#5b6875, #9aa7b4); --line: light-dark(#d8dee5, #323b45);
  --blue: light-dark(#2f6fb5, #6aa9f0); --red: light-dark(#b3402e, #f08a76);
  --green: light-dark(#2c7a4b, #6fcf97); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem;
  margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .6rem 0 1.2rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child, .words td { text-align: left; }
.wide { overflow-x: auto; } .soft, small { color: var(--soft); } .met { color: var(--green); }
.missed { color: var(--red); } svg { width: 100%; max-width: 60rem; }
svg text { font-size: 12px; fill: var(--ink); }
.bar { fill: var(--blue); opacity: .75; } .whisker { stroke: var(--ink); stroke-width: 2; }
.must { stroke: var(--red); stroke-width: 2; stroke-dasharray: 4 2; }
.goal { stroke: var(--green); stroke-width: 2; stroke-dasharray: 1 2; }
.curve { fill: none; stroke: var(--blue); stroke-width: 2; } .point { fill: var(--blue); }
.axis { stroke: var(--line); } summary { cursor: pointer; }
.sample { border: 1px solid var(--line); border-radius: 6px; padding: .6rem 1rem; margin: .8rem 0; }
.sample img { display: block; width: 100%; max-width: 40rem; height: 120px; }
audio { display: block; width: 22rem; max-width: 100%; }
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A question and its spoken answer; ``heard`` is what a listener made of it, if one was asked.

    ``asked_clip`` is None for a question in writing.
    """

    id: str
    category: str
    voice: str
    question: str
    answer: str
    given: str
    heard: str | None
    is_right: bool
    asked_clip: Clip | None
    given_clip: Clip


def page(report: Mapping[str, Any], *, title: str, samples: Sequence[Sample] = ()) -> str:
    """The report as HTML."""
    parts = [
        *(_about(report), _figures(report), _curve(report["stages"]), samples_part(samples)),
        *(_breakdown(part) for part in report["breakdowns"]),
        *(_confusion(part) for part in report["confusions"]),
        _errors(report["errors"]),
    ]
    return html_page(title, parts)


def html_page(title: str, parts: Sequence[str]) -> str:
    """A whole page of parts in HTML, empty ones left out; it needs no other file."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def _about(report: Mapping[str, Any]) -> str:
    facts = {"results": report["results"], **report["about"], **report["protocol"]}
    facts |= {f"judge {name}": value for name, value in (facts.pop("judges") or {}).items()}
    shown = {name: "not told" if value is None else str(value) for name, value in facts.items()}
    return (
        "<details><summary>What was measured, and how</summary>"
        + html_table(("", ""), shown.items())
        + "</details>"
    )


def _figures(report: Mapping[str, Any]) -> str:
    rows = []
    for figure in asked_figures(report):
        mark = '<span class="met">✓</span>' if figure["is_met"] else '<span class="missed">✗</span>'
        asked = (shown_bound(figure, "must"), shown_bound(figure, "goal"))
        measured = (shown_value(figure), shown_count(figure), shown_bounds(figure))
        rows.append([*map(escape, (figure["title"], *asked, *measured)), mark])
    others = [(f["title"], shown_value(f), shown_count(f), shown_bounds(f)) for f in other_figures(report)]
    shares = [f for f in report["figures"] if f["unit"].startswith("%") and f["value"] is not None]
    drawn = bar_chart(
        [
            Bar(
                label=f["title"],
                value=f["value"],
                low=f["low"],
                high=f["high"],
                must=f["must"],
                goal=f["goal"],
            )
            for f in shares
        ]
    )
    missing = "".join(f"<br>Not run: {escape(reason)}." for reason in report["not_run"])
    return (
        "<h2>Figures</h2>"
        + html_table(("figure", "must", "goal", "measured", "count", "95 %", ""), rows, is_escaped=True)
        + html_table(("other figure", "measured", "count", "95 %"), others)
        + f'<p class="soft">Answers cut off at their longest: {report["num_runaway"]}.{missing}<br>'
        f"{INTERVALS} Dashed: must; dotted: goal.</p>" + drawn
    )


def _curve(stages: Sequence[Mapping[str, Any]]) -> str:
    points = [
        Bar(label=stage["name"], value=stage["value"], low=stage["low"], high=stage["high"])
        for stage in stages
        if stage["value"] is not None
    ]
    return "<h2>What speech cost of the text</h2>" + curve_chart(points) if points else ""


def samples_part(samples: Sequence[Sample]) -> str:
    """Samples with their sounds and spectrograms; nothing without any."""
    return "<h2>Samples</h2>" + "".join(map(_sample, samples)) if samples else ""


def _sample(sample: Sample) -> str:
    mark = '<span class="met">right</span>' if sample.is_right else '<span class="missed">wrong</span>'
    heard = (
        "" if sample.heard is None else f"<br><small>heard was</small> {escape(sample.heard) or '(nothing)'}"
    )
    right = "" if sample.is_right else f"<br><small>right would be</small> {escape(sample.answer)}"
    clips = "".join(
        f"<br><small>{name}, {clip.seconds:.1f} s</small>"
        f'<audio controls preload="none" src="{clip.sound}"></audio>'
        f'<img src="{clip.picture}" alt="spectrogram of the {name}">'
        for name, clip in (("question", sample.asked_clip), ("answer", sample.given_clip))
        if clip is not None
    )
    return (
        f'<div class="sample"><small>{escape(sample.category)} · {escape(sample.voice)} · {mark}</small><br>'
        f"<b>{escape(sample.question)}</b><br>{escape(sample.given)}{heard}{right}{clips}</div>"
    )


def _breakdown(part: Mapping[str, Any]) -> str:
    categories, voices, cells = grid(part["cells"])
    is_rate = any("WER" in cell["unit"] for cell in part["cells"])
    rows = []
    for category in (*categories, None):
        found = [cells.get((category, voice)) for voice in (*voices, None)]
        rows.append([f"<td>{escape(category or 'all')}</td>", *(_share(cell, is_rate) for cell in found)])
    unit = "word error rate, %" if is_rate else "right, %"
    return f"<h2>{escape(part['row'])} by category and voice</h2><small>{unit}</small>" + html_grid(
        ("", *voices, "all"), rows
    )


def _share(cell: Mapping[str, Any] | None, is_rate: bool) -> str:
    if cell is None or cell["value"] is None:
        return "<td></td>"
    share = min(100.0, cell["value"]) if is_rate else 100.0 - cell["value"]
    bounds = "" if cell["low"] is None else f"{shown_count(cell)}, {shown_bounds(cell)}"
    return f'<td style="{_shade(share)}" title="{escape(bounds)}">{cell["value"]:.1f}</td>'


def _confusion(part: Mapping[str, Any]) -> str:
    rows = []
    for line in part["lines"]:
        total = max(1, sum(line["counts"]))
        is_wrong = [column not in ("right", line["label"]) for column in part["columns"]]
        shares = [
            100 * count / total if wrong else 0.0
            for count, wrong in zip(line["counts"], is_wrong, strict=True)
        ]
        counts = [
            f'<td style="{_shade(share)}">{count or ""}</td>'
            for count, share in zip(line["counts"], shares, strict=True)
        ]
        rows.append([f"<td>{escape(line['label'])}</td>", *counts])
    return f"<h2>{escape(part['row'])}: what was given, by {escape(part['by'])}</h2>" + html_grid(
        ("", *part["columns"]), rows
    )


def _errors(errors: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for row in dict.fromkeys(error["row"] for error in errors):
        wrong = [error for error in errors if error["row"] == row]
        table = [
            (
                e["category"],
                e["voice"],
                e["question"],
                e["answer"],
                e["given"] or "(nothing)",
                e["taken_for"] or "",
            )
            for e in wrong
        ]
        header = ("category", "voice", "question", "right", "given", "taken for")
        shown = html_table(header, table, name="words")
        parts.append(f"<details><summary>{escape(row)}: {len(wrong)}</summary>{shown}</details>")
    return "<h2>Errors</h2>" + "".join(parts) if parts else ""


def _shade(share: float) -> str:
    return f"background: color-mix(in srgb, var(--red) {share:.0f}%, transparent)"


def html_table(header: Sequence[str], rows: Any, *, name: str = "", is_escaped: bool = False) -> str:
    """A table of texts, or of HTML where it ``is_escaped``; nothing without rows."""
    if not rows:
        return ""
    cells = [[text if is_escaped else escape(text) for text in row] for row in rows]
    return html_grid(header, [[f"<td>{text}</td>" for text in row] for row in cells], name=name)


def html_grid(header: Sequence[str], rows: Sequence[Sequence[str]], *, name: str = "") -> str:
    """A table of cells that bring their own tags; ``name`` is its class."""
    head = "".join(f"<th>{escape(text)}</th>" for text in header)
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table class="{name}"><tr>{head}</tr>\n{body}</table></div>'
