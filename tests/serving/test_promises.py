"""What is promised of the server as a whole, in counts: who gets in, who is cut off, what never leaks."""

import asyncio
import gc
import itertools
import json
import logging
import pickle
import sys
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest
from realtime_client import Client, sound
from running import serve
from soak import soak, talk
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from deeptalk.decoding import LoadedModel
from deeptalk.serving import events
from deeptalk.serving.app import create_app
from deeptalk.serving.ephemeral import mint
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.realtime import RealtimeSession, SessionClosed
from deeptalk.serving.security import Security
from deeptalk.serving.server import Server
from deeptalk.serving.service import Service
from deeptalk.serving.talk_page import PATHS

CROWD = 12


def test_of_a_crowd_as_many_get_in_as_there_are_slots(loaded: LoadedModel):
    async def script(server: Server, service: Service, url: str) -> None:
        came = await asyncio.gather(*(connect(url) for _ in range(CROWD)), return_exceptions=True)
        refused = [each for each in came if isinstance(each, InvalidStatus)]
        inside = [each for each in came if not isinstance(each, BaseException)]
        assert (len(inside), len(refused)) == (3, CROWD - 3)
        for each in refused:
            assert (each.response.status_code, each.response.headers["retry-after"]) == (503, "1")
        assert service.metrics.total("deeptalk_rejects_total") == CROWD - 3
        for socket in inside:
            assert json.loads(await socket.recv())["type"] == events.SESSION_CREATED
            await socket.close()

    serve(loaded, script, max_sessions=3)


def test_clients_that_leave_in_the_middle_leave_nothing_behind(loaded: LoadedModel):
    """A dozen of them, by turns with a close and without a word; slots, tasks and caches are as before."""

    async def script(server: Server, service: Service, url: str) -> None:
        tasks = len(asyncio.all_tasks())
        for number in range(CROWD):
            socket = await connect(
                url, max_queue=None
            )  # with a full queue it would not see the server's close
            await socket.send(json.dumps({"type": "session.update", "session": {"turn_detection": None}}))
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": sound(0.4)}))
            await socket.send(json.dumps({"type": "input_audio_buffer.commit"}))
            await socket.send(json.dumps({"type": "response.create"}))
            while json.loads(await socket.recv())["type"] != events.RESPONSE_CREATED:
                pass
            if number % 2:
                await socket.close()
            else:
                socket.transport.abort()
                await socket.wait_closed()
        async with asyncio.timeout(60):
            while service.admission.num_active or service.thread.num_answering or service.thread._ears:
                await asyncio.sleep(0.01)
            while len(asyncio.all_tasks()) > tasks:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(60):  # the model thread may still be on its way out of a tick
            while service.thread._memories or service.thread._outlets:
                gc.collect()
                await asyncio.sleep(0.01)

    serve(loaded, script, answer_seconds=4.0)


def test_a_client_that_never_reads_is_cut_off(loaded: LoadedModel):
    """Where the session speaks of its own accord, and in the answer to an event."""
    still = ModelThread(loaded, limits=ServerLimits(stalled_seconds=0.01))
    is_stuck = False

    async def send(text: str) -> None:
        if is_stuck:
            await asyncio.Event().wait()

    async def main() -> None:
        nonlocal is_stuck
        session = RealtimeSession(still, send=send, model="any")
        await session.open()
        content = [{"type": "input_text", "text": "a"}]
        item = {"type": "message", "role": "user", "content": content}
        await session.receive(json.dumps({"type": "conversation.item.create", "item": item}))
        is_stuck = True
        with pytest.raises(SessionClosed, match="output_backlog") as closed:
            await session.receive(json.dumps({"type": "session.update", "session": {}}))
        assert closed.value.code == 1008
        await session.receive(json.dumps({"type": "response.create"}))
        failure = await session.failed
        assert isinstance(failure, SessionClosed)
        assert (failure.code, failure.reason) == (1008, "output_backlog")
        await session.close()

    asyncio.run(main())


def test_sessions_that_come_and_go_leave_nothing(loaded: LoadedModel):
    """The short form of ``make soak``: descriptors, threads and tasks are counted, memory is bounded."""
    result = soak(loaded, is_over=lambda count: count >= 36, warm_up=16)
    told = result.to_json()
    assert told["is_clean"], told
    assert told["sessions"] >= 36
    assert min(told[kind] for kind in ("good", "malformed", "abrupt")) > 0
    assert len(result.turns) == told["good"]
    assert result.after is not None
    for lost in (replace(result.after, fds=result.after.fds + 1), replace(result.after, rss_mb=1e6)):
        assert not replace(result, after=lost).is_clean
    result.counts["failed"] += 1
    assert not result.is_clean


def test_a_long_talk_leaves_nothing_but_its_words(loaded: LoadedModel):
    """The short form of ``soak.py --turns 500``: memory after the last turn is that after the first ones."""
    told = talk(loaded, num_turns=12, warm_up=4).to_json()
    assert told["is_clean"], told
    assert (told["turns"], len(told["rss_mb_meanwhile"])) == (12, 1)


def test_who_comes_next_finds_nothing_of_who_was_there(thread: ModelThread):
    """The same question before and after somebody else's secret: the same answer, of as many positions."""

    async def answer(*said: str) -> Any:
        async with Client(thread) as client:
            await client.manual(max_output_tokens=8)
            for text in said:
                await client.say(text)
            done = await client.answer()
            return client.sound_of(done["id"]), done["output"][0]["content"], done["usage"]["input_tokens"]

    async def main() -> None:
        before = await answer("hello")
        assert (await answer("the canary sings", "hello"))[2] > before[2]
        assert await answer("hello") == before

    asyncio.run(main())


