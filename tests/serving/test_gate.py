"""Who comes in over the network: pages of other origins, TLS, slow heads of requests, keys that want much."""

import asyncio
import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from running import serve
from starlette.testclient import TestClient, WebSocketDenialResponse
from typer.testing import CliRunner
from websockets.asyncio.client import connect

from deeptalk.cli import app as command_line
from deeptalk.decoding import LoadedModel
from deeptalk.errors import ConfigError
from deeptalk.serving.app import create_app
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.origins import check_origin
from deeptalk.serving.security import Security
from deeptalk.serving.server import Server
from deeptalk.serving.service import Service
from deeptalk.serving.tls import Certificate, certificate_for, check_certificate

KEY = "a-key-of-tests"
BEARER = {"authorization": f"Bearer {KEY}"}
PAGE = "https://app.example"
SOCKET = "ws://127.0.0.1:8000/v1/realtime"
USER = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def service(loaded: LoadedModel) -> Service:
    limits = ServerLimits(answer_seconds=0.8, max_sessions=3, max_sessions_per_key=1, waiting_seconds=0.01)
    return Service(ModelThread(loaded, limits=limits), model="tiny")


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    app = create_app(service, Security(key=KEY, origins=(PAGE,)))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        while not service.is_ready:
            time.sleep(0.01)
        yield client


def cors(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("access-control")}


def test_a_page_that_was_allowed_may_ask_call_and_read(client: TestClient):
    asked = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-stainless-lang",
    }
    answer = client.options("/v1/chat/completions", headers=asked)
    assert (answer.status_code, answer.content) == (204, b"")
    assert cors(dict(answer.headers)) == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": "authorization,x-stainless-lang",
        "access-control-max-age": "600",
        "access-control-expose-headers": "retry-after",
    }
    answer = client.get("/v1/models", headers=BEARER | {"origin": PAGE})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
    assert answer.headers["vary"] == "origin"
    answer = client.get("/v1/models", headers={"origin": PAGE})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, PAGE)


@pytest.mark.parametrize("origin", ["https://evil.example", PAGE + ":444", "http://app.example", "null"])
def test_a_page_that_was_not_allowed_gets_nothing(client: TestClient, origin: str):
    for headers in (BEARER, {"access-control-request-method": "GET"}):
        answer = client.options("/v1/models", headers=headers | {"origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin")
        assert not cors(dict(answer.headers))


def test_without_an_allowed_page_there_are_no_cors_headers(client: TestClient):
    for headers in ({}, {"origin": "http://127.0.0.1:8000"}):
        answer = client.get("/v1/models", headers=BEARER | headers)
        assert answer.status_code == 200
        assert not cors(dict(answer.headers))


@pytest.mark.parametrize(
    "origin", ["*", "null", "app.example", "https://app.example/", "https://App.example", "https://a:b@c.de"]
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str):
    with pytest.raises(ConfigError, match="--allow-origin"):
        check_origin(origin)


def test_origins_as_browsers_send_them():
    for origin in (PAGE, "http://localhost:5173", "http://[::1]:8080"):
        assert check_origin(origin) == origin


def test_one_key_has_its_share_alone(client: TestClient, service: Service):
    """The server's key and each ephemeral one are counted apart; a place that was left can be had again."""
    given = [client.post("/v1/realtime/client_secrets", headers=BEARER).json()["value"] for _ in range(2)]
    one, other = ({"authorization": f"Bearer {value}"} for value in given)
    with (
        client.websocket_connect(SOCKET, headers=one) as first,
        client.websocket_connect(SOCKET, headers=other) as second,
    ):
        assert first.receive_json()["type"] == second.receive_json()["type"] == "session.created"
        with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(SOCKET, headers=one):
            pass
        assert (refused.value.status_code, refused.value.headers["retry-after"]) == (429, "1")
        assert refused.value.json()["error"]["code"] == "key_limit_reached"
        with client.websocket_connect(SOCKET, headers=BEARER) as third:
            third.receive_json()
            answer = client.post("/v1/chat/completions", headers=BEARER, json={"messages": USER})
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "key_limit_reached")
    while service.admission.num_active:
        time.sleep(0.01)
    body = {"messages": USER, "max_tokens": 1}
    for _ in range(2):
        assert client.post("/v1/chat/completions", headers=BEARER, json=body).status_code == 200
    with client.websocket_connect(SOCKET, headers=one) as socket:
        assert socket.receive_json()["type"] == "session.created"
    assert service.metrics.total("deeptalk_rejects_total") >= 2
    while service.admission.num_active:
        time.sleep(0.01)
    assert not service._held


async def dropped(reader: asyncio.StreamReader) -> None:
    """Wait until the server has ended a connection without a word."""
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 60) == b""


def test_a_head_that_does_not_come_drops_the_connection(loaded: LoadedModel):
    """Neither a silent client nor one that begins its second request and stops is kept; a session is."""

    async def script(server: Server, service: Service, url: str) -> None:
        port = urlsplit(url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await dropped(reader)
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert (await reader.readuntil(b'{"status":"ok"}')).startswith(b"HTTP/1.1 200")
        writer.write(b"GET /health HTTP/1.1\r\nhost: ")
        await dropped(reader)
        writer.close()
        async with connect(url) as socket:
            await socket.recv()
            await asyncio.sleep(0.3)
            await socket.send("{")
            assert "invalid_json" in str(await socket.recv())

    serve(loaded, script, handshake_seconds=0.1)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_a_session_over_tls_with_a_certificate_made_for_it(loaded: LoadedModel):
    with certificate_for("127.0.0.1", cert=None, key=None, is_self_signed=True) as certificate:
        assert certificate is not None
        trusting = ssl.create_default_context(cafile=str(certificate.cert))

        async def script(server: Server, service: Service, url: str) -> None:
            async with connect(url, ssl=trusting) as socket:
                assert "session.created" in str(await socket.recv())
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(url, ssl=ssl.create_default_context())

        serve(loaded, script, certificate=certificate)
        folder = certificate.cert.parent
    assert not folder.exists()


def test_certificates_that_can_not_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for cert in (broken, tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match=f"{cert.name} can't be used for TLS"):
            check_certificate(Certificate(cert=cert))
    for cert, key, is_self_signed in ((None, broken, False), (broken, None, True)):
        with (
            pytest.raises(ConfigError, match="none of them"),
            certificate_for("::1", cert=cert, key=key, is_self_signed=is_self_signed),
        ):
            pass
    result = CliRunner().invoke(command_line, ["serve", "--port", "0", "--tls-cert", str(broken)])
    assert (result.exit_code, "can't be used for TLS" in result.output) == (1, True)
    result = CliRunner().invoke(command_line, ["serve", "--max-sessions-per-key", "1"])
    assert (result.exit_code, "needs a key" in result.output) == (2, True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(ConfigError, match="openssl"),
        certificate_for("::1", cert=None, key=None, is_self_signed=True),
    ):
        pass
