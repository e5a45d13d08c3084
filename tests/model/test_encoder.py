import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from deeptalk.errors import AudioError, ConfigError
from deeptalk.model.encoder import EncoderConfig, SpeechEncoder
from deeptalk.model.encoder_stream import EncoderStream

MODES = ("pad30", "native", "chunked")


def build(mode: str = "chunked", **changes: object) -> SpeechEncoder:
    torch.manual_seed(0)
    values = EncoderConfig.tiny(mode=mode).to_dict() | changes  # type: ignore[arg-type]
    encoder = SpeechEncoder(EncoderConfig.from_dict(values)).eval()
    for name, parameter in encoder.named_parameters():
        if "embed_positions" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return encoder


def encode_alone(encoder: SpeechEncoder, mel: torch.Tensor) -> torch.Tensor:
    return encoder(mel[None], torch.tensor([mel.shape[1]])).frames[0]


def test_full_window_equals_stock_encoder() -> None:
    config = EncoderConfig(mode="pad30", d_model=16, layers=2, heads=2, ffn=32)
    ours = SpeechEncoder(config).eval()
    stock = WhisperEncoder(config.whisper()).eval()
    stock.load_state_dict(ours.state_dict())
    mel = torch.randn(2, 80, 3000)
    with torch.no_grad():
        expected = stock(mel).last_hidden_state
        encoded = ours(mel, torch.tensor([3000, 3000]))
        native = SpeechEncoder(EncoderConfig.from_dict(config.to_dict() | {"mode": "native"})).eval()
        native.load_state_dict(stock.state_dict())
        unpadded = native(mel, torch.tensor([3000, 3000]))
    torch.testing.assert_close(encoded.frames, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(unpadded.frames, expected, atol=1e-5, rtol=0)
    assert encoded.lengths.tolist() == [1500, 1500]


def test_pad30_pads_as_the_feature_extractor_does() -> None:
    config = EncoderConfig(mode="pad30", d_model=16, layers=1, heads=2, ffn=32)
    ours = SpeechEncoder(config).eval()
    samples = torch.randn(16_000).numpy()
    features = torch.from_numpy(WhisperFeatureExtractor()(samples, sampling_rate=16_000).input_features[0])
    stock = WhisperEncoder(config.whisper()).eval()
    stock.load_state_dict(ours.state_dict())
    with torch.no_grad():
        expected = stock(features[None]).last_hidden_state[0, :52]
        # two frames behind the end still hear its last samples
        encoded = ours(features[None, :, :103], torch.tensor([103]))
    torch.testing.assert_close(encoded.frames[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("left_chunks", [None, 1])
def test_padding_inside_a_batch_changes_nothing(mode: str, left_chunks: int | None) -> None:
    encoder = build(mode, left_chunks=left_chunks)
    lengths = torch.tensor([37, 1, 64, 18])
    mel = torch.randn(4, 8, 70)  # rubbish behind the ends must not count
    with torch.no_grad():
        together, layers = encoder.forward_layers(mel, lengths)
        assert together.lengths.tolist() == [19, 1, 32, 9]
        assert together.frames.shape == (4, 35, 16)
        for row, length in enumerate(lengths.tolist()):
            frames = encode_alone(encoder, mel[row, :, :length])
            size = frames.shape[0]
            torch.testing.assert_close(together.frames[row, :size], frames, atol=1e-5, rtol=1e-5)
            assert not together.frames[row, size:].any()
            torch.testing.assert_close(
                encoder.layer_norm(layers[-1])[row, :size], frames, atol=1e-5, rtol=1e-5
            )
    assert len(layers) == 2


def test_chunked_sees_no_later_block() -> None:
    encoder = build("chunked", left_chunks=1)
    mel = torch.randn(8, 64)
    changed = mel.clone()
    changed[:, 17:] += 1.0  # frame 7 ends block 1 and sees mel up to 16
    with torch.no_grad():
        before, after = encode_alone(encoder, mel), encode_alone(encoder, changed)
    torch.testing.assert_close(before[:8], after[:8], atol=1e-6, rtol=0)
    assert not torch.allclose(before[8:], after[8:], atol=1e-3)
    early = mel.clone()
    early[:, :4] += 1.0  # two layers of one block to the left: blocks 0 to 2 hear it, block 3 doesn't
    with torch.no_grad():
        after = encode_alone(encoder, early)
    assert not torch.allclose(before[8:12], after[8:12], atol=1e-4)
    torch.testing.assert_close(before[12:], after[12:], atol=1e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.sampled_from([None, 0, 1, 2]))
def test_stream_equals_offline_for_any_chunking(pieces: list[int], left_chunks: int | None) -> None:
    encoder = build("chunked", left_chunks=left_chunks)
    pieces = pieces[:]
    while sum(pieces) > 128:
        pieces.pop()
    total = sum(pieces)
    mel = torch.randn(8, total)
    stream = EncoderStream(encoder)
    parts = [stream.push(piece) for piece in mel.split(pieces, dim=1)]
    released = sum(part.shape[0] for part in parts)
    assert released == max(0, (total - 1) // 8 * 4)
    frames = torch.cat([*parts, stream.finish()])
    if total == 0:
        assert frames.shape == (0, 16)
        return
    with torch.no_grad():
        torch.testing.assert_close(frames, encode_alone(encoder, mel), atol=1e-5, rtol=1e-5)


def test_stream_keeps_only_what_later_blocks_see() -> None:
    stream = EncoderStream(build("chunked", left_chunks=2))
    for _ in range(12):
        stream.push(torch.randn(8, 10))
    assert stream.store.num_frames == 8
    assert stream.pending.shape[2] < 2 + 8 + 1 + 10


def test_ctc_gradient_reaches_every_weight_but_the_positions() -> None:
    encoder = build().train()
    encoded, layers = encoder.forward_layers(torch.randn(2, 8, 40), torch.tensor([40, 22]))
    (encoded.frames.square().mean() + layers[0].square().mean()).backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == ("embed_positions" in name), name


def test_wrong_input_is_refused() -> None:
    encoder = build()
    with pytest.raises(ConfigError, match=r"mel \[N, 8, F\]"):
        encoder(torch.randn(1, 9, 10), torch.tensor([10]))
    with pytest.raises(AudioError, match="1 to 128 mel frames"):
        encoder(torch.randn(1, 8, 129), torch.tensor([129]))
    with pytest.raises(AudioError, match="1 to 128"):
        encoder(torch.randn(1, 8, 12), torch.tensor([0]))
    stream = EncoderStream(encoder)
    with pytest.raises(AudioError, match="128 mel frames"):
        stream.push(torch.randn(8, 129))
    stream.finish()
    with pytest.raises(AudioError, match="finished"):
        stream.push(torch.randn(8, 1))
    with pytest.raises(ConfigError, match="mode 'native'"):
        EncoderStream(build("native"))


@pytest.mark.parametrize(
    "change", [{"mode": "whole"}, {"heads": 3}, {"left_chunks": -1}, {"layers": 0}, {"dropout": 1.0}]
)
def test_wrong_config_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"encoder\."):
        EncoderConfig.from_dict(EncoderConfig.tiny().to_dict() | change)
