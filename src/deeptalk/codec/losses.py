"""Spectral losses of codec training: magnitudes at several resolutions, in mel bands and bin by bin."""

from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F

from deeptalk.codec.spectrum import magnitude, mel_filters
from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectralLossConfig:
    """The resolutions (window and mel bands; hop is a quarter window), the band limit in Hz, and the weights.

    ``floor`` is the magnitude below which nothing is heard.
    """

    windows: tuple[int, ...] = (2048, 768, 256)
    num_mels: tuple[int, ...] = (160, 64, 20)
    max_hz: float = 8000.0
    floor: float = 1e-2
    mel_weight: float = 1.0
    bin_weight: float = 0.5

    def __post_init__(self) -> None:
        if len(self.windows) != len(self.num_mels) or not self.windows or min(self.windows) < 16:
            raise ConfigError(
                f"windows (16 and up) and num_mels must be equally many, got "
                f"{self.windows} and {self.num_mels}."
            )


class SpectralLoss(nn.Module):
    """Mean log-mel distance plus relative magnitude distance over all resolutions; phases are free."""

    def __init__(self, config: SpectralLossConfig, *, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        for window, num_mels in zip(config.windows, config.num_mels, strict=True):
            filters = mel_filters(
                num_mels=num_mels, n_fft=window, sample_rate=sample_rate, max_hz=config.max_hz
            )
            self.register_buffer(f"filters_{window}", filters, persistent=False)

    def forward(
        self, made: Float[Tensor, "B S"], target: Float[Tensor, "B S"]
    ) -> dict[str, Float[Tensor, ""]]:
        """``mel`` (natural log units), ``bin`` (relative) and their weighted sum ``spectral``."""
        mel, per_bin = made.new_zeros(()), made.new_zeros(())
        for window in self.config.windows:
            filters = self.get_buffer(f"filters_{window}")
            used = int(filters.any(dim=1).nonzero().max()) + 1
            a, b = (magnitude(x, n_fft=window, hop=window // 4)[..., :used] for x in (made, target))
            log_a, log_b = ((x @ filters[:used]).clamp(min=self.config.floor).log() for x in (a, b))
            mel = mel + F.l1_loss(log_a, log_b) / len(self.config.windows)
            distance = (a - b).abs().sum(dim=(1, 2)) / b.sum(dim=(1, 2)).clamp(min=1.0)
            per_bin = per_bin + distance.mean() / len(self.config.windows)
        total = self.config.mel_weight * mel + self.config.bin_weight * per_bin
        return {"spectral": total, "mel": mel, "bin": per_bin}


def log_mel_error(
    made: Float[Tensor, "B S"], target: Float[Tensor, "B S"], *, sample_rate: int
) -> Float[Tensor, ""]:
    """Mean distance of log10 mel magnitudes: 80 bands to 8 kHz, window 1024, hop 256, floor 1e-2."""
    filters = mel_filters(num_mels=80, n_fft=1024, sample_rate=sample_rate, max_hz=8000.0).to(target)
    a, b = ((magnitude(x, n_fft=1024, hop=256) @ filters).clamp(min=1e-2).log10() for x in (made, target))
    return (a - b).abs().mean()
