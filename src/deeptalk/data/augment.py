"""Rooms, telephones, noise and other speakers for clips that a synthesiser spoke into nothing.

`augment` changes a waveform, `warp_formants` a log-mel; all chance comes from the generator that is given.
Filters, reverberation and noise share one Fourier transform, so that a clip of 3 s costs a few milliseconds.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr
import torch

from deeptalk.errors import ConfigError

Waveform = npt.NDArray[np.float32]
Range = tuple[float, float]

_GAIN_POINTS = 513


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How often (0 to 1) and how strongly each change is made.

    `clean` is the share of clips that only change level and margins. Speed changes tempo, pitch and formants
    together; `formants` moves formants alone, on the log-mel. Levels are peaks in dB under full scale, noise
    the signal-to-noise ratio in dB, `decay` the time in seconds in which a room falls by 60 dB.
    """

    clean: float = 0.1
    speed: Range = (0.85, 1.15)
    level: Range = (-25.0, 0.0)
    margins: Range = (0.0, 0.5)
    tight: float = 0.3
    noise: float = 0.6
    noise_ratio: Range = (5.0, 40.0)
    noise_colour: Range = (-1.0, 1.0)
    room: float = 0.4
    decay: Range = (0.08, 0.6)
    tilt: float = 0.5
    tilt_per_octave: Range = (-4.0, 4.0)
    telephone: float = 0.25
    low_pass: float = 0.2
    low_pass_edge: Range = (3_000.0, 7_500.0)
    high_pass: float = 0.2
    high_pass_edge: Range = (80.0, 400.0)
    clip: float = 0.1
    formants: Range = (0.88, 1.14)

    def __post_init__(self) -> None:
        if not 0.5 <= self.speed[0] <= self.speed[1] <= 2:
            raise ConfigError(f"speed must lie between 0.5 and 2, this is {self.speed}")
        for name in ("clean", "tight", "noise", "room", "tilt", "telephone", "low_pass", "high_pass", "clip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a probability from 0 to 1, this is {getattr(self, name)}")


def augment(
    samples: Waveform, generator: np.random.Generator, *, config: Augmentation, sample_rate: int = 16_000
) -> Waveform:
    """The clip as heard elsewhere: float32 in [-1, 1], of another length where speed or margins changed."""
    samples = _with_margins(samples, generator, config, sample_rate)
    if generator.random() >= config.clean:
        samples = change_speed(samples, generator.uniform(*config.speed))
        samples = _through_room(samples, generator, config, sample_rate)
    peak = float(np.abs(samples).max(initial=0.0)) or 1.0
    samples = samples * np.float32(10 ** (generator.uniform(*config.level) / 20) / peak)
    if generator.random() < config.clip:
        limit = float(np.abs(samples).max(initial=0.0)) * generator.uniform(0.4, 0.95)
        samples = np.clip(samples, -limit, limit)
    return np.clip(samples, -1.0, 1.0).astype(np.float32)


def change_speed(samples: Waveform, factor: float) -> Waveform:
    """Play a clip `factor` times as fast: shorter and higher above 1."""
    if abs(factor - 1) < 0.01:
        return samples
    return soxr.resample(samples, factor, 1.0, quality="LQ").astype(np.float32)


def warp_formants(
    mel: npt.NDArray[np.float32], factor: float, *, top: float = 8_000.0
) -> npt.NDArray[np.float32]:
    """Move the spectrum of a log-mel `[M, F]` up by `factor` (vocal tract length), and that alone.

    Frequencies beyond four fifths of `top` hertz are squeezed, so that nothing falls off the end.
    """
    bins = mel.shape[0]
    centres = _hertz(np.linspace(0, _mels(np.array(top)), bins + 2)[1:-1])
    edge = 0.8 * top * min(1.0, 1.0 / factor)
    stretched = edge * factor + (top - edge * factor) / (top - edge) * (centres - edge)
    warped = np.where(centres <= edge, centres * factor, stretched)
    # Row i of the result is what stood at the frequency that the warp moves to centre i.
    source = np.interp(centres, warped, np.arange(bins, dtype=np.float64))
    low = np.clip(np.floor(source).astype(int), 0, bins - 2)
    weight = (source - low).astype(np.float32)[:, None]
    return (mel[low] * (1 - weight) + mel[low + 1] * weight).astype(np.float32)


def _with_margins(
    samples: Waveform, generator: np.random.Generator, config: Augmentation, sample_rate: int
) -> Waveform:
    """Longer silence at both ends, or, as in recordings cut tightly, nearly none."""
    if generator.random() < config.tight:
        loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max(initial=1e-9))
        spare = int(generator.uniform(0.0, 0.03) * sample_rate)
        return samples[max(0, loud[0] - spare) : loud[-1] + 1 + spare] if len(loud) else samples
    before, after = (int(generator.uniform(*config.margins) * sample_rate) for _ in range(2))
    return np.pad(samples, (before, after)).astype(np.float32)


