"""What a position holds and which of the two decoding rows it belongs to.

Both follow from position and row, never from values; router mask, load class and loss read them.
"""

from enum import IntEnum

from deeptalk.shapes import Bool, Int, Tensor

PAD_KIND = -1
"""The kind of a padded position of a batch."""


class Kind(IntEnum):
    """What a position holds. The last prompt position counts as answer: it carries the mode and predicts."""

    TEMPLATE = 0
    TEXT = 1
    SPEECH = 2
    ANSWER = 3


class Row(IntEnum):
    """The row a sequence plays in batch-parallel decoding: text alone, or text and speech."""

    TEXT = 0
    SPEECH = 1


def is_audio(kind: Int[Tensor, "B T"], row: Int[Tensor, "B"]) -> Bool[Tensor, "B T"]:
    """Whether a position is speech: speech that comes in, and the answer of a speech row from p0 on."""
    is_spoken_answer = (kind == Kind.ANSWER) & (row == Row.SPEECH).unsqueeze(-1)
    return (kind == Kind.SPEECH) | is_spoken_answer
