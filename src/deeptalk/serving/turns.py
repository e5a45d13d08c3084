"""What has been said in a conversation, as the columns that the model reads.

Turns are compared by identity: the same object stands for the same positions. Axes: K streams, T positions,
U speech frames, D width, S samples.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal

import torch

from deeptalk.decoding import DecodingEngine
from deeptalk.decoding.listening import SpeechFrames
from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Int, Tensor
from deeptalk.streams.prompt import NO_SPEECH
from deeptalk.streams.text import TextCodec

HEARD_RATE = 16_000
"""Samples per second of what the model hears."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Said:
    """A turn in words; ``ids`` stand for an answer of the model as it was made, without EOS."""

    role: Literal["system", "user", "assistant"]
    text: str
    ids: tuple[int, ...] | None = None


class Ear:
    """A user's spoken turn: samples in at 16 kHz from the event loop, frames out on the model thread.

    ``push``, ``close``, ``drop`` and ``backlog_seconds`` are for any thread, all else for the model thread.
    ``on_progress`` is called whenever samples have been digested or dropped, on either thread.
    """

    def __init__(self, on_progress: Callable[[], None] = lambda: None) -> None:
        self._chunks: deque[Tensor] = deque()
        self._lock = Lock()
        self._waiting_samples = 0
        self._is_closed = False
        self._frames: SpeechFrames | None = None
        self._heard: list[Tensor] = []
        self._on_progress = on_progress
        self.is_finished = False
        self.error: Exception | None = None

    def push(self, samples: Float[Tensor, "S"]) -> None:
        """Hand over further samples."""
        with self._lock:
            self._chunks.append(samples)
            self._waiting_samples += len(samples)

    def close(self) -> None:
        """No samples come any more."""
        self._is_closed = True

    def drop(self) -> None:
        """Nobody wants this turn any more."""
        with self._lock:
            self._chunks.clear()
            self._waiting_samples = 0
        self.is_finished = True
        self._on_progress()

    @property
    def backlog_seconds(self) -> float:
        """Sound that has been handed over and not been encoded."""
        return self._waiting_samples / HEARD_RATE

    @property
    def num_frames(self) -> int:
        """Adapter frames so far."""
        return sum(len(frames) for frames in self._heard)

    @property
    def frames(self) -> Float[Tensor, "U D"]:
        """The adapter frames so far; at least one."""
        if len(self._heard) > 1:
            self._heard = [torch.cat(self._heard)]
        return self._heard[0]

    def digest(self, engine: DecodingEngine, *, most_seconds: float) -> bool:
        """Encode some of what waits, and the end once it has come; whether there was anything to do.

        What can't be encoded is noted in ``error``; the turn is then over.
        """
        if self.is_finished:
            return False
        is_closed = self._is_closed
        chunk = self._take(int(most_seconds * HEARD_RATE))
        if not len(chunk) and not is_closed:
            return False
        try:
            self._encode(engine, chunk, is_last=is_closed and not self._chunks)
        except Exception as error:  # told by whoever asks about this turn
            self.error, self.is_finished = error, True
        self._on_progress()
        return True

    def _encode(self, engine: DecodingEngine, chunk: Tensor, *, is_last: bool) -> None:
        self._frames = self._frames or SpeechFrames(engine)
        found = [self._frames.push(chunk)] if len(chunk) else []
        if is_last:
            found.append(self._frames.finish())
            self.is_finished, self._frames = True, None
        self._heard += [frames for frames in found if len(frames)]

    def _take(self, most: int) -> Float[Tensor, "S"]:
        with self._lock:
            taken, count = [], 0
            while self._chunks and count < most:
                chunk = self._chunks.popleft()
                if len(chunk) > most - count:
                    self._chunks.appendleft(chunk[most - count :])
                    chunk = chunk[: most - count]
                taken.append(chunk)
                count += len(chunk)
            self._waiting_samples -= count
        return torch.cat(taken) if taken else torch.zeros(0)


Turn = Said | Ear


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Columns:
    """Positions of one turn; ``speech_at`` counts the turn's own frames, -1 elsewhere."""

    grid: Int[Tensor, "K T"]
    speech_at: Int[Tensor, "T"]


def columns_of(engine: DecodingEngine, turn: Turn, *, is_first: bool) -> Columns:
    """A turn with the words of the template around it, as ``encode_prompt`` writes it.

    Of a spoken turn that is still open, all but what follows its last frame.
    """
    layout, tokenizer = engine.layout, tokenizer_of(engine)
    role = "user" if isinstance(turn, Ear) else turn.role
    before, after = layout.template.around(role)
    lead = [layout.bos_id] if layout.template.bos and is_first else []
    lead += tokenizer.encode(before) if before else []
    trail = tokenizer.encode(after) if after else []
    if isinstance(turn, Said):
        ids = turn.ids if turn.ids is not None else tokenizer.encode(layout.template.lead + turn.text)
        end = [layout.eos_id] if role == "assistant" else []
        grid = grid_of(engine, [*lead, *ids, *end, *trail])
        return Columns(grid=grid, speech_at=torch.full(grid.shape[1:], NO_SPEECH))
    count, is_whole = turn.num_frames, turn.is_finished
    rest = [layout.text_aud, *trail] if is_whole else []
    grid = grid_of(engine, [*lead, layout.text_aud, *[layout.text_aud] * count, *rest])
    start = len(lead) + 1
    grid[1:, start - 1] = layout.boa
    if is_whole:
        grid[1:, start + count] = layout.eoa
    speech_at = torch.full(grid.shape[1:], NO_SPEECH)
    speech_at[start : start + count] = torch.arange(count)
    return Columns(grid=grid, speech_at=speech_at)


def opening_of(engine: DecodingEngine, mode: str) -> Int[Tensor, "K T"]:
    """The words of the template before an answer; the last one, p0, carries the mode."""
    before, _ = engine.layout.template.around("assistant")
    grid = grid_of(engine, tokenizer_of(engine).encode(before))
    grid[1:, -1] = engine.layout.mode_id(mode)
    return grid


def tokenizer_of(engine: DecodingEngine) -> TextCodec:
    """The model's tokenizer."""
    if engine.model.tokenizer is None:
        raise ConfigError("The model has no tokenizer; load it from its folder or give it one.")
    return engine.model.tokenizer


def grid_of(engine: DecodingEngine, ids: Sequence[int]) -> Int[Tensor, "K T"]:
    """Text ids as columns without sound."""
    grid = torch.full((engine.layout.num_streams, len(ids)), engine.layout.pad_audio)
    grid[0] = torch.tensor(ids, dtype=torch.long)
    return grid
