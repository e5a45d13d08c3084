import pytest
import torch

from deeptalk.codec.quantiser import Codebook, QuantiserConfig, ResidualQuantiser
from deeptalk.errors import ConfigError

CONFIG = QuantiserConfig(
    width=6, code_width=4, codebook_size=8, strides=(4, 2, 1), warmup_steps=2, num_seeds=64
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def quantiser():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ResidualQuantiser(CONFIG)


def trained(quantiser, generator, *, steps=4):
    for _ in range(steps):
        quantiser(torch.randn(4, 6, 32, generator=generator), generator=generator)
    return quantiser


def test_warmup_passes_the_latent_unquantised_and_then_codes_are_seeded(quantiser, generator):
    before = [level.vectors.clone() for level in quantiser.levels]
    first = quantiser(torch.randn(2, 6, 16, generator=generator), generator=generator)
    assert float(first.commitment) == 0
    assert all(torch.equal(level.vectors, old) for level, old in zip(quantiser.levels, before, strict=True))
    third = [quantiser(torch.randn(2, 6, 16, generator=generator), generator=generator) for _ in range(2)][-1]
    assert float(third.commitment.detach()) > 0
    assert not any(
        torch.equal(level.vectors, old) for level, old in zip(quantiser.levels, before, strict=True)
    )


def test_encode_and_decode_are_what_eval_forward_gives(quantiser, generator):
    trained(quantiser, generator).eval()
    latent = torch.randn(2, 6, 16, generator=generator)
    out = quantiser(latent, generator=generator)
    codes = quantiser.encode(latent)
    assert [c.shape for c in codes] == [(2, 4), (2, 8), (2, 16)]
    assert all(torch.equal(a, b) for a, b in zip(codes, out.codes, strict=True))
    torch.testing.assert_close(quantiser.decode(codes), out.latent)
    state = {name: value.clone() for name, value in quantiser.state_dict().items()}
    quantiser(latent, generator=generator)
    assert all(torch.equal(value, state[name]) for name, value in quantiser.state_dict().items())


def test_losses_reach_the_latent_and_the_projections(quantiser, generator):
    trained(quantiser, generator)
    latent = torch.randn(2, 6, 16, generator=generator, requires_grad=True)
    out = quantiser(latent, generator=generator)
    (out.latent.square().mean() + out.commitment).backward()
    assert latent.grad is not None
    assert float(latent.grad.abs().sum()) > 0
    for name, parameter in quantiser.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_a_frozen_quantiser_keeps_its_codebooks_while_the_rest_trains(quantiser, generator):
    trained(quantiser, generator).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in quantiser.state_dict().items()}
    latent = torch.randn(4, 6, 32, generator=generator)
    assert quantiser.training
    quantised = quantiser(latent, generator=generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantiser.state_dict().items())
    assert float(quantised.commitment) > 0
    torch.testing.assert_close(quantised.latent, quantiser.decode(quantised.codes))


def test_nearest_is_nearest(generator):
    level = Codebook(CONFIG, stride=1)
    points = torch.randn(50, 4, generator=generator)
    assert torch.equal(level.nearest(points), torch.cdist(points, level.vectors).argmin(dim=-1))


def test_codes_follow_the_mean_of_their_vectors(generator):
    level = Codebook(CONFIG, stride=1)
    centres = torch.randn(8, 4, generator=generator) * 5
    level.vectors.copy_(centres + 0.1)
    level.rest()
    for _ in range(400):
        points = centres.repeat(4, 1)
        level.follow(points, level.nearest(points), generator)
    torch.testing.assert_close(level.vectors, centres, atol=1e-2, rtol=0)


def test_dead_codes_move_onto_the_data(generator):
    level = Codebook(CONFIG, stride=1)
    level.vectors[1:] = 1e3  # nothing is near them
    level.vectors[0] = 0.0
    level.rest()
    for _ in range(400):
        points = torch.randn(64, 4, generator=generator)
        level.follow(points, level.nearest(points), generator)
    assert float(level.vectors.abs().max()) < 10
    assert len(level.nearest(torch.randn(500, 4, generator=generator)).unique()) == 8


def test_kmeans_finds_clusters(generator):
    level = Codebook(CONFIG, stride=1)
    centres = 100 * torch.eye(8, 4) + 50 * torch.arange(8)[:, None]
    level.collect(centres.repeat(8, 1) + torch.randn(64, 4, generator=generator) * 1e-3)
    level.seed(generator)
    assert torch.cdist(level.vectors, centres).amin(dim=-1).median() < 1.0


@pytest.mark.parametrize(
    "wrong",
    [{"strides": (4, 3, 1)}, {"strides": (4, 2)}, {"strides": ()}, {"codebook_size": 1}, {"num_seeds": 8}],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        QuantiserConfig(**wrong)
