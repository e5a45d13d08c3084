"""A client of a session without a socket: it keeps every event and checks what holds for all of them."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import torch

from deeptalk.serving import events
from deeptalk.serving.audio_formats import encode_pcm
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.realtime import RealtimeSession

Event = dict[str, Any]


def sound(seconds: float, *, seed: int = 0, rate: int = 24_000) -> str:
    """Noise as base64 of 16-bit samples."""
    generator = torch.Generator().manual_seed(seed)
    return base64.b64encode(encode_pcm(0.1 * torch.randn(int(rate * seconds), generator=generator))).decode()


class Client:
    """Sends events to a session and waits for what comes back."""

    def __init__(self, thread: ModelThread, **options: Any) -> None:
        self.session = RealtimeSession(thread, send=self._take, model="any", **options)
        self.events: list[Event] = []
        self.on_event: Callable[[Event], None] = lambda event: None
        self._news = asyncio.Event()
        self._num_read = 0

    async def __aenter__(self) -> "Client":
        await self.session.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        ids = [event["event_id"] for event in self.events]
        assert len(set(ids)) == len(ids)

    async def send(self, name: str, **fields: Any) -> None:
        await self.session.receive(json.dumps({"type": name, **fields}))

    async def until(self, name: str) -> Event:
        """The next event of a type that has not been waited for; the ones before it count as read."""
        while True:
            while self._num_read < len(self.events):
                event = self.events[self._num_read]
                self._num_read += 1
                if event["type"] == name:
                    return event
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 60)

    async def say(self, text: str, **fields: Any) -> Event:
        """Add a written turn of the user."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content, **fields}
        await self.send("conversation.item.create", item=item)
        return await self.until(events.ITEM_DONE)

    async def answer(self, **response: Any) -> Event:
        """Have an answer made, to its end."""
        await self.send("response.create", response=response)
        return (await self.until(events.RESPONSE_DONE))["response"]

    async def manual(self, **session: Any) -> None:
        """Turns end when the client says so."""
        audio = {"input": {"turn_detection": None}}
        await self.send("session.update", session={"audio": audio, **session})
        await self.until(events.SESSION_UPDATED)

    def of(self, name: str) -> list[Event]:
        return [event for event in self.events if event["type"] == name]

    def sound_of(self, response_id: str) -> bytes:
        parts = [event for event in self.of(events.AUDIO_DELTA) if event["response_id"] == response_id]
        return b"".join(base64.b64decode(event["delta"]) for event in parts)

    async def _take(self, text: str) -> None:
        event = json.loads(text)
        self.events.append(event)
        self._news.set()
        self.on_event(event)
