"""SNAC (Siuzdak 2024) as a ``Codec``: 1 + 2 + 4 codes per 85.3 ms at 24 kHz, in seven flat codebooks.

Axes: B batch, S samples, Q codebooks, T frames.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from snac import SNAC
from torch import nn
from torch.nn import functional as F

from deeptalk.codec.flat import flatten, unflatten
from deeptalk.codec.stream import WindowState, decode_windowed
from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SnacConfig:
    """The sizes of a SNAC model, as its own ``config.json`` names them; the defaults are ``snac_24khz``."""

    sampling_rate: int = 24_000
    encoder_dim: int = 48
    encoder_rates: tuple[int, ...] = (2, 4, 8, 8)
    decoder_dim: int = 1024
    decoder_rates: tuple[int, ...] = (8, 8, 4, 2)
    attn_window_size: int | None = None
    codebook_size: int = 4096
    codebook_dim: int = 8
    vq_strides: tuple[int, ...] = (4, 2, 1)
    noise: bool = True
    depthwise: bool = True
    latent_dim: int | None = None

    def __post_init__(self) -> None:
        if self.attn_window_size is not None:
            raise ConfigError(
                f"attn_window_size must be null, got {self.attn_window_size}: attention would not stream."
            )
        if math.prod(self.encoder_rates) != math.prod(self.decoder_rates):
            raise ConfigError(
                f"the product of encoder_rates {self.encoder_rates} must be that of decoder_rates "
                f"{self.decoder_rates}."
            )
        strides = self.vq_strides
        if not strides or strides[-1] != 1 or any(a % b for a, b in pairwise(strides)):
            raise ConfigError(
                f"vq_strides must each be a multiple of the next one and end with 1, got {strides}."
            )

    @classmethod
    def tiny(cls) -> "SnacConfig":
        """The clock of ``snac_24khz`` with a few thousand parameters."""
        return cls(encoder_dim=2, decoder_dim=16, codebook_size=32, codebook_dim=4)

    def reach_frames(self) -> int:
        """On how many frames before and after it a frame's samples depend, rounded up."""
        reach = 3.0  # the last convolution, kernel 7
        for rate in reversed(self.decoder_rates):
            reach += 3 * (1 + 3 + 9)  # three residual units of kernel 7
            reach = reach / rate + 1  # transposed convolution, kernel 2 * rate
        return math.ceil((reach + 3) / self.vq_strides[0])


class SnacCodec(nn.Module):
    """A SNAC model with seven flat codebooks and a decoder that streams.

    SNAC's decoder adds random noise to its layers; ``has_noise=False`` leaves it out, so that the same
    codes always give the same samples. ``look_ahead_frames`` is how far streaming waits (default: until the
    samples are exact).
    """

    def __init__(
        self, config: SnacConfig, *, has_noise: bool = False, look_ahead_frames: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.rates = tuple(config.vq_strides[0] // stride for stride in config.vq_strides)
        self.model = SNAC(
            sampling_rate=config.sampling_rate,
            encoder_dim=config.encoder_dim,
            encoder_rates=list(config.encoder_rates),
            latent_dim=config.latent_dim,
            decoder_dim=config.decoder_dim,
            decoder_rates=list(config.decoder_rates),
            attn_window_size=None,  # pyright: ignore[reportArgumentType]
            codebook_size=config.codebook_size,
            codebook_dim=config.codebook_dim,
            vq_strides=list(config.vq_strides),
            noise=config.noise,
            depthwise=config.depthwise,
        ).eval()
        self.sample_rate = config.sampling_rate
        self.samples_per_frame = math.prod(config.encoder_rates) * config.vq_strides[0]
        self.num_codebooks = sum(self.rates)
        self.codebook_size = config.codebook_size
        self.reach_frames = config.reach_frames()
        self.look_ahead_frames = self.reach_frames if look_ahead_frames is None else look_ahead_frames
        self.has_noise = has_noise
        if not has_noise:
            _silence_noise(self.model)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.samples_per_frame

    @torch.no_grad()
    def encode(self, waveform: Float[Tensor, "B S"]) -> Int[Tensor, "B Q T"]:
        """The codes of whole clips; the last frame is filled with silence."""
        padded = F.pad(waveform, (0, -waveform.shape[-1] % self.samples_per_frame))
        _, codes = self.model.quantizer(
            self.model.encoder(padded[:, None])
        )  # whole frames: nothing to prepare
        return flatten(codes)

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B Q T"]) -> Float[Tensor, "B S"]:
        """The samples of whole clips."""
        return self.model.decode(unflatten(codes, rates=self.rates))[:, 0]

    def decode_start(self, batch: int = 1) -> WindowState:
        """The state before the first frame."""
        device = next(self.parameters()).device
        nothing = torch.zeros(batch, self.num_codebooks, 0, dtype=torch.long, device=device)
        return WindowState(codes=nothing, num_pending=0)

    def decode_step(
        self, codes: Int[Tensor, "B Q T"], state: WindowState, *, is_last: bool = False
    ) -> tuple[Float[Tensor, "B S"], WindowState]:
        """The samples of the frames whose look-ahead is there, and the next state."""
        return decode_windowed(
            self.decode,
            codes,
            state,
            left_frames=self.reach_frames,
            look_ahead_frames=self.look_ahead_frames,
            samples_per_frame=self.samples_per_frame,
            is_last=is_last,
        )


def _silence_noise(model: nn.Module) -> None:
    """Take the noise layers out of their blocks' paths, keeping their weights in the checkpoint."""
    for module in model.modules():
        if type(module).__name__ == "NoiseBlock":
            module.forward = _unchanged


def _unchanged(x: Tensor) -> Tensor:
    return x
