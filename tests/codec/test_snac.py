import dataclasses

import pytest
import torch
from snac import SNAC

from deeptalk.codec import CodecStream, SnacCodec, SnacConfig
from deeptalk.errors import ConfigError


def test_flat_codes_are_those_of_the_package(tiny_snac):
    wave = torch.randn(1, 4 * 2048) * 0.1
    levels = tiny_snac.model.encode(wave[:, None])
    codes = tiny_snac.encode(wave)
    assert codes[0, 0].tolist() == levels[0][0].tolist()
    assert codes[0, 1:3].T.flatten().tolist() == levels[1][0].tolist()
    assert codes[0, 3:].T.flatten().tolist() == levels[2][0].tolist()
    assert torch.equal(tiny_snac.decode(codes), tiny_snac.model.decode(levels)[:, 0])


def test_published_configuration_needs_three_frames():
    config = SnacConfig()
    assert config.reach_frames() == 3
    assert SNAC(**{**dataclasses.asdict(SnacConfig.tiny()), "attn_window_size": None}).hop_length == 512


def test_reach_is_enough_and_shorter_look_ahead_is_not_exact(tiny_snac):
    short = SnacCodec(SnacConfig.tiny(), look_ahead_frames=1)
    short.load_state_dict(tiny_snac.state_dict())
    codes = torch.randint(0, 32, (7, 8), generator=torch.Generator().manual_seed(3))
    offline = short.decode(codes[None])[0]
    stream = CodecStream(short)
    made = torch.cat([stream.push(codes[:, [t]]) for t in range(8)] + [stream.finish()])
    assert made.shape == offline.shape
    assert not torch.allclose(made, offline, atol=1e-6)
    assert torch.allclose(made[-2048:], offline[-2048:], atol=1e-6)


def test_noise_is_left_out_unless_wanted(tiny_snac):
    codes = torch.zeros(1, 7, 2, dtype=torch.long)
    assert torch.equal(tiny_snac.decode(codes), tiny_snac.decode(codes))
    noisy = SnacCodec(SnacConfig.tiny(), has_noise=True)
    noisy.load_state_dict(tiny_snac.state_dict())
    assert not torch.equal(noisy.decode(codes), noisy.decode(codes))


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"attn_window_size": 32}, "attn_window_size"),
        ({"decoder_rates": (8, 8, 4)}, "decoder_rates"),
        ({"vq_strides": (4, 3, 1)}, "vq_strides"),
    ],
)
def test_wrong_settings_are_refused(wrong, complaint):
    with pytest.raises(ConfigError, match=complaint):
        SnacConfig(**wrong)
