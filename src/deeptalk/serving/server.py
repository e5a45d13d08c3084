"""The process: a socket, uvicorn, and an orderly end."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from deeptalk.errors import ConfigError
from deeptalk.serving.connections import TimelyHttp, TimelySocket
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.logs import tell_without_traceback
from deeptalk.serving.opening import Opening
from deeptalk.serving.security import App, Security
from deeptalk.serving.service import Service
from deeptalk.serving.tls import Certificate
from deeptalk.serving.watchdog import STUCK

_logger = logging.getLogger(__name__)

INTERRUPTED = 130
"""The exit status after Ctrl-C."""


class Server(uvicorn.Server):
    """Drains at the first SIGTERM or Ctrl-C and leaves at the second; without a service yet, at the first."""

    def __init__(self, config: uvicorn.Config, service: Service | None = None) -> None:
        super().__init__(config)
        self._service: Service | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self.exit_code = 0
        if service is not None:
            self.attend(service)

    def attend(self, service: Service) -> None:
        """Drain this service, and end when its device has failed."""
        self._service = service
        service.on_broken = self._break

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the end."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What a signal does; called by the interpreter between two steps of the event loop."""
        self.exit_code = INTERRUPTED if sig == signal.SIGINT else 0
        if self._service is None or self._service.is_draining or self._loop is None:
            self.should_exit = self.force_exit = True
        else:
            self._service.is_draining = True
            self._loop.call_soon_threadsafe(self._begin_to_drain, self._service)

    def _break(self) -> None:
        _logger.critical("the device has failed: the process ends, to be started again")
        self.exit_code, self.should_exit = STUCK, True

    def _begin_to_drain(self, service: Service) -> None:
        self._draining = asyncio.ensure_future(self._drain(service))

    async def _drain(self, service: Service) -> None:
        _logger.info("going down: no new work is taken, running answers end")
        await service.drain()
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; ConfigError where the address can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"{host}:{port} can't be bound ({error.strerror}): choose another --port."
        ) from error
    return listening


def configured(app: App, limits: ServerLimits, *, certificate: Certificate | None = None) -> uvicorn.Config:
    """How uvicorn serves the application: no compression, no access log, bounded frames and headers."""

    logging.getLogger("uvicorn.error").addFilter(tell_without_traceback)

    class Http(TimelyHttp):
        head_seconds, stalled_seconds = limits.handshake_seconds, limits.stalled_seconds

    class Socket(TimelySocket):
        stalled_seconds = limits.stalled_seconds

    return uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",  # below, it logs addresses with their query
        access_log=False,
        http=Http,
        ws=Socket,
        ws_max_size=limits.max_message_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=limits.ping_seconds,
        ws_ping_timeout=limits.ping_seconds,
        h11_max_incomplete_event_size=16 * 2**10,
        timeout_graceful_shutdown=2,
        server_header=False,
        ssl_certfile=None if certificate is None else certificate.cert,
        ssl_keyfile=None if certificate is None else certificate.key,
    )


def run(
    open_app: Callable[[], tuple[App, Service]],
    security: Security,
    limits: ServerLimits,
    listening: socket.socket,
    *,
    certificate: Certificate | None = None,
    on_open: Callable[[], None] = lambda: None,
) -> int:
    """Serve on a bound socket until a signal comes; the exit status.

    The port is open while ``open_app`` makes the application and its service; ``on_open`` is called then.
    What it raises is raised here.
    """
    failures: list[Exception] = []

    def take(service: Service) -> None:
        server.attend(service)
        on_open()

    def give_up(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    app = Opening(open_app, security, on_open=take, on_failure=give_up)
    server = Server(configured(app, limits, certificate=certificate))
    server.run(sockets=[listening])
    if failures:
        raise failures[0]
    return server.exit_code
