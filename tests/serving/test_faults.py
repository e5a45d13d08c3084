"""Clients that hang, networks that drop, and a process that is told to go."""

import asyncio
import contextlib
import json
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
from deeptalk.decoding import DecodingOptions, LoadedModel
from deeptalk.evaluation.questions import EvalSet
from deeptalk.serving import service as service_module
from deeptalk.serving.audio_formats import encode_pcm
from deeptalk.serving.connections import TimelySocket
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread, Request
from deeptalk.serving.outlet import Ended
from deeptalk.serving.server import Server, bind
from deeptalk.serving.service import Service
from deeptalk.serving.turns import Ear, Said
from deeptalk.serving.watchdog import STUCK

DEAF = 3

NEVER = 10_000.0


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


class Network:
    """A way to a port of this machine; once it is frozen nothing comes through, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._port, self._is_open = port, asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> int:
        self._is_open.set()
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_: object) -> None:
        """Close both ends: sockets left to the garbage collector would be told of in another test."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    def freeze(self) -> None:
        """Let nothing through any more."""
        self._is_open.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, back]
        self._tasks += [asyncio.create_task(self._pass_on(*way)) for way in ((reader, back), (there, writer))]

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._is_open.wait()
            writer.write(data)
            await writer.drain()


def test_a_network_that_drops_frees_the_slot(loaded: LoadedModel):
    """Nothing comes through any more, in either direction, and nobody says goodbye: a ping finds out."""

    async def script(server: Server, service: Service, url: str) -> None:
        port = int(url.split(":")[2].partition("/")[0])
        network = Network(port)
        async with network as way:
            socket = await connect(url.replace(str(port), str(way)), ping_interval=None)
            await ask(socket)
            await until(socket, "response.created")
            network.freeze()
            [connection] = server.server_state.connections
            assert isinstance(connection, TimelySocket)
            assert (connection.ping_interval, connection.ping_timeout) == (NEVER, NEVER)
            connection.ping_timeout = 0.1  # not before: a machine that is busy is no network that drops
            connection.send_keepalive_ping()
            await empty(service)
            async with asyncio.timeout(120):  # the model thread may be in the middle of a step
                while service.thread.num_answering:
                    await asyncio.sleep(0.01)
            socket.transport.abort()

    serve(loaded, script, ping_seconds=NEVER, answer_seconds=4.0)


def test_a_device_that_has_failed_ends_sessions_and_server(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    """Its answer fails and says so, every session is closed with 1011, the exit status asks for a restart."""
    monkeypatch.setattr(service_module, "PARTING_SECONDS", 60.0)  # nobody is hurried on a slow machine

    async def script(server: Server, service: Service, url: str) -> None:
        async with connect(url) as asking, connect(url) as other:
            monkeypatch.setattr(service.thread._engine, "step_together", fail)
            await ask(asking)
            done = (await until(asking, "response.done"))["response"]
            assert (done["status"], done["status_details"]["error"]["code"]) == ("failed", "engine_error")
            for socket in (asking, other):
                with pytest.raises(ConnectionClosedError) as closed:
                    await until(socket, "never")
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "engine_error")
            async with asyncio.timeout(60):
                while service.is_well:  # the thread ends when it has told
                    await asyncio.sleep(0.01)

    assert serve(loaded, script).exit_code == STUCK


def fail(*_: Any, **__: Any) -> Any:
    """What a device does that has failed."""
    raise torch.AcceleratorError("an illegal memory access was encountered")


def test_an_answer_that_waits_for_its_client_does_not_hide_a_failed_device(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    """It ends too, although its cache can't be copied any more, and whoever restarts the process is told."""

    async def main() -> Ended:
        thread = ModelThread(loaded, limits=ServerLimits(out_high=0.1, out_low=0.05))
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        thread.on_broken = lambda: loop.call_soon_threadsafe(told.set)
        thread.start()
        outlet, second = thread.new_outlet(), thread.new_outlet()
        question = Said(role="user", text="hello")
        thread.ask(Request(turns=[question], mode="answer", options=DecodingOptions(), outlet=outlet))
        async with asyncio.timeout(120):
            while not outlet.is_paused:
                await asyncio.sleep(0.01)
            monkeypatch.setattr(loaded.engine, "stop", fail)
            monkeypatch.setattr(loaded.engine, "extend", fail)
            thread.ask(Request(turns=[question], mode="answer", options=DecodingOptions(), outlet=second))
            await told.wait()
            async for _ in outlet.pieces():
                pass
        thread.stop()
        assert outlet.ended is not None
        return outlet.ended

    assert asyncio.run(main()).reason == "interrupted"


def test_a_device_that_fails_while_somebody_speaks_is_noticed(
    loaded: LoadedModel, still: ModelThread, monkeypatch: pytest.MonkeyPatch
):
    """Nobody has asked for an answer yet."""
    monkeypatch.setattr(loaded.engine, "extend", fail)

    async def main() -> None:
        ear = Ear()
        still.hear(ear, still.new_memory())
        ear.push(torch.randn(16_000))
        while not still._is_broken:
            assert still.tick()

    asyncio.run(main())


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