def _through_room(
    samples: Waveform, generator: np.random.Generator, config: Augmentation, sample_rate: int
) -> Waveform:
    """Reverberation, filters and noise, as one product and one sum in the frequency domain."""
    decay = generator.uniform(*config.decay) if generator.random() < config.room else 0.0
    size = _fast_size(len(samples) + int(decay * sample_rate))
    # Gains are drawn at few frequencies and interpolated, which is most of the speed.
    frequencies = np.linspace(0.0, sample_rate / 2, _GAIN_POINTS, dtype=np.float32)
    spectrum = _spectrum(samples, size)
    if decay:
        spectrum *= _spectrum(_room_response(generator, decay, sample_rate), size)
    response = _spread(_response(frequencies, generator, config), len(spectrum))
    # A line's noise passes the same filter as the speech or comes after it, half of the time each.
    noise_after = generator.random() < 0.5
    noise = _noise(spectrum, frequencies, generator, config)
    spectrum = spectrum * response + noise if noise_after else (spectrum + noise) * response
    return torch.fft.irfft(torch.from_numpy(spectrum), size).numpy()[: len(samples)]


def _room_response(generator: np.random.Generator, decay: float, sample_rate: int) -> Waveform:
    """The direct sound, then noise that falls by 60 dB in `decay` seconds; from near to rather far away."""
    length = int(decay * sample_rate)
    fall = np.exp(np.linspace(0.0, np.log(1e-3), length, dtype=np.float32))
    tail = generator.standard_normal(length, dtype=np.float32) * fall
    tail[: int(0.002 * sample_rate)] = 0.0
    tail *= np.float32(10 ** (generator.uniform(-20.0, 0.0) / 20) / (np.linalg.norm(tail) + 1e-9))
    tail[0] = 1.0
    return tail


def _response(
    frequencies: npt.NDArray[np.float32], generator: np.random.Generator, config: Augmentation
) -> npt.NDArray[np.float32]:
    """Gain over frequency of microphone and line."""
    octaves = np.log2(np.maximum(frequencies, 50.0) / 1_000.0)
    decibels = np.zeros_like(frequencies)
    if generator.random() < config.tilt:
        decibels += generator.uniform(*config.tilt_per_octave) * octaves
        decibels += generator.uniform(0.0, 4.0) * np.sin(
            octaves * generator.uniform(1.0, 4.0) + generator.uniform(0, 6.3)
        )
    if generator.random() < config.telephone:
        decibels -= np.clip((frequencies - generator.uniform(3_300.0, 3_950.0)) / 100.0, 0, 1) * 70.0
        decibels -= 24.0 * np.maximum(
            0.0, np.log2(generator.uniform(60.0, 300.0) / np.maximum(frequencies, 10.0))
        )
    if generator.random() < config.low_pass:
        edge = generator.uniform(*config.low_pass_edge)
        decibels -= 18.0 * np.maximum(0.0, np.log2(np.maximum(frequencies, 1.0) / edge))
    if generator.random() < config.high_pass:
        edge = generator.uniform(*config.high_pass_edge)
        decibels -= 18.0 * np.maximum(0.0, np.log2(edge / np.maximum(frequencies, 10.0)))
    return (10 ** (np.clip(decibels, -90.0, 30.0) / 20)).astype(np.float32)


def _noise(
    spectrum: npt.NDArray[np.complex64],
    frequencies: npt.NDArray[np.float32],
    generator: np.random.Generator,
    config: Augmentation,
) -> npt.NDArray[np.complex64]:
    """Steady noise of random colour, from a hiss (1) over white (0) to a rumble (-1), at a random ratio."""
    if generator.random() >= config.noise:
        return np.zeros_like(spectrum)
    colour = generator.uniform(*config.noise_colour)
    slope = ((np.maximum(frequencies, 30.0) / 1_000.0) ** colour).astype(np.float32)
    shape = _spread(slope, len(spectrum))
    noise = generator.standard_normal(2 * len(spectrum), dtype=np.float32).view(np.complex64) * shape
    ratio = 10 ** (-generator.uniform(*config.noise_ratio) / 20)
    return noise * np.float32(ratio * np.linalg.norm(spectrum) / (np.linalg.norm(noise) + 1e-9))


def _spectrum(samples: Waveform, size: int) -> npt.NDArray[np.complex64]:
    """PyTorch's transform, on one thread, is several times as fast as NumPy's."""
    return torch.fft.rfft(torch.from_numpy(samples), size).numpy()


def _spread(gains: npt.NDArray[np.float32], number: int) -> npt.NDArray[np.float32]:
    """Gains at few even frequencies as gains at many."""
    return np.interp(np.linspace(0, len(gains) - 1, number), np.arange(len(gains)), gains).astype(np.float32)


def _fast_size(length: int) -> int:
    """The next length whose transform is fast: a multiple of a power of two by 1, 3, 5 or 9."""
    return min(
        factor * 2 ** max(0, int(np.ceil(np.log2(max(1, length) / factor)))) for factor in (1, 3, 5, 9)
    )


def _mels(hertz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 2595.0 * np.log10(1.0 + hertz / 700.0)


def _hertz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 700.0 * (10 ** (mels / 2595.0) - 1.0)
