"""Spectra that codec and losses share: frames without centring, mel filters, bands and minimum phase.

Frame i of a waveform covers samples [i * hop, i * hop + n_fft), so that nothing before its first sample
matters.
"""

import math

import torch
from torch.nn import functional as F

from deeptalk.shapes import Float, Tensor


def magnitude(waveform: Float[Tensor, "B S"], *, n_fft: int, hop: int) -> Float[Tensor, "B N K"]:
    """Magnitudes of the Hann-windowed frames, N frames of K = n_fft / 2 + 1 bins."""
    window = torch.hann_window(n_fft, device=waveform.device, dtype=waveform.dtype)
    spectrum = torch.fft.rfft(waveform.unfold(-1, n_fft, hop) * window)
    return (spectrum.real.square() + spectrum.imag.square() + 1e-14).sqrt()


def mel_of_hz(hz: float) -> float:
    """The mel value of a frequency (the formula of HTK)."""
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def mel_points(num_points: int, max_hz: float) -> Float[Tensor, "N"]:
    """Frequencies in Hz from 0 to ``max_hz`` at equal mel distances."""
    mels = torch.linspace(0.0, mel_of_hz(max_hz), num_points, dtype=torch.float64)
    return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)


def mel_filters(*, num_mels: int, n_fft: int, sample_rate: int, max_hz: float) -> Float[Tensor, "K M"]:
    """Triangular filters whose weights sum to one; a filter narrower than a bin takes its nearest bin."""
    points = mel_points(num_mels + 2, max_hz)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
    rising = (bins[:, None] - points[:-2]) / (points[1:-1] - points[:-2])
    falling = (points[2:] - bins[:, None]) / (points[2:] - points[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0.0)
    nearest = (bins[:, None] - points[1:-1]).abs().argmin(dim=0)
    empty = filters.sum(dim=0) == 0
    filters[nearest[empty], empty.nonzero()[:, 0]] = 1.0
    return (filters / filters.sum(dim=0)).float()


def band_curves(*, num_bands: int, n_fft: int, sample_rate: int, max_hz: float) -> Float[Tensor, "M K"]:
    """How levels at mel-spaced bands spread linearly over the bins; above ``max_hz`` the last holds."""
    points = mel_points(num_bands, max_hz)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
    upper = torch.searchsorted(points, bins.clamp(max=max_hz)).clamp(1, num_bands - 1)
    share = ((bins.clamp(max=max_hz) - points[upper - 1]) / (points[upper] - points[upper - 1])).clamp(0, 1)
    lower = F.one_hot(upper - 1, num_bands) * (1 - share)[:, None]
    return (lower + F.one_hot(upper, num_bands) * share[:, None]).T.float()


def minimum_phase(curves: Float[Tensor, "M K"]) -> Float[Tensor, "M K"]:
    """The phase in radians that belongs to each log magnitude curve if its filter is of minimum phase."""
    bins = curves.shape[-1]
    n_fft = 2 * (bins - 1)
    cepstrum = torch.fft.irfft(curves.double(), n=n_fft)
    fold = torch.zeros(n_fft, dtype=torch.float64, device=curves.device)
    fold[0] = fold[n_fft // 2] = 1.0
    fold[1 : n_fft // 2] = 2.0
    return torch.fft.rfft(cepstrum * fold).imag.float()
