"""Several servers of one model behind one address, on Ray Serve (``pip install 'deeptalk[ray]'``).

Each replica is a process with an application of its own, the same that a single server has. Sessions don't
move: a replica that is lost closes its sockets, and clients come again.
"""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deeptalk.errors import ConfigError
from deeptalk.serving.app import create_app
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.logs import configure_logging
from deeptalk.serving.security import App, Security
from deeptalk.serving.server import INTERRUPTED, bind
from deeptalk.serving.service import Service
from deeptalk.serving.tls import Certificate

_logger = logging.getLogger(__name__)

REPLICA_HEADER = b"x-replica"
"""Tells which replica has answered: its name and its process."""

REPORT_SECONDS = 0.5
"""How often a replica reports its free slots to the router."""

SPARE_REQUESTS = 64
"""Requests that a replica takes beyond its slots and queue, so that it refuses by itself and at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """What is replicated: ``new_service`` makes a replica's service in its own process.

    ``num_gpus`` accelerators are given to each replica.
    """

    new_service: Callable[[], Service]
    security: Security
    limits: ServerLimits
    num_replicas: int
    num_gpus: int = 0
    has_page: bool = True


def serve_fleet(
    fleet: Fleet,
    *,
    host: str,
    port: int,
    certificate: Certificate | None = None,
    on_ready: Callable[[], None] = lambda: None,
    wait: Callable[[], int] | None = None,
) -> int:
    """Serve until a signal comes (or ``wait`` is over), let running answers end; the exit status.

    Ray runs on this machine for as long, or is the cluster that RAY_ADDRESS names.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
        from ray import serve as ray_serve  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'deeptalk[ray]'.") from error
    bind(host, port).close()  # Ray would only say later that it can't be had
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # replicas are servers, no batch work
    is_ours = "RAY_ADDRESS" not in os.environ
    own: dict[str, Any] = {
        "address": "local",
        "num_cpus": max(os.cpu_count() or 1, fleet.num_replicas),
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
    }
    try:
        try:
            ray.init(logging_level=logging.WARNING, **(own if is_ours else {}))
            wait = _wait_for_signal() if wait is None else wait  # Ray has handlers of its own
            farewell = ray.remote(num_cpus=0)(Farewell).remote()
            ray_serve.start(http_options={"host": host, "port": port, **_tls(certificate)})
            ray_serve.run(_application(ray_serve, fleet, farewell), name="deeptalk", route_prefix="/")
        except Exception as error:  # Ray raises all kinds
            raise ConfigError(
                f"The replicas have not started ({type(error).__name__}): serve with one, it tells why."
            ) from error
        on_ready()
        status = wait()
        _logger.info("going down: no new work is taken, running answers end")
        ray.get(farewell.say.remote(fleet.num_replicas, within_seconds=fleet.limits.drain_seconds + 5))
        return status
    finally:
        if ray.is_initialized():
            ray_serve.shutdown()
            ray.shutdown()


def _tls(certificate: Certificate | None) -> dict[str, str]:
    """What Ray's proxy wants to know of a certificate."""
    if certificate is None:
        return {}
    return {
        "ssl_certfile": str(certificate.cert),
        "ssl_keyfile": str(certificate.key or certificate.cert),
    }


class Farewell:
    """Tells all replicas to go down, and waits until they have; an actor of its own."""

    def __init__(self) -> None:
        self._said = asyncio.Event()
        self._gone: set[str] = set()

    async def heard(self) -> None:
        """Wait until it is said."""
        await self._said.wait()

    async def gone(self, replica: str) -> None:
        """A replica has no session any more."""
        self._gone.add(replica)

    async def say(self, num_replicas: int, *, within_seconds: float) -> bool:
        """Say it; whether so many replicas were done in time."""
        self._said.set()
        until = time.monotonic() + within_seconds
        while len(self._gone) < num_replicas and time.monotonic() < until:
            await asyncio.sleep(0.05)
        return len(self._gone) >= num_replicas


class Replica:
    """One server: its application, how many slots it has free, and its end."""

    def __init__(self, fleet: Fleet, farewell: Any) -> None:
        from ray import serve as ray_serve  # pyright: ignore[reportMissingImports]

        configure_logging()
        self._fleet, self._farewell = fleet, farewell
        self._service = fleet.new_service()
        self._name = f"{ray_serve.get_replica_context().replica_id.unique_id}-{os.getpid()}"
        self._parting: asyncio.Task[None] | None = None

    def __serve_build_asgi_app__(self) -> App:
        """The application of a single server, which tells whose answer it is."""
        app = create_app(self._service, self._fleet.security, has_page=self._fleet.has_page)
        self._parting = asyncio.ensure_future(self._part())
        return named(app, self._name)

    async def record_routing_stats(self) -> dict[str, Any]:
        """What the router asks for from time to time."""
        free = self._service.limits.max_sessions - self._service.admission.num_active
        return {"free_slots": free if self._service.is_ready else 0, "at": time.time()}

    async def check_health(self) -> None:
        """Raise where the model is stuck: Ray then starts another replica in this one's place."""
        if self._service.thread.is_ready and not self._service.is_well:
            raise RuntimeError("The model thread is stuck.")

    async def _part(self) -> None:
        await self._farewell.heard.remote()
        await self._service.drain()
        while self._service.admission.num_active:
            await asyncio.sleep(0.01)
        await self._farewell.gone.remote(self._name)


def named(app: App, name: str) -> App:
    """The application with a header of its name in every answer, a socket's first one included."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        async def send_named(message: Any) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                headers = [*message.get("headers", ()), (REPLICA_HEADER, name.encode())]
                message = {**message, "headers": headers}
            await send(message)

        await app(scope, receive, send_named)

    return answer


def _application(ray_serve: Any, fleet: Fleet, farewell: Any) -> Any:
    """The deployment; more requests are let through than there are slots, so that nobody waits in silence."""
    from ray.serve.config import RequestRouterConfig  # pyright: ignore[reportMissingImports]

    limits = fleet.limits
    deployment = ray_serve.deployment(
        name="deeptalk",
        num_replicas=fleet.num_replicas,
        ray_actor_options={"num_cpus": 1, "num_gpus": fleet.num_gpus},
        max_ongoing_requests=limits.max_sessions + limits.max_waiting + SPARE_REQUESTS,
        max_queued_requests=SPARE_REQUESTS,
        graceful_shutdown_timeout_s=limits.drain_seconds + 10,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=5,
        request_router_config=RequestRouterConfig(
            request_router_class="deeptalk.serving.routing.FreeSlotsRouter",
            request_routing_stats_period_s=REPORT_SECONDS,
        ),
        logging_config={"enable_access_log": False},
    )
    return deployment(ray_serve.ingress()(Replica)).bind(fleet, farewell)


def _wait_for_signal() -> Callable[[], int]:
    """Take SIGTERM and Ctrl-C from now on; what waits for one and tells the exit status it asks for."""
    came, status = threading.Event(), 0

    def take(number: int, frame: Any) -> None:
        nonlocal status
        if came.is_set():
            os._exit(INTERRUPTED if number == signal.SIGINT else 0)
        status = INTERRUPTED if number == signal.SIGINT else 0
        came.set()

    signal.signal(signal.SIGTERM, take)
    signal.signal(signal.SIGINT, take)

    def wait() -> int:
        while not came.wait(0.2):
            pass
        return status

    return wait
