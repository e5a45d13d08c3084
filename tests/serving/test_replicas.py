"""Two servers behind one address, on Ray Serve where it is installed."""

import asyncio
import importlib
import json
import os
import signal
import socket
import sys
import urllib.request
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from random_model import random_model
from realtime_client import sound
from typer.testing import CliRunner
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from deeptalk.cli import app as command_line
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.replicas import Farewell, Fleet, named, serve_fleet
from deeptalk.serving.security import Security
from deeptalk.serving.service import Service

LIMITS = ServerLimits(max_sessions=2, answer_seconds=4.0, drain_seconds=5.0)
PATIENCE = 600.0
"""Seconds until a test is given up: on a busy machine everything of Ray takes long."""

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def new_service() -> Service:
    return Service(ModelThread(random_model(), limits=LIMITS), model="tiny")


def test_the_end_is_told_to_all_and_waited_for():
    async def main() -> tuple[bool, bool]:
        farewell = Farewell()
        waiting = [asyncio.create_task(farewell.heard()) for _ in range(2)]
        saying = asyncio.create_task(farewell.say(2, within_seconds=60))
        await asyncio.gather(*waiting)
        await farewell.gone("a")
        await farewell.gone("b")
        return await saying, await farewell.say(3, within_seconds=0.0)

    assert asyncio.run(main()) == (True, False)


def test_every_answer_names_its_replica():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": scope["type"], "headers": [(b"a", b"b")]})

    async def first(kind: str) -> Any:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            raise AssertionError

        await named(app, "me")({"type": kind}, receive, send)
        return sent[0]["headers"]

    for kind in ("http.response.start", "websocket.accept"):
        assert asyncio.run(first(kind)) == [(b"a", b"b"), (b"x-replica", b"me")]
    assert asyncio.run(first("http.response.body")) == [(b"a", b"b")]


def test_replicas_need_ray_and_a_port(monkeypatch: pytest.MonkeyPatch):
    result = CliRunner().invoke(command_line, ["serve", "--replicas", "2", "--port", "0"])
    assert (result.exit_code, "--port" in result.output) == (2, True)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    result = CliRunner().invoke(command_line, ["serve", "--replicas", "2"])
    assert (result.exit_code, "deeptalk[ray]" in result.output) == (1, True)


class Stock:
    """In the place of Ray's router."""

    def __init__(self, *_: Any) -> None:
        pass

    async def choose_replicas(self, candidates: list[Any], pending: Any) -> str:
        return "by its hash"


def test_a_late_report_hides_no_session(monkeypatch: pytest.MonkeyPatch):
    """A report is on its way for a while: what was sent since it was made is taken all the same."""
    *parents, name = (
        "ray",
        "ray.serve",
        "ray.serve.experimental",
        "ray.serve.experimental.consistent_hash_router",
    )
    for each in parents:
        monkeypatch.setitem(sys.modules, each, ModuleType(each))
    module = ModuleType(name)
    module.__dict__["ConsistentHashRouter"] = Stock
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "deeptalk.serving.routing", raising=False)
    routing = importlib.import_module("deeptalk.serving.routing")
    del sys.modules["deeptalk.serving.routing"]  # monkeypatch would bring it back for tests with the real Ray
    clock = [100.0]
    monkeypatch.setattr(routing.time, "time", lambda: clock[0])
    router: Any = routing.FreeSlotsRouter()
    replicas = [
        SimpleNamespace(replica_id=each, routing_stats={"free_slots": 2, "at": 99.0}) for each in "ab"
    ]

    def chosen(number: int, session_id: str = "") -> Any:
        metadata = SimpleNamespace(session_id=session_id, internal_request_id=str(number))
        pending = SimpleNamespace(metadata=metadata, routing_context=SimpleNamespace(should_backoff=False))
        ranked = asyncio.run(router.choose_replicas(replicas, pending))
        return ranked if session_id else ranked[0][0].replica_id

    assert [chosen(number) for number in range(4)] == ["a", "b", "a", "b"]
    clock[0] = 101.0
    replicas[0].routing_stats = {"free_slots": 2, "at": 99.5}  # made before anything was sent
    assert chosen(5) == "a"
    assert chosen(6) == "b"
    clock[0] = 102.05
    replicas[1].routing_stats = {"free_slots": 1, "at": 102.0}
    assert [chosen(7), chosen(8)] == ["b", "b"]
    assert chosen(9, session_id="s") == "by its hash"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_replicas_share_the_sessions_and_one_survives_the_other(monkeypatch: pytest.MonkeyPatch):
    """Admission adds up, a named session stays where it is, and who is killed ends its own sockets alone."""
    pytest.importorskip("ray", reason="pip install 'deeptalk[ray]' to run it")
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    port = free_port()
    seen: dict[str, Any] = {}
    fleet = Fleet(new_service=new_service, security=Security(), limits=LIMITS, num_replicas=2)

    def script() -> int:
        asyncio.run(go(port, seen))
        return 7

    assert serve_fleet(fleet, host="127.0.0.1", port=port, wait=script) == 7, seen
    assert len(seen["replicas"]) == 2
    assert seen["inside"] == 4
    assert seen["refused"] == [503, 503, 503]
    assert seen["turns"] == 100
    assert len(seen["turns_at"]) == 1
    assert seen["other"] == "incomplete"  # a random model does not end by itself
    assert seen["again"] == "session.created"


