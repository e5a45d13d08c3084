"""Heads that tell what an answer is saying while it speaks, and what a question has said.

Axes: B batch, T positions, N clips, U speech frames, D model width, V text ids, S phones of a frame, P kinds
of phones.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from deeptalk.shapes import Float, Tensor


class AlignmentHeads(nn.Module):
    """Words by the backbone's own text head behind a turn of the state, phones by a linear head."""

    def __init__(self, width: int, *, num_phones: int, phones_per_frame: int) -> None:
        super().__init__()
        self.num_phones, self.phones_per_frame = num_phones, phones_per_frame
        self.turn = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.turn.weight)
        self.phones = nn.Linear(width, phones_per_frame * num_phones)
        nn.init.zeros_(self.phones.weight)
        nn.init.zeros_(self.phones.bias)

    def word_logits(self, state: Float[Tensor, "*N D"], text_head: nn.Linear) -> Float[Tensor, "*N V"]:
        """Scores of the text id in which the word begins that is being said."""
        return text_head(self.turn(_level(state)))

    def phone_logits(self, state: Float[Tensor, "*N D"]) -> Float[Tensor, "*N S P"]:
        """Scores of each phone of a frame."""
        return self.phones(_level(state)).unflatten(-1, (-1, self.num_phones))


class HearingHead(nn.Module):
    """How much each speech frame is like each row of the backbone's own text table, or like none of them."""

    def __init__(self, width: int, *, scale: float = 24.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.nothing = nn.Linear(width, 1)
        nn.init.zeros_(self.nothing.weight)
        nn.init.zeros_(self.nothing.bias)

    def log_probs(
        self, frames: Float[Tensor, "N U D"], text_table: Float[Tensor, "V D"]
    ) -> Float[Tensor, "N U V+1"]:
        """By the cosine of frame and row; nothing, the loss's blank, comes last. The table stands still."""
        rows = F.normalize(text_table.detach().float(), dim=-1)
        likeness = self.log_scale.exp() * F.normalize(frames.float(), dim=-1) @ rows.T
        return torch.cat([likeness, self.nothing(_level(frames)).float()], dim=-1).log_softmax(-1)


def _level(state: Tensor) -> Tensor:
    return F.rms_norm(state, state.shape[-1:], eps=torch.finfo(torch.float32).eps)
