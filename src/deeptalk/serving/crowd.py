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

from deeptalk.serving.calling import Call, Received, call
from deeptalk.serving.load import ask_one, percentiles_ms, values_of
from deeptalk.shapes import Tensor

MOST_SECONDS = 120.0
"""As long clients that never read are waited for."""

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
        async with AsyncExitStack() as held:
            for _ in range(crowd.num_clients):
                await held.enter_async_context(_socket(url, key))
            full = asyncio.create_task(_knock_together(url, crowd, key=key))
            beside_refused = await talk.turns(crowd.num_turns, until=full)
            wrong = None if key is None else await _knock_together(url, crowd, key=f"not {key}")
    return {
        "clients": crowd.num_clients,
        "refused": {"full": await full, "wrong_key": wrong},
        "deaf": await deaf,
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


async def _knock_together(url: str, crowd: Crowd, *, key: str | None) -> dict[str, Any]:
    """All ask for a session at once and none should get one; milliseconds from asking to the refusal."""
    found = await asyncio.gather(*(_knock(url, key) for _ in range(crowd.num_clients)))
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
    before = await _level(crowd)
    sockets = [await _socket(url, key) for _ in range(crowd.num_clients)]
    talking = [asyncio.create_task(_be_deaf(socket)) for socket in sockets]
    began, most, left = time.monotonic(), before[1], len(sockets)
    while left and time.monotonic() < began + MOST_SECONDS:
        await asyncio.sleep(0.2)
        sessions, memory = await _level(crowd)
        left, most = int(sessions - before[0]), max(most, memory)
    seconds = time.monotonic() - began
    for task, socket in zip(talking, sockets, strict=True):
        task.cancel()
        socket.transport.abort()
    await asyncio.gather(*talking, *(socket.wait_closed() for socket in sockets), return_exceptions=True)
    cut = len(sockets) - left
    growth = round(most - before[1], 1)
    return {"asked": len(sockets), "cut": cut, "seconds": round(seconds, 1), "memory_growth_mb": growth}


async def _be_deaf(socket: ClientConnection) -> None:
    """Take nothing, and have the kernel take as little as it does."""
    socket.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
    with suppress(ConnectionClosed):
        while True:
            await socket.send(LONG_EVENT)


async def _level(crowd: Crowd) -> tuple[float, float]:
    """Sessions, and megabytes that the server holds."""
    told = values_of(await asyncio.to_thread(crowd.metrics))
    memory = told.get("process_resident_memory_bytes", 0.0) / 2**20
    return told.get("deeptalk_sessions_active", 0.0), memory


def _socket(url: str, key: str | None) -> connect:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return connect(url, additional_headers=headers, max_queue=1, compression=None, proxy=None)


def _waits(answers: Sequence[Received]) -> dict[str, float | None]:
    heard = [wait for answer in answers if (wait := answer.first_audio_seconds) is not None]
    return percentiles_ms(heard)
