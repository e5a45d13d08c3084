"""What all requests share: the model thread, the slots, and whether the server is going down."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.realtime import RealtimeSession


class FullError(Exception):
    """No slot is free."""


class Admission:
    """The slots of sessions and HTTP answers; who finds none is told at once, or waits in a short queue."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.num_active = 0

    @asynccontextmanager
    async def slot(self, *, may_wait: bool) -> AsyncIterator[None]:
        """A slot while the block runs; FullError where there is none."""
        if self.num_active < self._limits.max_sessions:
            self.num_active += 1
        else:
            await self._wait(may_wait=may_wait)
        try:
            yield
        finally:
            self._hand_on()

    async def _wait(self, *, may_wait: bool) -> None:
        if not may_wait or len(self._waiting) >= self._limits.max_waiting:
            raise FullError
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await asyncio.wait_for(asyncio.shield(turn), self._limits.waiting_seconds)
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done():
                self._hand_on()
            else:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise FullError from error
            raise

    def _hand_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self.num_active -= 1


class Service:
    """One model served under a name."""

    def __init__(self, thread: ModelThread, *, model: str, follows_instructions: bool = False) -> None:
        self.thread, self.model, self.follows_instructions = thread, model, follows_instructions
        self.limits = thread.limits
        self.admission = Admission(thread.limits)
        self.is_draining = False
        self._sessions: dict[RealtimeSession, asyncio.Event] = {}

    @property
    def is_ready(self) -> bool:
        """Whether new work is taken."""
        return self.thread.is_ready and not self.is_draining

    @asynccontextmanager
    async def open_session(self, session: RealtimeSession) -> AsyncIterator[asyncio.Event]:
        """Count a session while the block runs; the event tells it that the server goes down."""
        self._sessions[session] = asyncio.Event()
        try:
            yield self._sessions[session]
        finally:
            del self._sessions[session]
            await session.close()

    async def drain(self) -> None:
        """Refuse new work, let running answers end, and ask every session to close."""
        self.is_draining = True
        answers = [asyncio.create_task(session.finish_answer()) for session in self._sessions]
        if answers:
            _, late = await asyncio.wait(answers, timeout=self.limits.drain_seconds)
            for task in late:
                task.cancel()
        for leaving in self._sessions.values():
            leaving.set()
