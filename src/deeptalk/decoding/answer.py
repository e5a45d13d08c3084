"""The rules by which one answer grows, item by item (method.md, section 12); plain numbers, no tensors.

Item s holds text token s and, of codebook i, the code of frame s - i - 1. Codebook 0 alone ends the speech;
codebooks 1 and on are ended after it, so frames are always whole. The last column of the method, in which
only the last codebook's forced EOA stands, is left out: nothing reads it.

As in the authors' release, ``released`` answers are ended by any codebook, which then cuts the frame that it
would have belonged to; EOT follows EOS; and a text that is longer than its speech is cut off with it.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from deeptalk.errors import ConfigError
from deeptalk.shapes import Int, Tensor
from deeptalk.streams import DelayBuffer, DelayPattern, StreamLayout

FinishReason = Literal["stop", "length", "interrupted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How short and how long an answer may be: speech in frames, text in tokens without EOS."""

    min_frames: int = 1
    max_frames: int = 360
    max_text_tokens: int = 160

    def __post_init__(self) -> None:
        if not 0 <= self.min_frames <= self.max_frames:
            raise ConfigError(
                f"min_frames must be from 0 to max_frames, got {self.min_frames} and {self.max_frames}."
            )
        if self.max_text_tokens < 1:
            raise ConfigError(f"max_text_tokens must be at least 1, got {self.max_text_tokens}.")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Frame:
    """What one step has added: a text token, a whole frame of codes, both or neither."""

    text_id: int | None
    codes: Int[Tensor, "Q"] | None
    is_last: bool


class Answer:
    """One answer while it is made. ``advance`` takes what was sampled and decides what stands in the grid."""

    def __init__(
        self,
        layout: StreamLayout,
        limits: Limits,
        *,
        mode_column: list[int],
        speaks: bool,
        released: bool = False,
    ) -> None:
        self.layout, self.limits, self.speaks, self.released = layout, limits, speaks, released
        self.item = 0
        self.text_ids: list[int] = []
        self.frames: list[list[int]] = []
        self.sampled: list[list[int]] = [[] for _ in range(layout.num_codebooks)]
        self.num_frames: int | None = None
        self.is_text_done = False
        self.is_audio_done = not speaks
        self.is_cut = False
        self._fillers = (layout.eos_id, layout.text_eot, layout.text_pad)
        self._silence = [layout.pad_audio] * layout.num_codebooks
        self._buffer = DelayBuffer(DelayPattern(tuple(range(1, layout.num_codebooks + 1))))
        self.speech_column = mode_column
        self.text_column = [mode_column[0], *self._silence] if speaks else mode_column

    @property
    def is_finished(self) -> bool:
        """Whether text and speech have both ended."""
        return self.is_text_done and self.is_audio_done

    def may_end(self, codebook: int = 0) -> bool:
        """Whether EOA is legal on a codebook now."""
        is_ender = codebook == 0 or self.released
        return is_ender and self.item > self.limits.min_frames + codebook

    @property
    def finish_reason(self) -> FinishReason:
        """``stop`` for an answer that ended by itself, ``length`` for one that met a limit."""
        if not self.is_finished:
            return "interrupted"
        return "length" if self.is_cut else "stop"

    def advance(self, text_id: int | None, codes: list[int] | None) -> Frame:
        """Write the next item from what was sampled for it; ids of streams that are not due are ignored."""
        text = self._text(text_id)
        audio = self._silence if self.is_audio_done else self._audio(codes)
        whole = None if self.is_audio_done else self._buffer.push(audio)
        frame = None
        if whole is not None and not (self.num_frames is not None and self._first_frame() >= self.num_frames):
            self.frames.append(whole)
            frame = torch.tensor(whole)
        self.text_column, self.speech_column = [text, *self._silence], [text, *audio]
        if self.num_frames is not None:
            self.is_audio_done = self.num_frames in (0, len(self.frames))
            is_past = self.item >= self.num_frames + self.layout.num_codebooks
            self.is_text_done = self.is_text_done or (self.released and is_past)
        self.item += 1
        given = None if text in self._fillers else text
        return Frame(text_id=given, codes=frame, is_last=self.is_finished)

    def _text(self, sampled: int | None) -> int:
        if self.is_text_done:
            is_next = self.released and self.text_column[0] == self.layout.eos_id
            return self.layout.text_eot if is_next else self.layout.text_pad
        assert sampled is not None
        if sampled != self.layout.eos_id and len(self.text_ids) == self.limits.max_text_tokens:
            sampled, self.is_cut = self.layout.eos_id, True
        if sampled == self.layout.eos_id:
            self.is_text_done = True
        else:
            self.text_ids.append(sampled)
        return sampled

    def _audio(self, sampled: list[int] | None) -> list[int]:
        assert sampled is not None
        s, eoa = self.item, self.layout.eoa
        is_too_long = self.num_frames is None and s > self.limits.max_frames
        if is_too_long and sampled[0] != eoa:
            sampled, self.is_cut = [eoa, *sampled[1:]], True
        enders = range(min(s, self.layout.num_codebooks if self.released else 1))
        ends = [s - i - 1 for i in enders if sampled[i] == eoa]
        if ends and (self.num_frames is None or min(ends) < self.num_frames):
            self.num_frames = min(ends)
        return [self._code(i, s, sampled) for i in range(self.layout.num_codebooks)]

    def _code(self, i: int, s: int, sampled: list[int]) -> int:
        """The id of codebook i in item s."""
        if s < i + 1:
            return self.layout.pad_audio
        if self.num_frames is None or s < self.num_frames + i + 1:
            self.sampled[i].append(sampled[i])
            return sampled[i]
        return self.layout.eoa if s == self.num_frames + i + 1 else self.layout.pad_audio

    def _first_frame(self) -> int:
        """The frame that the current item completes."""
        return self.item - self.layout.num_codebooks
