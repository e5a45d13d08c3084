"""Intervals by drawing: of known widths, the same for the same seed, narrower where items are paired."""

import math
import random

import numpy as np
import pytest

from deeptalk.evaluation.benchmarks.intervals import bootstrap_interval, paired_bootstrap

RNG = random.Random(3)
EASE = [RNG.random() for _ in range(400)]
LEFT = [(float(ease < 0.5), 1.0) for ease in EASE]
RIGHT = [(float(ease < 0.55), 1.0) for ease in EASE]


def test_the_interval_is_as_wide_as_theory_says() -> None:
    low, high = bootstrap_interval(LEFT, seed=1)
    rate = sum(right for right, _ in LEFT) / 400
    width = 2 * 1.96 * math.sqrt(rate * (1 - rate) / 400)
    assert high - low == pytest.approx(width, rel=0.1)
    assert (low + high) / 2 == pytest.approx(rate, abs=0.01)


def test_a_seed_draws_the_same() -> None:
    assert bootstrap_interval(LEFT, seed=1) == bootstrap_interval(LEFT, seed=1)
    assert bootstrap_interval(LEFT, seed=1) != bootstrap_interval(LEFT, seed=2)


def test_pairs_are_drawn_together() -> None:
    found = paired_bootstrap(LEFT, RIGHT, seed=1)
    better = sum(0.5 <= ease < 0.55 for ease in EASE) / 400
    assert found.value == pytest.approx(better)
    assert found.low > 0
    assert found.share_not_above == 0
    assert found.high - found.low == pytest.approx(
        2 * 1.96 * math.sqrt(better * (1 - better) / 400), rel=0.15
    )
    shuffled = RIGHT[:]
    RNG.shuffle(shuffled)
    assert paired_bootstrap(LEFT, shuffled, seed=1).low < 0


def test_a_second_computation_of_a_ratio_draws_the_same() -> None:
    left = [(RNG.randint(0, 4), RNG.randint(5, 20)) for _ in range(300)]
    right = [(RNG.randint(0, 4), units) for _, units in left]
    generator, differences = np.random.default_rng(7), []
    for _ in range(500):
        chosen = [int(i) for i in generator.integers(300, size=300)]
        rates = [sum(t[i][0] for i in chosen) / sum(t[i][1] for i in chosen) for t in (left, right)]
        differences.append(rates[1] - rates[0])
    found = paired_bootstrap(left, right, seed=7, num_draws=500)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(differences, (0.025, 0.975))))
    assert found.share_not_above == sum(d <= 0 for d in differences) / 500
    assert 0 < found.share_not_above < 1
    same = paired_bootstrap(left, left, num_draws=50)
    assert (same.value, same.low, same.high, same.share_not_above) == (0, 0, 0, 1)
