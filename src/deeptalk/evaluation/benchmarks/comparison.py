"""Two models on the same items: the difference of every score that both have, with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass

from deeptalk.errors import DataError
from deeptalk.evaluation.benchmarks.intervals import Difference, paired_bootstrap
from deeptalk.evaluation.benchmarks.scoring import BenchmarkReport


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedScore:
    """A score of both reports, and right minus left: shares in per cent and points, others in their unit.

    Of twenty scores whose models are equally good, one is clear by chance. ``apart`` tells in words in what
    the two don't compare; then there is no interval, and a value is None where a report lacks the score.
    """

    name: str
    left: float | None
    right: float | None
    difference: Difference | None
    apart: str = ""


def compare_reports(
    left: BenchmarkReport, right: BenchmarkReport, *, seed: int = 0, is_mixed: bool = False
) -> tuple[ComparedScore, ...]:
    """All scores that both reports have, item by item.

    With ``is_mixed`` reports of other data or rules stand side by side as well, each such row telling so.

    Raises:
        DataError: the reports are of other data, or share no score, or a rule's version differs: such figures
            must not stand side by side.
    """
    apart = _data_apart(left, right)
    if not is_mixed:
        _check(left, right, apart)
    names = [*left.rules, *(name for name in right.rules if name not in left.rules)]
    return tuple(
        _compared(name, left, right, apart, seed=seed)
        for name in names
        if is_mixed or (name in left.rules and name in right.rules)
    )


def _compared(
    name: str, left: BenchmarkReport, right: BenchmarkReport, apart: str, *, seed: int
) -> ComparedScore:
    scores = [{score.name: score for score in report.scores}.get(name) for report in (left, right)]
    values = [None if score is None else score.value for score in scores]
    reasons = [apart] if apart else []
    versions = left.rules.get(name), right.rules.get(name)
    if None in versions:
        reasons.append("only one report has it")
    elif versions[0] != versions[1]:
        reasons.append(f"versions {versions[0]} and {versions[1]}")
    change = None if reasons else paired_bootstrap(*_parts(name, left, right), seed=seed)
    if change is not None and any(score is not None and score.unit.startswith("%") for score in scores):
        change = change.in_points()
    return ComparedScore(
        name=name, left=values[0], right=values[1], difference=change, apart="; ".join(reasons)
    )


def _data_apart(left: BenchmarkReport, right: BenchmarkReport) -> str:
    """In what the data of two reports differs; empty where it is the same."""
    if (left.kind, left.data) != (right.kind, right.data):
        return f"other data, {left.kind} {left.data} and {right.kind} {right.data}"
    if [item.id for item in left.items] != [item.id for item in right.items]:
        return "other items, though the data is the same"
    return ""


def _check(left: BenchmarkReport, right: BenchmarkReport, apart: str) -> None:
    if apart:
        raise DataError(
            f"the reports are of {apart}; score both models anew on the same file, or look at both with "
            "--mixed."
        )
    common = [name for name in left.rules if name in right.rules]
    if not common:
        raise DataError(
            f"the reports share no score: {', '.join(left.rules)} and {', '.join(right.rules)}; score both "
            "by the same rules, or look at both with --mixed."
        )
    for name in common:
        if left.rules[name] != right.rules[name]:
            raise DataError(
                f"{name} is of other versions, {left.rules[name]!r} and {right.rules[name]!r}: score both "
                "anew, or look at both with --mixed."
            )


def _parts(name: str, *reports: BenchmarkReport) -> Sequence[list[tuple[float, float]]]:
    return [[item.parts[name] for item in report.items] for report in reports]
