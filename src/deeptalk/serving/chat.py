"""``/v1/chat/completions``: messages with text and sound in, text and sound out, whole or as a stream."""

import base64
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from deeptalk.audio import decode_waveform
from deeptalk.decoding import DecodingOptions
from deeptalk.serving.audio_formats import encode_pcm
from deeptalk.serving.files import check_form, encode_file
from deeptalk.serving.http import (
    Answering,
    Handler,
    HeldStream,
    error_response,
    hold,
    joined,
    mode_of,
    options_of,
    read_body,
    tells_errors,
    unless_gone,
    whole,
)
from deeptalk.serving.items import MAX_CHARACTERS, new_id
from deeptalk.serving.outlet import Ended, Piece
from deeptalk.serving.service import Service
from deeptalk.serving.turns import HEARD_RATE, Said, Turn
from deeptalk.serving.wire import ClientError, parse_base64, parse_json

KEPT_TRANSCRIPTS = 1024
EXPIRES_SECONDS = 3600
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Wanted:
    """A request that has been read."""

    messages: list[dict[str, Any]]
    mode: str
    options: DecodingOptions
    seed: int
    form: str
    speaks: bool
    is_stream: bool
    reports_usage: bool


class Transcripts:
    """What earlier spoken answers said, by their audio id, the latest ones only."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, str] = OrderedDict()

    def keep(self, audio_id: str, text: str) -> None:
        """Note what an answer said."""
        self._texts[audio_id] = text
        while len(self._texts) > KEPT_TRANSCRIPTS:
            self._texts.popitem(last=False)

    def get(self, audio_id: Any) -> str:
        """What an answer said; empty where it is not known any more."""
        return self._texts.get(audio_id, "") if isinstance(audio_id, str) else ""


def chat_route(service: Service) -> Handler:
    """The handler of ``POST /v1/chat/completions``."""
    transcripts = Transcripts()

    @tells_errors
    async def chat(request: HttpRequest) -> Response:
        wanted = _read(service, parse_json(await read_body(request, most=service.limits.max_body_bytes)))
        async with AsyncExitStack() as stack:
            answering = await stack.enter_async_context(hold(service, request))
            turns = _turns(service, answering, wanted.messages, transcripts)
            pieces = answering.pieces(turns, mode=wanted.mode, options=wanted.options, seed=wanted.seed)
            reply = _Reply(service, wanted, transcripts)
            if not wanted.is_stream:
                return await unless_gone(request, reply.whole(pieces))
            first = await anext(pieces)  # what can't be answered is told with its status
            return HeldStream(
                reply.stream(first, pieces), held=stack.pop_all(), media_type="text/event-stream"
            )

    return chat


class _Reply:
    """One completion, in either form."""

    def __init__(self, service: Service, wanted: _Wanted, transcripts: Transcripts) -> None:
        self._wanted, self._transcripts = wanted, transcripts
        self._sample_rate = service.thread.loaded.codec.sample_rate
        self._audio_id = new_id("audio")
        self._expires_at = int(time.time()) + EXPIRES_SECONDS
        self._common = {"id": new_id("chatcmpl"), "created": int(time.time()), "model": service.model}

    async def whole(self, coming: AsyncIterator[Piece | Ended]) -> Response:
        pieces, ended = [], Ended(reason="interrupted")
        async for piece in coming:
            if isinstance(piece, Ended):
                ended = piece
            else:
                pieces.append(piece)
        text, samples = joined(pieces)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self._wanted.speaks:
            self._transcripts.keep(self._audio_id, text)
            data = encode_file(samples, form=self._wanted.form, sample_rate=self._sample_rate)
            message["content"] = None
            message["audio"] = {
                "id": self._audio_id,
                "data": base64.b64encode(data).decode("ascii"),
                "transcript": text,
                "expires_at": self._expires_at,
            }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(ended)}
        body = self._common | {"object": "chat.completion", "choices": [choice], "usage": _usage(ended)}
        return JSONResponse(body)

    async def stream(self, first: Piece | Ended, coming: AsyncIterator[Piece | Ended]) -> AsyncIterator[str]:
        yield self._chunk({"role": "assistant"})
        text, piece = "", first
        try:
            while not isinstance(piece, Ended):
                text += piece.text
                for delta in self._deltas(piece):
                    yield self._chunk(delta)
                piece = await anext(coming)
        except Exception as error:
            body = error_response(error).body
            yield f"data: {bytes(body).decode()}\n\n"
            return
        if self._wanted.speaks:
            self._transcripts.keep(self._audio_id, text)
            yield self._chunk({"audio": {"id": self._audio_id, "expires_at": self._expires_at}})
        yield self._chunk({}, reason=_reason(piece))
        if self._wanted.reports_usage:
            chunk = self._common | {"object": "chat.completion.chunk", "choices": [], "usage": _usage(piece)}
            yield f"data: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"

    def _deltas(self, piece: Piece) -> list[dict[str, Any]]:
        if not self._wanted.speaks:
            return [{"content": piece.text}] if piece.text else []
        deltas: list[dict[str, Any]] = []
        if piece.text:
            deltas.append({"audio": {"id": self._audio_id, "transcript": piece.text}})
        if len(piece.samples):
            data = base64.b64encode(encode_pcm(piece.samples)).decode("ascii")
            deltas.append({"audio": {"id": self._audio_id, "data": data}})
        return deltas

    def _chunk(self, delta: dict[str, Any], *, reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = self._common | {"object": "chat.completion.chunk", "choices": [choice]}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


def _read(service: Service, body: dict[str, Any]) -> _Wanted:
    """Check what is asked for."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise ClientError("invalid_value", "messages must be a list of objects.", param="messages")
    modalities = body.get("modalities") or ["text"]
    if modalities not in (["text"], ["audio"], ["text", "audio"], ["audio", "text"]):
        raise ClientError(
            "invalid_value", 'modalities must be ["text"] or ["text", "audio"].', param="modalities"
        )
    audio = body.get("audio") or {}
    if not isinstance(audio, dict):
        raise ClientError("invalid_value", "audio must be an object.", param="audio")
    speaks, is_stream = "audio" in modalities, body.get("stream") is True
    form = audio.get("format", "pcm16" if is_stream else "wav")
    if speaks and is_stream and form != "pcm16":
        raise ClientError("invalid_value", "A stream has sound as pcm16 only.", param="audio.format")
    if body.get("n") not in (None, 1):
        raise ClientError("invalid_value", "n must be 1.", param="n")
    most = whole(body, "max_completion_tokens", default=None, least=1, most=10**6)
    most = whole(body, "max_tokens", default=most, least=1, most=10**6)
    stream_options = body.get("stream_options")
    return _Wanted(
        messages=messages,
        mode=mode_of(service, audio.get("voice")) if speaks else "text",
        options=options_of(service, body, max_tokens=most),
        seed=whole(body, "seed", default=0, least=0, most=2**63 - 1) or 0,
        form=check_form(form) if speaks else "",
        speaks=speaks,
        is_stream=is_stream,
        reports_usage=isinstance(stream_options, dict) and stream_options.get("include_usage") is True,
    )


