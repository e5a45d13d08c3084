"""The paper's tables as cells to be filled: what it prints, on which set, by which protocol; and ours.

Nothing here runs a model. A cell that was not measured says why; it is never zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from deeptalk.errors import ConfigError
from deeptalk.evaluation.benchmarks.latency import PAPER
from deeptalk.evaluation.benchmarks.paper_tables import SETS, TABLE_3

Table = Literal["synthesis", "questions", "text", "recognition", "latency"]

TITLES: Mapping[Table, str] = {
    "synthesis": "Table 1: Seed-TTS, error rate of what is heard, mean over utterances, codes drawn greedily",
    "questions": "Tables 2 and 7: spoken questions, share of right answers",
    "text": "Table 3: text benchmarks, and what speech cost of them",
    "recognition": "Table 4: speech recognition, error rate over the corpus",
    "latency": "Latency: one conversation, turns ended by hand",
}
"""The paper's tables, in its order."""

SUITES: Mapping[str, tuple[Table, ...]] = {"paper": tuple(TITLES), **{name: (name,) for name in TITLES}}
"""Suites by name: the paper as a whole, or one of its tables."""

CAVEAT = (
    "The paper names no scorer, no normaliser and no subset; figures of other protocols don't compare. "
    "95 % intervals: Wilson for shares, bootstrap for error rates and medians."
)
"""What stands below the tables."""

Direction = Literal["text_to_text", "speech_to_text", "speech_to_speech"]

QUESTION_SETS: Mapping[str, Mapping[Direction, float]] = {
    "llama_questions": {"text_to_text": 69.0, "speech_to_text": 65.0, "speech_to_speech": 59.7},
    "web_questions": {"text_to_text": 46.6, "speech_to_text": 34.4, "speech_to_speech": 23.1},
    "trivia_qa": {"text_to_text": 58.2, "speech_to_text": 41.2, "speech_to_speech": 27.5},
}
"""By set: text to text from table 7 (six audio experts), the others from table 2."""

QUESTION_RULE = "contain-words"
"""The headline's rule; the paper names none (inferred)."""

SPEECH_SETS: Mapping[str, tuple[float, str]] = {
    "wenetspeech_net": (8.98, "wenet"),
    "wenetspeech_meeting": (10.67, "wenet"),
    "aishell1": (2.42, "wenet"),
    "librispeech_clean": (3.25, "whisper-en"),
    "librispeech_other": (8.21, "whisper-en"),
}
"""By set the paper's error rate, and our normaliser: the paper names none."""

SAY_SETS: Mapping[str, tuple[float, str]] = {
    "seedtts_zh": (1.68, "seedtts-zh"),
    "seedtts_en": (6.28, "seedtts-en"),
    "seedtts_hard": (7.34, "seedtts-zh"),
}
"""By set the paper's error rate with top-k 1 (before DPO), and the normaliser."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ours:
    """What was measured for a cell.

    Attributes:
        value: in the unit of the cell.
        count: of ``total``: right answers, errors of words, or times; None where there is no count.
        total: see ``count``.
        low: lower bound of the 95 % interval, None without one.
        high: the upper bound.
        num_missing: items without an answer; they count as wrong.
        about: data, protocol and whatever else tells what the figure is of.
    """

    value: float
    count: int | None = None
    total: int | None = None
    low: float | None = None
    high: float | None = None
    num_missing: int = 0
    about: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A figure of the paper; ``set_name`` is the test set, ``key`` tells it from others of the set."""

    table: Table
    set_name: str
    key: str
    paper: float
    unit: str
    less_is_better: bool = False

    @property
    def name(self) -> str:
        """The name under which it is filled."""
        return f"{self.set_name}/{self.key}"


def nearest_suite(name: str) -> tuple[Table, ...]:
    """The tables of a suite; ConfigError for an unknown one, with the nearest name."""
    if name not in SUITES:
        near = get_close_matches(name, [*SUITES, "pocket"], n=1, cutoff=0.4)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        if near == ["pocket"]:
            meant = " The pocket model's own evaluation is `deeptalk eval pocket`."
        raise ConfigError(f"no suite is called {name!r}; there are: {', '.join(SUITES)}.{meant}")
    return SUITES[name]


