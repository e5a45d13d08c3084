import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeptalk.data.mixture import BatchStream, Draw, MixturePlan, bucket
from deeptalk.errors import ConfigError, DataError


class Numbers(BatchStream[tuple[int, int, float], list[tuple[int, int, float]]]):
    """Gives what was drawn; every `bad`-th record is broken."""

    bad = 7

    def _size(self, draw: Draw) -> int:
        return 1 + draw.index % 5

    def _make(self, draw: Draw, generator: np.random.Generator) -> tuple[int, int, float]:
        if (draw.index + 1) % self.bad == 0:
            raise DataError("a seventh")
        return draw.source, draw.index, generator.random()

    def _collate(self, samples: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
        return samples


def _stream(seed: int = 0, **changes: int) -> Numbers:
    plan = MixturePlan(sizes=(40, 13), weights=(3.0, 1.0), seed=seed, round_size=32)
    return Numbers(plan, **({"batch_size": 12} | changes))


@given(seed=st.integers(0, 100), before=st.integers(0, 30))
@settings(max_examples=25, deadline=None)
def test_a_resumed_stream_equals_an_uninterrupted_one(seed: int, before: int) -> None:
    whole = _stream(seed)
    for _ in range(before):
        next(whole)
    resumed = _stream(seed)
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    for _ in range(12):
        assert next(whole) == next(resumed)
        assert whole.rejects == resumed.rejects


def test_each_epoch_of_a_source_holds_every_record_once_in_another_order() -> None:
    plan = MixturePlan(sizes=(10, 4), weights=(1.0, 1.0), seed=0, round_size=10)
    drawn = [draw.index for number in range(4) for draw in plan.draws(number) if draw.source == 0]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]


def test_weights_are_the_shares() -> None:
    plan = MixturePlan(sizes=(1_000, 10), weights=(0.9, 0.1), seed=0, round_size=1_000)
    assert Counter(draw.source for draw in plan.draws(5)) == {0: 900, 1: 100}


def test_another_sample_stands_where_one_is_broken() -> None:
    stream, num_full = _stream(), 0
    for _ in range(40):
        dropped, planned = sum(stream.rejects.values()), stream._current_batches()[stream._position :]
        batch, dropped = next(stream), sum(stream.rejects.values()) - dropped
        if planned and 0 < dropped < len(planned[0]):
            assert len(batch) == len(planned[0])
            assert len(set(batch)) == len(stream.last) == len(planned[0]) - dropped
            num_full += 1
    assert num_full > 3


def test_batches_fit_and_broken_records_are_counted() -> None:
    stream = _stream()
    seen = [sample for _ in range(30) for sample in next(stream)]
    assert not any((index + 1) % 7 == 0 for _, index, _ in seen)
    assert stream.rejects["a seventh"] > 0
    sizes = sorted(
        ((1 + i % 5, Draw(source=0, number=i, index=i)) for i in range(50)), key=lambda pair: pair[0]
    )
    for batch in bucket(sizes, 12):
        assert max(1 + draw.index % 5 for draw in batch) * len(batch) <= 12


def test_processes_share_the_batches_of_a_round() -> None:
    alone, *shares = [
        _stream(batch_size=4, **place) for place in ({}, *({"rank": r, "world_size": 2} for r in (0, 1)))
    ]
    for stream in (alone, *shares):
        stream.bad = 1_000
    rounds = [next(alone) for _ in range(10)]
    assert [next(share) for _ in range(5) for share in shares] == rounds


def test_a_mixture_of_nothing_but_broken_records_ends() -> None:
    stream = _stream()
    stream.bad = 1
    with pytest.raises(DataError, match="a seventh"):
        next(stream)


@pytest.mark.parametrize(
    ("sizes", "weights", "error"),
    [
        ((), (), ConfigError),
        ((3,), (0.0,), ConfigError),
        ((3, 0), (1.0, 1.0), DataError),
        ((3,), (-1.0,), ConfigError),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(sizes, weights, error) -> None:
    with pytest.raises(error):
        MixturePlan(sizes=sizes, weights=weights, seed=0)


@pytest.mark.parametrize(("batch_size", "most"), [(8_000, 0.03), (16_000, 0.055)])
@pytest.mark.parametrize("kind", ["uniform", "log-normal"])
def test_sorted_batches_are_hardly_padded(kind: str, batch_size: int, most: float) -> None:
    """The figures of docs/large-runs.md."""
    generator = np.random.default_rng(0)
    drawn = {
        "uniform": lambda: generator.integers(50, 1_000, 2_048),
        "log-normal": lambda: np.clip(generator.lognormal(np.log(200), 0.6, 2_048), 20, 1_000).astype(int),
    }
    lengths: list[int] = drawn[kind]().tolist()
    plan = MixturePlan(sizes=(2_048,), weights=(1.0,), seed=0)

    class Sized(Numbers):
        def _size(self, draw: Draw) -> int:
            return lengths[draw.index]

    batches = Sized(plan, batch_size=batch_size)._own_batches(0)
    padded = sum(max(lengths[draw.index] for draw in batch) * len(batch) for batch in batches)
    assert 0.01 < 1 - sum(lengths) / padded < most
    as_they_come = sum(8 * max(lengths[i : i + 8]) for i in range(0, len(lengths), 8))
    assert 1 - sum(lengths) / as_they_come > 0.4
