"""The cache of one conversation, kept in step with its turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from deeptalk.decoding import DecodingEngine, History
from deeptalk.serving.turns import Columns, Ear, Turn, columns_of
from deeptalk.shapes import Float, Int, Tensor
from deeptalk.streams.prompt import NO_SPEECH

READ_LATER = 16
"""As many positions before an answer are not read by themselves, but with its opening."""


@dataclass(slots=True, eq=False)
class _Remembered:
    turn: Turn
    start: int
    num_columns: int


class Memory:
    """What the model has read of a conversation. It belongs to the model thread.

    Turns are given whole each time. What the cache holds of them already stays, what no longer fits is cut
    off, so a truncated, deleted or inserted turn costs what comes after it and the result is always that of
    reading the turns from the start. ``on_read`` is told how many positions were read.
    """

    def __init__(self, engine: DecodingEngine, on_read: Callable[[int], None] = lambda count: None) -> None:
        self._engine, self._on_read = engine, on_read
        self._history = engine.new_history()
        self._turns: list[_Remembered] = []
        self._late: _Part | None = None
        self.is_over = False

    @property
    def num_positions(self) -> int:
        """Positions that have been read, or wait for the opening of the answer."""
        late = self._late  # gauges are taken on another thread
        return self._history.num_positions + (0 if late is None else late.count)

    def read(self, turns: Sequence[Turn], *, most: int | None = None) -> bool:
        """Read the turns on, at most so many positions of them, at once; whether nothing is left.

        The last few before an answer wait for ``opened``, which reads them with its own.
        """
        self._forget_what_changed(turns)
        parts: list[_Part] = []
        end = self.num_positions
        for number in range(max(0, len(self._turns) - 1), len(turns)):
            turn = turns[number]
            columns = columns_of(self._engine, turn, is_first=number == 0)
            if number == len(self._turns):
                self._turns.append(_Remembered(turn, end, 0))
            held = self._turns[number]
            left = columns.grid.shape[1] - held.num_columns
            count = left if most is None else min(left, most - sum(part.count for part in parts))
            parts.append(_part(turn, columns, held.num_columns, count))
            held.num_columns += count
            end += count
            if count < left:
                self._extend(parts, may_wait=False)
                return False
        self._extend(parts, may_wait=not isinstance(turns[-1], Ear) or turns[-1].is_finished)
        return True

    def holds_only(self, turns: Sequence[Turn]) -> bool:
        """Whether nothing but some of ``turns`` has been read."""
        given = {id(turn) for turn in turns}
        return all(id(held.turn) in given for held in self._turns)

    def opened(self, opening: Int[Tensor, "K T"]) -> History:
        """The conversation with the words before an answer but p0; this memory stays as it is."""
        words = _Part(opening[:, :-1], torch.full((opening.shape[1] - 1,), NO_SPEECH), None)
        longer, end = self._history.fork(), self.num_positions
        self._read(longer, words if self._late is None else _joined([self._late, words]))
        if self._late is not None:
            self._history, self._late = longer.fork(), None
            self._history.crop(end)
        return longer

    def remember(self, history: History, answer: Turn) -> None:
        """Go on from an answer that has just been given; ``history`` ends with it."""
        start, end = self.num_positions, history.num_positions
        self._history, self._late = history, None
        self._turns.append(_Remembered(answer, start, end - start))

    def clear(self) -> None:
        """Forget everything; the next turns are read from the start."""
        self._history, self._turns, self._late = self._engine.new_history(), [], None

    def end(self) -> None:
        """Forget everything for good: the conversation is over."""
        self.clear()
        self.is_over = True

    def _forget_what_changed(self, turns: Sequence[Turn]) -> None:
        kept = 0
        for held, turn in zip(self._turns, turns, strict=False):
            if held.turn is not turn:
                break
            kept += 1
        if kept == len(self._turns):
            return
        start, num_read = self._turns[kept].start, self._history.num_positions
        if self._late is not None:
            self._late = self._late.between(0, start - num_read) if start > num_read else None
        self._history.crop(start)
        del self._turns[kept:]

    def _extend(self, parts: list["_Part"], *, may_wait: bool) -> None:
        count = sum(part.count for part in parts)
        if not count:
            return
        self._on_read(count)
        part = _joined(parts if self._late is None else [self._late, *parts])
        self._late = part if may_wait and part.count <= READ_LATER else None
        if self._late is None:
            self._read(self._history, part)

    def _read(self, history: History, part: "_Part") -> None:
        has_speech = part.frames is not None
        speech_at = part.speech_at if has_speech else None
        self._engine.extend(history, part.grid, speech=part.frames, speech_at=speech_at)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Some positions, and the frames that stand at those where ``speech_at`` counts them."""

    grid: Int[Tensor, "K T"]
    speech_at: Int[Tensor, "T"]
    frames: Float[Tensor, "U D"] | None

    @property
    def count(self) -> int:
        """How many positions."""
        return self.grid.shape[1]

    def between(self, start: int, end: int) -> "_Part":
        """Some of them."""
        return _Part(self.grid[:, start:end], self.speech_at[start:end], self.frames)


def _part(turn: Turn, columns: Columns, start: int, count: int) -> _Part:
    frames = turn.frames if isinstance(turn, Ear) and turn.num_frames else None
    return _Part(columns.grid, columns.speech_at, frames).between(start, start + count)


def _joined(parts: Sequence[_Part]) -> _Part:
    """All positions, one part after the other."""
    places, frames, start = [], list[Tensor](), 0
    for part in parts:
        places.append(torch.where(part.speech_at == NO_SPEECH, NO_SPEECH, part.speech_at + start))
        if part.frames is not None:
            frames.append(part.frames)
            start += len(part.frames)
    grid = torch.cat([part.grid for part in parts], dim=1)
    return _Part(grid, torch.cat(places), torch.cat(frames) if frames else None)


def num_positions_of(engine: DecodingEngine, turns: Sequence[Turn], *, is_start: bool = True) -> int:
    """Positions of whole turns, which are the start of a conversation or follow others."""
    return sum(
        columns_of(engine, turn, is_first=is_start and number == 0).grid.shape[1]
        for number, turn in enumerate(turns)
    )
