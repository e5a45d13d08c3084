"""The cache of one conversation, kept in step with its turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deeptalk.decoding import DecodingEngine, History
from deeptalk.serving.turns import Columns, Ear, Turn, columns_of
from deeptalk.shapes import Int, Tensor


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

    @property
    def num_positions(self) -> int:
        """Positions that have been read."""
        return self._history.num_positions

    def read(self, turns: Sequence[Turn], *, most: int | None = None) -> bool:
        """Read the turns on, at most so many positions of them; whether nothing is left."""
        self._forget_what_changed(turns)
        budget = most
        for number in range(max(0, len(self._turns) - 1), len(turns)):
            turn = turns[number]
            columns = columns_of(self._engine, turn, is_first=number == 0)
            if number == len(self._turns):
                self._turns.append(_Remembered(turn, self.num_positions, 0))
            held = self._turns[number]
            left = columns.grid.shape[1] - held.num_columns
            count = left if budget is None else min(left, budget)
            self._extend(turn, columns, held.num_columns, count)
            held.num_columns += count
            budget = None if budget is None else budget - count
            if count < left:
                return False
        return True

    def holds_only(self, turns: Sequence[Turn]) -> bool:
        """Whether all that has been read is the beginning of ``turns``."""
        return len(self._turns) <= len(turns) and all(
            held.turn is turn for held, turn in zip(self._turns, turns, strict=False)
        )

    def opened(self, opening: Int[Tensor, "K T"]) -> History:
        """The conversation with the words before an answer but p0; this memory stays as it is."""
        longer = self._history.fork()
        self._engine.extend(longer, opening[:, :-1])
        return longer

    def remember(self, history: History, answer: Turn) -> None:
        """Go on from an answer that has just been given; ``history`` ends with it."""
        start, end = self.num_positions, history.num_positions
        self._history = history
        self._turns.append(_Remembered(answer, start, end - start))

    def clear(self) -> None:
        """Forget everything; the next turns are read from the start."""
        self._history, self._turns = self._engine.new_history(), []

    def _forget_what_changed(self, turns: Sequence[Turn]) -> None:
        kept = 0
        for held, turn in zip(self._turns, turns, strict=False):
            if held.turn is not turn:
                break
            kept += 1
        if kept < len(self._turns):
            self._history.crop(self._turns[kept].start)
            del self._turns[kept:]

    def _extend(self, turn: Turn, columns: Columns, start: int, count: int) -> None:
        if not count:
            return
        speech_at = columns.speech_at[start : start + count]
        speech = turn.frames if isinstance(turn, Ear) and turn.num_frames else None
        self._engine.extend(
            self._history,
            columns.grid[:, start : start + count],
            speech=speech,
            speech_at=None if speech is None else speech_at,
        )
        self._on_read(count)


def num_positions_of(engine: DecodingEngine, turns: Sequence[Turn]) -> int:
    """Positions of whole turns."""
    return sum(
        columns_of(engine, turn, is_first=number == 0).grid.shape[1] for number, turn in enumerate(turns)
    )
