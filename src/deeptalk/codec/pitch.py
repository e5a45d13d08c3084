"""Fundamental frequency by normalised autocorrelation (Boersma 1993), one value per frame, no state.

Axes: B batch, S samples, N frames.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from deeptalk.errors import ConfigError
from deeptalk.shapes import Bool, Float, Tensor

QUIETEST_POWER = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class PitchRange:
    """The pitches searched in Hz, the window in samples, and the periodicity (0 to 1) of voiced frames."""

    min_hz: float = 60.0
    max_hz: float = 400.0
    window: int = 1024
    voiced_from: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.min_hz < self.max_hz or not 0 < self.voiced_from < 1:
            raise ConfigError(
                f"pitch needs 0 < min_hz < max_hz and 0 < voiced_from < 1, got {self.min_hz}, {self.max_hz} "
                f"and {self.voiced_from}."
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PitchTrack:
    """Fundamental frequency in Hz (held through unvoiced frames), periodicity of each frame, and verdict."""

    hz: Float[Tensor, "B N"]
    strength: Float[Tensor, "B N"]
    is_voiced: Bool[Tensor, "B N"]


def track_pitch(
    waveform: Float[Tensor, "B S"], *, sample_rate: int, hop: int, limits: PitchRange
) -> PitchTrack:
    """Pitch of the windows that start every ``hop`` samples; windows without energy are unvoiced."""
    n_fft = limits.window
    window = torch.hann_window(n_fft, device=waveform.device, dtype=waveform.dtype)
    frames = waveform.unfold(-1, n_fft, hop) * window
    power = torch.fft.rfft(frames, n=2 * n_fft).abs().square()
    power[..., int(2_000 * 2 * n_fft / sample_rate) :] = 0.0
    shortest, longest = int(sample_rate / limits.max_hz), int(sample_rate / limits.min_hz) + 1
    longest = min(longest, n_fft // 2 + n_fft // 8)
    own = torch.fft.irfft(torch.fft.rfft(window, n=2 * n_fft).abs().square())
    correlation = torch.fft.irfft(power)[..., : longest + 2]
    energy = correlation[..., :1]
    score = correlation / energy.clamp(min=1e-9) / (own / own[0])[: longest + 2]
    lags = torch.arange(longest + 2, device=score.device)
    favoured = score - 0.02 * (lags.clamp(min=1) / shortest).log2()
    favoured[..., :shortest] = -1.0
    best = favoured[..., : longest + 1].argmax(dim=-1, keepdim=True)
    left, middle, right = (score.gather(-1, best + step)[..., 0] for step in (-1, 0, 1))
    bend = (left - 2 * middle + right).clamp(max=-1e-6)
    lag = best[..., 0] + (0.5 * (left - right) / bend).clamp(-0.5, 0.5)
    is_voiced = (middle > limits.voiced_from) & (energy[..., 0] > QUIETEST_POWER * own[0])
    is_voiced &= best[..., 0] > shortest
    hz = _median((sample_rate / lag).clamp(limits.min_hz, limits.max_hz), is_voiced)
    return PitchTrack(hz=_hold(hz, is_voiced), strength=middle.clamp(0, 1) * is_voiced, is_voiced=is_voiced)


def _median(hz: Float[Tensor, "B N"], is_voiced: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """The median of the voiced values among five neighbours, which removes single octave errors."""
    values = F.pad(hz.masked_fill(~is_voiced, torch.nan), (2, 2), value=torch.nan).unfold(-1, 5, 1)
    return torch.where(is_voiced, values.nanmedian(dim=-1).values, hz)


def _hold(hz: Float[Tensor, "B N"], is_voiced: Bool[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Unvoiced frames repeat the last voiced value, frames before the first voiced one take that one's."""
    at = torch.arange(hz.shape[-1], device=hz.device).expand_as(hz)
    last = torch.where(is_voiced, at, -1).cummax(dim=-1).values
    first = is_voiced.int().argmax(dim=-1, keepdim=True)
    return hz.gather(-1, torch.where(last < 0, first, last))
