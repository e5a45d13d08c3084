"""Log-mel spectrograms, bit-close to the Whisper feature extractor of ``transformers``.

Axes: B batch, S samples, M mel bins, F mel frames (F = S // hop_length). Frame f is centred on sample
``f * hop_length``; the signal is continued at both ends by its mirror image.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Tensor

FLOOR_POWER = 1e-10
DYNAMIC_RANGE = 8.0
"""Decades of power kept below the reference; what is weaker is raised to that floor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MelSpec:
    """How a waveform becomes a log-mel spectrogram; the defaults are Whisper's, with 25 ms every 10 ms.

    ``reference`` is the level the floor hangs from: ``clip`` takes the maximum of the whole clip, as Whisper
    does; ``fixed`` takes ``reference_level`` (log10 of mel power; speech with peaks of 0.3 to 0.9 reaches
    about 0 to 2), so that a frame depends on its own samples only and can be made while a person speaks.
    """

    sample_rate: int = 16_000
    n_fft: int = 400
    hop_length: int = 160
    num_mels: int = 80
    reference: Literal["clip", "fixed"] = "clip"
    reference_level: float = 1.5

    def __post_init__(self) -> None:
        if self.reference not in ("clip", "fixed"):
            raise ConfigError(f"reference must be 'clip' or 'fixed', got {self.reference!r}.")
        if self.n_fft < 2 or self.n_fft % 2:
            raise ConfigError(f"n_fft must be an even number from 2, got {self.n_fft}.")
        if not 1 <= self.hop_length <= self.n_fft // 2:
            raise ConfigError(f"hop_length must be from 1 to {self.n_fft // 2}, got {self.hop_length}.")
        if self.num_mels < 1 or self.sample_rate < 1:
            raise ConfigError(
                f"num_mels and sample_rate must be positive, got {self.num_mels} and {self.sample_rate}."
            )

    @classmethod
    def tiny(cls) -> "MelSpec":
        """A spectrogram of eight bins with a fixed reference, for tests."""
        return cls(num_mels=8, reference="fixed")


def log_mel(waveform: Float[Tensor, "B S"], *, spec: MelSpec) -> Float[Tensor, "B M F"]:
    """The log-mel spectrogram of whole clips, scaled as Whisper expects it (about -1 to 1.5)."""
    num_frames = waveform.shape[-1] // spec.hop_length
    padded = mirror_ends(waveform, left=spec.n_fft // 2, num_frames=num_frames, spec=spec)
    return scale(log_power(padded, spec=spec), spec=spec)


def mirror_ends(
    samples: Float[Tensor, "B S"], *, left: int, num_frames: int, spec: MelSpec
) -> Float[Tensor, "B S2"]:
    """The samples that ``num_frames`` frames see: ``left`` mirrored before the start, more past the end."""
    length = samples.shape[-1]
    stop = (num_frames - 1) * spec.hop_length + spec.n_fft - left if num_frames else -left
    period = max(2 * (length - 1), 1)
    before = torch.arange(-left, min(stop, 0), device=samples.device).remainder(period)
    after = torch.arange(length, max(stop, length), device=samples.device).remainder(period)
    mirrored = [samples[:, torch.minimum(index, period - index)] for index in (before, after)]
    return torch.cat([mirrored[0], samples[:, : max(stop, 0)], mirrored[1]], dim=1)


def log_power(padded: Float[Tensor, "B S2"], *, spec: MelSpec) -> Float[Tensor, "B M F"]:
    """log10 of the mel power of every whole window in samples that are already padded."""
    if padded.shape[-1] < spec.n_fft:
        return padded.new_zeros(padded.shape[0], spec.num_mels, 0)
    window = torch.hann_window(spec.n_fft, device=padded.device)
    spectrum = torch.stft(
        padded, spec.n_fft, spec.hop_length, window=window, center=False, return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()
    mel = mel_filters(spec).to(padded.device) @ power
    return mel.clamp(min=FLOOR_POWER).log10()


def scale(log_power: Float[Tensor, "B M F"], *, spec: MelSpec) -> Float[Tensor, "B M F"]:
    """Raise each clip to its floor below the reference, and bring it near [-1, 1]."""
    if log_power.shape[-1] == 0:
        return log_power
    if spec.reference == "clip":
        floored = torch.maximum(log_power, log_power.amax(dim=(1, 2), keepdim=True) - DYNAMIC_RANGE)
    else:
        floored = log_power.clamp(min=spec.reference_level - DYNAMIC_RANGE)
    return (floored + 4.0) / 4.0


@lru_cache(maxsize=8)
def mel_filters(spec: MelSpec) -> Float[Tensor, "M N"]:
    """Triangular filters of equal area on Slaney's mel scale, linear below 1 kHz and logarithmic above."""
    highest = spec.sample_rate / 2
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(highest), spec.num_mels + 2))
    bins = np.linspace(0.0, highest, spec.n_fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters = triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(filters).float()


_KNEE_HZ, _KNEE_MEL, _LOG_STEP = 1_000.0, 15.0, np.log(6.4) / 27.0


def _hertz_to_mel(hertz: float) -> float:
    if hertz < _KNEE_HZ:
        return hertz * _KNEE_MEL / _KNEE_HZ
    return _KNEE_MEL + float(np.log(hertz / _KNEE_HZ)) / _LOG_STEP


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    linear = mel * _KNEE_HZ / _KNEE_MEL
    return np.where(mel < _KNEE_MEL, linear, _KNEE_HZ * np.exp(_LOG_STEP * (mel - _KNEE_MEL)))
