"""Stretches and bands of a log-mel silenced by chance, so that no single cue is relied on (SpecAugment)."""

from dataclasses import dataclass

import torch

from deeptalk.errors import ConfigError
from deeptalk.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Masking:
    """How many bands of up to `band_width` bins and stretches of up to `time_width` frames are silenced."""

    bands: int = 2
    band_width: int = 12
    stretches: int = 2
    time_width: int = 12

    def __post_init__(self) -> None:
        for name in ("bands", "band_width", "stretches", "time_width"):
            if getattr(self, name) < 0:
                raise ConfigError(f"masking.{name} must be 0 or more, got {getattr(self, name)}.")

    def apply(
        self, mel: Float[Tensor, "N M F"], lengths: Int[Tensor, "N"], *, generator: torch.Generator
    ) -> Float[Tensor, "N M F"]:
        """The log-mel with masked places at each clip's own lowest value; one draw per clip."""
        bins = mel.shape[1]
        sizes = lengths.to(mel.device)[:, None].float()
        in_time = _masks(mel.shape[2], sizes, self.stretches, self.time_width, generator)
        in_band = _masks(bins, torch.full_like(sizes, bins), self.bands, self.band_width, generator)
        masked = in_band[:, :, None] | in_time[:, None, :]
        return torch.where(masked, mel.amin(dim=(1, 2), keepdim=True), mel)


def _masks(
    size: int, within: Float[Tensor, "N 1"], count: int, width: int, generator: torch.Generator
) -> Bool[Tensor, "N S"]:
    """`count` stretches per row that begin inside `within`."""
    place = torch.arange(size, device=within.device)[None]
    masked = torch.zeros(len(within), size, dtype=torch.bool, device=within.device)
    for _ in range(count):
        start, length = torch.rand(2, len(within), 1, generator=generator, device=within.device)
        masked |= (place >= start * within) & (place < start * within + length * width)
    return masked
