"""What is filtered into speech: a band-limited pulse train of a given pitch, and a table of white noise.

Both have power one. Axes: B batch, S samples, N hops.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Complex
from torch.nn import functional as F

from deeptalk.shapes import Float, Tensor

NUM_NOISE_SAMPLES = 1 << 16


def pulse_train(
    hz: Float[Tensor, "B N"],
    *,
    last_hz: Float[Tensor, "B"],
    phase: Float[Tensor, "B"],
    hop: int,
    sample_rate: int,
    max_hz: float,
) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B"]]:
    """All harmonics up to ``max_hz``, and the phase (in periods) after the last sample.

    Pitch moves linearly over each hop from the value before it to its own; the highest harmonic fades in
    and out.
    """
    steps = torch.arange(1, hop + 1, device=hz.device, dtype=torch.float64) / hop
    before = torch.cat([last_hz[:, None], hz[:, :-1]], dim=1).double()
    pitch = (before[..., None] + (hz.double() - before)[..., None] * steps).flatten(1)
    periods = phase[:, None].double() + (pitch / sample_rate).cumsum(dim=-1)
    angle = 2.0 * math.pi * (periods - periods.floor())
    harmonics = max_hz / pitch
    whole = harmonics.floor()
    half = (angle / 2.0).sin()
    is_pulse = half.abs() < 1e-5
    summed = ((whole + 0.5) * angle).sin() / (2.0 * half.masked_fill(is_pulse, 1.0)) - 0.5
    summed = torch.where(is_pulse, whole, summed) + (harmonics - whole) * ((whole + 1.0) * angle).cos()
    end = periods[:, -1]
    return (summed * (2.0 / harmonics).sqrt()).to(hz.dtype), end - end.floor()


@lru_cache(maxsize=4)
def noise_table(seed: int) -> Float[Tensor, "S"]:
    """White noise that is the same on every machine (Philox is defined bit by bit)."""
    raw = np.random.Philox(key=seed).random_raw(NUM_NOISE_SAMPLES)
    return torch.from_numpy(((raw / 2.0**64 * 2.0 - 1.0) * math.sqrt(3.0)).astype(np.float32))


def noise(*, seed: int, start: int, num_samples: int, like: Tensor) -> Float[Tensor, "S"]:
    """The samples from ``start`` on of the endlessly repeated table, on the device of ``like``."""
    at = (torch.arange(num_samples, device=like.device) + start) % NUM_NOISE_SAMPLES
    return noise_table(seed).to(like)[at]


def frames_of(samples: Float[Tensor, "B S"], *, n_fft: int, hop: int) -> Complex[Tensor, "B N K"]:
    """Complex spectra of the Hann-windowed frames."""
    window = torch.hann_window(n_fft, device=samples.device, dtype=samples.dtype)
    return torch.fft.rfft(samples.unfold(-1, n_fft, hop) * window)


def overlap_add(
    spectra: Complex[Tensor, "B N K"], *, tail: Float[Tensor, "B S2"], hop: int
) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S2"]]:
    """The samples that no later frame reaches, and the unfinished rest to pass on as ``tail``."""
    n_fft = 2 * (spectra.shape[-1] - 1)
    window = torch.hann_window(n_fft, device=tail.device, dtype=tail.dtype)
    # analysis and synthesis windows multiply to Hann squared, whose shifted copies sum to 3 n_fft / (8 hop)
    frames = torch.fft.irfft(spectra, n=n_fft) * window * (8.0 * hop / (3.0 * n_fft))
    parts = frames.unflatten(-1, (n_fft // hop, hop))
    num_parts, num_frames = parts.shape[2], parts.shape[1]
    summed = F.pad(tail.unflatten(-1, (num_parts - 1, hop)), (0, 0, 0, num_frames))
    for part in range(num_parts):
        summed = summed + F.pad(parts[:, :, part], (0, 0, part, num_parts - 1 - part))
    return summed[:, :num_frames].flatten(1), summed[:, num_frames:].flatten(1)
