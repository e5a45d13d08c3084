"""What all requests share: the model thread, the slots, and whether the server is going down."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress

from deeptalk.serving.detector import LoudVoice, Patience, Voice
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.metrics import process_gauges
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.realtime import RealtimeSession
from deeptalk.serving.security import Principal
from deeptalk.serving.watchdog import patience_of

_logger = logging.getLogger(__name__)

PARTING_SECONDS = 2.0
"""What sessions have for their close when the server goes down."""


class FullError(Exception):
    """No slot is given: the code, the words and the HTTP status that a client is told."""

    def __init__(
        self,
        code: str = "session_limit_reached",
        message: str = "All sessions are taken: try again later.",
        *,
        status: int = 503,
    ) -> None:
        super().__init__(message)
        self.code, self.status = code, status


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
            async with asyncio.timeout(self._limits.waiting_seconds):
                await asyncio.shield(turn)
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
    """One model served under a name; ``leaves_with`` is what sessions are told when it goes down.

    Where it ``logs_transcripts`` the words of answers, and those heard that are written down, are logged.
    """

    def __init__(
        self,
        thread: ModelThread,
        *,
        model: str,
        follows_instructions: bool = False,
        transcribes: bool = False,
        logs_transcripts: bool = False,
        new_voice: Callable[[float], Voice] = LoudVoice,
        patience: Patience | None = None,
        is_restarting: bool = False,
    ) -> None:
        self.thread, self.model = thread, model
        self.new_voice, self.patience = new_voice, patience
        self.leaves_with = (1012, "restarting") if is_restarting else (1001, "going_away")
        self.follows_instructions, self.transcribes = follows_instructions, transcribes
        self.logs_transcripts = logs_transcripts
        if logs_transcripts:
            _logger.warning("--log-transcripts: what is said goes to this log, word by word")
        self.limits, self.metrics = thread.limits, thread.metrics
        self.admission = Admission(thread.limits)
        self.patience_seconds = patience_of(thread.loaded)
        self.is_draining = False
        self.on_broken: Callable[[], None] = lambda: None
        self._held: Counter[str] = Counter()
        self._sessions: dict[RealtimeSession, asyncio.Event] = {}

    @property
    def is_well(self) -> bool:
        """Whether the model thread runs and is not stuck."""
        return self.thread.is_alive(within_seconds=self.patience_seconds)

    @property
    def is_ready(self) -> bool:
        """Whether new work is taken."""
        return self.thread.is_ready and self.is_well and not self.is_draining

    @asynccontextmanager
    async def slot(self, principal: Principal, *, may_wait: bool) -> AsyncIterator[None]:
        """A slot while the block runs; FullError, which is counted, where there is none."""
        async with AsyncExitStack() as held:
            try:
                if not self.is_ready:
                    raise FullError("not_ready", "The server is starting or going down.")
                held.enter_context(self._share(principal))
                await held.enter_async_context(self.admission.slot(may_wait=may_wait))
            except FullError as full:
                self.note_reject(full.code)
                raise
            yield

    @contextmanager
    def _share(self, principal: Principal) -> Iterator[None]:
        """Count what a key holds or waits for; FullError (429) where that is too much."""
        name = principal.name
        if name and self._held[name] >= self.limits.max_sessions_per_key:
            raise FullError(
                "key_limit_reached",
                f"This key may have {self.limits.max_sessions_per_key} sessions at a time.",
                status=429,
            )
        self._held[name] += 1
        try:
            yield
        finally:
            self._held[name] -= 1
            if not self._held[name]:
                del self._held[name]

    def note_reject(self, reason: str) -> None:
        """Count somebody who was not let in."""
        self.metrics.count("deeptalk_rejects_total", reason)

    def gauges(self) -> dict[str, float]:
        """The state of the moment, by the names of ``METRICS``; on the event loop."""
        return {
            "deeptalk_sessions_active": self.admission.num_active,
            "deeptalk_sessions_limit": self.limits.max_sessions,
            **self.thread.gauges(),
            **process_gauges(),
        }

    @asynccontextmanager
    async def open_session(self, session: RealtimeSession) -> AsyncIterator[asyncio.Event]:
        """Count a session while the block runs; the event tells it that the server goes down."""
        self._sessions[session] = asyncio.Event()
        try:
            yield self._sessions[session]
        finally:
            del self._sessions[session]
            await session.close()

    async def give_up(self) -> None:
        """The model can't be used any more: every session is closed, and ``on_broken`` ends the process."""
        self.is_draining, self.leaves_with = True, (1011, "engine_error")
        await self._hear_out(
            PARTING_SECONDS
        )  # the model thread has ended every answer: it is still to be told
        await self._see_off()
        self.on_broken()

    async def drain(self) -> None:
        """Refuse new work, let running answers end, and ask every session to close."""
        self.is_draining = True
        now = asyncio.get_running_loop().time
        until = now() + self.limits.drain_seconds
        await self._hear_out(self.limits.drain_seconds)
        while self.admission.num_active > len(self._sessions) and now() < until:  # answers over HTTP
            await asyncio.sleep(0.01)
        await self._see_off()

    async def _hear_out(self, seconds: float) -> None:
        """Let the answers of all sessions be sent to their end, for no longer than that."""
        answers = [asyncio.create_task(session.finish_answer()) for session in self._sessions]
        if answers:
            _, late = await asyncio.wait(answers, timeout=seconds)
            for task in late:
                task.cancel()

    async def _see_off(self) -> None:
        """Ask every session to close, and leave it a moment to say so."""
        for leaving in self._sessions.values():
            leaving.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(PARTING_SECONDS):
                while self.admission.num_active:
                    await asyncio.sleep(0.01)