async def go(port: int, seen: dict[str, Any]) -> None:
    base, url = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}/v1/realtime"
    seen["replicas"] = await ready_replicas(base)

    came = [await attempt(url) for _ in range(7)]
    seen["inside"] = sum(isinstance(each, ClientConnection) for each in came)
    seen["refused"] = [each for each in came if isinstance(each, int)]
    for each in came:
        if isinstance(each, ClientConnection):
            await each.close()

    seen["turns"], seen["turns_at"] = 0, set()
    for _ in range(100):
        status, replica = await asyncio.to_thread(chat, base)
        seen["turns"] += status == 200
        seen["turns_at"].add(replica)
    await asyncio.sleep(3.0)  # the replicas report that all slots are free

    first = await attempt(url)
    other = await attempt(url)
    assert isinstance(first, ClientConnection)
    assert isinstance(other, ClientConnection)
    names = [each.response.headers["x-replica"] for each in (first, other) if each.response is not None]
    assert len(set(names)) == 2
    for each in (first, other):
        await ask(each)
    os.kill(int(names[0].rpartition("-")[2]), signal.SIGKILL)
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(PATIENCE):
            await until(first, "never")
    seen["other"] = (await until(other, "response.done"))["response"]["status"]
    async with asyncio.timeout(PATIENCE):
        while not isinstance(again := await attempt(url), ClientConnection):
            await asyncio.sleep(0.1)
    seen["again"] = json.loads(await again.recv())["type"]
    await again.close()
    await other.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def ready_replicas(base: str) -> set[str]:
    """The names of both replicas, once they take work."""
    names: set[str] = set()
    async with asyncio.timeout(PATIENCE):
        while len(names) < 2:
            try:
                with await asyncio.to_thread(OPENER.open, f"{base}/ready", timeout=30) as answer:
                    names.add(answer.headers["x-replica"])
            except OSError:
                await asyncio.sleep(0.2)
    return names


async def attempt(url: str) -> ClientConnection | int:
    """A session, or the status it was refused with."""
    try:
        return await connect(url)
    except InvalidStatus as refused:
        return refused.response.status_code


def chat(base: str) -> tuple[int, str]:
    """One written turn of a session that has a name."""
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}).encode()
    headers = {"content-type": "application/json", "x-session-id": "one-of-many"}
    request = urllib.request.Request(f"{base}/v1/chat/completions", data=body, headers=headers)
    with OPENER.open(request, timeout=60) as answer:
        return answer.status, answer.headers["x-replica"]


async def ask(connection: ClientConnection) -> None:
    for event in (
        {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}},
        {"type": "input_audio_buffer.append", "audio": sound(0.4)},
        {"type": "input_audio_buffer.commit"},
        {"type": "response.create"},
    ):
        await connection.send(json.dumps(event))
    await until(connection, "response.created")


async def until(connection: ClientConnection, name: str) -> dict[str, Any]:
    while (event := json.loads(await connection.recv()))["type"] != name:
        pass
    return event
