"""The Whisper encoder at any length, with the weights and names of the stock class.

Axes: N clips, M mel bins, F mel frames (100 a second), U2 encoder frames (50 a second), D2 their width.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperAttention, WhisperEncoder

from deeptalk.audio.log_mel import DYNAMIC_RANGE, FLOOR_POWER
from deeptalk.backbone.cache_argument import cache_argument
from deeptalk.errors import AudioError, ConfigError
from deeptalk.shapes import Bool, Float, Int, Tensor

MODES = ("pad30", "native", "chunked")
MEL_FRAMES_PER_FRAME = 2
# Whisper clips its log-mel eight decades below the clip's peak, never under 1e-10, and maps x to (x + 4) / 4.
RANGE_BELOW_PEAK = DYNAMIC_RANGE / 4.0
LOWEST_LEVEL = (math.log10(FLOOR_POWER) + 4.0) / 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Size of the encoder and which frames of a clip see which.

    ``pad30`` pads every clip to the full window, as Whisper was pretrained; ``native`` keeps its own length;
    ``chunked`` lets a frame see its own block of ``chunk_frames`` and the ``left_chunks`` blocks before it
    (all earlier blocks for None), so that it can run while the user speaks.
    """

    mode: Literal["pad30", "native", "chunked"] = "native"
    d_model: int = 1024
    layers: int = 24
    heads: int = 16
    ffn: int = 4096
    num_mels: int = 80
    max_positions: int = 1500
    chunk_frames: int = 16
    left_chunks: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"encoder.mode must be one of {', '.join(MODES)}, got {self.mode!r}.")
        sizes = ("d_model", "layers", "heads", "ffn", "num_mels", "max_positions", "chunk_frames")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ConfigError(f"encoder.{name} must be at least 1, got {getattr(self, name)}.")
        if self.d_model % self.heads or self.d_model % 2:
            raise ConfigError(
                f"encoder.d_model must be even and a multiple of encoder.heads ({self.heads}), "
                f"got {self.d_model}."
            )
        if self.left_chunks is not None and self.left_chunks < 0:
            raise ConfigError(
                f"encoder.left_chunks must be 0 or more, or None for all, got {self.left_chunks}."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"encoder.dropout must be from 0 to below 1, got {self.dropout}.")

    @classmethod
    def tiny(cls, *, mode: Literal["pad30", "native", "chunked"] = "chunked") -> "EncoderConfig":
        """A size for tests: two layers, four-frame blocks."""
        return cls(
            mode=mode, d_model=16, layers=2, heads=2, ffn=32, num_mels=8, max_positions=64, chunk_frames=4
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EncoderConfig":
        """Read what ``to_dict`` wrote."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return asdict(self)

    def whisper(self) -> WhisperConfig:
        """The same sizes in the words of ``transformers``."""
        config = WhisperConfig(
            d_model=self.d_model,
            encoder_layers=self.layers,
            encoder_attention_heads=self.heads,
            encoder_ffn_dim=self.ffn,
            num_mel_bins=self.num_mels,
            max_source_positions=self.max_positions,
            dropout=self.dropout,
            decoder_layers=1,
            decoder_attention_heads=1,
        )
        config._attn_implementation = "sdpa"
        return config


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots, as `BackboneOutput`
class EncodedSpeech:
    """Encoder frames of several clips; frames from ``lengths`` on are zero."""

    frames: Float[Tensor, "N U2 D2"]
    lengths: Int[Tensor, " N"]


class KeyValueStore(Protocol):
    """Whatever remembers the keys and values of earlier frames while a stream runs."""

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, **stock: Any) -> tuple[Tensor, Tensor]:
        """Add new keys and values of one layer; all that the new frames may see."""
        ...


class SpeechEncoder(WhisperEncoder):
    """Whisper's encoder without its fixed length; padding inside a batch changes nothing."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config.whisper())
        self.settings = config
        for index, layer in enumerate(self.layers):
            attention = cast(WhisperAttention, layer.self_attn)
            attention.layer_idx = index  # lets a stream keep keys and values per layer

    # other arguments than the stock class, which takes full windows only
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, mel: Float[Tensor, "N M F"], lengths: Int[Tensor, " N"]
    ) -> EncodedSpeech:
        """Encode clips of ``lengths`` mel frames; U2 = ceil(F / 2) frames per clip."""
        return self.forward_layers(mel, lengths)[0]

    def attend_eagerly(self) -> None:
        """Plain matrix products for attention: on short clips a third faster to train on a processor."""
        self.config._attn_implementation = "eager"

    def forward_layers(
        self, mel: Float[Tensor, "N M F"], lengths: Int[Tensor, " N"]
    ) -> tuple[EncodedSpeech, tuple[Float[Tensor, "N U2 D2"], ...]]:
        """The encoded speech, and the states after each layer (before the last norm, padding not zeroed)."""
        self._check(mel, lengths)
        kept = frame_lengths(lengths)
        num_frames = -(-mel.shape[-1] // MEL_FRAMES_PER_FRAME)
        if self.settings.mode == "pad30":
            mel = pad_like_silence(mel, lengths, to=MEL_FRAMES_PER_FRAME * self.settings.max_positions)
            lengths = torch.full_like(lengths, mel.shape[-1])
        hidden = self.front(mel, lengths)
        hidden, layers = self.attend(hidden, mask=self._mask(hidden.shape[1], frame_lengths(lengths)))
        frames = self.layer_norm(hidden)[:, :num_frames]
        frames = frames * _valid(kept, num_frames)[..., None]
        encoded = EncodedSpeech(frames=frames, lengths=kept)
        return encoded, tuple(layer[:, :num_frames] for layer in layers)

    def front(self, mel: Float[Tensor, "N M F"], lengths: Int[Tensor, " N"]) -> Float[Tensor, "N U2 D2"]:
        """Convolutions and positions; what lies behind a clip's end counts as zero, as for a clip alone."""
        valid = _valid(lengths, mel.shape[-1])[:, None]
        hidden = mel.to(self.conv1.weight.dtype).masked_fill(~valid, 0.0)
        hidden = F.gelu(self.conv1(hidden)).masked_fill(~valid, 0.0)
        hidden = F.gelu(self.conv2(hidden)).transpose(1, 2)
        return self.place(hidden, start=0)

    def place(self, hidden: Float[Tensor, "N U2 D2"], *, start: int) -> Float[Tensor, "N U2 D2"]:
        """Add the positions of frames ``start`` and on."""
        hidden = hidden + self.embed_positions.weight.detach()[start : start + hidden.shape[1]]
        return F.dropout(hidden, p=self.settings.dropout, training=self.training)

    def attend(
        self,
        hidden: Float[Tensor, "N U2 D2"],
        *,
        mask: Bool[Tensor, "N 1 U2 K2"] | None,
        store: KeyValueStore | None = None,
    ) -> tuple[Float[Tensor, "N U2 D2"], list[Float[Tensor, "N U2 D2"]]]:
        """All layers, without the last norm; ``store`` adds the frames of the stream's past."""
        layers: list[Tensor] = []
        if mask is not None and self.config._attn_implementation == "eager":
            mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))
        past = {} if store is None else {cache_argument(WhisperAttention): store}
        for layer in self.layers:
            hidden = layer(hidden, mask, **past)
            layers.append(hidden)
        return hidden, layers

    def _mask(self, num_frames: int, lengths: Int[Tensor, " N"]) -> Bool[Tensor, "N 1 U2 U2"] | None:
        """Which frame may see which; None where every frame sees all."""
        settings, device = self.settings, lengths.device
        valid = _valid(lengths, num_frames)
        if settings.mode != "chunked":
            return None if bool(valid.all()) else valid[:, None, None].expand(-1, 1, num_frames, -1)
        index = torch.arange(num_frames, device=device)
        seen = block_mask(index, index, chunk_frames=settings.chunk_frames, left_chunks=settings.left_chunks)
        itself = torch.eye(num_frames, dtype=torch.bool, device=device)  # a padded frame must see something
        return ((seen & valid[:, None]) | itself)[:, None]

    def _check(self, mel: Tensor, lengths: Tensor) -> None:
        settings = self.settings
        if mel.ndim != 3 or mel.shape[1] != settings.num_mels or lengths.shape != mel.shape[:1]:
            raise ConfigError(
                f"The encoder takes mel [N, {settings.num_mels}, F] and lengths [N], "
                f"got {list(mel.shape)} and {list(lengths.shape)}."
            )
        most = MEL_FRAMES_PER_FRAME * settings.max_positions
        if int(lengths.min()) < 1 or int(lengths.max()) > min(most, mel.shape[-1]):
            raise AudioError(
                f"A clip must have 1 to {most} mel frames ({most / 100:g} s), got {lengths.tolist()} "
                f"in a batch of {mel.shape[-1]}; split longer recordings."
            )


