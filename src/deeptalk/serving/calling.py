"""A client of any Realtime server: turns out, answers back, and when their sound came.

Sound is 16-bit mono at 24 kHz on the wire. Axes: S samples.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from deeptalk.errors import ConfigError, ProtocolError
from deeptalk.serving import events
from deeptalk.serving.audio_formats import encode_pcm
from deeptalk.serving.security import LOOPBACK
from deeptalk.shapes import Float, Tensor

RATE = 24_000
BYTES_PER_SECOND = 2 * RATE

PIECE_SECONDS = 0.1
"""How much sound a microphone hands over at a time."""

SILENCE_SECONDS = 2.0
"""What follows a turn that the server has to end; more than any server waits for."""

PATIENCE_SECONDS = 60.0
"""A server that says nothing for so long after a turn won't answer it."""

GAP_SECONDS = 0.1
"""A shorter pause in what is played goes unnoticed."""

MAX_MESSAGE_BYTES = 16 * 2**20

Turns = Literal["manual", "server_vad", "semantic_vad"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A piece of sound: when it came, by the clock of the call, and how long it lasts."""

    at: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Received:
    """An answer as a client gets it; ``asked_at`` is the end of the turn that it answers.

    ``status`` is the server's word for how it ended, ``trouble`` what it tells of an answer that failed.
    """

    text: str
    sound: bytes
    status: str
    trouble: str
    asked_at: float
    arrivals: tuple[Arrival, ...]

    @property
    def seconds(self) -> float:
        """How long the sound lasts."""
        return len(self.sound) / BYTES_PER_SECOND

    @property
    def first_audio_seconds(self) -> float | None:
        """From the end of the turn to the first piece of sound; None for an answer without any."""
        return self.arrivals[0].at - self.asked_at if self.arrivals else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Playback:
    """How an answer is played that begins with its first piece: pieces, those that came too late, and gaps.

    The gaps are those that are heard; ``until`` is when the last sample has been played.
    """

    num_pieces: int
    num_late: int
    num_gaps: int
    until: float


def play(arrivals: Sequence[Arrival]) -> Playback:
    """Play pieces as they come; one that comes too late is played at once."""
    num_late = num_gaps = 0
    until = arrivals[0].at if arrivals else 0.0
    for arrival in arrivals:
        late = arrival.at - until
        num_late += late > 0
        num_gaps += late > GAP_SECONDS
        until = max(until, arrival.at) + arrival.seconds
    return Playback(num_pieces=len(arrivals), num_late=num_late, num_gaps=num_gaps, until=until)


class Call:
    """One session of a server; one turn at a time. ``on_sound`` is given the bytes of every piece.

    ProtocolError where the server refuses, or says nothing for ``patience`` seconds after a turn.
    """

    def __init__(
        self,
        socket: ClientConnection,
        *,
        turns: Turns,
        on_sound: Callable[[bytes], None] = lambda data: None,
        patience: float = PATIENCE_SECONDS,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._socket, self._turns, self._on_sound = socket, turns, on_sound
        self._patience, self._now, self._sleep = patience, now, sleep

    async def say(self, samples: Float[Tensor, "S"], *, is_paced: bool) -> Received:
        """Speak a turn, as fast as it was spoken or at once, and take the answer."""
        asked = asyncio.get_running_loop().create_future()
        speaking = asyncio.create_task(self._speak(encode_pcm(samples), asked, is_paced=is_paced))
        try:
            return await self._receive(asked)
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    async def write(self, text: str) -> Received:
        """Write a turn and take the answer."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self._send("conversation.item.create", item=item)
        asked = asyncio.get_running_loop().create_future()
        asked.set_result(self._now())
        await self._send("response.create")
        return await self._receive(asked)

    async def _speak(self, sound: bytes, asked: asyncio.Future[float], *, is_paced: bool) -> None:
        """Send a turn, and note when its last sample was sent."""
        began = self._now()
        try:
            for number, piece in enumerate(_pieces(sound), start=1):
                await self._append(piece, at=began + PIECE_SECONDS * number if is_paced else None)
        finally:
            asked.set_result(asked_at := self._now())
        if self._turns == "manual":
            await self._send("input_audio_buffer.commit")
            await self._send("response.create")
            return
        silence = bytes(int(SILENCE_SECONDS * RATE) * 2)
        for number, piece in enumerate(_pieces(silence), start=1):
            await self._append(piece, at=asked_at + PIECE_SECONDS * number if is_paced else None)

    async def _append(self, piece: bytes, *, at: float | None) -> None:
        """Send sound, once it has been spoken."""
        if at is not None:
            await self._sleep(max(0.0, at - self._now()))
        await self._send("input_audio_buffer.append", audio=base64.b64encode(piece).decode("ascii"))

    async def _receive(self, asked: asyncio.Future[float]) -> Received:
        """The answer to a turn; one that the rest of the same turn has interrupted is none."""
        text, sound, arrivals = "", bytearray(), list[Arrival]()
        while True:
            event = await self._next(asked)
            match event.get("type"):
                case events.TRANSCRIPT_DELTA | events.TEXT_DELTA:
                    text += event["delta"]
                case events.AUDIO_DELTA:
                    data = base64.b64decode(event["delta"])
                    arrivals.append(Arrival(at=self._now(), seconds=len(data) / BYTES_PER_SECOND))
                    sound += data
                    self._on_sound(data)
                case events.RESPONSE_DONE:
                    response = event["response"]
                    if (response.get("status_details") or {}).get("reason") == "turn_detected":
                        text, sound, arrivals = "", bytearray(), []
                        continue
                    return Received(
                        text=text.strip(),
                        sound=bytes(sound),
                        status=response["status"],
                        trouble=_trouble(response),
                        asked_at=await asked,
                        arrivals=tuple(arrivals),
                    )
                case _:
                    pass

    async def _next(self, asked: asyncio.Future[float] | None = None) -> dict[str, Any]:
        try:
            event = json.loads(await self._hear(asked))
        except ConnectionClosed as closed:
            raise _gone(closed) from closed
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise ProtocolError("What the server sends is no event: is this a Realtime address?")
        if event.get("type") == events.ERROR:
            told = event.get("error", {})
            raise ProtocolError(f"The server refuses ({told.get('code')}): {told.get('message')}")
        return event

    async def _hear(self, asked: asyncio.Future[float] | None) -> str | bytes:
        """What comes next; a server may be silent until a turn has been said."""
        while True:
            try:
                async with asyncio.timeout(self._patience):
                    return await self._socket.recv()
            except TimeoutError:
                if asked is None or asked.done():
                    found = "" if self._turns == "manual" else f", or {self._turns} finds no speech"
                    raise ProtocolError(
                        f"The server has said nothing for {self._patience:g} s: it is stuck{found}."
                    ) from None

    async def _send(self, name: str, **fields: Any) -> None:
        try:
            await self._socket.send(json.dumps({"type": name, **fields}))
        except ConnectionClosed as closed:
            raise _gone(closed) from closed

    async def begin(self, *, voice: str | None) -> None:
        """Say how turns end and who is to answer; returns when the server has taken it."""
        detection = None if self._turns == "manual" else {"type": self._turns}
        audio: dict[str, Any] = {"input": {"turn_detection": detection}}
        if voice is not None:
            audio["output"] = {"voice": voice}
        await self._send("session.update", session={"type": "realtime", "audio": audio})
        while (await self._next()).get("type") != events.SESSION_UPDATED:
            pass


@asynccontextmanager
async def call(
    url: str,
    *,
    turns: Turns = "manual",
    key: str | None = None,
    voice: str | None = None,
    on_sound: Callable[[bytes], None] = lambda data: None,
) -> AsyncIterator[Call]:
    """A session of the server at ``url`` (``ws://HOST:PORT/v1/realtime``) while the block runs.

    Raises:
        ConfigError: nothing answers there.
        ProtocolError: the server refuses, or ends the session.
    """
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        proxy = None if urlsplit(url).hostname in LOOPBACK else True
        socket = await connect(
            url,
            additional_headers=headers,
            max_size=MAX_MESSAGE_BYTES,
            max_queue=None,  # one that is full hides the server's close
            proxy=proxy,
        )
    except InvalidStatus as refused:
        raise ProtocolError(f"{url} refuses: {_reason(refused)}.") from refused
    except (OSError, ValueError, InvalidURI, InvalidHandshake, TimeoutError) as error:
        words = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"{url}: no Realtime server answers ({words}); `deeptalk serve` starts one."
        ) from error
    async with socket:
        calling = Call(socket, turns=turns, on_sound=on_sound)
        await calling.begin(voice=voice)
        yield calling


def _pieces(sound: bytes) -> Iterator[bytes]:
    size = 2 * int(RATE * PIECE_SECONDS)
    for start in range(0, len(sound), size):
        yield sound[start : start + size]


def _trouble(response: dict[str, Any]) -> str:
    """What a server tells of an answer that failed."""
    error = (response.get("status_details") or {}).get("error") or {}
    return error.get("message") or ""


def _gone(closed: ConnectionClosed) -> ProtocolError:
    told = closed.rcvd
    words = "without a word" if told is None else f"{told.code} {told.reason}".strip()
    return ProtocolError(f"The server has ended the session ({words}).")


def _reason(refused: InvalidStatus) -> str:
    """The status of a refusal, with the server's words where it has some."""
    status = refused.response.status_code
    try:
        return f"{status} {json.loads(refused.response.body or b'')['error']['message']}".rstrip(".")
    except (ValueError, KeyError, TypeError):
        return str(status)
