"""``/v1/audio/speech`` reads a text aloud, ``/v1/audio/transcriptions`` writes down what is said."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from deeptalk.audio import audible_parts, decode_waveform
from deeptalk.decoding import DecodingOptions
from deeptalk.serving.audio_formats import encode_pcm
from deeptalk.serving.files import RAW, check_form, encode_file, known_forms, media_type
from deeptalk.serving.http import (
    Answering,
    Handler,
    HeldStream,
    hold,
    joined,
    mode_of,
    number,
    options_of,
    read_body,
    tells_errors,
    unless_gone,
)
from deeptalk.serving.outlet import Ended, Piece
from deeptalk.serving.service import Service
from deeptalk.serving.turns import HEARD_RATE, Said
from deeptalk.serving.wire import ClientError, parse_json
from deeptalk.shapes import Float, Tensor
from deeptalk.streams.prompt import READ_ALOUD

MAX_CHARACTERS = 4096
LONGEST_SENTENCE = 200
"""Characters that are read aloud at a time."""

FILE_WASTE = 64 * 2**10
"""Bytes that a form may have around its file."""


def speech_route(service: Service) -> Handler:
    """The handler of ``POST /v1/audio/speech``."""

    @tells_errors
    async def speech(request: HttpRequest) -> Response:
        body = parse_json(await read_body(request, most=service.limits.max_body_bytes))
        text, form = body.get("input"), check_form(body.get("response_format") or _usual_form())
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_CHARACTERS:
            raise ClientError(
                "invalid_value", f"input must be 1 to {MAX_CHARACTERS} characters of text.", param="input"
            )
        number(body, "speed", default=1.0, least=0.25, most=4.0)
        mode, options = mode_of(service, body.get("voice")), options_of(service, body, max_tokens=None)
        async with AsyncExitStack() as stack:
            answering = await stack.enter_async_context(hold(service, request))
            pieces = _read_aloud(answering, text, mode=mode, options=options)
            if form in RAW:
                first = await anext(pieces)
                return HeldStream(_raw(first, pieces), held=stack.pop_all(), media_type=media_type(form))
            return await unless_gone(request, _file(pieces, form, service.thread.loaded.codec.sample_rate))

    return speech


def transcription_route(service: Service) -> Handler:
    """The handler of ``POST /v1/audio/transcriptions``."""

    @tells_errors
    async def transcription(request: HttpRequest) -> Response:
        samples, form = await _uploaded(request, most=service.limits.max_body_bytes)
        async with hold(service, request) as answering:
            return await unless_gone(request, _transcribed(service, answering, samples, form))

    return transcription


def _usual_form() -> str:
    """What a client gets that asks for no kind of file."""
    return "mp3" if "mp3" in known_forms() else "wav"


def sentences(text: str) -> list[str]:
    """A text in parts that can be read aloud at a time, cut behind sentences or else between words."""
    parts: list[str] = []
    for sentence in re.split(r"(?<=[.!?;:])\s+|\n+", text.strip()):
        words, line = sentence.split(), ""
        for word in words:
            if line and len(line) + 1 + len(word) > LONGEST_SENTENCE:
                parts.append(line)
                line = ""
            line = f"{line} {word}".strip()
        parts += [line] if line else []
    return parts


async def _read_aloud(
    answering: Answering, text: str, *, mode: str, options: DecodingOptions
) -> AsyncIterator[Piece]:
    for sentence in sentences(text):
        asked = Said(role="user", text=READ_ALOUD.format(text=sentence))
        async for piece in answering.pieces([asked], mode=mode, options=options):
            if isinstance(piece, Piece):
                yield piece


async def _raw(first: Piece, coming: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
    yield encode_pcm(first.samples)
    async for piece in coming:
        yield encode_pcm(piece.samples)


async def _file(coming: AsyncIterator[Piece], form: str, sample_rate: int) -> Response:
    _, samples = joined([piece async for piece in coming])
    data = encode_file(samples, form=form, sample_rate=sample_rate)
    return Response(data, media_type=media_type(form))


async def _uploaded(request: HttpRequest, *, most: int) -> tuple[Float[Tensor, "S"], str]:
    """The sound of a form and how its words are wanted."""
    body = await read_body(request, most=most + FILE_WASTE)

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ClientError("invalid_value", "A multipart form with a file is expected.", param="file")
    try:
        form = await MultiPartParser(request.headers, stream(), max_files=1, max_fields=32).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise ClientError("invalid_value", "The multipart form can't be read.", param="file") from error
    try:
        file, wanted = form.get("file"), form.get("response_format") or "json"
        if not isinstance(file, UploadFile):
            raise ClientError("invalid_value", "The form needs a file.", param="file")
        if wanted not in ("json", "text", "verbose_json"):
            raise ClientError(
                "invalid_value",
                "response_format must be json, text or verbose_json.",
                param="response_format",
            )
        samples = decode_waveform(await file.read(), name="file", sample_rate=HEARD_RATE)
        return samples, str(wanted)
    finally:
        await form.close()


async def _transcribed(
    service: Service, answering: Answering, samples: Float[Tensor, "S"], form: str
) -> Response:
    words: list[str] = []
    options = DecodingOptions(limits=service.thread.answer_limits)
    longest = service.thread.loaded.model.config.longest_part_seconds(len(samples) / HEARD_RATE)
    for part in audible_parts(samples, longest_seconds=longest):
        ear = answering.listen(part)
        async for piece in answering.pieces([ear], mode="asr", options=options):
            if isinstance(piece, Ended) and piece.turn is not None:
                words.append(piece.turn.text)
    text = " ".join(word for word in words if word)
    if form == "text":
        return PlainTextResponse(text + "\n")
    if form == "json":
        return JSONResponse({"text": text})
    seconds = len(samples) / HEARD_RATE
    segment = {"id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text}
    body = {"task": "transcribe", "language": "english", "duration": seconds, "text": text}
    return JSONResponse(body | {"segments": [segment]})
