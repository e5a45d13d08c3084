"""Answers on their way from the model thread to the event loop, bounded in seconds of sound."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from deeptalk.decoding.answer import FinishReason
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.turns import Said
from deeptalk.shapes import Float, Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Piece:
    """Words and samples that one step has added; either may be empty."""

    text: str
    samples: Float[Tensor, "S"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ended:
    """Why an answer ended and what it was; ``turn`` is None where it had not begun or has failed."""

    reason: FinishReason
    turn: Said | None = None
    num_input_positions: int = 0
    num_text_tokens: int = 0
    num_frames: int = 0
    error: Exception | None = None

    @property
    def status(self) -> str:
        """The reason in the words of the Realtime protocol, of an answer that nobody has cancelled."""
        return {"stop": "completed", "length": "incomplete", "interrupted": "failed"}[self.reason]


class Outlet:
    """The pieces of one answer. ``put`` is for the model thread, ``cancel`` for any, the rest for the loop.

    ``on_room`` is called when an answer that had to pause may go on, and when it is cancelled;
    ``on_first_sound`` when the first piece that has samples is fetched.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        limits: ServerLimits,
        on_room: Callable[[], None],
        on_first_sound: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._lock = Lock()
        self._pieces: deque[Piece | Ended] = deque()
        self._sample_rate, self._limits, self._on_room = sample_rate, limits, on_room
        self._on_first_sound, self._has_sounded = on_first_sound, False
        self._num_samples = 0
        self._now, self._num_made, self._began_at = now, 0, 0.0
        self._is_paused = False
        self._is_cancelled = False
        self.ended: Ended | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody wants the rest."""
        return self._is_cancelled

    @property
    def is_paused(self) -> bool:
        """Whether so much sound is unsent that the answer has to wait."""
        return self._is_paused and not self._is_cancelled

    @property
    def waiting_seconds(self) -> float:
        """Sound that has not been fetched."""
        return self._num_samples / self._sample_rate

    @property
    def lead_seconds(self) -> float:
        """Sound that nobody can have heard yet, as time has gone by since the first was made."""
        return self._num_made / self._sample_rate - (self._now() - self._began_at) if self._num_made else 0.0

    def put(self, piece: Piece | Ended) -> None:
        """Add a piece, or the end."""
        with self._lock:
            self._pieces.append(piece)
            if isinstance(piece, Piece):
                self._began_at = self._began_at if self._num_made else self._now()
                self._num_made += len(piece.samples)
                self._num_samples += len(piece.samples)
                self._is_paused = self._is_paused or self.waiting_seconds >= self._limits.out_high
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._news.set)

    def cancel(self) -> None:
        """End the answer at its next step; pieces that wait are dropped."""
        with self._lock:
            self._is_cancelled = True
            self._pieces = deque(piece for piece in self._pieces if isinstance(piece, Ended))
            self._num_samples = 0
        self._on_room()

    async def pieces(self) -> AsyncIterator[Piece]:
        """The pieces as they come; at the end, ``ended`` says why. After ``cancel`` there are none."""
        while self.ended is None:
            piece = self._next()
            if isinstance(piece, Ended):
                self.ended = piece
            elif piece is None:
                await self._news.wait()
            elif not self._is_cancelled:
                if len(piece.samples) and not self._has_sounded:
                    self._has_sounded = True
                    self._on_first_sound()
                yield piece

    def _next(self) -> Piece | Ended | None:
        with self._lock:
            self._news.clear()
            if not self._pieces:
                return None
            piece = self._pieces.popleft()
            if isinstance(piece, Piece):
                self._num_samples = max(0, self._num_samples - len(piece.samples))
            may_go_on = self._is_paused and self.waiting_seconds <= self._limits.out_low
            self._is_paused = self._is_paused and not may_go_on
        if may_go_on:
            self._on_room()
        return piece
