"""The ASGI application: routes, and the guard around all of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from deeptalk.serving.chat import chat_route
from deeptalk.serving.client_secrets import client_secrets_route
from deeptalk.serving.completions import completions_route
from deeptalk.serving.metrics import CONTENT_TYPE
from deeptalk.serving.security import REALTIME_PATH, Guard, Security, error_body
from deeptalk.serving.service import Service
from deeptalk.serving.speech import speech_route, transcription_route
from deeptalk.serving.talk_page import page_routes
from deeptalk.serving.watchdog import Watchdog
from deeptalk.serving.websocket import serve_realtime


def create_app(
    service: Service, security: Security, *, has_page: bool = True, now: Callable[[], float] = time.time
) -> Guard:
    """The application, with the talk page or without; it starts and stops the model thread.

    ``now`` is the clock by which ephemeral keys expire, in seconds since 1970.
    """

    async def realtime(socket: WebSocket) -> None:
        await serve_realtime(socket, service)

    async def health(request: Request) -> Response:
        return _status(service.is_well)

    async def ready(request: Request) -> Response:
        return _status(service.is_ready)

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.render(service.gauges()), media_type=CONTENT_TYPE)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watchdog = Watchdog(lambda: service.thread.silent_seconds, patience_seconds=service.patience_seconds)
        loop = asyncio.get_running_loop()
        service.thread.on_broken = lambda: asyncio.run_coroutine_threadsafe(service.give_up(), loop)
        service.thread.start()
        watchdog.start()
        yield
        service.thread.stop()
        watchdog.stop()

    started = int(time.time())
    card = {"id": service.model, "object": "model", "created": started, "owned_by": "deeptalk"}

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [card]})

    async def model(request: Request) -> Response:
        if request.path_params["name"] != service.model:
            raise HTTPException(404, "There is no model of that name; see /v1/models.")
        return JSONResponse(card)

    secrets_route = client_secrets_route(service, signer=security.signer, now=now)
    routes = [
        WebSocketRoute(REALTIME_PATH, realtime),
        Route("/v1/realtime/client_secrets", secrets_route, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/v1/chat/completions", chat_route(service), methods=["POST"]),
        Route("/v1/completions", completions_route(service), methods=["POST"]),
        Route("/v1/audio/speech", speech_route(service), methods=["POST"]),
        Route("/v1/audio/transcriptions", transcription_route(service), methods=["POST"]),
        Route("/health", health),
        Route("/ready", ready),
        Route("/metrics", metrics),
    ]
    if has_page:
        routes += page_routes(model=service.model, voices=service.thread.loaded.voices)
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_error})
    return Guard(app, security, on_refusal=service.note_reject, now=now)


async def _http_error(request: Request, error: Exception) -> Response:
    """A path or a method that there is not."""
    assert isinstance(error, HTTPException)
    code = "not_found" if error.status_code == 404 else "invalid_request"
    return JSONResponse(error_body(error.detail, code=code), error.status_code, headers=error.headers)


def _status(is_well: bool) -> Response:
    return JSONResponse({"status": "ok" if is_well else "unavailable"}, status_code=200 if is_well else 503)
