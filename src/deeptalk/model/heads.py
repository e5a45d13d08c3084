"""From hidden states to the next id of every stream: the backbone's text head and one head per codebook.

Axes: B batch, T positions, Q codebooks, D model width, V text ids, C rows of a codebook (codes and specials).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from deeptalk.shapes import Float, Tensor
from deeptalk.streams.layout import StreamLayout


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StreamLogits:
    """Scores of the next id of every stream."""

    text: Float[Tensor, "B T V"]
    codec: Float[Tensor, "B Q T C"]


class Heads(nn.Module):
    """One linear head per codebook; the text head stays with the backbone and is given to ``forward``."""

    def __init__(self, layout: StreamLayout, *, width: int, std: float = 0.02) -> None:
        super().__init__()
        self.layout = layout
        self.codec = nn.ModuleList(
            nn.Linear(width, layout.audio_rows, bias=False) for _ in range(layout.num_codebooks)
        )
        for head in self.codec:
            nn.init.normal_(head.weight, std=std)  # type: ignore[arg-type]

    def forward(self, hidden: Float[Tensor, "B T D"], *, text_head: nn.Linear) -> StreamLogits:
        """The logits of all streams at all positions."""
        codec = torch.stack([head(hidden) for head in self.codec], dim=1)
        return StreamLogits(text=text_head(hidden), codec=codec)

    def stacked(self) -> Float[Tensor, "R D"]:
        """All codec heads as one matrix, R = Q · C, to be made once and given to ``codec_logits``."""
        return torch.cat([head.weight for head in self.codec])  # type: ignore[misc]

    def codec_logits(self, hidden: Float[Tensor, "*P D"], stacked: Float[Tensor, "R D"]) -> Tensor:
        """Codec logits ``[*P, Q, C]`` in one product, for decoding and for chosen positions."""
        return F.linear(hidden, stacked).unflatten(-1, (self.layout.num_codebooks, self.layout.audio_rows))
