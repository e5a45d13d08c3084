import dataclasses
import math

import pytest
import torch

from deeptalk.codec import PocketCodec, PocketCodecConfig
from deeptalk.errors import ConfigError


def test_sizes_of_the_shipped_configuration():
    codec = PocketCodec(PocketCodecConfig())
    num_parameters = sum(parameter.numel() for parameter in codec.parameters())
    assert 1.2e6 < num_parameters < 1.8e6
    assert codec.codebook_size == 512
    assert codec.look_ahead_frames == 0


def test_encode_is_deterministic_and_pads_with_silence(tiny_pocket, voiced):
    wave = voiced(5000)[None]
    codes = tiny_pocket.encode(wave)
    assert torch.equal(codes, tiny_pocket.encode(wave))
    assert codes.shape == (1, 7, 3)
    assert torch.equal(codes, tiny_pocket.encode(torch.cat([wave, torch.zeros(1, 3 * 2048 - 5000)], dim=1)))


def test_a_batch_decodes_like_its_rows(tiny_pocket):
    codes = torch.randint(0, 32, (3, 7, 4), generator=torch.Generator().manual_seed(0))
    together = tiny_pocket.decode(codes)
    for row, alone in zip(together, codes, strict=True):
        torch.testing.assert_close(row, tiny_pocket.decode(alone[None])[0], atol=5e-4, rtol=0)


def test_decoder_never_looks_ahead(tiny_pocket):
    codes = torch.randint(0, 32, (1, 7, 6), generator=torch.Generator().manual_seed(1))
    changed = codes.clone()
    changed[..., 4:] = (changed[..., 4:] + 7) % 32
    one, other = tiny_pocket.decode(codes), tiny_pocket.decode(changed)
    assert float(one.abs().max()) > 0.01
    torch.testing.assert_close(one[:, : 4 * 2048], other[:, : 4 * 2048], atol=5e-4, rtol=0)
    assert not torch.allclose(one[:, 4 * 2048 :], other[:, 4 * 2048 :], atol=5e-3)


def test_a_look_ahead_is_one_frame_and_no_more(tiny_waiting):
    codes = torch.randint(0, 32, (1, 7, 6), generator=torch.Generator().manual_seed(1))
    changed = codes.clone()
    changed[..., 4:] = (changed[..., 4:] + 7) % 32
    one, other = tiny_waiting.decode(codes), tiny_waiting.decode(changed)
    torch.testing.assert_close(one[:, : 3 * 2048], other[:, : 3 * 2048], atol=5e-4, rtol=0)
    assert not torch.allclose(one[:, 3 * 2048 : 4 * 2048], other[:, 3 * 2048 : 4 * 2048], atol=5e-3)
    with pytest.raises(ConfigError, match="at least 0, got -1"):
        PocketCodecConfig(look_ahead_frames=-1)


@pytest.mark.parametrize(("look_ahead", "steps"), [(0, 20), (1, 30)])
def test_a_few_steps_reduce_the_loss(voiced, look_ahead, steps):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = PocketCodec(dataclasses.replace(PocketCodecConfig.tiny(), look_ahead_frames=look_ahead))
    generator = torch.Generator().manual_seed(0)
    batch = torch.stack([voiced(3 * 2048, hz=hz) for hz in (100.0, 160.0, 240.0)])
    optimiser = torch.optim.AdamW(codec.parameters(), lr=5e-3)
    seen = []
    for _ in range(steps):
        losses = codec.training_losses(batch, generator=generator)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
        seen.append({name: float(value.detach()) for name, value in losses.items()})
    assert set(seen[0]) == {"loss", "spectral", "mel", "bin", "pitch", "voicing", "commitment", "phones"}
    assert {losses["phones"] for losses in seen} == {0.0}
    assert seen[-1]["spectral"] < 0.6 * seen[0]["spectral"]
    assert seen[-1]["pitch"] < 0.6 * seen[0]["pitch"]
    assert int(codec.quantiser.step) == steps


def test_losses_reach_every_parameter_and_repeat_with_the_generator(voiced):
    config = PocketCodecConfig.tiny()
    config = dataclasses.replace(config, quantiser=dataclasses.replace(config.quantiser, warmup_steps=0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = PocketCodec(config)
    batch = voiced(3 * 2048)[None]
    codec.eval()
    losses = [codec.training_losses(batch, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(losses[0]["loss"], losses[1]["loss"])
    losses[0]["loss"].backward()
    unreached = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert unreached == []


def test_coarse_codes_learn_to_tell_the_phones(voiced):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = PocketCodec(PocketCodecConfig.tiny())
        codec.learn_phones(3)
    batch = torch.cat([voiced(2 * 2048, hz=100.0), voiced(2 * 2048, hz=240.0)])[None]
    phones = torch.tensor([[0] * 8 + [2] * 8])
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(codec.parameters(), lr=5e-3)
    seen = []
    for _ in range(40):
        loss = codec.training_losses(batch, phones=phones, generator=generator)["phones"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(float(loss.detach()))
    assert len(codec.phone_heads) == 2
    assert seen[0] == pytest.approx(math.log(3), abs=0.3)
    assert seen[-1] < 0.1
    assert codec.encoder.leave[1].weight.grad.abs().sum() > 0
    assert codec.quantiser.levels[2].squeeze.weight.grad is None  # the finest level is free
    unknown = torch.full_like(phones, -100)
    assert codec.training_losses(batch, phones=unknown, generator=generator)["phones"] == 0.0


@pytest.mark.parametrize("num_samples", [2048, 5000])
def test_crops_must_be_whole_frames(tiny_pocket, num_samples):
    with pytest.raises(ConfigError, match="two or more frames"):
        tiny_pocket.training_losses(torch.zeros(1, num_samples), generator=torch.Generator())


@pytest.mark.parametrize("wrong", [{"kernel": 4}, {"kernel": 1}, {"decoder_layers": 0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        PocketCodecConfig(**wrong)
