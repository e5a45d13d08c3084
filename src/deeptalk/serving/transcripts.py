"""What a session's user has said, written down by the model itself, when it has nothing better to do."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from deeptalk.decoding import DecodingOptions
from deeptalk.serving import events
from deeptalk.serving.items import Item
from deeptalk.serving.model_thread import BusyError, ModelThread, Request
from deeptalk.serving.outlet import Outlet
from deeptalk.serving.response import Emit, Response, told
from deeptalk.serving.turns import Ear

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Heard:
    """A turn of ``seconds`` of sound, which is written down once the answer ``after`` it has begun."""

    item: Item
    ear: Ear
    seconds: float
    after: Response | None


class InputTranscripts:
    """The spoken turns of one session, one after the other; ``on_failure`` is told what could not be sent.

    Where it ``logs``, their words go to the log as well.
    """

    def __init__(
        self,
        thread: ModelThread,
        emit: Emit,
        *,
        on_failure: Callable[[Exception], None],
        logs: bool = False,
    ) -> None:
        self._thread, self._emit, self._on_failure, self._logs = thread, emit, on_failure, logs
        self._waiting: deque[_Heard] = deque()
        self._outlet: Outlet | None = None
        self._task: asyncio.Task[None] | None = None

    def add(self, item: Item, ear: Ear, *, seconds: float, after: Response | None) -> None:
        """Have a spoken turn written down."""
        self._waiting.append(_Heard(item=item, ear=ear, seconds=seconds, after=after))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Nobody wants the rest."""
        if self._outlet is not None:
            self._outlet.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            try:
                while self._waiting:
                    await self._write_down(self._waiting.popleft())
            except Exception as error:
                self._on_failure(error)

    async def _write_down(self, heard: _Heard) -> None:
        """Send the words of a turn as they come, then all of them, or why there are none."""
        if heard.after is not None:
            await heard.after.has_begun.wait()
        outlet = self._outlet = self._thread.new_outlet()
        place = {"item_id": heard.item.id, "content_index": 0}
        options = DecodingOptions(limits=self._thread.answer_limits)
        asked = Request(turns=[heard.ear], mode="asr", options=options, outlet=outlet, is_patient=True)
        try:
            self._thread.ask(asked)
        except BusyError as error:
            await self._emit(events.TRANSCRIPTION_FAILED, **place, error=told(error))
            return
        text = ""
        async for piece in outlet.pieces():
            delta = piece.text if text else piece.text.lstrip()
            text += delta
            if delta:
                await self._emit(events.TRANSCRIPTION_DELTA, **place, delta=delta)
        assert outlet.ended is not None
        if outlet.ended.error is not None:
            await self._emit(events.TRANSCRIPTION_FAILED, **place, error=told(outlet.ended.error))
            return
        heard.item.content[0]["transcript"] = text
        if self._logs:
            told_of = {"item": heard.item.id, "transcript": text}
            _logger.info("heard %s", json.dumps(told_of, ensure_ascii=False))
        usage = {"type": "duration", "seconds": round(heard.seconds, 3)}
        await self._emit(events.TRANSCRIPTION_COMPLETED, **place, transcript=text, usage=usage)
