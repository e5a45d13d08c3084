"""A codec without weights, for tests: each codebook is the loudness of one sine.

Axes: B batch, S samples, Q codebooks, T frames.
"""

import math

import torch
from torch.nn import functional as F

from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Int, Tensor


class SineCodec:
    """Codes are loudnesses of harmonics of the frame rate; ``encode(decode(codes))`` gives the codes back."""

    look_ahead_frames = 0

    def __init__(
        self,
        *,
        num_codebooks: int = 7,
        codebook_size: int = 32,
        sample_rate: int = 24_000,
        samples_per_frame: int = 2048,
    ) -> None:
        if not 1 <= num_codebooks < samples_per_frame // 4:
            raise ConfigError(
                f"num_codebooks must be from 1 to {samples_per_frame // 4 - 1}, got {num_codebooks}."
            )
        if codebook_size < 2:
            raise ConfigError(f"codebook_size must be at least 2, got {codebook_size}.")
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size
        self.sample_rate = sample_rate
        self.samples_per_frame = samples_per_frame

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.samples_per_frame

    def encode(self, waveform: Float[Tensor, "B S"]) -> Int[Tensor, "B Q T"]:
        """The nearest loudness of each sine in each frame; the last frame is filled with silence."""
        padded = F.pad(waveform, (0, -waveform.shape[-1] % self.samples_per_frame))
        frames = padded.unflatten(-1, (-1, self.samples_per_frame))
        loudness = frames @ self._sines().T.to(frames) * (2.0 / self.samples_per_frame)
        codes = (loudness * self.num_codebooks * (self.codebook_size - 1)).round().long()
        return codes.clamp(0, self.codebook_size - 1).transpose(1, 2)

    def decode(self, codes: Int[Tensor, "B Q T"]) -> Float[Tensor, "B S"]:
        """The sum of the sines, at most 1 in magnitude."""
        loudness = codes.transpose(1, 2).float() / (self.num_codebooks * (self.codebook_size - 1))
        return (loudness @ self._sines().to(loudness)).flatten(1)

    def decode_start(self, batch: int = 1) -> None:
        """Nothing: every frame stands alone."""

    def decode_step(
        self, codes: Int[Tensor, "B Q T"], state: None, *, is_last: bool = False
    ) -> tuple[Float[Tensor, "B S"], None]:
        """The samples of these frames."""
        return self.decode(codes), None

    def _sines(self) -> Float[Tensor, "Q S"]:
        harmonics = torch.arange(1, self.num_codebooks + 1)[:, None]
        turns = harmonics * torch.arange(self.samples_per_frame) / self.samples_per_frame
        return (2.0 * math.pi * turns).sin()
