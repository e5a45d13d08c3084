"""Clients leave in the middle of an answer, in every way, and nothing of them is left: ``make leaving``.

One after the other they ask the built-in model, in a server of its own, and are gone at the first sound: by
turns with a close, with a reset of the connection, killed, and behind a network that lets nothing through
any more. What the server tells of itself is compared with what it told after the first fifty. Exit status 1
where a slot was freed late, or something is left.
"""

import argparse
import asyncio
import base64
import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Coroutine
from importlib.resources import files
from pathlib import Path
from typing import Any

from test_faults import Network
from websockets.asyncio.client import ClientConnection, connect

from deeptalk.cli.served import served, told
from deeptalk.evaluation.questions import EvalSet
from deeptalk.serving import events
from deeptalk.serving.audio_formats import encode_pcm
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.load import values_of

WARM_UP = 50
KILLED_EVERY, DROPPED = 25, 2
LATEST_SECONDS = 1.0
LATEST_DROPPED_SECONDS = 2 * ServerLimits().ping_seconds + LATEST_SECONDS
MOST_GROWTH_MB = 1.0
RESTING_SECONDS = 2.0
"""After so long without a session the server has given back what it had freed."""
LEVELS = {
    "rss_mb": "process_resident_memory_bytes",
    "fds": "process_open_fds",
    "tasks": "deeptalk_tasks",
    "active": "deeptalk_sessions_active",
    "cache_positions": "deeptalk_cache_positions_used",
}

Leave = Callable[[str], Coroutine[Any, Any, None]]


def question() -> str:
    """The events of a spoken question, one a line."""
    spoken = EvalSet(Path(str(files("deeptalk"))) / "assets" / "evaluation")
    asked = next(item for item in spoken.items if not item.text_only)
    audio = base64.b64encode(encode_pcm(spoken.speech(asked.turns[0], sample_rate=24_000))).decode()
    turns = {"audio": {"input": {"turn_detection": None}}}
    wanted: tuple[dict[str, Any], ...] = (
        {"type": "session.update", "session": turns},
        {"type": "input_audio_buffer.append", "audio": audio},
        {"type": "input_audio_buffer.commit"},
        {"type": "response.create"},
    )
    return "\n".join(map(json.dumps, wanted))


QUESTION = question()


async def answered(url: str) -> ClientConnection:
    """A client that hears the first sound of an answer."""
    client = await connect(url, max_queue=None, ping_interval=None, proxy=None)
    for event in QUESTION.split("\n"):
        await client.send(event)
    while json.loads(await client.recv())["type"] != events.AUDIO_DELTA:
        pass
    return client


async def close(url: str) -> None:
    """Say goodbye, without waiting for the answer to it."""
    client = await answered(url)
    client.protocol.send_close(1000)
    client.transport.writelines(client.protocol.data_to_send())
    client.transport.close()


async def reset(url: str) -> None:
    """Leave without a word: the connection is reset."""
    client = await answered(url)
    raw = client.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()


async def be_killed(url: str) -> None:
    """A process of its own, which is killed."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--hear", url), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline()
    child.kill()
    await child.wait()


async def hear(url: str) -> None:
    """What that process does."""
    client = await answered(url)
    print("heard", flush=True)
    await client.wait_closed()


async def main_of(url: str, count: int) -> dict[str, Any]:
    """Let them come and leave; what was seen."""
    waits: dict[str, list[float]] = {"close": [], "reset": [], "killed": [], "dropped": []}
    before: dict[str, float] = {}
    for number in range(1, count + 1):
        way, leave = ("reset", reset) if number % 2 else ("close", close)
        if number % KILLED_EVERY == 0:
            way, leave = "killed", be_killed
        await leave(url)
        waits[way].append(await freed(url, within_seconds=60 * LATEST_SECONDS))
        if number == min(WARM_UP, count):
            before = await level_at_rest(url)
    port = int(url.split(":")[2].partition("/")[0])
    for _ in range(DROPPED):
        network = Network(port)
        async with network as way_in:
            client = await answered(url.replace(str(port), str(way_in)))
            network.freeze()
            waits["dropped"].append(await freed(url, within_seconds=2 * LATEST_DROPPED_SECONDS))
            client.transport.abort()
    after = await level_at_rest(url)
    ways = {
        way: {"count": len(found), "longest_seconds": round(max(found), 3)}
        for way, found in waits.items()
        if found
    }
    late = sum(wait > LATEST_SECONDS for way in ("close", "reset", "killed") for wait in waits[way])
    late += sum(wait > LATEST_DROPPED_SECONDS for wait in waits["dropped"])
    return {"ways": ways, "late": late, "before": before, "after": after}


async def freed(url: str, *, within_seconds: float) -> float:
    """Seconds until the server holds no session, and nothing of what one has read."""
    began = time.monotonic()
    while time.monotonic() < began + within_seconds:
        now = await level(url)
        if not now["active"] and not now["cache_positions"]:
            break
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def level_at_rest(url: str) -> dict[str, float]:
    """What it tells when nobody has talked for a moment."""
    await asyncio.sleep(RESTING_SECONDS)
    return await level(url)


async def level(url: str) -> dict[str, float]:
    """What the server tells of itself."""
    found = values_of(await asyncio.to_thread(told, url, "/metrics") or "")
    levels = {name: found[metric] for name, metric in LEVELS.items()}
    return levels | {"rss_mb": round(levels["rss_mb"] / 2**20, 1)}


def main() -> int:
    """Run for as many clients as are asked for; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("count", type=int, nargs="?", default=500, help="how many clients leave")
    parser.add_argument("--hear", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hear:
        asyncio.run(hear(given.hear))
        return 0
    with served("--max-sessions", "2", "--no-ui") as url:
        result = asyncio.run(main_of(url, given.count))
    before, after = result["before"], result["after"]
    is_same = all(before[name] == after[name] for name in ("fds", "tasks", "active", "cache_positions"))
    is_clean = is_same and not result["late"] and after["rss_mb"] <= before["rss_mb"] + MOST_GROWTH_MB
    print(json.dumps(result | {"is_clean": is_clean}))
    return int(not is_clean)


if __name__ == "__main__":
    sys.exit(main())
