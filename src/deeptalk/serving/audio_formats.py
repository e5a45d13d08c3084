"""Sound on the wire: bytes of a Realtime format ↔ samples, while they arrive."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import soxr
import torch

from deeptalk.errors import AudioError
from deeptalk.serving.turns import HEARD_RATE
from deeptalk.shapes import Float, Tensor

Encoding = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """16-bit little-endian samples at ``rate``, or G.711 at 8 kHz; always mono."""

    type: Encoding = "audio/pcm"
    rate: int = 24_000

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of one sample."""
        return 2 if self.type == "audio/pcm" else 1


class SoundIn:
    """Bytes in, samples at 16 kHz out; the pieces together are the whole sound resampled at once."""

    def __init__(self, given: AudioFormat) -> None:
        self._format = given
        self._resampler = _resampler(given.rate, HEARD_RATE)

    def push(self, data: bytes) -> Float[Tensor, "S"]:
        """The samples that these bytes complete. AudioError for half a sample."""
        if len(data) % self._format.bytes_per_sample:
            raise AudioError(f"{len(data)} bytes are no whole 16-bit samples.")
        return self._resampled(_decoded(data, self._format.type), is_last=False)

    def finish(self) -> Float[Tensor, "S"]:
        """What the resampler has kept."""
        return self._resampled(np.zeros(0, dtype=np.float32), is_last=True)

    def _resampled(self, samples: np.ndarray, *, is_last: bool) -> Float[Tensor, "S"]:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=is_last)
        return torch.from_numpy(np.ascontiguousarray(samples))


class SoundOut:
    """Samples of the codec in, bytes out; the pieces together are the whole sound."""

    def __init__(self, wanted: AudioFormat, *, sample_rate: int) -> None:
        self._format = wanted
        self._resampler = _resampler(sample_rate, wanted.rate)

    def push(self, samples: Float[Tensor, "S"], *, is_last: bool = False) -> bytes:
        """The bytes that these samples complete; at the end, what the resampler has kept as well."""
        data = samples.detach().cpu().float().numpy()
        if self._resampler is not None:
            data = self._resampler.resample_chunk(data, last=is_last)
        return _encoded(data, self._format.type)


def encode_pcm(samples: Float[Tensor, "S"]) -> bytes:
    """16-bit little-endian samples."""
    return _encoded(samples.detach().cpu().float().numpy(), "audio/pcm")


def decode_pcm(data: bytes) -> Float[Tensor, "S"]:
    """What 16-bit little-endian samples stand for."""
    return torch.from_numpy(_decoded(data, "audio/pcm"))


def _resampler(source: int, target: int) -> soxr.ResampleStream | None:
    return None if source == target else soxr.ResampleStream(source, target, 1, dtype="float32")


def _decoded(data: bytes, encoding: Encoding) -> np.ndarray:
    if encoding == "audio/pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768
    return _TABLES[encoding][np.frombuffer(data, np.uint8)]


def _encoded(samples: np.ndarray, encoding: Encoding) -> bytes:
    if encoding == "audio/pcm":
        return (samples.clip(-1.0, 1.0) * 32767).round().astype("<i2").tobytes()
    table = _TABLES[encoding]
    order = np.argsort(table, kind="stable")
    middles = (table[order][1:] + table[order][:-1]) / 2
    return order[np.searchsorted(middles, samples)].astype(np.uint8).tobytes()


def _mu_law_table() -> np.ndarray:
    """What the 256 codes of ITU-T G.711 mu-law stand for."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    size = ((((code & 0x0F) << 3) + 0x84) << ((code >> 4) & 7)) - 0x84
    return (np.where(code & 0x80, -size, size) / 32768).astype(np.float32)


def _a_law_table() -> np.ndarray:
    """What the 256 codes of ITU-T G.711 A-law stand for."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, (code & 0x0F) << 4
    size = np.where(exponent, (mantissa + 0x108) << np.maximum(exponent - 1, 0), mantissa + 8)
    return (np.where(code & 0x80, size, -size) / 32768).astype(np.float32)


_TABLES = {"audio/pcmu": _mu_law_table(), "audio/pcma": _a_law_table()}
