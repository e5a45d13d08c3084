"""uvicorn's protocols, without a way to hold a connection for ever."""

import asyncio
from asyncio.transports import BaseTransport
from socket import SO_SNDBUF, SOL_SOCKET

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

GRACE_SECONDS = 1.0
"""What a client has to take a last word: behind a full buffer it would wait for ever."""

SEND_BUFFER_BYTES = 128 * 2**10
"""What the kernel keeps for a client: two seconds of sound, where by itself it would keep a minute."""


class TimelyHttp(H11Protocol):
    """HTTP/1.1 that drops a connection whose request head is not whole after ``head_seconds``.

    So it does with a client that takes nothing of an answer for ``stalled_seconds``.
    """

    head_seconds = 10.0
    stalled_seconds = 20.0
    _due: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client has come: its first request is waited for."""
        super().connection_made(transport)
        self._due = self.loop.call_later(self.head_seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Part of a request, which may complete its head or begin the next."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._due = _cancelled(self._due)
        elif self._due is None:
            self._due = self.loop.call_later(self.head_seconds, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._due, self._stalled = _cancelled(self._due), _cancelled(self._stalled)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.stalled_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._stalled = _cancelled(self._stalled)


class TimelySocket(WebSocketsSansIOProtocol):
    """A WebSocket that ends although its client reads nothing, not even the close.

    Without that, a session that was given up would wait for room to say so, and a transport that is closed
    waits until all has been read.
    """

    stalled_seconds = 20.0
    _stalled: asyncio.TimerHandle | None = None
    _over: asyncio.TimerHandle | None = None
    _is_lost = False

    def connection_made(self, transport: BaseTransport) -> None:
        """A client has come: the kernel keeps no minute of sound for one that doesn't read."""
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: no timer holds on to it."""
        self._stalled, self._over, self._is_lost = _cancelled(self._stalled), _cancelled(self._over), True
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read; the session gives it up first."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.stalled_seconds + GRACE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._stalled = _cancelled(self._stalled)

    def keepalive_timeout(self) -> None:
        """No ping is answered."""
        super().keepalive_timeout()
        self.loop.call_later(GRACE_SECONDS, self.transport.abort)

    async def run_asgi(self) -> None:
        """Hold the session, and the connection not much longer."""
        await super().run_asgi()
        if not self._is_lost:
            self._over = self.loop.call_later(self.close_timeout + GRACE_SECONDS, self.transport.abort)


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
