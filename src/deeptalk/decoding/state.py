"""All that changes while answers are decoded: one object that is passed in."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache

from deeptalk.backbone import copy_rows, snapshot
from deeptalk.backbone.cache import cropped
from deeptalk.decoding.answer import Answer, Limits
from deeptalk.decoding.sampling import Sampling
from deeptalk.errors import ConfigError
from deeptalk.shapes import Bool, Int, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodingOptions:
    """How text and codes are sampled, and the limits; ``codec`` is one for all codebooks or one for each.

    ``released`` ends text and speech as the authors' code does (see `deeptalk.decoding.answer`).
    """

    text: Sampling = field(default_factory=Sampling)
    codec: Sampling | tuple[Sampling, ...] = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    released: bool = False

    def codec_samplings(self, num_codebooks: int) -> tuple[Sampling, ...]:
        """The sampling of each codebook."""
        if isinstance(self.codec, Sampling):
            return (self.codec,) * num_codebooks
        if len(self.codec) != num_codebooks:
            raise ConfigError(f"codec needs {num_codebooks} samplings, one each, got {len(self.codec)}.")
        return self.codec


@dataclass(slots=True, eq=False)
class History:
    """A dialogue so far, as the text row has it: one cache row, and columns that are not in it yet."""

    cache: DynamicCache
    pending: list[list[int]] = field(default_factory=list)

    @property
    def num_positions(self) -> int:
        """Positions of the dialogue, pending ones included."""
        return int(self.cache.get_seq_length()) + len(self.pending)

    def fork(self) -> "History":
        """The same dialogue, to be continued without touching this one."""
        return History(cache=snapshot(self.cache), pending=list(self.pending))

    def crop(self, num_positions: int) -> None:
        """Forget all but the first positions."""
        num_cached = int(self.cache.get_seq_length())
        self.pending = self.pending[: max(0, num_positions - num_cached)]
        if num_positions < num_cached:
            self.cache = cropped(self.cache, num_positions)


@dataclass(slots=True, eq=False)
class DialogueState:
    """Answers in the making. The cache holds the text rows, then the speech rows, each list naming answers.

    ``mask`` and ``positions`` stand only where the prompts differ in length. ``history`` is the text row of a
    single dialogue after its text has ended. ``said`` are the text ids of answers that are only to be spoken.
    """

    answers: list[Answer]
    options: DecodingOptions
    generators: list[torch.Generator]
    cache: DynamicCache
    text_rows: list[int]
    speech_rows: list[int]
    mask: Bool[Tensor, "R T"] | None = None
    positions: Int[Tensor, "R"] | None = None
    history: History | None = None
    said: Sequence[Sequence[int]] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether every answer has ended."""
        return all(answer.is_finished for answer in self.answers)

    def keep_rows(self, is_kept: list[bool]) -> None:
        """Drop the other rows of the cache and of all that goes with it."""
        if all(is_kept):
            return
        names = self.text_rows + self.speech_rows
        num_text = len(self.text_rows)
        kept = [row for row, stays in enumerate(is_kept) if stays]
        self.text_rows = [names[row] for row in kept if row < num_text]
        self.speech_rows = [names[row] for row in kept if row >= num_text]
        if not kept:
            return
        index = torch.tensor(kept, device=None if self.mask is None else self.mask.device)
        self.cache = copy_rows(self.cache, index)
        self.mask = None if self.mask is None else self.mask[index]
        self.positions = None if self.positions is None else self.positions[index]
