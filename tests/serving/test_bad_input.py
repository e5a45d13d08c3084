"""What clients get wrong, beyond the lists of protocol and routes: a code for each, and life goes on."""

import asyncio
import json
from typing import Any

import pytest
import torch
from realtime_client import Client, sound

from deeptalk.decoding import DecodingOptions, LoadedModel
from deeptalk.serving import events
from deeptalk.serving.items import MAX_CHARACTERS
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import BusyError, ModelThread, Request
from deeptalk.serving.outlet import Ended
from deeptalk.serving.security import Principal, Refusal, Security, authorize
from deeptalk.serving.turns import Ear, Said


def created(item: Any) -> str:
    return json.dumps({"type": "conversation.item.create", "item": item})


def updated(**session: Any) -> str:
    return json.dumps({"type": "session.update", "session": session})


WRITTEN = {"type": "input_text", "text": "a"}
LONG = "a" * (MAX_CHARACTERS + 1)
MISTAKES: list[tuple[str, str]] = [
    ('{"type": ' + "[" * 10_000 + "]" * 10_000 + "}", "invalid_json"),
    ('{"type": "response.create", "x": ' + "1" * 5_000 + "}", "invalid_json"),
    ('{"type": "session.update", "session": {"seed": -Infinity}}', "invalid_json"),
    ('{"type": "session.update", "session": {}}}', "invalid_json"),
    ("\x00", "invalid_json"),
    ('{"type": null}', "invalid_event"),
    ('{"type": []}', "invalid_event"),
    (created({"type": {}, "role": "user", "content": [WRITTEN]}), "invalid_value"),
    (created({"type": "function_call", "arguments": LONG}), "invalid_value"),
    (created({"id": 7, "role": "user", "content": [WRITTEN]}), "invalid_value"),
    (created({"id": "x" * 65, "role": "user", "content": [WRITTEN]}), "invalid_value"),
    (created({"role": [], "content": [WRITTEN]}), "invalid_value"),
    (created({"role": "user", "content": WRITTEN}), "invalid_value"),
    (created({"role": "user", "content": ["a"]}), "invalid_value"),
    (created({"role": "user", "content": [{"text": "a"}]}), "invalid_value"),
    (created({"role": "user", "content": [{"type": [], "text": "a"}]}), "invalid_value"),
    (created({"role": "user", "content": [WRITTEN | {"text": 3}]}), "invalid_value"),
    (created({"role": "user", "content": [WRITTEN | {"text": LONG}]}), "invalid_value"),
    (created({"role": "user", "content": [{"type": "input_audio"}]}), "invalid_audio"),
    (created({"role": "user", "content": [{"type": "input_audio", "audio": "*"}]}), "invalid_audio"),
    (created({"role": "user", "content": [{"type": "input_audio", "audio": "AAA="}]}), "invalid_audio"),
    (created({"role": "user", "content": [{"type": "input_audio", "audio": sound(0.01)}]}), "invalid_audio"),
    (updated(instructions="a" * 8_193), "invalid_value"),
    (updated(instructions=[]), "invalid_value"),
    (updated(tools=[LONG] * 5), "invalid_value"),
    (updated(max_output_tokens=True), "invalid_value"),
    (updated(max_output_tokens="many"), "invalid_value"),
    (updated(seed=2**64), "invalid_value"),
    (updated(turn_detection=[]), "invalid_value"),
    (updated(turn_detection={"type": []}), "invalid_value"),
    (updated(turn_detection={"type": "server_vad", "create_response": 1}), "invalid_value"),
    (updated(turn_detection={"type": "semantic_vad", "eagerness": [1]}), "invalid_value"),
    (updated(audio={"input": {"format": {"type": "audio/pcm", "rate": 44_100}}}), "invalid_value"),
    (updated(audio={"output": {"format": {"type": "audio/pcm", "rate": 16_000}}}), "invalid_value"),
    (updated(audio={"input": {"format": {"type": {}}}}), "invalid_value"),
    ('{"type": "session.update", "session": []}', "invalid_value"),
    ('{"type": "response.create", "response": 3}', "invalid_value"),
    ('{"type": "response.create", "response": {"input": [3]}}', "invalid_value"),
    (
        '{"type": "response.create", "response": {"input": [{"type": "item_reference", "id": []}]}}',
        "item_not_found",
    ),
    ('{"type": "response.cancel", "response_id": {}}', "response_cancel_not_active"),
    ('{"type": "input_audio_buffer.append", "audio": []}', "invalid_audio"),
    ('{"type": "input_audio_buffer.append", "audio": "AAA"}', "invalid_audio"),
    ('{"type": "conversation.item.retrieve"}', "item_retrieve_invalid_item_id"),
    ('{"type": "conversation.item.truncate", "item_id": []}', "item_not_found"),
]