KEY = "the-key-of-the-server"
SECRETS = {
    "header": "canary-in-a-header",
    "other": "canary-in-another-header",
    "protocol": "canary-in-a-subprotocol",
    "query": "canary-in-a-query",
    "said": "canary-that-was-said",
}


def test_no_secret_is_told(loaded: LoadedModel, caplog: pytest.LogCaptureFixture):
    """Keys, good and bad, and what was said: not in any log at DEBUG, in no metric, in no error's body."""
    caplog.set_level(logging.DEBUG)
    security = Security(key=KEY)
    ephemeral = mint(security.signer, expires_at=2**40, session={})
    told: list[str] = []

    async def raw(port: int, head: str, body: str = "") -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        length = f"content-length: {len(body)}\r\n" if body else ""
        writer.write(f"{head}\r\nhost: 127.0.0.1\r\nconnection: close\r\n{length}\r\n{body}".encode())
        told.append((await reader.read()).decode())
        writer.close()

    async def script(server: Server, service: Service, url: str) -> None:
        port = int(url.split(":")[2].split("/")[0])
        upgrade = (
            "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="
        )
        get = "GET /v1/realtime"
        await raw(port, f"{get} HTTP/1.1\r\nauthorization: Bearer {SECRETS['header']}\r\n{upgrade}")
        await raw(port, f"{get}?api_key={SECRETS['query']} HTTP/1.1\r\n{upgrade}")
        protocol = f"sec-websocket-protocol: realtime, openai-insecure-api-key.{SECRETS['protocol']}"
        await raw(port, f"{get} HTTP/1.1\r\n{protocol}\r\n{upgrade}")
        bearer = f"authorization: Bearer {KEY}\r\napi-key: {SECRETS['other']}"
        await raw(port, f"GET /metrics?x={SECRETS['query']} HTTP/1.1\r\n{bearer}")
        body = json.dumps({"messages": [{"role": "user", "content": SECRETS["said"]}], "n": 2})
        await raw(port, f"POST /v1/chat/completions HTTP/1.1\r\n{bearer}", body)
        quiet = logging.getLogger("quiet")
        quiet.disabled = True
        headers = {"authorization": f"Bearer {ephemeral}"}
        async with connect(url, additional_headers=headers, logger=quiet) as socket:
            content = [{"type": "input_text", "text": SECRETS["said"]}]
            item = {"type": "message", "role": "user", "content": content}
            wrong = {"type": SECRETS["said"]}
            for event in (
                {"type": "conversation.item.create", "item": item},
                {"type": "response.create"},
                wrong,
            ):
                await socket.send(json.dumps(event))
            while (event := json.loads(await socket.recv()))["type"] != events.RESPONSE_DONE:
                if event["type"] == events.ERROR:
                    told.append(json.dumps(event))
        await raw(port, f"GET /metrics HTTP/1.1\r\n{bearer}")

    serve(loaded, script, security=security)
    assert [answer.split(" ")[1] for answer in told if answer.startswith("HTTP")] == [
        *("401", "401", "401", "200", "400", "200")
    ]
    everything = caplog.text + "".join(told)
    assert "turn {" in everything
    for secret in (*SECRETS.values(), KEY, ephemeral):
        assert secret not in everything


DOTS = ("..", "%2e%2e", "%252e%252e", ".%2e", "%c0%ae%c0%ae", "..%00", "....", "..;")
STROKES = ("/", "%2f", "%5c", "\\", "//", "%252f")
WAYS = [
    f"/static{stroke}{(dots + stroke) * depth}{target}"
    for dots, stroke, depth, target in itertools.product(
        DOTS, STROKES, (1, 4), ("app.py", "etc/passwd", "page/../detector.py")
    )
]


def test_no_path_leads_out_of_the_page(loaded: LoadedModel):
    """Over two hundred ways to write a path: 404, and not a byte of a file."""
    app = create_app(Service(ModelThread(loaded, limits=ServerLimits()), model="tiny"), Security())

    async def get(way: str) -> tuple[int, bytes]:
        sent: list[Any] = []
        headers = [(b"host", b"127.0.0.1")]
        scope = {"type": "http", "method": "GET", "path": unquote(way), "raw_path": way.encode()}
        common = {
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "server": None,
            "http_version": "1.1",
        }

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await app({**scope, **common, "headers": headers}, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])

    async def main() -> None:
        assert (await get(PATHS[0]))[0] == 200
        assert len(WAYS) > 200
        for way in WAYS:
            status, body = await get(way)
            assert (status, json.loads(body)["error"]["code"]) == (404, "not_found"), way

    asyncio.run(main())


UNPICKLED: list[str] = []
WATCHED: list[str] = []


def test_serving_unpickles_nothing(loaded: LoadedModel):
    """From the start of the server over a spoken turn to its end, by Python's own audit events."""
    if not WATCHED:  # such a hook stays
        sys.addaudithook(lambda event, _: UNPICKLED.append(event) if event == "pickle.find_class" else None)
        WATCHED.append("once")

    async def script(server: Server, service: Service, url: str) -> None:
        async with connect(url) as socket:
            await socket.send(json.dumps({"type": "session.update", "session": {"turn_detection": None}}))
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": sound(0.4)}))
            await socket.send(json.dumps({"type": "input_audio_buffer.commit"}))
            await socket.send(json.dumps({"type": "response.create"}))
            while json.loads(await socket.recv())["type"] != events.RESPONSE_DONE:
                pass

    pickle.loads(pickle.dumps(Security))
    assert UNPICKLED  # it would be noticed
    UNPICKLED.clear()
    serve(loaded, script)
    assert UNPICKLED == []
