"""What the HTTP routes share: bodies within limits, errors as JSON, answers from slot to end."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import wraps
from typing import Any

import torch
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from deeptalk.decoding import DecodingOptions
from deeptalk.errors import AudioError, DeepTalkError
from deeptalk.serving.model_thread import BusyError, ContextFullError, Request
from deeptalk.serving.outlet import Ended, Outlet, Piece
from deeptalk.serving.security import error_body, principal_of
from deeptalk.serving.service import FullError, Service
from deeptalk.serving.settings import answer_options
from deeptalk.serving.turns import HEARD_RATE, Ear, Turn
from deeptalk.serving.wire import ClientError
from deeptalk.shapes import Float, Tensor

_logger = logging.getLogger(__name__)

Handler = Callable[[HttpRequest], Awaitable[Response]]

GONE = 499
"""The status for a client that has left, which nobody sees."""


def tells_errors(handler: Handler) -> Handler:
    """Turn every error of a route into OpenAI's error object and the status that belongs to it."""

    @wraps(handler)
    async def safe(request: HttpRequest) -> Response:
        try:
            return await handler(request)
        except HTTPException:
            raise
        except ClientDisconnect:
            return Response(status_code=GONE)
        except Exception as error:
            return error_response(error)

    return safe


def error_response(error: Exception) -> Response:
    """What a client is told of an error: of what is no mistake of its own, that it happened."""
    if isinstance(error, ClientError):
        body = error_body(str(error), code=error.code, param=error.param)
        return JSONResponse(body, status_code=error.status)
    if isinstance(error, FullError | BusyError):
        code, status = (error.code, error.status) if isinstance(error, FullError) else ("server_busy", 503)
        body = error_body(str(error), code=code, is_ours=status == 503)
        return JSONResponse(body, status_code=status, headers={"retry-after": "1"})
    if isinstance(error, DeepTalkError):
        codes = {AudioError: "invalid_audio", ContextFullError: "context_length_exceeded"}
        return JSONResponse(error_body(str(error), code=codes.get(type(error), "invalid_value")), 400)
    _logger.error("a request failed: %s", type(error).__name__, exc_info=error)
    return JSONResponse(error_body("The answer failed.", code="engine_error", is_ours=True), 500)


async def read_body(request: HttpRequest, *, most: int) -> bytes:
    """The body; ``body_too_large`` (413) as soon as it is longer than allowed."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise ClientError("body_too_large", f"A body has at most {most} bytes.", status=413)
    return bytes(body)


class Answering:
    """Answers in a slot that the block of ``hold`` has taken; leaving it cancels what still runs."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._outlets: list[Outlet] = []
        self._ears: list[Ear] = []

    def listen(self, samples: Float[Tensor, "S"]) -> Ear:
        """A spoken turn of samples at 16 kHz; AudioError for one that is longer than the model can hear."""
        seconds, longest = len(samples) / HEARD_RATE, self._service.thread.longest_seconds
        if seconds > longest:
            raise AudioError(f"{seconds:.1f} s of sound; a turn has at most {longest:g} s.")
        ear = Ear()
        ear.push(samples)
        ear.close()
        self._ears.append(ear)
        self._service.thread.hear(ear)
        return ear

    async def pieces(
        self, turns: Sequence[Turn], *, mode: str, options: DecodingOptions, seed: int = 0
    ) -> AsyncIterator[Piece | Ended]:
        """The pieces of an answer, then how it ended; an error of the model thread is raised."""
        outlet = self._service.thread.new_outlet()
        self._outlets.append(outlet)
        self._service.thread.ask(Request(turns=turns, mode=mode, options=options, outlet=outlet, seed=seed))
        status, said, began = "cancelled", "", time.monotonic()
        try:
            async for piece in outlet.pieces():
                said += piece.text
                yield piece
            assert outlet.ended is not None
            status = outlet.ended.status
        finally:
            self._service.metrics.count("deeptalk_turns_total", status)
            told = {"mode": mode, "status": status, "seconds": round(time.monotonic() - began, 3)}
            words = {"said": said} if self._service.logs_transcripts else {}
            _logger.info("turn %s", json.dumps(told | words, ensure_ascii=False))
        if outlet.ended.error is not None:
            raise outlet.ended.error
        yield outlet.ended

    def cancel(self) -> None:
        """Nobody wants the rest."""
        for outlet in self._outlets:
            outlet.cancel()
        for ear in self._ears:
            ear.drop()


@asynccontextmanager
async def hold(service: Service, request: HttpRequest) -> AsyncIterator[Answering]:
    """A slot for HTTP answers, waited for in the queue; FullError where there is none."""
    async with service.slot(principal_of(request.scope), may_wait=True):
        answering = Answering(service)
        try:
            yield answering
        finally:
            answering.cancel()


class HeldStream(StreamingResponse):
    """A stream that lets its slot go when it ends, however it ends."""

    def __init__(self, content: AsyncIterator[Any], *, held: AsyncExitStack, media_type: str) -> None:
        super().__init__(content, media_type=media_type)
        self._held = held

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the stream."""
        async with self._held:
            await super().__call__(scope, receive, send)


async def unless_gone(request: HttpRequest, work: Awaitable[Response]) -> Response:
    """The result of ``work``, which is cancelled when the client has left."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else Response(status_code=GONE)
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def options_of(service: Service, body: dict[str, Any], *, max_tokens: int | None) -> DecodingOptions:
    """How an answer over HTTP is made."""
    temperature = number(body, "temperature", default=0.0, least=0.0, most=2.0)
    return answer_options(service.thread.answer_limits, most=max_tokens, temperature=temperature)


def number(body: dict[str, Any], name: str, *, default: float, least: float, most: float) -> float:
    """A number of a body within its bounds."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ClientError("invalid_value", f"{name} must be a number from {least:g} to {most:g}.", param=name)
    return value


def whole(body: dict[str, Any], name: str, *, default: int | None, least: int, most: int) -> int | None:
    """A whole number of a body within its bounds."""
    value = number(body, name, default=least, least=least, most=most)
    if body.get(name) is None:
        return default
    if not isinstance(value, int):
        raise ClientError("invalid_value", f"{name} must be a whole number.", param=name)
    return value


def mode_of(service: Service, voice: Any) -> str:
    """The mode of a spoken answer; a voice that the model doesn't have is taken as its first."""
    voices = service.thread.loaded.voices
    if isinstance(voice, dict):
        voice = voice.get("id")
    if voice not in voices:
        voice = voices[0] if voices else None
    return "answer" if voice is None else f"speaker:{voice}"


def joined(pieces: list[Piece]) -> tuple[str, Float[Tensor, "S"]]:
    """The words and the samples of pieces."""
    samples = [piece.samples for piece in pieces]
    return "".join(piece.text for piece in pieces), torch.cat(samples) if samples else torch.zeros(0)
