"""Speakers that were never recorded, made from log-mel: warped, tilted, louder or softer, partly masked."""

from dataclasses import dataclass

import torch

from deeptalk.errors import ConfigError
from deeptalk.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class MelAugment:
    """How far log-mel features are moved, one draw per clip.

    Attributes:
        warp: largest change of the frequency axis (0.1 is a vocal tract 10 % longer or shorter).
        tilt: largest change of level from the lowest to the highest bin, in units of the features.
        level: largest change of the whole level, in units of the features.
        band_masks: bands of up to `band_width` bins that are silenced.
        time_masks: stretches of up to `time_width` frames that are silenced.
    """

    warp: float = 0.1
    tilt: float = 0.15
    level: float = 0.1
    band_masks: int = 2
    band_width: int = 12
    time_masks: int = 2
    time_width: int = 12

    def __post_init__(self) -> None:
        if not 0 <= self.warp < 0.5:
            raise ConfigError(f"warp must be in [0, 0.5), got {self.warp}.")

    def apply(
        self, mel: Float[Tensor, "N M F"], lengths: Int[Tensor, "N"], *, generator: torch.Generator
    ) -> Float[Tensor, "N M F"]:
        """Changed features of the same shape; frames after a clip's end are left as they are."""
        clips, bins, frames = mel.shape
        changed = torch.bmm(self._warp_matrix(clips, bins, generator, mel), mel)
        slope = torch.linspace(-0.5, 0.5, bins, device=mel.device)[None, :, None]
        changed = changed + self.tilt * _signed(clips, generator, mel) * slope
        changed = changed + self.level * _signed(clips, generator, mel)
        floor = mel.amin(dim=(1, 2), keepdim=True)
        masked = _masks(clips, bins, self.band_masks, self.band_width, generator, mel)[:, :, None]
        masked = masked | _masks(clips, frames, self.time_masks, self.time_width, generator, mel)[:, None, :]
        changed = torch.where(masked, floor, changed)
        is_speech = torch.arange(frames, device=mel.device)[None] < lengths.to(mel.device)[:, None]
        return torch.where(is_speech[:, None], changed, mel)

    def _warp_matrix(self, clips: int, bins: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Linear interpolation from bin m to bin m times the clip's factor."""
        factor = 1 + self.warp * _signed(clips, generator, like)
        place = (torch.arange(bins, device=like.device)[None, :, None] * factor).clamp(max=bins - 1)
        distance = (place - torch.arange(bins, device=like.device)[None, None, :]).abs()
        return (1 - distance).clamp(min=0)


def _signed(clips: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """One number in [-1, 1) per clip."""
    return 2 * torch.rand(clips, 1, 1, generator=generator, device=like.device) - 1


def _masks(
    clips: int, size: int, count: int, width: int, generator: torch.Generator, like: Tensor
) -> Bool[Tensor, "N S"]:
    place = torch.arange(size, device=like.device)[None]
    masked = torch.zeros(clips, size, dtype=torch.bool, device=like.device)
    for _ in range(count):
        start = torch.rand(clips, 1, generator=generator, device=like.device) * size
        length = torch.rand(clips, 1, generator=generator, device=like.device) * width
        masked |= (place >= start) & (place < start + length)
    return masked