@pytest.mark.parametrize("is_beta", [False, True])
def test_no_mistake_ends_a_session(thread: ModelThread, is_beta: bool):
    moments = iter(range(0, 10**6, 1000))

    async def main() -> None:
        async with Client(thread, is_beta=is_beta, now=lambda: float(next(moments))) as client:
            flat = {"turn_detection": None, "modalities": ["text"], "max_response_output_tokens": 2}
            await client.send("session.update", session=flat)
            for text, code in MISTAKES:
                await client.session.receive(text)
                error = (await client.until(events.ERROR))["error"]
                assert (error["code"], text[:200]) == (code, text[:200])
            await client.send("conversation.item.create", item={"type": "thing", "content": 5})
            await client.send("conversation.item.create", item={"role": "user", "content": [WRITTEN]})
            await client.send("response.create")
            done = (await client.until(events.RESPONSE_DONE))["response"]
            assert done["status"] == "incomplete"
            assert len(client.of(events.ERROR)) == len(MISTAKES)

    asyncio.run(main())


@pytest.mark.parametrize("host", ["[", "[::1", "127.0.0.1]", "", "::", "a b"])
def test_a_host_that_is_none_is_refused(host: str):
    headers = [(b"host", host.encode())]
    for kind, path in (("http", "/health"), ("websocket", "/v1/realtime")):
        found = authorize({"type": kind, "path": path, "headers": headers}, Security(), now=0.0)
        assert isinstance(found, Refusal)
        assert found.code == "wrong_host"


@pytest.mark.parametrize("origin", ["http://[", "[", "http://", "null", ""])
def test_an_origin_that_is_none_is_refused(origin: str):
    headers = [(b"host", b"127.0.0.1:8000"), (b"origin", origin.encode())]
    scope = {"type": "http", "path": "/health", "headers": headers}
    found = authorize(scope, Security(), now=0.0)
    assert isinstance(found, Refusal)
    assert found.code == "foreign_origin"
    headers[1] = (b"origin", b"http://127.0.0.1:8000")
    assert isinstance(authorize(scope, Security(), now=0.0), Principal)


def test_a_turn_that_finds_no_place_leaves_nothing_behind(
    thread: ModelThread, monkeypatch: pytest.MonkeyPatch
):
    """A turn that nobody encodes would hold up the client once enough of it waits."""

    async def main() -> None:
        async with Client(thread) as client:
            await client.manual(output_modalities=["text"], max_output_tokens=2)
            with monkeypatch.context() as patched:
                patched.setattr(thread, "hear", refuse)
                await client.send("input_audio_buffer.append", audio=sound(0.5))
            assert (await client.until(events.ERROR))["error"]["code"] == "server_busy"
            await client.send("input_audio_buffer.append", audio=sound(0.5))
            await client.send("input_audio_buffer.commit")
            assert (await client.answer())["status"] == "incomplete"

    asyncio.run(main())


def refuse(*_: Any, **__: Any) -> None:
    raise BusyError("The server is busy: try again in a moment.")


def test_a_client_that_says_much_at_once_is_not_read_meanwhile(loaded: LoadedModel):
    """The next event is taken when no more than half a second of an item waits to be encoded."""
    still = ModelThread(loaded, limits=ServerLimits(unheard_seconds=0.5, encoded_per_tick=0.2))

    async def main() -> None:
        async with Client(still) as client:
            part = {"type": "input_audio", "audio": sound(1.2)}
            item = {"type": "message", "role": "user", "content": [part]}
            coming = asyncio.create_task(client.send("conversation.item.create", item=item))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not coming.done()
            [ear] = client.session._ears
            while ear.backlog_seconds > 0.5:
                assert still.tick()
            await coming
        assert ear.is_finished  # the session has ended: nobody wants the rest
        assert ear.backlog_seconds == 0.0

    asyncio.run(main())


def test_a_turn_that_is_dropped_holds_up_nobody():
    told: list[str] = []
    ear = Ear(lambda: told.append("progress"))
    ear.push(torch.zeros(160_000))
    ear.drop()
    assert (told, ear.is_finished) == (["progress"], True)


def test_an_answer_that_is_owed_and_has_no_place_is_told(loaded: LoadedModel):
    still = ModelThread(loaded, limits=ServerLimits(max_items=2))

    async def main() -> None:
        async with Client(still) as client:
            await client.manual(output_modalities=["text"], max_output_tokens=1)
            await client.say("hello")
            client.session._owes_answer = True  # as when a turn has ended while this answer is made
            coming = asyncio.create_task(client.answer())
            while not coming.done():
                still.tick()
                await asyncio.sleep(0)
            assert (await client.until(events.ERROR))["error"]["code"] == "invalid_value"

    asyncio.run(main())


def test_who_asks_at_the_very_end_is_told(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    thread = ModelThread(loaded, limits=ServerLimits())
    monkeypatch.setattr(thread, "_warm_up", lambda: None)

    async def main() -> Ended | None:
        outlet = thread.new_outlet()
        turns = [Said(role="user", text="hello")]
        thread.ask(Request(turns=turns, mode="text", options=DecodingOptions(), outlet=outlet))
        thread._is_stopping = True
        thread.start()
        async for _ in outlet.pieces():
            pass
        return outlet.ended

    ended = asyncio.run(main())
    assert ended is not None
    assert ended.reason == "interrupted"