def cells_of(tables: Sequence[Table]) -> list[Cell]:
    """Every figure of some tables, in the paper's order; means over sets last."""
    found: list[Cell] = []
    if "synthesis" in tables:
        found += [
            Cell(table="synthesis", set_name=name, key="target", paper=value, unit="%", less_is_better=True)
            for name, (value, _) in SAY_SETS.items()
        ]
    if "questions" in tables:
        directions: tuple[Direction, ...] = ("text_to_text", "speech_to_text", "speech_to_speech")
        by_set = {name: dict(values) for name, values in QUESTION_SETS.items()}
        by_set["mean"] = {"text_to_text": 57.9, "speech_to_text": 46.9, "speech_to_speech": 36.8}
        found += [
            Cell(table="questions", set_name=name, key=key, paper=values[key], unit="%")
            for name, values in by_set.items()
            for key in directions
        ]
    if "text" in tables:
        (row,) = (row for row in TABLE_3 if row.model == "DeepTalk")
        assert row.drop is not None
        found += [Cell(table="text", set_name=s, key="score", paper=row.by_set[s], unit="%") for s in SETS]
        found.append(Cell(table="text", set_name="mean", key="score", paper=row.mean, unit="%"))
        found.append(Cell(table="text", set_name="drop", key="of_means", paper=row.drop, unit="%"))
    if "recognition" in tables:
        found += [
            Cell(table="recognition", set_name=name, key=rule, paper=value, unit="%", less_is_better=True)
            for name, (value, rule) in SPEECH_SETS.items()
        ]
    if "latency" in tables:
        units = {"real_time_factor": "x"}
        found += [
            Cell(
                table="latency",
                set_name="latency",
                key=key,
                paper=value,
                unit=units.get(key, "ms"),
                less_is_better=True,
            )
            for key, value in PAPER.items()
        ]
    return found


def find_set(folder: Path | None, name: str) -> Path | None:
    """Where a set lies in a folder: a folder of its name, or a file with one of the endings that are read."""
    if folder is None:
        return None
    if name in SAY_SETS:
        candidates = [folder / f"{name}.lst"]
    else:
        candidates = [folder / name, *(folder / f"{name}{ending}" for ending in (".jsonl", ".json", ".tsv"))]
    return next((path for path in candidates if path.exists()), None)


def question_means(filled: Mapping[str, Ours]) -> dict[str, Ours]:
    """The means over the three sets, of each direction that all three were asked in."""
    means = {}
    for key in ("text_to_text", "speech_to_text", "speech_to_speech"):
        parts = [filled.get(f"{name}/{key}") for name in QUESTION_SETS]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            means[f"mean/{key}"] = Ours(
                value=sum(part.value for part in known) / len(known),
                num_missing=sum(part.num_missing for part in known),
            )
    return means


def suite_report(
    cells: Iterable[Cell],
    filled: Mapping[str, Ours],
    not_run: Mapping[str, str],
    *,
    suite: str,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The suite as JSON has it: every cell with the paper's figure, ours, and the difference, or why not.

    ``not_run`` gives reasons by the name of a cell or of its set.
    """
    rows = []
    for cell in cells:
        ours = filled.get(cell.name)
        reason = not_run.get(cell.name) or not_run.get(cell.set_name) or "not measured"
        rows.append(
            {
                "table": cell.table,
                "set": cell.set_name,
                "figure": cell.key,
                "unit": cell.unit,
                "less_is_better": cell.less_is_better,
                "paper": cell.paper,
                "ours": ours and ours.value,
                "difference": ours and ours.value - cell.paper,
                "count": ours and ours.count,
                "total": ours and ours.total,
                "low": ours and ours.low,
                "high": ours and ours.high,
                "num_missing": ours and ours.num_missing,
                "about": ours and (dict(ours.about) if ours.about else None),
                "not_run": None if ours is not None else reason,
            }
        )
    return {"kind": "suite", "format": 1, "suite": suite, "about": dict(about), "rows": rows}


def suite_markdown(report: Mapping[str, Any]) -> str:
    """The suite as text, table by table."""
    lines = [
        f"# Suite {report['suite']}",
        "",
        " · ".join(f"{k} `{v}`" for k, v in report["about"].items() if v is not None),
        "",
    ]
    for table, title in TITLES.items():
        rows = [row for row in report["rows"] if row["table"] == table]
        if not rows:
            continue
        lines += [f"## {title}", "", "| set | figure | paper | ours | difference | count | 95 % | of |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        lines += [f"| {' | '.join(shown_row(row))} |" for row in rows] + [""]
    lines.append(CAVEAT)
    return "\n".join(lines) + "\n"


def shown_row(row: Mapping[str, Any]) -> list[str]:
    """A row's cells as text; what was not run has its reason at the end."""
    head = [row["set"], row["figure"], f"{row['paper']:.2f} {row['unit']}"]
    if row["ours"] is None:
        return [*head, "not run", "", "", "", row["not_run"]]
    count = "" if row["total"] is None else f"{row['count']} of {row['total']}"
    bounds = "" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
    protocol = (row["about"] or {}).get("protocol", "")
    missing = f" ({row['num_missing']} missing)" if row["num_missing"] else ""
    return [*head, f"{row['ours']:.2f}", f"{row['difference']:+.2f}", count, bounds, f"{protocol}{missing}"]
