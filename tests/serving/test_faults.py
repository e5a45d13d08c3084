"""Clients that hang, networks that drop, and a process that is told to go."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from running import serve
from test_server import ask, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from deeptalk.cli.served import told
from deeptalk.decoding import LoadedModel
from deeptalk.evaluation.questions import EvalSet
from deeptalk.serving.audio_formats import encode_pcm
from deeptalk.serving.server import Server, bind
from deeptalk.serving.service import Service
from deeptalk.serving.watchdog import STUCK

DEAF = 3

by_itself = pytest.mark.skipif(
    not os.environ.get("FAULTS"), reason="waits for real sockets, which others hold up: FAULTS=1 runs it"
)


async def empty(service: Service, *, but: int = 0) -> None:
    """Wait until no slot is held."""
    async with asyncio.timeout(120):
        while service.admission.num_active > but:
            await asyncio.sleep(0.01)


def test_clients_that_never_read_are_cut_off_and_others_are_answered(loaded: LoadedModel):
    """Each asks for megabytes and takes none of them; meanwhile somebody else has a turn."""
    update = json.dumps({"type": "session.update", "session": {"tools": ["x" * 200_000]}})

    async def be_deaf(socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.send(update)

    async def script(server: Server, service: Service, url: str) -> None:
        async with contextlib.AsyncExitStack() as stack:
            healthy = await stack.enter_async_context(connect(url))
            sockets = [await connect(url, max_queue=1) for _ in range(DEAF)]
            talking = [asyncio.create_task(be_deaf(socket)) for socket in sockets]
            async with healthy:
                await ask(healthy)
                assert (await until(healthy, "response.done"))["response"]["status"] == "incomplete"
            await empty(service)
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)
            for socket in sockets:
                socket.transport.abort()

    serve(loaded, script, max_sessions=DEAF + 1, stalled_seconds=0.5)


@by_itself
def test_a_network_that_drops_frees_the_slot(loaded: LoadedModel):
    """Nothing comes through any more, in either direction, and nobody says goodbye: pings find out."""
    thawed = asyncio.Event()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await thawed.wait()
            writer.write(data)
            await writer.drain()

    async def script(server: Server, service: Service, url: str) -> None:
        port = int(url.split(":")[2].partition("/")[0])
        tasks: list[asyncio.Task[None]] = []

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", port)
            tasks.extend(asyncio.create_task(pass_on(*way)) for way in ((reader, back), (there, writer)))

        thawed.set()
        proxy = await asyncio.start_server(relay, "127.0.0.1", 0)
        away = url.replace(str(port), str(proxy.sockets[0].getsockname()[1]))
        socket = await connect(away, ping_interval=None)
        await ask(socket)
        await until(socket, "response.created")
        thawed.clear()
        await empty(service)
        assert service.thread.num_answering == 0
        socket.transport.abort()
        proxy.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    serve(loaded, script, ping_seconds=0.2, answer_seconds=4.0)


@by_itself
def test_a_device_that_has_failed_ends_sessions_and_server(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    """Its answer fails, every session is closed with 1011, and the exit status asks for a new process."""

    async def script(server: Server, service: Service, url: str) -> None:
        async with connect(url) as asking, connect(url) as other:

            def fail(states: Any) -> Any:
                raise torch.AcceleratorError("an illegal memory access was encountered")

            monkeypatch.setattr(service.thread._engine, "step_together", fail)
            await ask(asking)
            for socket in (asking, other):
                with pytest.raises(ConnectionClosedError) as closed:
                    await until(socket, "never")
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "engine_error")
            async with asyncio.timeout(60):
                while service.is_well:  # the thread ends when it has told
                    await asyncio.sleep(0.01)

    assert serve(loaded, script).exit_code == STUCK


@pytest.mark.slow
@pytest.mark.weights
def test_a_process_that_is_told_to_go_lets_four_answers_end(tmp_path: Path):
    """SIGTERM: not ready, four answers to their end, sessions closed, exit status 0, and the port is free."""
    spoken = EvalSet(Path(str(files("deeptalk"))) / "assets" / "evaluation")
    asked = next(item for item in spoken.items if not item.text_only)
    question = spoken.speech(asked.turns[0], sample_rate=24_000)
    command = [
        sys.executable,
        "-m",
        "deeptalk",
        "serve",
        "--port",
        "0",
        "--max-sessions",
        "4",
        "--restarting",
    ]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            found = re.match(r"http(://127.0.0.1:(\d+)/v1)", server.stdout.readline())
            assert found is not None
            url, port = f"ws{found[1]}/realtime", int(found[2])
            statuses = asyncio.run(four_answers(url, encode_pcm(question), server))
            assert server.wait(timeout=120) == 0
        finally:
            server.kill()
    assert statuses == ["completed"] * 4
    bind("127.0.0.1", port).close()
    assert "Traceback" not in (tmp_path / "log").read_text("utf-8")


async def four_answers(url: str, question: bytes, server: "subprocess.Popen[str]") -> list[str]:
    """Ask four times at once, tell the server to go while it answers, and hear the answers out."""
    import base64

    while told(url, "/ready") is None:
        await asyncio.sleep(0.1)
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connect(url)) for _ in range(4)]
        for socket in sockets:
            session = {"audio": {"input": {"turn_detection": None}}}
            await socket.send(json.dumps({"type": "session.update", "session": session}))
            audio = base64.b64encode(question).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            await socket.send('{"type": "input_audio_buffer.commit"}')
            await socket.send('{"type": "response.create"}')
        for socket in sockets:
            await until(socket, "response.output_audio.delta")
        server.send_signal(signal.SIGTERM)
        while told(url, "/ready") is not None:
            await asyncio.sleep(0.01)
        done: list[Any] = [await until(socket, "response.done") for socket in sockets]
        for socket in sockets:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "restarting")
        return [each["response"]["status"] for each in done]
