"""The paper's table 3, text benchmarks, as data, and what follows from it.

Values are copied from the paper (arXiv 2506.21864), its means and drops as printed there; `check_table` tells
where these don't follow from the values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deeptalk.errors import DataError

SETS = (
    *("CEval", "CMMLU", "MMLU", "BBH", "ARC-c", "GPQA"),
    *("HellaSwag", "WinoGrande", "MATH", "GSM8K", "HumanEval", "MBPP"),
)
"""The twelve sets, in the order of the table."""

MEAN_TOLERANCE = 0.01
DROP_TOLERANCE = 0.02
"""How far a printed mean or drop may be from its values: they are rounded to 0.01, and so were the means."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """A model's scores in per cent, in the order of `SETS`; None where the paper has a dash.

    ``backbone`` is the text model that it was made of; ``mean`` (of the sets ``mean_of``) and ``drop`` (in
    per cent of the backbone's mean over the same sets) are as the paper prints them.
    """

    model: str
    scores: tuple[float | None, ...]
    mean: float
    mean_of: tuple[str, ...] = SETS
    backbone: str | None = None
    drop: float | None = None

    @property
    def by_set(self) -> dict[str, float]:
        """The scores that there are."""
        pairs = zip(SETS, self.scores, strict=True)
        return {name: score for name, score in pairs if score is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """What a model lost against its text backbone, in per cent of the backbone's score.

    ``of_means`` compares the means over the sets, as the paper does; ``mean_of_sets`` is the mean of the
    losses set by set, in which a weak set weighs as much as a strong one.
    """

    of_means: float
    mean_of_sets: float
    num_sets: int


_SIX = ("MMLU", "GPQA", "MATH", "GSM8K", "HumanEval", "MBPP")
TABLE_3 = (
    TableRow(
        model="DeepSeek-V2-Lite",
        scores=(58.60, 62.06, 57.56, 49.20, 75.25, 23.74, 67.90, 61.40, 18.98, 59.67, 57.32, 45.00),
        mean=53.06,
    ),
    TableRow(
        model="DeepTalk",
        scores=(58.45, 59.05, 54.63, 48.27, 68.98, 20.71, 63.25, 59.59, 17.68, 55.40, 54.67, 41.33),
        mean=50.17,
        backbone="DeepSeek-V2-Lite",
        drop=-5.45,
    ),
    TableRow(
        model="Qwen2-7B",
        scores=(81.62, 80.79, 70.76, 64.72, 85.42, 34.30, 79.15, 66.93, 52.90, 82.87, 79.17, 67.60),
        mean=70.52,
    ),
    TableRow(
        model="VITA-1.5",
        scores=(77.11, 76.85, 73.43, 66.01, 70.17, 23.23, 79.45, 65.90, 36.90, 71.95, 75.00, 58.20),
        mean=64.52,
        backbone="Qwen2-7B",
        drop=-8.51,
    ),
    TableRow(
        model="LUCY",
        scores=(53.38, 52.76, 59.43, 47.48, 78.31, 14.14, 76.30, 58.88, 24.24, 68.92, 46.34, 36.40),
        mean=51.38,
        backbone="Qwen2-7B",
        drop=-27.14,
    ),
    TableRow(
        model="Qwen2.5-7B",
        scores=(78.74, 78.85, 74.19, 70.06, 88.14, 36.40, 82.40, 68.43, 75.50, 91.60, 84.80, 79.20),
        mean=73.62,
        mean_of=_SIX,
    ),
    TableRow(
        model="Qwen2.5-Omni",
        scores=(None, None, 71.00, None, None, 30.08, None, None, 71.50, 88.70, 78.70, 73.20),
        mean=68.86,
        mean_of=_SIX,
        backbone="Qwen2.5-7B",
        drop=-6.47,
    ),
    TableRow(
        model="GLM-4",
        scores=(74.48, 72.78, 69.93, 69.82, 92.20, 21.21, 84.60, 76.80, 37.52, 75.89, 75.00, 61.20),
        mean=64.08,
    ),
    TableRow(
        model="GLM-4-Voice",
        scores=(39.64, 54.76, 52.48, 29.02, 63.05, 25.76, 40.85, 47.20, 3.80, 32.37, 26.61, 12.60),
        mean=35.68,
        backbone="GLM-4",
        drop=-44.32,
    ),
    TableRow(
        model="Qwen2-0.5B",
        scores=(54.71, 47.59, 42.99, 27.94, 44.41, 1.01, 31.70, 49.88, 11.48, 35.94, 28.66, 20.20),
        mean=33.04,
    ),
    TableRow(
        model="Mini-Omni",
        scores=(32.53, 28.64, 34.25, 20.13, 32.18, 0.67, 25.93, 36.62, 8.67, 30.48, 21.79, 18.63),
        mean=24.21,
        backbone="Qwen2-0.5B",
        drop=-26.73,
    ),
)
"""Every row of the table."""


def text_drop(model: Mapping[str, float], backbone: Mapping[str, float]) -> Drop:
    """What ``model`` lost, over the sets that it was run on, by name.

    Raises:
        DataError: there are no sets, the backbone lacks one of them, or has no right answer in one.
    """
    lacking = [name for name in model if not backbone.get(name)]
    if lacking or not model:
        raise DataError(
            f"a drop needs the same sets of model and backbone; the backbone has nothing for: "
            f"{', '.join(lacking) or 'any, there are no sets'}."
        )
    losses = [100 * (score / backbone[name] - 1) for name, score in model.items()]
    means = sum(model.values()) / sum(backbone[name] for name in model)
    return Drop(of_means=100 * (means - 1), mean_of_sets=sum(losses) / len(losses), num_sets=len(losses))


def mean_score(row: TableRow) -> float:
    """The mean of the values that the row's printed mean should be of."""
    return sum(row.by_set[name] for name in row.mean_of) / len(row.mean_of)


def drop_of(row: TableRow, rows: Sequence[TableRow] = TABLE_3) -> Drop | None:
    """What a row lost against its backbone's; None for one without."""
    if row.backbone is None:
        return None
    (backbone,) = (other for other in rows if other.model == row.backbone)
    return text_drop(row.by_set, backbone.by_set)


def check_table(rows: Sequence[TableRow] = TABLE_3) -> list[str]:
    """Where a printed mean or drop does not follow from the values, in one line each."""
    found = []
    for row in rows:
        mean, drop = mean_score(row), drop_of(row, rows)
        if abs(mean - row.mean) > MEAN_TOLERANCE:
            found.append(
                f"{row.model}: its {len(row.mean_of)} values average {mean:.2f}, printed is {row.mean:.2f}"
            )
        if drop is not None and row.drop is not None and abs(drop.of_means - row.drop) > DROP_TOLERANCE:
            found.append(f"{row.model}: its drop is {drop.of_means:.2f} %, printed is {row.drop:.2f} %")
    return found
