"""The WebSocket of a Realtime session."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from deeptalk.serving.realtime import RealtimeSession, SessionClosed
from deeptalk.serving.security import Refusal, principal_of, refuse
from deeptalk.serving.service import FullError, Service
from deeptalk.serving.wire import ClientError

_logger = logging.getLogger(__name__)

SUBPROTOCOL = "realtime"
BETA_PROTOCOL = "openai-beta.realtime-v1"
"""Offered by browsers, which can't send the header of the beta dialect."""

SMALL = 4096
"""Characters of an event that costs nobody anything."""

PACE = 2**19
"""Characters a second that are read of one client's longer events, but for sound: others wait for them."""


async def serve_realtime(socket: WebSocket, service: Service) -> None:
    """Hold one session, from its admission to its end."""
    try:
        async with service.slot(principal_of(socket.scope), may_wait=False):
            await _hold(socket, service)
    except FullError as full:
        await _refuse(socket, full)


async def _hold(socket: WebSocket, service: Service) -> None:
    offered = socket.scope.get("subprotocols", [])
    await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    session = RealtimeSession(
        service.thread,
        send=_sender(socket),
        model=socket.query_params.get("model") or service.model,
        is_beta=BETA_PROTOCOL in offered or socket.headers.get("openai-beta") == "realtime=v1",
        follows_instructions=service.follows_instructions,
        transcribes=service.transcribes,
        logs_transcripts=service.logs_transcripts,
        begins_with=principal_of(socket.scope).session,
        new_voice=service.new_voice,
        patience=service.patience,
    )
    started = time.monotonic()
    code, reason = 1000, ""
    async with service.open_session(session) as leaving:
        try:
            code, reason = await _converse(socket, session, service, leaving)
        except SessionClosed as closed:
            code, reason = closed.code, closed.reason
        except WebSocketDisconnect:
            code, reason = 0, "client left"
        except Exception as error:
            _logger.error("a session failed: %s", type(error).__name__, exc_info=error)
            code, reason = 1011, "internal_error"
    if code:
        with suppress(RuntimeError, WebSocketDisconnect):  # the client has left meanwhile
            await socket.close(code, reason)
    _logger.info("session ended: %.1f s, close %d %s", time.monotonic() - started, code, reason)


async def _converse(
    socket: WebSocket, session: RealtimeSession, service: Service, leaving: asyncio.Event
) -> tuple[int, str]:
    """Take the client's events until something ends the session; the close code and why."""
    limits = service.limits
    until = time.monotonic() + limits.session_seconds
    await session.open()
    gone = asyncio.ensure_future(leaving.wait())
    coming = asyncio.ensure_future(socket.receive())
    try:
        while True:
            left = until - time.monotonic()
            timeout = max(0.0, min(left, limits.idle_seconds))
            waited: set[asyncio.Future[Any]] = {gone, coming, session.failed}
            done, _ = await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if session.failed in done:
                raise session.failed.result()
            if gone in done:
                return service.leaves_with
            if coming in done:
                message = coming.result()
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(message.get("code", 1005))
                await _take(session, message)
                coming = asyncio.ensure_future(socket.receive())
            elif not session.is_answering or left <= limits.idle_seconds:
                return 1001, "session_expired" if left <= limits.idle_seconds else "idle"
    finally:
        gone.cancel()
        coming.cancel()


async def _take(session: RealtimeSession, message: dict[str, Any] | Any) -> None:
    text = message.get("text")
    if text is None:
        await session.refuse(ClientError("binary_not_supported", "Send JSON in text frames."))
    elif not await session.receive(text) and len(text) > SMALL:
        await asyncio.sleep(min(1.0, len(text) / PACE))


def _sender(socket: WebSocket) -> Callable[[str], Awaitable[None]]:
    async def send(text: str) -> None:
        await socket.send_text(text)

    return send


async def _refuse(socket: WebSocket, full: FullError) -> None:
    refusal = Refusal(status=full.status, code=full.code, message=str(full))
    await refuse(socket.scope, socket.receive, socket.send, refusal, {"retry-after": "1"})  # pyright: ignore[reportArgumentType]
