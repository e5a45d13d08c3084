"""The paper's tables as one page that needs no other file: figures, what went wrong, sounds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from deeptalk.evaluation.benchmarks.paper_suite import CAVEAT, QUESTION_RULE, TITLES, shown_row
from deeptalk.evaluation.benchmarks.report_page import Sample, html_page, html_table, samples_part

MOST_ERRORS = 200
"""So many errors of a figure stand in the page; all are in ``items.jsonl``."""

_HEADER = ("set", "figure", "paper", "ours", "difference", "count", "95 %", "of")


def suite_page(
    report: Mapping[str, Any], items: Sequence[Mapping[str, Any]], *, samples: Sequence[Sample] = ()
) -> str:
    """A suite's report as HTML; ``items`` are the lines of ``items.jsonl``."""
    parts = [_about(report), *(_table(report, table, title) for table, title in TITLES.items())]
    parts += [_extra(report["extra"]), samples_part(samples), _errors(items)]
    return html_page(f"Suite {report['suite']}", parts)


def is_wrong(item: Mapping[str, Any]) -> bool:
    """Whether an answer is wrong by the headline's rule, or what was heard or said has an error."""
    parts = item["parts"]
    above, _ = parts.get(QUESTION_RULE) or next(iter(parts.values()))
    return above == 0 if QUESTION_RULE in parts else above > 0


def _about(report: Mapping[str, Any]) -> str:
    rows = [(name, "not told" if value is None else str(value)) for name, value in report["about"].items()]
    return (
        "<details><summary>What was measured</summary>"
        + html_table(("", ""), rows)
        + f'</details><p class="soft">{escape(CAVEAT)}</p>'
    )


def _table(report: Mapping[str, Any], table: str, title: str) -> str:
    rows = [shown_row(row) for row in report["rows"] if row["table"] == table]
    return f"<h2>{escape(title)}</h2>" + html_table(_HEADER, rows) if rows else ""


def _extra(extra: Mapping[str, Any]) -> str:
    """Figures beside the paper's that are one number: other rules, a judge, the speed of listening."""
    rows = [
        (
            name,
            f"{told['value']:.2f} {told['unit']}",
            f"{told['count']} of {told['total']}",
            told.get("judge", ""),
        )
        for name, told in extra.items()
        if isinstance(told, Mapping) and isinstance(told.get("value"), float)
    ]
    rows += [
        (f"{name}, RTFx", f"{told['rtfx']:.1f}", "", "")
        for name, told in extra.items()
        if isinstance(told, Mapping) and told.get("rtfx") is not None
    ]
    return (
        "<h2>Beside the paper's figures</h2>" + html_table(("figure", "", "count", ""), rows) if rows else ""
    )


def _errors(items: Sequence[Mapping[str, Any]]) -> str:
    groups: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for item in items:
        if is_wrong(item):
            groups[f"{item['set']}/{item['figure']}"].append(item)
    parts = []
    for name, wrong in groups.items():
        rows = [
            (
                item["id"],
                item.get("asked") or "",
                item.get("right") or "",
                item["given"] or f"({item['reason'] or 'nothing'})",
            )
            for item in wrong[:MOST_ERRORS]
        ]
        shown = html_table(("id", "asked", "right", "given"), rows, name="words")
        cut = f", the first {MOST_ERRORS} here" if len(wrong) > MOST_ERRORS else ""
        parts.append(f"<details><summary>{escape(name)}: {len(wrong)}{cut}</summary>{shown}</details>")
    return "<h2>Errors</h2>" + "".join(parts) if parts else ""
