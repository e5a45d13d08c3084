"""Sessions come and go for minutes, and nothing may be left of them: ``make soak`` (``MINUTES=60``).

Four clients at a time talk to a server with a random model. Of ten sessions eight are a good turn, one is
malformed and one is left without a word. What the process holds is compared with what it held after the
first fifty. ``--pause`` lets each client rest before a session, so that an hour of it is no hour of a whole
core. With ``--turns N`` one client after the other has a hundred turns instead, and what is held after the
last is compared with what was held after fifty. Exit status 1: a good turn has failed, or something is left.
"""

import argparse
import asyncio
import base64
import gc
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from random_model import random_model
from running import serve
from websockets.asyncio.client import connect

from deeptalk.decoding import LoadedModel
from deeptalk.errors import DeepTalkError
from deeptalk.serving import events
from deeptalk.serving.audio_formats import encode_pcm
from deeptalk.serving.calling import Call, call
from deeptalk.serving.metrics import process_gauges
from deeptalk.serving.server import Server
from deeptalk.serving.service import Service

CLIENTS = 4
WARM_UP = 50
TURNS_PER_SESSION = 100
MOST_GROWTH_MB = 50.0
QUESTION = 0.1 * torch.sin(torch.arange(9_600) / 20)
BROKEN = ("{", '{"type": "x"}', '{"type": "input_audio_buffer.append", "audio": "AAA"}', '{"type": 3}')


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What the process holds at a quiet moment."""

    rss_mb: float
    fds: int
    threads: int
    tasks: int


@dataclass(kw_only=True, slots=True)
class Soak:
    """What has happened; ``turns`` are the good ones: when, and the seconds to their first sound.

    ``rss_mb`` is what was held every minute, or after each session of a long talk.
    """

    counts: Counter[str] = field(default_factory=Counter)
    turns: list[tuple[float, float]] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    before: Held | None = None
    after: Held | None = None

    @property
    def is_clean(self) -> bool:
        """Whether no good turn has failed and nothing is left."""
        assert self.before is not None
        assert self.after is not None
        same = all(
            getattr(self.before, name) == getattr(self.after, name) for name in ("fds", "threads", "tasks")
        )
        return same and not self.counts["failed"] and self.after.rss_mb <= self.before.rss_mb + MOST_GROWTH_MB

    def to_json(self) -> dict[str, Any]:
        """What is printed; p95s are of the first and the last ten minutes, of a shorter run its thirds."""
        assert self.before is not None
        assert self.after is not None
        held = {"before": asdict(self.before), "after": asdict(self.after)}
        return {
            **self.counts,
            **held,
            "rss_mb_meanwhile": self.rss_mb,
            "first_audio_p95_ms": self._p95s(),
            "is_clean": self.is_clean,
        }

    def _p95s(self) -> list[float]:
        if not self.turns:
            return []
        first, last = self.turns[0][0], self.turns[-1][0]
        part = min(600.0, (last - first) / 3)
        early = [seconds for at, seconds in self.turns if at <= first + part]
        late = [seconds for at, seconds in self.turns if at >= last - part]
        return [round(1000 * float(np.percentile(each, 95)), 1) for each in (early, late)]


async def good(url: str, result: Soak) -> None:
    """A spoken turn, answered with sound."""
    try:
        async with call(url) as calling:
            answer = await calling.say(QUESTION, is_paced=False)
    except DeepTalkError:
        answer = None
    if answer is None or answer.first_audio_seconds is None or answer.status == "failed":
        result.counts["failed"] += 1
    else:
        result.turns.append((time.monotonic(), answer.first_audio_seconds))


async def malformed(url: str, result: Soak) -> None:
    """Mistakes, each of which is told."""
    async with connect(url) as socket:
        await socket.recv()
        for text in BROKEN:
            await socket.send(text)
            if json.loads(await socket.recv())["type"] != events.ERROR:
                result.counts["failed"] += 1


async def abrupt(url: str, result: Soak) -> None:
    """A client that is gone while it is answered."""
    socket = await connect(url, max_queue=None)
    audio = base64.b64encode(encode_pcm(QUESTION)).decode()
    for event in (
        {"type": "session.update", "session": {"turn_detection": None}},
        {"type": "input_audio_buffer.append", "audio": audio},
        {"type": "input_audio_buffer.commit"},
        {"type": "response.create"},
    ):
        await socket.send(json.dumps(event))
    while json.loads(await socket.recv())["type"] != events.RESPONSE_CREATED:
        pass
    socket.transport.abort()
    await socket.wait_closed()


KINDS = {good: 8, malformed: 1, abrupt: 1}
"""Of ten sessions, how many are of which kind."""


def soak(
    loaded: LoadedModel,
    *,
    is_over: Callable[[int], bool],
    warm_up: int = WARM_UP,
    pause_seconds: float = 0.0,
) -> Soak:
    """Let sessions come and go until ``is_over`` of their number; the levels are taken between sessions."""
    result, chance = Soak(), random.Random(0)

    async def come_and_go(url: str, is_over: Callable[[int], bool]) -> None:
        while not is_over(result.counts["sessions"]):
            await asyncio.sleep(2 * chance.random() * pause_seconds)
            [kind] = chance.choices(list(KINDS), list(KINDS.values()))
            result.counts.update(("sessions", kind.__name__))
            await kind(url, result)

    async def script(server: Server, service: Service, url: str) -> None:
        at_first = len(asyncio.all_tasks())

        async def watch() -> None:
            while True:
                await asyncio.sleep(60)
                result.rss_mb.append(rss_mb())

        await asyncio.gather(*(come_and_go(url, lambda count: count >= warm_up) for _ in range(CLIENTS)))
        result.before = await held(service, least_tasks=at_first)
        watching = asyncio.create_task(watch())
        await asyncio.gather(*(come_and_go(url, is_over) for _ in range(CLIENTS)))
        watching.cancel()
        result.after = await held(service, least_tasks=at_first)

    serve(loaded, script, max_sessions=4 * CLIENTS)
    return result


def talk(loaded: LoadedModel, *, num_turns: int, warm_up: int = WARM_UP) -> Soak:
    """Have so many spoken turns, in long sessions; the levels are taken while one is open and rests."""
    result = Soak()

    async def turn(calling: Call) -> None:
        answer = await calling.say(QUESTION, is_paced=False)
        result.counts["failed"] += answer.status == "failed"
        if answer.first_audio_seconds is not None:  # a random model may have nothing to say
            result.turns.append((time.monotonic(), answer.first_audio_seconds))

    async def script(server: Server, service: Service, url: str) -> None:
        left = num_turns
        while left:
            async with call(url) as calling:
                for _ in range(min(left, TURNS_PER_SESSION)):
                    await turn(calling)
                    left -= 1
                    result.counts["turns"] += 1
                    if num_turns - left == warm_up:
                        result.before = level()
                result.after = level()
            result.rss_mb.append(result.after.rss_mb)

    serve(loaded, script)
    return result


async def held(service: Service, *, least_tasks: int) -> Held:
    """What is held when all sessions have gone; what does not go within a minute is held as well."""
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            while service.admission.num_active or len(asyncio.all_tasks()) > least_tasks:
                await asyncio.sleep(0.01)
    return level()


def level() -> Held:
    """What is held at this moment."""
    gc.collect()
    return Held(
        rss_mb=rss_mb(),
        fds=int(process_gauges().get("process_open_fds", 0)),
        threads=threading.active_count(),
        tasks=len(asyncio.all_tasks()),
    )


def rss_mb() -> float:
    """Memory that the process holds, zero where the system does not tell."""
    return round(process_gauges().get("process_resident_memory_bytes", 0.0) / 2**20, 1)


def main() -> int:
    """Run for as many minutes as are asked for; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("minutes", type=float, nargs="?", default=3.0, help="how long sessions come and go")
    parser.add_argument("--pause", type=float, default=0.0, help="mean seconds before a session")
    parser.add_argument("--turns", type=int, default=0, help="have so many turns in long sessions instead")
    options = parser.parse_args()
    if options.turns:
        result = talk(random_model(), num_turns=options.turns)
        print(json.dumps(result.to_json()))
        return int(not result.is_clean)
    ends_at = time.monotonic() + 60 * options.minutes
    result = soak(
        random_model(), is_over=lambda count: time.monotonic() >= ends_at, pause_seconds=options.pause
    )
    print(json.dumps(result.to_json()))
    return int(not result.is_clean)


if __name__ == "__main__":
    sys.exit(main())