def frame_lengths(mel_lengths: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Encoder frames of clips of so many mel frames: half, rounded up."""
    return (mel_lengths + MEL_FRAMES_PER_FRAME - 1) // MEL_FRAMES_PER_FRAME


def block_mask(
    queries: Int[Tensor, " Q2"], keys: Int[Tensor, " K2"], *, chunk_frames: int, left_chunks: int | None
) -> Bool[Tensor, "Q2 K2"]:
    """Block-causal attention: True where frame ``keys`` may be seen from frame ``queries``."""
    distance = queries[:, None] // chunk_frames - keys[None] // chunk_frames
    seen = distance >= 0
    return seen if left_chunks is None else seen & (distance <= left_chunks)


def pad_like_silence(
    mel: Float[Tensor, "N M F"], lengths: Int[Tensor, " N"], *, to: int
) -> Float[Tensor, "N M F2"]:
    """Fill every clip up to ``to`` frames with the value that Whisper's log-mel gives silence behind it."""
    padded = F.pad(mel, (0, to - mel.shape[-1]))
    valid = _valid(lengths, to)[:, None]
    peak = padded.masked_fill(~valid, float("-inf")).amax(dim=(1, 2), keepdim=True)
    return torch.where(valid, padded, (peak - RANGE_BELOW_PEAK).clamp(min=LOWEST_LEVEL))


def _valid(lengths: Int[Tensor, " N"], size: int) -> Bool[Tensor, "N S"]:
    return torch.arange(size, device=lengths.device) < lengths[:, None]
