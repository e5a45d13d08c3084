import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deeptalk.codec.flat import breadth_from_depth, flatten, from_breadth, to_breadth, unflatten
from deeptalk.errors import ConfigError

RATES = (1, 2, 4)


def test_breadth_first_lists_levels_in_time_order():
    levels = [torch.tensor([[0, 1]]), torch.tensor([[10, 11, 12, 13]]), torch.arange(20, 28)[None]]
    flat = flatten(levels)
    assert flat[0, :, 0].tolist() == [0, 10, 11, 20, 21, 22, 23]
    assert flat[0, :, 1].tolist() == [1, 12, 13, 24, 25, 26, 27]


def test_depth_first_walk_of_mini_omni():
    # depth-first: c1, c2a, c3a, c3b, c2b, c3c, c3d
    assert breadth_from_depth(RATES) == (0, 1, 4, 2, 3, 5, 6)
    depth = torch.tensor([[[0], [10], [20], [21], [11], [22], [23]]])
    assert to_breadth(depth, order="depth", rates=RATES)[0, :, 0].tolist() == [0, 10, 11, 20, 21, 22, 23]


@given(st.integers(1, 3), st.integers(1, 5), st.sampled_from([(1, 2, 4), (1, 2), (1, 3, 6, 12), (1,)]))
def test_flatten_and_orders_invert(batch, frames, rates):
    levels = [torch.randint(0, 99, (batch, frames * rate)) for rate in rates]
    flat = flatten(levels)
    assert flat.shape == (batch, sum(rates), frames)
    for back, level in zip(unflatten(flat, rates=rates), levels, strict=True):
        assert torch.equal(back, level)
    for order in ("breadth", "depth"):
        stored = from_breadth(flat, order=order, rates=rates)
        assert torch.equal(to_breadth(stored, order=order, rates=rates), flat)


@pytest.mark.parametrize("turn", [to_breadth, from_breadth])
def test_unknown_order_is_refused(turn):
    with pytest.raises(ConfigError, match=r"breadth, depth.*'zigzag'"):
        turn(torch.zeros(1, 7, 1, dtype=torch.long), order="zigzag", rates=RATES)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="6 codebooks"):
        unflatten(torch.zeros(1, 6, 2, dtype=torch.long), rates=RATES)
    with pytest.raises(ConfigError, match="whole multiples"):
        flatten([torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 3, dtype=torch.long)])
    with pytest.raises(ConfigError, match="start with 1"):
        breadth_from_depth((2, 4))
    with pytest.raises(ConfigError, match="divide"):
        breadth_from_depth((1, 2, 3))
