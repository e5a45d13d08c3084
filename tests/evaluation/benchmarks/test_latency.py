"""Times by a clock that the test turns: parts add up, percentiles are times, a silent answer is infinite."""

import math
from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
import torch

from deeptalk.codec import SineCodec
from deeptalk.decoding import DecodingOptions, Limits, LoadedModel
from deeptalk.evaluation.benchmarks.intervals import median_interval, nearest_rank
from deeptalk.evaluation.benchmarks.latency import (
    PARTS,
    TimedAnswer,
    engine_figures,
    summary,
    time_answer,
)

TONE = 0.3 * torch.sin(torch.arange(8_000) / 8)


def ticking() -> Callable[[], float]:
    """A clock that is a second further each time it is read."""
    reading = count()
    return lambda: float(next(reading))


def timed(loaded: LoadedModel, **limits: int) -> TimedAnswer:
    options = DecodingOptions(limits=Limits(max_text_tokens=3, **limits))
    return time_answer(loaded, TONE, now=ticking(), options=options)


def test_the_parts_are_those_of_the_first_chunk_and_add_up(loaded: LoadedModel) -> None:
    answer = timed(loaded, min_frames=6, max_frames=6)
    waited = answer.num_steps
    assert waited >= loaded.model.layout.num_codebooks  # a frame is whole when its last codebook has come
    assert answer.parts == {
        **{"mel": 1.0, "encoder": 1.0, "prefill": 1.0},
        **{"steps": float(waited), "codec": float(waited), "other": waited + 1.0},
    }
    assert answer.first_chunk == sum(answer.parts.values()) == 3 * waited + 4
    num_steps = sum(map(len, answer.steps.values()))
    assert num_steps > waited
    assert all(step == 1.0 for steps in answer.steps.values() for step in steps)
    assert answer.steps["both"]
    assert answer.steps["speech"]
    seconds = 6 * loaded.codec.samples_per_frame / loaded.codec.sample_rate
    assert answer.real_time_factor == pytest.approx((5 + 3 * num_steps) / seconds)
    assert answer.question_seconds == 0.5


def test_an_answer_without_sound_has_failed_and_makes_percentiles_infinite() -> None:
    good = [
        TimedAnswer(
            first_chunk=n / 100,
            parts=dict.fromkeys(PARTS, 0.0),
            num_steps=9,
            steps={p: [0.02] for p in ("both", "speech", "text")},
            real_time_factor=0.5,
        )
        for n in range(1, 100)
    ]
    figures = engine_figures([TimedAnswer(first_chunk=7.0, parts={}, steps={}), *good])
    assert figures["cold_first_chunk_ms"] == 7000.0
    assert {name: figures["first_chunk_ms"][name] for name in ("p50", "p95", "p99", "n")} == {
        **{"p50": 500.0, "p95": 950.0, "p99": 990.0, "n": 99}
    }
    assert figures["step_ms"]["both"]["mean"] == pytest.approx(20.0)
    assert (figures["steps_to_first_chunk"], figures["num_failed"]) == (9, 0)
    silent = TimedAnswer(first_chunk=math.inf, steps=good[0].steps)
    figures = engine_figures([*good, silent, silent])
    assert (figures["first_chunk_ms"]["p50"], figures["first_chunk_ms"]["p99"]) == (510.0, None)
    assert (figures["first_chunk_ms"]["mean"], figures["num_failed"]) == (None, 2)
    assert engine_figures([silent, silent])["steps_to_first_chunk"] is None


def test_the_interval_of_a_median_holds_it_and_narrows_with_more_values() -> None:
    rng, widths = np.random.default_rng(3), []
    for size in (20, 400):
        values = rng.exponential(size=size).tolist()
        low, high = median_interval(values, seed=1)
        assert low in values
        assert high in values
        assert low <= nearest_rank(values, 0.5) <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert median_interval([2.0], seed=0) == (2.0, 2.0)
    assert summary([1.0, 2.0, math.inf])["p50"] == 2000.0
    assert summary([])["n"] == 0
    inside = 0
    for _ in range(200):  # of a population whose median is known
        low, high = median_interval(rng.normal(size=25).tolist(), seed=2, num_draws=400)
        inside += low <= 0 <= high
    assert inside >= 180


def test_a_codec_of_tones_speaks_in_chunks(loaded: LoadedModel) -> None:
    assert isinstance(loaded.codec, SineCodec)
    one = time_answer(
        loaded,
        TONE,
        now=ticking(),
        options=DecodingOptions(limits=Limits(min_frames=5, max_frames=5, max_text_tokens=3)),
        frames_per_chunk=5,
    )
    assert (
        one.num_steps == timed(loaded, min_frames=5, max_frames=5).num_steps
    )  # the first chunk is one frame
