"""One answer of a Realtime session: its events from ``response.created`` to ``response.done``."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import torch

from deeptalk.errors import AudioError, DeepTalkError
from deeptalk.serving import events
from deeptalk.serving.audio_formats import SoundOut
from deeptalk.serving.items import Item, new_id
from deeptalk.serving.model_thread import BusyError, ContextFullError
from deeptalk.serving.outlet import Ended, Outlet
from deeptalk.serving.settings import Settings
from deeptalk.serving.turns import Ear
from deeptalk.serving.wire import ClientError


class Emit(Protocol):
    """How an event is sent."""

    def __call__(self, name: str, *, unless: Callable[[], bool] = ..., **fields: Any) -> Awaitable[None]:
        """Send one event; nothing where ``unless`` says so when its turn has come."""
        ...


class Response:
    """An answer while it is sent; its item grows with every piece that has left.

    ``on_sound`` is told the seconds of every piece of sound that has left; ``has_begun`` is set when anything
    has, and at the end.
    """

    def __init__(
        self,
        *,
        outlet: Outlet,
        item: Item,
        settings: Settings,
        metadata: Any,
        heard: Sequence[Ear],
        sample_rate: int,
        on_sound: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.id, self.item = new_id("resp"), item
        self.has_begun = asyncio.Event()
        self.outlet, self._settings, self._metadata = outlet, settings, metadata
        self._sample_rate, self._on_sound = sample_rate, on_sound
        self._sound = SoundOut(settings.audio_out, sample_rate=sample_rate)
        self._heard = heard
        self._cancelled_for: str | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether no further delta may leave."""
        return self._cancelled_for is not None

    def cancel(self, reason: str, *, heard_ms: float | None = None) -> None:
        """Send no delta from now on and end the answer; its closing events follow from ``run``.

        Of a spoken answer the words within ``heard_ms`` stay, by default within the sound that was sent.
        """
        self._cancelled_for = self._cancelled_for or reason
        if self._settings.speaks and self.item.heard_ms is None:
            sent = self.item.sound_ms
            self.item.heard_ms = sent if heard_ms is None else min(sent, heard_ms)
        self.outlet.cancel()

    async def run(self, emit: Emit, *, previous_item_id: str | None) -> dict[str, Any]:
        """Send the answer; ``response.done`` leaves exactly once, whatever happens. What it has told."""
        item, place = self.item, {"response_id": self.id, "output_index": 0}
        await emit(events.RESPONSE_CREATED, response=self.to_json("in_progress"))
        begun = item.to_json(status="in_progress") | {"content": []}
        await emit(events.OUTPUT_ITEM_ADDED, **place, item=begun)
        await emit(events.ITEM_ADDED, previous_item_id=previous_item_id, item=begun)
        part_place = place | {"item_id": item.id, "content_index": 0}
        await emit(events.PART_ADDED, **part_place, part=self._part(""))
        await self._send_pieces(emit, part_place)
        self.has_begun.set()
        ended = self.outlet.ended or Ended(reason="interrupted")
        item.conclude(ended.turn, is_whole=ended.reason != "interrupted" and not self.is_cancelled)
        status = self._status(ended)
        item.status = "completed" if status == "completed" else "incomplete"
        if self._settings.speaks:
            await emit(events.AUDIO_DONE, **part_place)
            await emit(events.TRANSCRIPT_DONE, **part_place, transcript=item.said)
        else:
            await emit(events.TEXT_DONE, **part_place, text=item.said)
        await emit(events.PART_DONE, **part_place, part=self._part(item.said))
        await emit(events.OUTPUT_ITEM_DONE, **place, item=item.to_json())
        await emit(events.ITEM_DONE, previous_item_id=previous_item_id, item=item.to_json())
        done = self.to_json(status, ended)
        await emit(events.RESPONSE_DONE, response=done)
        return done

    async def _send_pieces(self, emit: Emit, place: dict[str, Any]) -> None:
        words = events.TRANSCRIPT_DELTA if self._settings.speaks else events.TEXT_DELTA
        async for piece in self.outlet.pieces():
            if piece.text:
                await emit(words, unless=self._is_silenced, **place, delta=piece.text)
                self._note_words(piece.text)
            if len(piece.samples):
                await self._send_sound(emit, place, piece.samples, is_last=False)
            self.has_begun.set()
        if self._settings.speaks:
            await self._send_sound(emit, place, torch.zeros(0), is_last=True)

    async def _send_sound(
        self, emit: Emit, place: dict[str, Any], samples: torch.Tensor, *, is_last: bool
    ) -> None:
        if self.is_cancelled:
            return
        data = self._sound.push(samples, is_last=is_last)
        if data:
            delta = base64.b64encode(data).decode("ascii")
            await emit(events.AUDIO_DELTA, unless=self._is_silenced, **place, delta=delta)
        if not self.is_cancelled:
            seconds = len(samples) / self._sample_rate
            self.item.sound_ms += 1000.0 * seconds
            self._on_sound(seconds)

    def _note_words(self, text: str) -> None:
        if self.is_cancelled:
            return
        self.item.said += text
        self.item.content[0]["transcript" if self._settings.speaks else "text"] = self.item.said

    def _is_silenced(self) -> bool:
        return self.is_cancelled

    def _part(self, text: str) -> dict[str, str]:
        if self._settings.speaks:
            return {"type": "audio", "transcript": text}
        return {"type": "text", "text": text}

    def _status(self, ended: Ended) -> str:
        return "cancelled" if self.is_cancelled else ended.status

    def _details(self, status: str, ended: Ended) -> dict[str, Any] | None:
        if status == "cancelled":
            return {"type": status, "reason": self._cancelled_for}
        if status == "incomplete":
            return {"type": status, "reason": "max_output_tokens"}
        if status == "failed":
            return {"type": status, "error": told(ended.error)}
        return None

    def to_json(self, status: str, ended: Ended | None = None) -> dict[str, Any]:
        """The response as clients see it; with ``ended`` as in ``response.done``."""
        settings = self._settings
        form = {"type": settings.audio_out.type}
        if settings.audio_out.type == "audio/pcm":
            form["rate"] = settings.audio_out.rate  # pyright: ignore[reportArgumentType]
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": None if ended is None else self._details(status, ended),
            "output": [] if ended is None else [self.item.to_json()],
            "output_modalities": ["audio"] if settings.speaks else ["text"],
            "max_output_tokens": settings.max_output_tokens or "inf",
            "audio": {"output": {"format": form, "voice": settings.voice}},
            "usage": None if ended is None else self._usage(ended),
            "metadata": self._metadata,
        }

    def _usage(self, ended: Ended) -> dict[str, Any]:
        heard = min(sum(ear.num_frames for ear in self._heard), ended.num_input_positions)
        num_out = ended.num_text_tokens + ended.num_frames
        return {
            "total_tokens": ended.num_input_positions + num_out,
            "input_tokens": ended.num_input_positions,
            "output_tokens": num_out,
            "input_token_details": {
                "text_tokens": ended.num_input_positions - heard,
                "audio_tokens": heard,
                "cached_tokens": 0,
            },
            "output_token_details": {"text_tokens": ended.num_text_tokens, "audio_tokens": ended.num_frames},
        }


def told(error: Exception | None) -> dict[str, str]:
    """What a client is told of an error; of what is no mistake of its own, that it happened."""
    if isinstance(error, ClientError):
        return {"type": "invalid_request_error", "code": error.code, "message": str(error)}
    if isinstance(error, ContextFullError):
        return {"type": "invalid_request_error", "code": "context_length_exceeded", "message": str(error)}
    if isinstance(error, AudioError):
        return {"type": "invalid_request_error", "code": "invalid_audio", "message": str(error)}
    if isinstance(error, BusyError):
        return {"type": "server_error", "code": "server_busy", "message": str(error)}
    message = str(error) if isinstance(error, DeepTalkError) else "The answer could not be made."
    return {"type": "server_error", "code": "engine_error", "message": message}
