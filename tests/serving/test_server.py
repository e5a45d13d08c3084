"""The process: a real socket on loopback, clients that leave, and an orderly end."""

import asyncio
import base64
import json
import logging
import signal
from typing import Any

import pytest
from realtime_client import sound
from running import serve
from typer.testing import CliRunner
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from deeptalk.cli import app as command_line
from deeptalk.decoding import LoadedModel
from deeptalk.errors import ConfigError
from deeptalk.serving.server import INTERRUPTED, Server, bind
from deeptalk.serving.service import Service


async def until(connection: ClientConnection, name: str) -> dict[str, Any]:
    while (event := json.loads(await connection.recv()))["type"] != name:
        pass
    return event


async def ask(connection: ClientConnection) -> None:
    session = {"audio": {"input": {"turn_detection": None}}}
    for event in (
        {"type": "session.update", "session": session},
        {"type": "input_audio_buffer.append", "audio": sound(0.4)},
        {"type": "input_audio_buffer.commit"},
        {"type": "response.create"},
    ):
        await connection.send(json.dumps(event))


def test_a_turn_over_a_socket_and_an_orderly_end(loaded: LoadedModel, caplog: pytest.LogCaptureFixture):
    """At SIGTERM the running answer ends, then the session is closed; new ones are refused meanwhile."""
    caplog.set_level(logging.INFO)

    async def script(server: Server, service: Service, url: str) -> None:
        async with connect(
            url + "?model=canary", subprotocols=["realtime"], compression="deflate"
        ) as connection:  # pyright: ignore
            assert connection.subprotocol == "realtime"
            assert connection.protocol.extensions == []
            await ask(connection)
            await until(connection, "response.created")
            server.handle_exit(signal.SIGTERM, None)
            with pytest.raises(InvalidStatus) as refused:
                await connect(url)
            assert refused.value.response.status_code == 503
            done = await until(connection, "response.done")
            assert done["response"]["status"] == "incomplete"
            with pytest.raises(ConnectionClosedOK) as closed:
                await connection.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "going_away")

    assert serve(loaded, script).exit_code == 0
    assert "session ended" in caplog.text
    assert "canary" not in caplog.text


def test_the_openai_package_as_it_is_has_three_spoken_turns(loaded: LoadedModel):
    """Its types take every event; a random model's answers end, or are ended, and have sound."""
    openai: Any = pytest.importorskip(
        "openai", reason="pip install 'openai[realtime]' to run it here; make test-clients has its own"
    )
    seen: list[Any] = []

    async def script(server: Server, service: Service, url: str) -> None:
        base_url = url.replace("ws", "http", 1).removesuffix("/realtime")
        async with (
            openai.AsyncOpenAI(base_url=base_url, api_key="none") as client,
            client.realtime.connect(model="tiny") as connection,
        ):
            audio = {"input": {"turn_detection": None}}
            await connection.session.update(session={"type": "realtime", "audio": audio})
            for turn in range(3):
                await connection.input_audio_buffer.append(audio=sound(0.4, seed=turn))
                await connection.input_audio_buffer.commit()
                await connection.response.create()
                while (event := await connection.recv()).type != "response.done":
                    seen.append(event)
                seen.append(event)

    serve(loaded, script)
    for event in seen:
        type(event).model_validate(event.to_dict())
    assert "error" not in {event.type for event in seen}
    done = [event.response for event in seen if event.type == "response.done"]
    assert len(done) == 3
    assert {response.status for response in done} <= {"completed", "incomplete"}
    for response in done:
        deltas = [e for e in seen if e.type == "response.output_audio.delta" and e.response_id == response.id]
        assert sum(len(e.delta) for e in deltas) > 1000


