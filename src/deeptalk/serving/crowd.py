"""Many clients who get nothing: how soon they are refused or cut off, and what somebody who talks notices."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from deeptalk.errors import ConfigError
from deeptalk.serving.calling import Call, Received, call
from deeptalk.serving.load import ask_one, percentiles_ms, values_of
from deeptalk.shapes import Tensor

MOST_SECONDS = 120.0
"""As long clients that never read are waited for."""

AGAIN_SECONDS = 1.0
"""After so long, clients that were refused come again."""

LONG_EVENT = json.dumps({"type": "session.update", "session": {"tools": ["x" * 100_000]}})
"""What is answered by as much."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Crowd:
    """``num_clients`` who come at once, and how many questions somebody else asks alone and beside them.

    ``metrics`` is what the server tells at ``/metrics``. Who is ``hurried`` speaks and listens in no time.
    """

    questions: Sequence[Tensor]
    metrics: Callable[[], str]
    num_clients: int = 50
    num_turns: int = 20
    is_hurried: bool = False


async def measure_crowd(url: str, crowd: Crowd, *, key: str | None = None) -> dict[str, Any]:
    """The figures, by the names that the command line prints; without a key nobody has a wrong one.

    The server has one slot more than there are clients.
    """
    async with call(url, key=key) as calling:
        talk = _Talk(calling, crowd)
        alone = await talk.turns(crowd.num_turns)
        deaf = asyncio.create_task(_be_deaf_together(url, crowd, key=key))
        beside_deaf = await talk.turns(1, until=deaf)
        left = await deaf
        async with AsyncExitStack() as held:
            for _ in range(crowd.num_clients):
                held.push_async_callback((await _let_in(url, crowd, key)).close)
            over = asyncio.Event()
            knocking = asyncio.create_task(_knock_together(url, crowd, key=key, until=over))
            try:
                beside_refused = await talk.turns(crowd.num_turns)
            finally:
                over.set()
            full = await knocking
            wrong = None if key is None else await _knock_together(url, crowd, key=f"not {key}", until=over)
    return {
        "clients": crowd.num_clients,
        "refused": {"full": full, "wrong_key": wrong},
        "deaf": left,
        "first_audio_ms": {
            "alone": _waits(alone),
            "beside_deaf": _waits(beside_deaf),
            "beside_refused": _waits(beside_refused),
        },
        "silent": sum(not each.arrivals for each in (*alone, *beside_deaf, *beside_refused)),
    }


class _Talk:
    """Somebody's turns, one question after the other."""

    def __init__(self, calling: Call, crowd: Crowd) -> None:
        self._calling, self._crowd, self._number = calling, crowd, 0

    async def turns(self, least: int, *, until: "asyncio.Task[Any] | None" = None) -> list[Received]:
        """So many answers, and as many more as it takes until something else is over."""
        answers: list[Received] = []
        while len(answers) < least or (until is not None and not until.done()):
            question = self._crowd.questions[self._number % len(self._crowd.questions)]
            self._number += 1
            answers.append(await ask_one(self._calling, question, is_hurried=self._crowd.is_hurried))
        return answers


async def _knock_together(url: str, crowd: Crowd, *, key: str | None, until: asyncio.Event) -> dict[str, Any]:
    """All ask for a session at once, again every second, and none should get one.

    Milliseconds are those from asking to the refusal.
    """
    found: list[float | None] = []
    while not found or not until.is_set():
        found += await asyncio.gather(*(_knock(url, key) for _ in range(crowd.num_clients)))
        with suppress(TimeoutError):
            await asyncio.wait_for(until.wait(), AGAIN_SECONDS)
    waits = [seconds for seconds in found if seconds is not None]
    return {"asked": len(found), "refused": len(waits), "ms": percentiles_ms(waits)}


async def _knock(url: str, key: str | None) -> float | None:
    began = time.monotonic()
    try:
        async with _socket(url, key):
            return None
    except InvalidStatus:
        return time.monotonic() - began


async def _be_deaf_together(url: str, crowd: Crowd, *, key: str | None) -> dict[str, Any]:
    """All ask for megabytes and read none of them; until the server has let go of them, and its memory."""
    sessions, memory = await _level(crowd)
    most, left, began = memory, crowd.num_clients, time.monotonic()
    async with AsyncExitStack() as held:
        for _ in range(crowd.num_clients):
            socket = await _let_in(url, crowd, key)
            held.push_async_callback(_hang_up, socket, asyncio.create_task(_be_deaf(socket)))
        while left and time.monotonic() < began + MOST_SECONDS:
            await asyncio.sleep(0.2)
            now = await _level(crowd)
            left, most = int(now[0] - sessions), max(most, now[1])
        seconds = time.monotonic() - began
    return {
        "asked": crowd.num_clients,
        "cut": crowd.num_clients - left,
        "seconds": round(seconds, 1),
        "memory_growth_mb": round(most - memory, 1),
    }


async def _hang_up(socket: ClientConnection, talking: "asyncio.Task[None]") -> None:
    talking.cancel()
    socket.transport.abort()
    await asyncio.gather(talking, socket.wait_closed(), return_exceptions=True)


async def _be_deaf(socket: ClientConnection) -> None:
    """Take nothing, and have the kernel take as little as it does."""
    socket.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
    with suppress(ConnectionClosed):
        while True:
            await socket.send(LONG_EVENT)


async def _level(crowd: Crowd) -> tuple[float, float]:
    """Sessions, and megabytes that the server holds."""
    told = values_of(await asyncio.to_thread(crowd.metrics))
    if "deeptalk_sessions_active" not in told:
        raise ConfigError(
            "The server tells nothing at /metrics, which this measurement needs: is the key right?"
        )
    memory = told.get("process_resident_memory_bytes", 0.0) / 2**20
    return told["deeptalk_sessions_active"], memory


async def _let_in(url: str, crowd: Crowd, key: str | None) -> ClientConnection:
    try:
        return await _socket(url, key)
    except InvalidStatus as refused:
        raise ConfigError(
            f"{url} does not let {crowd.num_clients + 1} sessions in: give it as many with --max-sessions."
        ) from refused


def _socket(url: str, key: str | None) -> connect:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return connect(url, additional_headers=headers, max_queue=1, compression=None, proxy=None)


def _waits(answers: Sequence[Received]) -> dict[str, float | None]:
    heard = [wait for answer in answers if (wait := answer.first_audio_seconds) is not None]
    return percentiles_ms(heard)
