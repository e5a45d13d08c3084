from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeptalk.codec import Codec, CodecStream, SineCodec
from deeptalk.errors import ConfigError

CHUNKS = st.lists(st.integers(0, 4), min_size=1, max_size=6)


def codes_for(codec, frames, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, codec.codebook_size, (codec.num_codebooks, frames), generator=generator)


def streamed(codec, codes, chunks):
    stream = CodecStream(codec)
    parts = [stream.push(part) for part in codes.split(chunks, dim=-1)]
    return torch.cat([*parts, stream.finish()]), parts


@pytest.mark.parametrize("name", ["tiny_pocket", "tiny_waiting", "tiny_snac", "sine"])
@settings(max_examples=8, deadline=None)
@given(chunks=CHUNKS, seed=st.integers(0, 99))
def test_streaming_equals_offline(name, chunks, seed, request):
    # in double precision: phases add up what single precision rounds off the pitch
    codec = SineCodec() if name == "sine" else deepcopy(request.getfixturevalue(name)).double()
    codes = codes_for(codec, sum(chunks), seed)
    made, parts = streamed(codec, codes, chunks)
    offline = codec.decode(codes[None])[0] if sum(chunks) else torch.zeros(0)
    assert made.shape == (sum(chunks) * codec.samples_per_frame,)
    torch.testing.assert_close(made.double(), offline.double(), atol=1e-6, rtol=0)
    # nothing is held back longer than the stated look-ahead
    pushed = given_out = 0
    for count, part in zip(chunks, parts, strict=True):
        pushed, given_out = pushed + count, given_out + len(part) // codec.samples_per_frame
        assert given_out == max(0, pushed - codec.look_ahead_frames)


@pytest.mark.parametrize("name", ["tiny_pocket", "tiny_waiting", "tiny_snac"])
def test_clock(name, request):
    codec = request.getfixturevalue(name)
    assert isinstance(codec, Codec)
    assert (codec.sample_rate, codec.samples_per_frame, codec.num_codebooks) == (24_000, 2048, 7)
    assert codec.frame_rate == pytest.approx(11.71875)
    codes = codec.encode(torch.randn(2, 3 * 2048 + 1) * 0.1)
    assert codes.shape == (2, 7, 4)
    assert codes.dtype == torch.int64
    assert 0 <= int(codes.min()) <= int(codes.max()) < codec.codebook_size
    assert codec.decode(codes).shape == (2, 4 * 2048)


def test_sine_codec_inverts_and_streams():
    codec = SineCodec(num_codebooks=3, codebook_size=16, samples_per_frame=64)
    assert isinstance(codec, Codec)
    codes = codes_for(codec, 5, seed=1)
    wave = codec.decode(codes[None])
    assert wave.abs().max() <= 1
    assert torch.equal(codec.encode(wave)[0], codes)
    assert codec.encode(wave[:, :-10]).shape == (1, 3, 5)
    with pytest.raises(ConfigError, match="num_codebooks"):
        SineCodec(num_codebooks=16, samples_per_frame=64)


def test_stream_starts_anew_after_finish(tiny_pocket):
    codes = codes_for(tiny_pocket, 3, seed=2)
    stream = CodecStream(tiny_pocket)
    first = torch.cat([stream.push(codes), stream.finish()])
    second = torch.cat([stream.push(codes), stream.finish()])
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("codes", "complaint"),
    [
        (torch.full((7, 2), 32), "special ids"),
        (torch.full((7, 2), -1), "from 0 to 31"),
        (torch.zeros(8, 2, dtype=torch.long), "7 codebooks"),
    ],
)
def test_stream_refuses_foreign_codes(tiny_pocket, codes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        CodecStream(tiny_pocket).push(codes)
