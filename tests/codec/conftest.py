import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from deeptalk.codec import PocketCodec, PocketCodecConfig, SnacCodec, SnacConfig


@pytest.fixture(scope="session")
def tiny_pocket() -> PocketCodec:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PocketCodec(PocketCodecConfig.tiny()).eval()


@pytest.fixture(scope="session")
def tiny_waiting() -> PocketCodec:
    """A pocket codec that sees a frame ahead."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = dataclasses.replace(PocketCodecConfig.tiny(), look_ahead_frames=1)
        return PocketCodec(config).eval()


@pytest.fixture(scope="session")
def tiny_snac() -> SnacCodec:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SnacCodec(SnacConfig.tiny())


@pytest.fixture(scope="session")
def voiced() -> Callable[..., torch.Tensor]:
    """A buzz of falling harmonics with a slow swell."""

    def make(num_samples: int, *, hz: float = 120.0, sample_rate: int = 24_000) -> torch.Tensor:
        seconds = torch.arange(num_samples, dtype=torch.float64) / sample_rate
        harmonics = sum((2 * math.pi * hz * k * seconds).sin() / k for k in range(1, 20))
        return (0.2 * harmonics * (0.6 + 0.4 * (2 * math.pi * 3 * seconds).sin())).float()

    return make