def _turns(
    service: Service, answering: Answering, messages: list[dict[str, Any]], transcripts: Transcripts
) -> list[Turn]:
    """What the model reads; system messages only where the server follows instructions."""
    if len(messages) > service.limits.max_items:
        raise ClientError(
            "invalid_value", f"A request has at most {service.limits.max_items} messages.", param="messages"
        )
    turns: list[Turn] = []
    for number, message in enumerate(messages):
        place, given = f"messages.{number}", message.get("role")
        if not isinstance(given, str) or given not in ROLES:
            raise ClientError(
                "invalid_value", f"{place}.role must be one of {', '.join(ROLES)}.", param=place
            )
        role = ROLES[given]
        if role == "system" and not service.follows_instructions:
            continue
        spoken = message.get("audio")
        if role == "assistant" and isinstance(spoken, dict) and transcripts.get(spoken.get("id")):
            turns.append(Said(role="assistant", text=transcripts.get(spoken["id"])))
            continue
        for part in _parts(message.get("content"), place):
            turn = _turn(answering, part, role, place)
            if turn is not None:
                turns.append(turn)
    if not turns or (isinstance(turns[-1], Said) and turns[-1].role != "user"):
        raise ClientError(
            "invalid_value", "The last message must be the user's, not empty.", param="messages"
        )
    return turns


def _parts(content: Any, place: str) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise ClientError("invalid_value", f"{place}.content must be text or a list of parts.", param=place)
    return content


def _turn(answering: Answering, part: dict[str, Any], role: Any, place: str) -> Turn | None:
    if part.get("type") == "input_audio" and role == "user":
        given = part.get("input_audio")
        if not isinstance(given, dict):
            raise ClientError("invalid_value", f"{place}: input_audio must be an object.", param=place)
        data = parse_base64(given.get("data"), param="input_audio.data")
        samples = decode_waveform(data, name="input_audio", sample_rate=HEARD_RATE)
        return answering.listen(samples)
    text = part.get("text")
    if part.get("type") not in ("text", "refusal") or not isinstance(text, str):
        raise ClientError("invalid_value", f"{place}: parts are text or input_audio.", param=place)
    if len(text) > MAX_CHARACTERS:
        raise ClientError("invalid_value", f"{place}: at most {MAX_CHARACTERS} characters.", param=place)
    return Said(role=role, text=text.strip()) if text.strip() else None


def _reason(ended: Ended) -> str:
    return "length" if ended.reason == "length" else "stop"


def _usage(ended: Ended) -> dict[str, Any]:
    num_out = ended.num_text_tokens + ended.num_frames
    return {
        "prompt_tokens": ended.num_input_positions,
        "completion_tokens": num_out,
        "total_tokens": ended.num_input_positions + num_out,
        "completion_tokens_details": {"audio_tokens": ended.num_frames, "text_tokens": ended.num_text_tokens},
    }
