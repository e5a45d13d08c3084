import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeptalk.errors import ConfigError
from deeptalk.streams import DelayBuffer, DelayPattern

patterns = st.lists(st.integers(0, 9), min_size=1, max_size=8)


@settings(max_examples=80, deadline=None)
@given(delays=patterns, batch=st.integers(1, 3), steps=st.integers(0, 12), seed=st.integers(0, 99))
def test_undo_is_the_inverse_of_apply(delays: list[int], batch: int, steps: int, seed: int):
    pattern, streams = DelayPattern(tuple(delays)), len(delays)
    codes = torch.randint(0, 50, (batch, streams, steps), generator=torch.Generator().manual_seed(seed))
    pads = tuple(range(100, 100 + streams))
    delayed = pattern.apply(codes, pad_ids=pads)
    assert torch.equal(pattern.undo(delayed), codes)
    assert int((delayed >= 100).sum()) == batch * streams * max(pattern.delays)
    for k in range(streams):
        kept = delayed[:, k][delayed[:, k] >= 100]
        assert bool((kept == pads[k]).all())


@settings(max_examples=80, deadline=None)
@given(delays=patterns, steps=st.integers(0, 12), seed=st.integers(0, 99))
def test_buffer_equals_undo(delays: list[int], steps: int, seed: int):
    pattern, streams = DelayPattern(tuple(delays)), len(delays)
    delayed = torch.randint(
        0, 50, (1, streams, steps + max(pattern.delays)), generator=torch.Generator().manual_seed(seed)
    )
    buffer = DelayBuffer(pattern)
    outcomes = [buffer.push(column) for column in delayed[0].T.tolist()]
    assert all(outcome is None for outcome in outcomes[: max(pattern.delays)])
    whole = [outcome for outcome in outcomes if outcome is not None]
    assert whole == pattern.undo(delayed)[0].T.tolist()


def test_bad_delays():
    with pytest.raises(ConfigError, match="delays"):
        DelayPattern((0, -1))
    with pytest.raises(ConfigError, match="2 streams"):
        DelayBuffer(DelayPattern((0, 1))).push([1, 2, 3])
