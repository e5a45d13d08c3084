"""Recordings on disk and samples in memory: mono, float32, within [-1, 1].

Every check of what a person hands in stands here, so that each bad recording earns one clear line.
"""

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch

from deeptalk.errors import AudioError
from deeptalk.shapes import Float, Tensor

SAMPLE_RATES_HZ = (8_000, 192_000)
DURATIONS_SECONDS = (0.1, 300.0)
MAX_CHANNELS = 2
SILENCE_PEAK = 1e-4
"""A recording whose samples stay this close to their mean (-80 dB of full scale) is silence."""

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}


def load_waveform(path: str | Path, *, sample_rate: int = 16_000) -> Float[Tensor, "S"]:
    """Read a WAV, FLAC, MP3 or OGG file as mono samples at ``sample_rate`` (Hz).

    Raises AudioError, naming file and reason, for whatever can't be answered: see ``check_waveform``.
    """
    path = Path(path)
    if not path.exists():
        raise AudioError(f"{path}: there is no such file.")
    if path.is_dir():
        raise AudioError(f"{path}: this is a folder; name the recordings in it.")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty.")
    return _read(path, name=str(path), sample_rate=sample_rate)


def decode_waveform(data: bytes, *, name: str, sample_rate: int = 16_000) -> Float[Tensor, "S"]:
    """The bytes of a WAV, FLAC, MP3 or OGG file as ``load_waveform`` reads it; ``name`` is for its errors."""
    if not data:
        raise AudioError(f"{name}: the file is empty.")
    return _read(io.BytesIO(data), name=name, sample_rate=sample_rate)


def save_waveform(path: str | Path, samples: Float[Tensor, "S"], *, sample_rate: int) -> None:
    """Write samples as a 16-bit file of the kind its suffix names; the file appears whole or not at all."""
    path = Path(path)
    kind = sound_format(path)
    data = samples.detach().cpu().float().clamp(-1.0, 1.0).numpy()
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(partial, data, sample_rate, format=kind)
        partial.replace(path)
    except (OSError, soundfile.SoundFileError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise AudioError(f"{path}: can't be written ({_reason(error)}).") from error


def sound_format(path: Path) -> str:
    """The format of a file to be written, by its suffix; AudioError for what can't be written."""
    if path.is_dir():
        raise AudioError(f"{path}: this is a folder; name a file, as {path / 'answer.wav'}.")
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        given = f"'{path.suffix}' files" if path.suffix else "a file without a suffix"
        raise AudioError(f"{path}: can't write {given}; use one of {', '.join(FORMATS)}.")
    return kind


def resample(samples: Float[Tensor, "S"], *, source_rate: int, target_rate: int) -> Float[Tensor, "S2"]:
    """The same sound at another sample rate, band-limited (soxr, high quality)."""
    if source_rate == target_rate:
        return samples
    data = samples.detach().cpu().float().numpy()
    return torch.from_numpy(soxr.resample(data, source_rate, target_rate)).to(samples.device)


def to_mono(channels: Float[Tensor, "S C"]) -> Float[Tensor, "S"]:
    """The mean of the channels, or the first one where the two cancel each other."""
    mono = channels.mean(dim=1)
    return channels[:, 0] if len(mono) and _is_silent(mono) else mono


def check_samples(samples: Any, *, name: str) -> None:
    """Raise AudioError for what is no float tensor: an array of another library, or of whole numbers."""
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        given = f"a tensor of {samples.dtype}" if isinstance(samples, Tensor) else type(samples).__name__
        raise AudioError(f"{name}: samples are a float tensor from -1 to 1, got {given}.")


def check_waveform(samples: Float[Tensor, "S"], *, name: str, sample_rate: int = 16_000) -> None:
    """Raise AudioError when samples hold nothing to answer: none, NaN, silence, too short or too long."""
    shortest, longest = DURATIONS_SECONDS
    check_samples(samples, name=name)
    seconds = len(samples) / sample_rate
    if len(samples) == 0:
        raise AudioError(f"{name}: the recording holds no samples.")
    if not bool(torch.isfinite(samples).all()):
        raise AudioError(f"{name}: the recording holds NaN or infinite samples.")
    if seconds < shortest:
        raise AudioError(f"{name}: too short, {seconds:.3f} s; at least {shortest:g} s are needed.")
    if seconds > longest:
        raise AudioError(f"{name}: too long, {seconds:.0f} s; at most {longest:g} s are taken, split it.")
    if _is_silent(samples):
        raise AudioError(f"{name}: the recording is silent.")


def _read(source: Path | io.BytesIO, *, name: str, sample_rate: int) -> Float[Tensor, "S"]:
    try:
        with soundfile.SoundFile(source) as file:
            _check_header(file, name)
            most = int(DURATIONS_SECONDS[1] * file.samplerate) + 1
            data = file.read(frames=min(most, file.frames), dtype="float32", always_2d=True)
            rate = file.samplerate
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        raise AudioError(f"{name}: not audio that can be read ({_reason(error)}).") from error
    samples = to_mono(torch.from_numpy(np.ascontiguousarray(data)))
    check_waveform(samples, name=name, sample_rate=rate)
    return resample(samples, source_rate=rate, target_rate=sample_rate)


def _check_header(file: soundfile.SoundFile, name: str) -> None:
    lowest, highest = SAMPLE_RATES_HZ
    if file.channels > MAX_CHANNELS:
        raise AudioError(f"{name}: {file.channels} channels; mono and stereo are understood, mix it down.")
    if not lowest <= file.samplerate <= highest:
        raise AudioError(
            f"{name}: {file.samplerate} Hz; sample rates from {lowest} to {highest} Hz are taken."
        )
    if file.frames / file.samplerate > DURATIONS_SECONDS[1]:
        seconds, longest = file.frames / file.samplerate, DURATIONS_SECONDS[1]
        raise AudioError(f"{name}: too long, {seconds:.0f} s; at most {longest:g} s are taken, split it.")


def _is_silent(samples: Float[Tensor, "S"]) -> bool:
    return float((samples - samples.mean()).abs().max()) < SILENCE_PEAK


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()).rstrip(".")
