"""Eight streams and speech frames as one vector per position (method.md, 2.3 and 2.4).

Axes: B batch, K streams (text first), T positions, N clips, U speech frames, D model width.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from deeptalk.errors import ConfigError
from deeptalk.shapes import Bool, Float, Int, Tensor
from deeptalk.streams.layout import TEXT, StreamLayout

Fusion = Literal["sum", "mean8", "mean2"]
"""How the streams of a position become one vector; e text, e_i codec stream i of Q, f speech frame.

``sum``: e + Σ e_i and e + f. ``mean8``: (e + Σ e_i) / (Q + 1) and (e + Q f) / (Q + 1). ``mean2``:
(e + Σ e_i / Q) / 2 and (e + f) / 2.
"""


class StreamEmbedding(nn.Module):
    """The new input rows: three extra ids of the text stream and a table per codebook.

    The text table stays with the backbone and is given to ``forward``. Under ``sum`` the rows PAD_T, AUD and
    PAD_A are zero and get no gradient, so that text alone is embedded exactly as the backbone does.
    """

    _is_zero: Tensor | None

    def __init__(self, layout: StreamLayout, *, width: int, fusion: Fusion) -> None:
        super().__init__()
        if fusion not in get_args(Fusion):
            raise ConfigError(f"fusion must be one of {', '.join(get_args(Fusion))}, got {fusion!r}.")
        self.layout, self.fusion = layout, fusion
        pad = layout.pad_audio if fusion == "sum" else None
        self.text_extra = nn.Parameter(torch.empty(layout.text_aud + 1 - layout.vocab_size, width))
        self.codec = nn.ModuleList(
            nn.Embedding(layout.audio_rows, width, padding_idx=pad) for _ in range(layout.num_codebooks)
        )
        extra = torch.arange(layout.vocab_size, layout.text_aud + 1)
        is_zero = (extra == layout.text_pad) | (extra == layout.text_aud)
        self.register_buffer("_is_zero", is_zero[:, None] if fusion == "sum" else None, persistent=False)
        self.initialise(rms=1.0)

    @torch.no_grad()
    def initialise(self, *, rms: float) -> None:
        """Draw all rows anew for a text table of this root mean square; the filler rows are zero."""
        std = rms / self.layout.num_codebooks**0.5 if self.fusion == "sum" else rms
        nn.init.normal_(self.text_extra, std=std)
        for filler in (self.layout.text_pad, self.layout.text_aud):
            self.text_extra[filler - self.layout.vocab_size] = 0.0
        for table in self._tables():
            nn.init.normal_(table, std=std)
            table[self.layout.pad_audio] = 0.0

    def forward(
        self,
        grid: Int[Tensor, "B K T"],
        *,
        text_table: Float[Tensor, "V D"],
        speech: Float[Tensor, "N U D"] | None = None,
        speech_at: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """One vector per position; at ``speech_at`` = n·U + u, frame u of clip n replaces the codes."""
        text = self.embed_text(grid[:, TEXT], text_table=text_table)
        fused = self._fuse_codes(text, grid[:, TEXT + 1 :])
        if speech is None or speech_at is None:
            return fused
        frames = speech.flatten(0, 1)[speech_at.clamp(min=0)]
        return torch.where((speech_at >= 0)[..., None], self._fuse_frames(text, frames), fused)

    def embed_text(
        self, ids: Int[Tensor, "B T"], *, text_table: Float[Tensor, "V D"]
    ) -> Float[Tensor, "B T D"]:
        """The text stream alone: rows of the backbone's table, or of the extra ids behind it."""
        num_rows = self.layout.vocab_size
        extra = self.text_extra
        if self._is_zero is not None:
            extra = extra.masked_fill(self._is_zero, 0.0)
        known = F.embedding(ids.clamp(max=num_rows - 1), text_table)
        added = F.embedding((ids - num_rows).clamp(min=0), extra)
        return torch.where((ids >= num_rows)[..., None], added, known)

    def _fuse_codes(self, text: Tensor, codes: Int[Tensor, "B Q T"]) -> Tensor:
        count = self.layout.num_codebooks
        total = self.codec[0](codes[:, 0])
        for i in range(1, count):
            total = total + self.codec[i](codes[:, i])
        if self.fusion == "sum":  # adding zero would turn a negative zero positive
            return torch.where(self._is_quiet(codes)[..., None], text, text + total)
        return (text + total) / (count + 1) if self.fusion == "mean8" else (text + total / count) / 2

    def _fuse_frames(self, text: Tensor, frames: Tensor) -> Tensor:
        """Speech frames stand where the codec streams would: as their sum, or as the mean of all of them."""
        if self.fusion == "sum":
            return text + frames
        weight = self.frame_weight
        return (text + weight * frames) / (weight + 1)

    @property
    def frame_weight(self) -> int:
        """How much of a fused position a speech frame is for one part of text."""
        return self.layout.num_codebooks if self.fusion == "mean8" else 1

    def _is_quiet(self, codes: Int[Tensor, "B Q T"]) -> Bool[Tensor, "B T"]:
        return (codes == self.layout.pad_audio).all(dim=1)

    def _tables(self) -> list[Tensor]:
        return [table.weight for table in self.codec]  # type: ignore[misc]


def root_mean_square(table: Float[Tensor, "V D"]) -> float:
    """The root mean square of a table's entries."""
    return float(table.detach().float().square().mean().sqrt())
