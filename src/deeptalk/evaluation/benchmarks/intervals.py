"""How sure a figure is: 95 % intervals by drawing the items of a test again and again, with a seed.

A figure is a ratio of sums over items: right answers over questions, errors over words, rates over
utterances.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

NUM_DRAWS = 2_000

Ratios = Sequence[tuple[float, float]]
"""Of every item its share of the numerator and of the denominator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Right minus left, bounded in 95 % of draws; ``share_not_above`` of all draws are <= 0."""

    value: float
    low: float
    high: float
    share_not_above: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval is on one side of zero."""
        return self.low > 0 or self.high < 0

    def in_points(self) -> "Difference":
        """The difference of two shares in percentage points."""
        bounds = {name: 100 * getattr(self, name) for name in ("value", "low", "high")}
        return replace(self, **bounds)


def bootstrap_interval(items: Ratios, *, seed: int = 0, num_draws: int = NUM_DRAWS) -> tuple[float, float]:
    """The 95 % interval of the ratio of sums: items are drawn with replacement, as many as there are."""
    low, high = np.nanquantile(_draws([items], seed=seed, num_draws=num_draws)[0], (0.025, 0.975))
    return float(low), float(high)


def paired_bootstrap(left: Ratios, right: Ratios, *, seed: int = 0, num_draws: int = NUM_DRAWS) -> Difference:
    """The difference of two ratios over the same items, which are drawn together.

    ``left`` and ``right`` are of equal length and order. What is easy for both falls out of the
    difference, so its interval is narrower than those of the two figures suggest.
    """
    assert len(left) == len(right)
    first, second = _draws([left, right], seed=seed, num_draws=num_draws)
    differences = second - first
    low, high = np.nanquantile(differences, (0.025, 0.975))
    return Difference(
        value=_ratio(right) - _ratio(left),
        low=float(low),
        high=float(high),
        share_not_above=float((differences <= 0).mean()),
    )


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values don't exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def median_interval(
    values: Sequence[float], *, seed: int = 0, num_draws: int = NUM_DRAWS
) -> tuple[float, float]:
    """The 95 % interval of the median (nearest rank) of values drawn with replacement."""
    ordered, size = np.sort(np.asarray(values, dtype=np.float64)), len(values)
    drawn = np.random.default_rng(seed).integers(size, size=(num_draws, size))
    middles = np.sort(np.sort(drawn, axis=1)[:, max(0, math.ceil(size / 2) - 1)])
    ranks = [middles[max(0, math.ceil(share * num_draws) - 1)] for share in (0.025, 0.975)]
    return float(ordered[ranks[0]]), float(ordered[ranks[1]])


def _ratio(items: Ratios) -> float:
    return sum(above for above, _ in items) / sum(below for _, below in items)


def _draws(tables: Sequence[Ratios], *, seed: int, num_draws: int) -> list[np.ndarray]:
    """Of each table the ratios of all draws; a draw takes the same items of each."""
    arrays = [np.asarray(table, dtype=np.float64) for table in tables]
    generator, size = np.random.default_rng(seed), len(arrays[0])
    ratios = [np.empty(num_draws) for _ in arrays]
    for draw in range(num_draws):
        chosen = generator.integers(size, size=size)
        for array, ratio in zip(arrays, ratios, strict=True):
            above, below = array[chosen].sum(axis=0)
            ratio[draw] = above / below if below else np.nan  # of items that count, none was drawn
    return ratios
