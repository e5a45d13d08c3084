"""Heads that only training needs: which word and which phones an answer is saying while it speaks.

Axes: B batch, T positions, D model width, V text ids, S phones of a frame, P kinds of phones.
"""

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


def _level(state: Tensor) -> Tensor:
    return F.rms_norm(state, state.shape[-1:], eps=torch.finfo(torch.float32).eps)
