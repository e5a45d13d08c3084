"""A server from its first moment: the port is open while the model is opened."""

import asyncio
import json
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest
from typer.testing import CliRunner
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from deeptalk.cli import app as command_line
from deeptalk.decoding import LoadedModel
from deeptalk.errors import ConfigError
from deeptalk.serving.app import create_app
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.opening import Opening
from deeptalk.serving.security import App, Security
from deeptalk.serving.server import INTERRUPTED, Server, bind, configured
from deeptalk.serving.service import Service

SECURITY = Security(key="the-key-of-tests")
HEADERS = {"authorization": f"Bearer {SECURITY.key}"}
OpenApp = Callable[[], tuple[App, Service]]


async def started(open_app: OpenApp, failures: list[Exception]) -> tuple[Server, "asyncio.Task[None]", str]:
    """A server that has begun to open its application, and its address."""
    listening = bind("127.0.0.1", 0)

    def give_up(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    app = Opening(open_app, SECURITY, on_open=lambda service: server.attend(service), on_failure=give_up)
    server = Server(configured(app, ServerLimits()))
    serving = asyncio.create_task(server.serve([listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    return server, serving, f"127.0.0.1:{listening.getsockname()[1]}"


class Getting:
    """Asks a server over HTTP: status, headers and JSON."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __call__(self, path: str, headers: dict[str, str] = HEADERS) -> tuple[int, Any, Any]:
        return await asyncio.to_thread(self._get, path, headers)

    def _get(self, path: str, headers: dict[str, str]) -> tuple[int, Any, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(f"http://{self._address}{path}", headers=headers)
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, answer.headers, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, json.load(error)


def test_a_server_is_alive_while_its_model_is_opened(loaded: LoadedModel):
    may_open, failures = Event(), list[Exception]()

    def open_app() -> tuple[App, Service]:
        may_open.wait()
        service = Service(ModelThread(loaded, limits=ServerLimits()), model="tiny")
        return create_app(service, SECURITY), service

    async def main() -> int:
        server, serving, address = await started(open_app, failures)
        get = Getting(address)
        assert (await get("/health"))[0] == 200
        assert (await get("/ready"))[0] == 503
        assert (await get("/v1/models", {}))[0] == 401
        status, headers, body = await get("/v1/models")
        assert (status, headers["retry-after"], body["error"]["code"]) == (503, "1", "not_ready")
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://{address}/v1/realtime", additional_headers=HEADERS)
        assert refused.value.response.status_code == 503
        may_open.set()
        async with asyncio.timeout(120):
            while (await get("/ready"))[0] != 200:
                assert (await get("/health"))[0] == 200
        assert (await get("/v1/models"))[0] == 200
        server.handle_exit(signal.SIGTERM, None)
        await serving
        return server.exit_code

    assert asyncio.run(main()) == 0
    assert failures == []


def test_a_server_that_is_told_to_go_before_it_is_ready_goes():
    may_open = Event()

    def open_app() -> tuple[App, Service]:
        may_open.wait()
        raise ConfigError("Nobody waits for this any more.")

    async def main() -> int:
        server, serving, _ = await started(open_app, [])
        server.handle_exit(signal.SIGINT, None)
        await serving
        return server.exit_code

    assert asyncio.run(main()) == INTERRUPTED
    may_open.set()


def test_what_goes_wrong_while_opening_ends_the_server():
    failures: list[Exception] = []

    def open_app() -> tuple[App, Service]:
        raise ConfigError("There is no such model.")

    async def main() -> None:
        _, serving, _ = await started(open_app, failures)
        await serving

    asyncio.run(main())
    assert [str(error) for error in failures] == ["There is no such model."]


def test_a_model_that_is_not_there_is_told_in_one_line():
    result = CliRunner().invoke(command_line, ["serve", "--port", "0", "--model", "no/such/model"])
    assert result.exit_code == 1
    assert "no/such/model" in result.output
    assert "Traceback" not in result.output


def test_too_little_memory_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("deeptalk.cli.opening.load", fail)
    result = CliRunner().invoke(command_line, ["serve", "--port", "0"])
    assert (result.exit_code, result.output.strip()) == (1, "There is too little memory for the model.")