def test_the_openai_package_over_http(loaded: LoadedModel):
    """Its types take every answer as it is; a stream has the bytes and the words of the whole."""
    openai: Any = pytest.importorskip("openai", reason="pip install openai to run it")
    seen: dict[str, Any] = {}

    async def script(server: Server, service: Service, url: str) -> None:
        base_url = url.replace("ws", "http", 1).removesuffix("/realtime")
        async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
            wanted = {
                "model": "tiny",
                "messages": [{"role": "user", "content": "hello"}],
                "modalities": ["text", "audio"],
                "audio": {"voice": "slt", "format": "pcm16"},
                "seed": 3,
                "temperature": 0,
            }
            seen["whole"] = await client.chat.completions.create(**wanted)
            seen["chunks"] = [
                chunk async for chunk in await client.chat.completions.create(**wanted, stream=True)
            ]
            seen["models"] = await client.models.list()
            speech = {"model": "tiny", "voice": "slt", "input": "hello"}
            seen["wav"] = await client.audio.speech.create(**speech, response_format="wav")
            sound_file = ("a.wav", seen["wav"].content)
            seen["heard"] = await client.audio.transcriptions.create(model="tiny", file=sound_file)
            seen["text"] = await client.completions.create(model="tiny", prompt="a", max_tokens=1, logprobs=1)
            with pytest.raises(openai.BadRequestError) as refused:
                await client.chat.completions.create(model="tiny", messages=[])
            assert refused.value.code == "invalid_value"

    serve(loaded, script)
    for answer in (seen["whole"], *seen["chunks"], seen["models"].data[0], seen["heard"], seen["text"]):
        type(answer).model_validate(answer.to_dict())
    audio = seen["whole"].choices[0].message.audio
    deltas = [chunk.choices[0].delta.to_dict().get("audio", {}) for chunk in seen["chunks"]]
    streamed = b"".join(base64.b64decode(delta.get("data", "")) for delta in deltas)
    assert streamed == base64.b64decode(audio.data)
    assert len(streamed) > 1000
    assert "".join(delta.get("transcript", "") for delta in deltas) == audio.transcript
    assert seen["wav"].content[:4] == b"RIFF"


def test_who_leaves_in_the_middle_frees_the_slot(loaded: LoadedModel):
    async def script(server: Server, service: Service, url: str) -> None:
        for _ in range(3):
            connection = await connect(url)
            await ask(connection)
            await until(connection, "response.created")
            connection.transport.abort()
            while service.admission.num_active or service.thread.num_answering:
                await asyncio.sleep(0.01)
        async with connect(url) as connection:
            await ask(connection)
            await until(connection, "response.done")
        server.handle_exit(signal.SIGINT, None)

    assert serve(loaded, script).exit_code == INTERRUPTED


def test_a_second_signal_leaves_at_once(loaded: LoadedModel):
    async def script(server: Server, service: Service, url: str) -> None:
        connection = await connect(url)
        await ask(connection)
        await until(connection, "response.created")
        server.handle_exit(signal.SIGTERM, None)
        server.handle_exit(signal.SIGTERM, None)
        assert server.force_exit
        with pytest.raises((ConnectionClosedError, ConnectionClosedOK)):
            await until(connection, "never")

    serve(loaded, script)


def test_a_message_that_is_too_big_closes_the_socket(loaded: LoadedModel):
    async def script(server: Server, service: Service, url: str) -> None:
        async with connect(url) as connection:
            await connection.send("x" * 3000)
            with pytest.raises(ConnectionClosedError) as closed:
                await until(connection, "never")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009

    serve(loaded, script, max_message_bytes=2000)


def test_a_port_that_is_taken():
    taken = bind("127.0.0.1", 0)
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port} can't be bound"):
        bind("127.0.0.1", port)
    result = CliRunner().invoke(command_line, ["serve", "--port", str(port)])
    assert (result.exit_code, "--port" in result.output) == (1, True)
    taken.close()


def test_a_public_address_needs_a_key_on_the_command_line():
    result = CliRunner().invoke(command_line, ["serve", "--host", "0.0.0.0"], env={"DEEPTALK_API_KEY": ""})
    assert result.exit_code == 2
    assert "--insecure" in result.output
