"""Many short clips in one file: a WAV pack for speech, an array pack for codes, both read by memory map.

Speech may also lie in files of any format and rate, as corpora are published.
"""

import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import torch

from deeptalk.audio.waveform import SAMPLE_RATES_HZ, resample, to_mono
from deeptalk.errors import DataError

Samples = npt.NDArray[np.int16]
SAID_SUFFIX = ".said.npy"
_HEADER_BYTES = 44
_MAX_WAV_BYTES = (1 << 32) - _HEADER_BYTES - 4


class AudioPack:
    """The clips of one 16-bit mono WAV file, addressed by offset and duration in seconds.

    The file is an ordinary WAV that any player opens; it is mapped, never loaded.
    Raises `DataError` where the file is missing or no plain 16-bit mono WAV.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sample_rate = _read_header(path)
        self._samples: npt.NDArray[np.int16] = np.memmap(path, dtype="<i2", mode="r", offset=_HEADER_BYTES)

    def __len__(self) -> int:
        """Number of samples in the whole pack."""
        return len(self._samples)

    def read(self, offset: float, duration: float) -> npt.NDArray[np.float32]:
        """One clip as float32 in [-1, 1); `DataError` where it reaches beyond the pack."""
        start = round(offset * self.sample_rate)
        stop = start + round(duration * self.sample_rate)
        if not 0 <= start < stop <= len(self._samples):
            raise DataError(
                f"{self.path}: a clip at {offset} s of {duration} s lies outside the pack "
                f"of {len(self._samples) / self.sample_rate:.3f} s; the manifest belongs to another pack"
            )
        return self._samples[start:stop].astype(np.float32) / 32768.0


class AudioFile:
    """The clips of one recording in any format that soundfile reads, as mono at the rate asked for.

    Nothing is kept open: corpora have more files than a process may open.
    """

    def __init__(self, path: Path, *, sample_rate: int) -> None:
        self.path, self.sample_rate = path, sample_rate

    def read(self, offset: float, duration: float) -> npt.NDArray[np.float32]:
        """One clip as float32; `DataError` where the file can't be read, or has nothing there to be heard."""
        try:
            with soundfile.SoundFile(self.path) as file:
                rate, start = file.samplerate, round(offset * file.samplerate)
                if not SAMPLE_RATES_HZ[0] <= rate <= SAMPLE_RATES_HZ[1]:
                    raise DataError("sample rate out of range")
                if not file.frames:
                    raise DataError("speech empty")
                if start >= file.frames:
                    raise DataError("clip outside its recording")
                file.seek(start)
                found = file.read(round(duration * rate), dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, OSError) as error:
            raise DataError("unreadable audio") from error
        if not len(found):
            raise DataError("speech empty")
        if not np.isfinite(found).all():
            raise DataError("speech not finite")
        samples = to_mono(torch.from_numpy(found))
        return resample(samples, source_rate=rate, target_rate=self.sample_rate).numpy()


def open_clips(path: Path, *, sample_rate: int) -> AudioPack | AudioFile:
    """A recording, mapped where it is a WAV pack of this rate, else decoded clip by clip."""
    try:
        pack = AudioPack(path)
    except DataError:
        if not path.is_file():
            raise
        return AudioFile(path, sample_rate=sample_rate)
    return pack if pack.sample_rate == sample_rate else AudioFile(path, sample_rate=sample_rate)


class AudioPackWriter:
    """Appends clips to a WAV pack; the file takes its name when the writer is closed without an error."""

    def __init__(self, path: Path, *, sample_rate: int = 16_000) -> None:
        self.path, self.sample_rate = path, sample_rate
        self._num_samples = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}")
        self._file = self._temporary.open("wb")
        self._file.write(wav_header(0, sample_rate))

    def append(self, samples: Samples) -> tuple[float, float]:
        """Write one clip and return its offset and duration in seconds; `DataError` beyond 4 GB."""
        if 2 * (self._num_samples + len(samples)) > _MAX_WAV_BYTES:
            raise DataError(f"{self.path}: a WAV file ends at 4 GB; split the clips over several packs")
        offset = self._num_samples / self.sample_rate
        self._file.write(np.ascontiguousarray(samples, dtype="<i2").tobytes())
        self._num_samples += len(samples)
        return offset, len(samples) / self.sample_rate

    def __enter__(self) -> "AudioPackWriter":
        """The writer itself."""
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Finish the header and name the file, or drop it after an error."""
        with self._file:
            self._file.seek(0)
            self._file.write(wav_header(self._num_samples, self.sample_rate))
        if kind is None:
            self._temporary.replace(self.path)
        else:
            self._temporary.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeSpan:
    """Where the codes of one utterance stand in a pack, in frames."""

    offset: int
    length: int


class CodePack:
    """The codes of many utterances, int16 `[sum of L, 7]`, breadth-first, read through a memory map."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(f"{path}: no such codes; encode the answers first")
        self.path = path
        self._codes: npt.NDArray[np.int16] = np.load(path, mmap_mode="r")
        if self._codes.ndim != 2 or self._codes.dtype != np.int16:
            raise DataError(
                f"{path}: codes must be int16 [L, Q], this is {self._codes.dtype} {self._codes.shape}"
            )

    def read(self, span: CodeSpan) -> npt.NDArray[np.int64]:
        """Codes `[L, Q]` of one utterance; `DataError` where the span reaches beyond the pack."""
        stop = span.offset + span.length
        if not 0 <= span.offset < stop <= len(self._codes):
            raise DataError(f"{self.path}: frames {span.offset} to {stop} of {len(self._codes)} don't exist")
        return self._codes[span.offset : stop].astype(np.int64)


def write_code_pack(path: Path, codes: Iterable[npt.NDArray[np.integer]]) -> list[CodeSpan]:
    """Write code arrays `[L, Q]` one after the other, atomically; returns where each stands."""
    arrays = [np.asarray(part, dtype=np.int16) for part in codes]
    if not arrays:
        raise DataError(f"{path}: there are no codes to write")
    spans, offset = [], 0
    for part in arrays:
        spans.append(CodeSpan(offset=offset, length=len(part)))
        offset += len(part)
    save_array(path, np.concatenate(arrays))
    return spans


def save_array(path: Path, array: npt.NDArray[np.generic]) -> None:
    """Save an array as `.npy` through a temporary file that takes the name at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.save(file, array)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def wav_header(num_samples: int, sample_rate: int) -> bytes:
    """The 44 bytes before the samples of a 16-bit mono WAV file."""
    size = 2 * num_samples
    riff = struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return riff + form + struct.pack("<4sI", b"data", size)


def join_clips(parts: Sequence[Samples]) -> Samples:
    """Clips one after the other, int16; empty for none."""
    return np.concatenate(parts).astype(np.int16) if parts else np.zeros(0, dtype=np.int16)


def _read_header(path: Path) -> int:
    if not path.is_file():
        raise DataError(f"{path}: no such pack of speech; make it with `deeptalk prepare` first")
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    rate, size = struct.unpack("<24xI12xI", head) if len(head) == _HEADER_BYTES else (0, 0)
    is_pack = 0 < rate < 1 << 31 and size <= _MAX_WAV_BYTES and head == wav_header(size // 2, rate)
    if not is_pack:
        raise DataError(f"{path}: not a pack; it must be a plain 16-bit mono WAV file with a 44-byte header")
    return rate
