"""Two models on the same items: the difference of every score that both have, with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass

from deeptalk.errors import DataError
from deeptalk.evaluation.benchmarks.intervals import Difference, paired_bootstrap
from deeptalk.evaluation.benchmarks.scoring import BenchmarkReport


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedScore:
    """A score of both reports, in per cent, and right minus left in points.

    Of twenty scores whose models are equally good, one is clear by chance.
    """

    name: str
    left: float
    right: float
    difference: Difference


def compare_reports(
    left: BenchmarkReport, right: BenchmarkReport, *, seed: int = 0
) -> tuple[ComparedScore, ...]:
    """All scores that both reports have, item by item.

    Raises:
        DataError: the reports are of other data, or share no score, or a rule's version differs: such figures
            must not stand side by side.
    """
    if (left.kind, left.data) != (right.kind, right.data):
        raise DataError(
            f"the reports are of other data: {left.kind} {left.data} and {right.kind} {right.data}; score "
            "both models on the same file."
        )
    if [item.id for item in left.items] != [item.id for item in right.items]:
        raise DataError("the reports have other items, though their data is the same: score them anew.")
    common = [name for name in left.rules if name in right.rules]
    if not common:
        raise DataError(
            f"the reports share no score: {', '.join(left.rules)} and {', '.join(right.rules)}; score both "
            "by the same rules."
        )
    for name in common:
        if left.rules[name] != right.rules[name]:
            raise DataError(
                f"{name} is of other versions, {left.rules[name]!r} and {right.rules[name]!r}: score both "
                "anew."
            )
    values = [{score.name: score.value for score in report.scores} for report in (left, right)]
    return tuple(
        ComparedScore(
            name=name,
            left=values[0][name],
            right=values[1][name],
            difference=paired_bootstrap(*_parts(name, left, right), seed=seed).in_points(),
        )
        for name in common
    )


def _parts(name: str, *reports: BenchmarkReport) -> Sequence[list[tuple[float, float]]]:
    return [[item.parts[name] for item in report.items] for report in reports]
