"""Long recordings are cut at their pauses and nothing is lost."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeptalk.audio import audible_parts, split_at_pauses


def with_pauses(seconds: float, pauses: list[float]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(int(seconds * 16_000), generator=generator)
    for start in pauses:
        samples[int(start * 16_000) : int((start + 0.3) * 16_000)] *= 0.001
    return samples


def test_short_recordings_stay_whole():
    samples = with_pauses(30.0, [])
    (part,) = split_at_pauses(samples)
    assert part is samples


def test_cuts_lie_in_pauses():
    parts = split_at_pauses(with_pauses(70.0, [3.0, 25.0, 28.0, 48.5, 61.0]))
    assert 25.0 <= len(parts[0]) / 16_000 <= 25.3 or 28.0 <= len(parts[0]) / 16_000 <= 28.3
    assert 48.5 <= (len(parts[0]) + len(parts[1])) / 16_000 <= 48.8
    assert len(parts) == 3


@settings(max_examples=30, deadline=None)
@given(tenths=st.integers(1, 200), longest=st.sampled_from([2.0, 3.5, 6.0]))
def test_parts_are_the_recording_and_none_is_too_long(tenths, longest):
    samples = with_pauses(tenths / 10, [])
    parts = split_at_pauses(samples, longest_seconds=longest, search_seconds=1.5)
    assert torch.equal(torch.cat(parts), samples)
    assert all(0.1 * 16_000 <= len(part) <= longest * 16_000 for part in parts)


def test_silent_parts_are_left_out_but_not_all():
    samples = torch.cat([torch.zeros(5 * 16_000), with_pauses(3.0, [])])
    parts = audible_parts(samples, longest_seconds=2.0)
    assert sum(map(len, parts)) < 5 * 16_000
    assert float(torch.cat(parts).square().sum()) == float(samples.square().sum())
    silence = torch.zeros(5 * 16_000)
    assert sum(map(len, audible_parts(silence, longest_seconds=2.0))) == len(silence)
