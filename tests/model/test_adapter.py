from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from deeptalk.errors import AudioError, ConfigError
from deeptalk.model.adapter import Adapter, AdapterConfig, AdapterStream

KINDS = ("gated_mlp", "conv")


def build(kind: str, stride: int) -> Adapter:
    torch.manual_seed(0)
    config = AdapterConfig(kind=kind, stride=stride, in_width=6, hidden=10, out_width=8)  # type: ignore[arg-type]
    return Adapter(config).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_shapes_and_padding(kind: str, stride: int) -> None:
    adapter = build(kind, stride)
    frames, lengths = torch.randn(3, 11, 6), torch.tensor([11, 4, 5])
    with torch.no_grad():
        adapted = adapter(frames, lengths)
        assert adapted.shape == (3, -(-11 // stride), 8)
        assert adapter.lengths(lengths).tolist() == [-(-n // stride) for n in (11, 4, 5)]
        for row, length in enumerate(lengths.tolist()):
            alone = adapter(frames[row : row + 1, :length], lengths[row : row + 1])[0]
            assert alone.shape[0] == -(-length // stride)
            torch.testing.assert_close(adapted[row, : alone.shape[0]], alone, atol=1e-6, rtol=1e-5)
            assert not adapted[row, alone.shape[0] :].any()


def test_gated_mlp_groups_neighbours_and_fills_the_last_group_with_zeros() -> None:
    adapter = Adapter(AdapterConfig(kind="gated_mlp", stride=2, in_width=1, hidden=2, out_width=1))
    body = adapter.body
    with torch.no_grad():
        body.gate.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))  # type: ignore[union-attr]
        body.up.weight.copy_(torch.tensor([[0.0, 2.0], [1.0, 1.0]]))  # type: ignore[union-attr]
        body.down.weight.copy_(torch.tensor([[1.0, 10.0]]))  # type: ignore[union-attr]
        adapted = adapter(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([3]))[0, :, 0]
    silu = F.silu(torch.tensor([1.0, 2.0, 3.0, 0.0]))
    expected = [silu[0] * 4.0 + 10 * silu[1] * 3.0, silu[2] * 0.0 + 10 * silu[3] * 3.0]
    torch.testing.assert_close(adapted, torch.stack(expected))


def test_conv_halves_as_often_as_the_stride_asks() -> None:
    adapter = build("conv", 4)
    frames = torch.randn(1, 9, 6)
    x = frames.transpose(1, 2)
    with torch.no_grad():
        for conv in adapter.body.convs:  # type: ignore[union-attr]
            x = F.gelu(conv(x))
        expected = adapter.body.out(x.transpose(1, 2))  # type: ignore[union-attr]
        torch.testing.assert_close(adapter(frames, torch.tensor([9])), expected)
    assert len(adapter.body.convs) == 2  # type: ignore[union-attr, arg-type]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6), st.sampled_from([1, 2, 4, 8]), st.sampled_from(KINDS)
)
def test_stream_equals_offline_for_any_chunking(pieces: list[int], stride: int, kind: str) -> None:
    adapter = build(kind, stride)
    frames = torch.randn(sum(pieces), 6)
    stream = AdapterStream(adapter)
    parts = [stream.push(piece) for piece in frames.split(pieces)]
    assert sum(len(part) for part in parts) == len(frames) // stride
    streamed = torch.cat([*parts, stream.finish()])
    if len(frames) == 0:
        assert streamed.shape == (0, 8)
        return
    with torch.no_grad():
        offline = adapter(frames[None], torch.tensor([len(frames)]))[0]
    torch.testing.assert_close(streamed, offline, atol=1e-5, rtol=1e-5)
    with pytest.raises(AudioError, match="finished"):
        stream.push(frames)


@pytest.mark.parametrize("change", [{"kind": "mlp"}, {"stride": 3}, {"hidden": 0}])
def test_wrong_config_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"adapter\."):
        AdapterConfig.from_dict(AdapterConfig.tiny().to_dict() | change)


@pytest.mark.parametrize("kind", KINDS)
def test_a_levelled_adapter_gives_frames_of_the_size_that_it_learns(kind: str) -> None:
    adapter = build(kind, 2)
    frames, lengths = 1_000 * torch.randn(2, 7, 6), torch.tensor([7, 3])
    again = Adapter(replace(adapter.config, levelled=True))
    assert again.level is not None
    again.load_state_dict(adapter.state_dict() | {"level": torch.full_like(again.level, 0.25)})
    with torch.no_grad():
        plain, levelled = adapter(frames, lengths), again(frames, lengths)
    expected = plain / plain.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-9) * 0.25
    torch.testing.assert_close(levelled, expected, atol=1e-6, rtol=1e-4)
    assert not levelled[1, 2:].any()
    stream = AdapterStream(again)
    with torch.no_grad():
        pieces = [stream.push(piece) for piece in frames[0].split((3, 1, 3))]
        torch.testing.assert_close(torch.cat([*pieces, stream.finish()]), levelled[0])


def test_configs_of_before_are_not_levelled() -> None:
    values = AdapterConfig.tiny().to_dict()
    del values["levelled"]
    assert AdapterConfig.from_dict(values) == AdapterConfig.tiny()
