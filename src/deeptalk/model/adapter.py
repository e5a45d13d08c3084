"""From encoder frames to positions of the language model: gated MLP or strided convolution (method.md, 2.2).

Axes: N clips, U2 encoder frames, D2 their width, U = ceil(U2 / stride) speech frames, D model width.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from deeptalk.errors import AudioError, ConfigError
from deeptalk.shapes import Float, Int, Tensor

KINDS = ("gated_mlp", "conv")
STRIDES = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterConfig:
    """Kind and sizes of the adapter; ``hidden`` is used by the gated MLP only.

    ``levelled`` frames are normalised to the size of text embeddings. The paper's are not: nothing holds a
    gated MLP's output down, and beside frames that are a thousand times as large as a token, what the
    backbone's layers add to them is lost. To ``worded`` frames the model adds the text embeddings of the
    words that they are like (`HearingHead`): not in the paper either. ``dropout`` is of what comes in.
    """

    kind: Literal["gated_mlp", "conv"] = "gated_mlp"
    stride: int = 4
    in_width: int = 1024
    hidden: int = 7168
    out_width: int = 2048
    levelled: bool = False
    worded: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"adapter.kind must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        if self.stride not in STRIDES:
            raise ConfigError(
                f"adapter.stride must be one of {', '.join(map(str, STRIDES))}, got {self.stride}."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"adapter.dropout must be from 0 to below 1, got {self.dropout}.")
        for name in ("in_width", "hidden", "out_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"adapter.{name} must be at least 1, got {getattr(self, name)}.")

    @classmethod
    def tiny(cls) -> "AdapterConfig":
        """Fits the tiny encoder and the tiny backbone."""
        return cls(stride=2, in_width=16, hidden=24, out_width=32)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "AdapterConfig":
        """Read what ``to_dict`` wrote."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return asdict(self)


class GatedMlp(nn.Module):
    """W3(SiLU(W1 x) ⊙ W2 x) on ``stride`` frames put end to end, the last group filled with zeros."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.stride = config.stride
        grouped = config.in_width * config.stride
        self.gate = nn.Linear(grouped, config.hidden, bias=False)
        self.up = nn.Linear(grouped, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.out_width, bias=False)

    def forward(self, frames: Float[Tensor, "N U2 D2"], lengths: Int[Tensor, " N"]) -> Float[Tensor, "N U D"]:
        """Adapt frames that are zero behind the clips' ends."""
        frames = F.pad(frames, (0, 0, 0, -frames.shape[1] % self.stride))
        x = frames.unflatten(1, (-1, self.stride)).flatten(2)
        return self.down(F.silu(self.gate(x)) * self.up(x))


class StridedConv(nn.Module):
    """log2(stride) convolutions of kernel 3 and stride 2 with GELU, then a linear map."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        width, num_blocks = config.in_width, config.stride.bit_length() - 1
        blocks = [nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1) for _ in range(num_blocks)]
        self.convs = nn.ModuleList(blocks)
        self.out = nn.Linear(width, config.out_width)

    def forward(self, frames: Float[Tensor, "N U2 D2"], lengths: Int[Tensor, " N"]) -> Float[Tensor, "N U D"]:
        """Adapt frames that are zero behind the clips' ends."""
        for conv in self.convs:
            frames = F.gelu(conv(frames.transpose(1, 2)).transpose(1, 2))
            lengths = _halve(lengths)
            frames = _zero_behind(frames, lengths)
        return self.out(frames)


class Adapter(nn.Module):
    """The adapter that a config names; what lies behind a clip's end is ignored and comes out as zero."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.body = GatedMlp(config) if config.kind == "gated_mlp" else StridedConv(config)
        self.level = nn.Parameter(torch.ones(config.out_width)) if config.levelled else None

    def forward(self, frames: Float[Tensor, "N U2 D2"], lengths: Int[Tensor, " N"]) -> Float[Tensor, "N U D"]:
        """Speech frames as wide as the model; U = ceil(U2 / stride)."""
        frames = F.dropout(_zero_behind(frames, lengths), self.config.dropout, training=self.training)
        adapted = self.body(frames, lengths)
        if self.level is not None:
            adapted = self.level * F.rms_norm(adapted, adapted.shape[-1:], eps=1e-6)
        return _zero_behind(adapted, self.lengths(lengths))

    def lengths(self, lengths: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """Speech frames of clips of so many encoder frames, rounded up."""
        return (lengths + self.config.stride - 1) // self.config.stride


class AdapterStream:
    """The adapter's streaming twin; a speech frame leaves with the last encoder frame of its group."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.pending: Tensor | None = None
        self.has_margin = False
        self.is_finished = False

    def push(self, frames: Float[Tensor, "U2 D2"]) -> Float[Tensor, "U D"]:
        """Take further encoder frames; the speech frames that they complete."""
        self._take(frames)
        assert self.pending is not None
        stride = self.adapter.config.stride
        return self._adapt(self.pending.shape[0] // stride * stride)

    def finish(self) -> Float[Tensor, "U D"]:
        """The last speech frame where its group is incomplete; nothing may be pushed afterwards."""
        self._take(next(self.adapter.parameters()).new_zeros(0, self.adapter.config.in_width))
        assert self.pending is not None
        self.is_finished = True
        return self._adapt(self.pending.shape[0])

    def _take(self, frames: Tensor) -> None:
        if self.is_finished:
            raise AudioError("This adapter stream has finished; make a new one for the next clip.")
        self.pending = frames if self.pending is None else torch.cat([self.pending, frames])

    @torch.no_grad()
    def _adapt(self, count: int) -> Tensor:
        """Adapt ``count`` pending frames; the group before them stays as left context of the convolution."""
        assert self.pending is not None
        config = self.adapter.config
        if count <= (config.stride if self.has_margin else 0):
            return self.pending.new_zeros(0, config.out_width)
        lengths = torch.tensor([count], device=self.pending.device)
        adapted = self.adapter(self.pending[None, :count], lengths)[0]
        if self.has_margin:
            adapted = adapted[1:]
        self.pending, self.has_margin = self.pending[max(0, count - config.stride) :], True
        return adapted


def _halve(lengths: Tensor) -> Tensor:
    return (lengths + 1) // 2


def _zero_behind(frames: Tensor, lengths: Tensor) -> Tensor:
    valid = torch.arange(frames.shape[1], device=frames.device) < lengths[:, None]
    return frames.masked_fill(~valid[..., None], 0.0)
