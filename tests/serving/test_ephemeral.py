"""Ephemeral keys: what they open, until when, and how the sessions of their bearers begin."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse

from deeptalk.decoding import LoadedModel
from deeptalk.serving.app import create_app
from deeptalk.serving.ephemeral import mint, session_of, signer_of
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.security import Security
from deeptalk.serving.service import Service

KEY = "a-key-of-tests"
BEARER = {"authorization": f"Bearer {KEY}"}
SOCKET = "ws://127.0.0.1:8000/v1/realtime"
URL = "/v1/realtime/client_secrets"


@pytest.fixture(scope="module")
def service(loaded: LoadedModel) -> Service:
    return Service(ModelThread(loaded, limits=ServerLimits(answer_seconds=0.8)), model="tiny")


@pytest.fixture(scope="module")
def clock() -> list[float]:
    return [1000.5]


@pytest.fixture(scope="module")
def client(service: Service, clock: list[float]) -> Iterator[TestClient]:
    app = create_app(service, Security(key=KEY), now=lambda: clock[0])
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        while not service.is_ready:
            time.sleep(0.01)
        yield client


def test_a_key_is_good_until_it_expires_and_only_as_it_was_made():
    signer = signer_of(KEY)
    key = mint(signer, expires_at=100, session={"instructions": "é"})
    assert session_of(key, signer, now=99.9) == {"instructions": "é"}
    assert session_of(key, signer, now=100.0) is None
    assert session_of(key, signer_of(KEY + "x"), now=0.0) is None
    assert key != mint(signer, expires_at=100, session={"instructions": "é"})
    for at in range(len(key)):
        other = "B" if key[at] == "A" else "A"
        assert session_of(key[:at] + other + key[at + 1 :], signer, now=0.0) is None, at
    for forged in ("", "ek_", "ek_.", "ek_é.é", key[3:], key + "=", key.split(".")[0]):
        assert session_of(forged, signer, now=0.0) is None


def greeted(client: TestClient, key: str) -> dict[str, Any]:
    """The session that is opened with a key, as a browser sends it."""
    protocols = ["realtime", f"openai-insecure-api-key.{key}"]
    with client.websocket_connect(SOCKET, subprotocols=protocols) as socket:
        return socket.receive_json()["session"]


def test_a_browser_gets_in_with_the_key_it_was_given(client: TestClient, clock: list[float]):
    clock[0] = 1000.5
    session = {
        "type": "realtime",
        "model": "tiny",
        "id": "mine",
        "instructions": "be kind",
        "audio": {"input": {"turn_detection": None}, "output": {"voice": "slt"}},
    }
    body = {"session": session, "expires_after": {"anchor": "created_at", "seconds": 30}}
    answer = client.post(URL, json=body, headers=BEARER)
    assert answer.status_code == 200, answer.text
    given = answer.json()
    assert given["value"].startswith("ek_")
    assert given["expires_at"] == 1030
    assert given["session"]["instructions"] == "be kind"
    assert given["session"]["id"] != "mine"
    begun = greeted(client, given["value"])
    assert begun["instructions"] == "be kind"
    assert begun["audio"]["input"]["turn_detection"] is None
    assert begun["audio"]["output"]["voice"] == "slt"
    assert begun["id"] not in ("mine", given["session"]["id"])
    assert greeted(client, KEY)["instructions"] == ""
    clock[0] = 1029.9
    with client.websocket_connect(SOCKET, headers={"authorization": f"Bearer {given['value']}"}) as socket:
        clock[0] = 1030.0
        assert socket.receive_json()["session"]["instructions"] == "be kind"
        socket.send_json({"type": "session.update", "session": {"instructions": "go on"}})
        assert socket.receive_json()["session"]["instructions"] == "go on"
    with pytest.raises(WebSocketDenialResponse) as refused:
        greeted(client, given["value"])
    assert (refused.value.status_code, refused.value.json()["error"]["code"]) == (401, "invalid_api_key")


def test_an_ephemeral_key_opens_sessions_alone(client: TestClient):
    given = client.post(URL, headers=BEARER)
    assert given.status_code == 200
    key = given.json()["value"]
    assert given.json()["expires_at"] == pytest.approx(1600, abs=40)
    for method, path in (("GET", "/v1/models"), ("POST", URL), ("POST", "/v1/chat/completions")):
        answer = client.request(method, path, headers={"authorization": f"Bearer {key}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert client.post(URL).status_code == 401


def test_servers_with_the_same_key_agree_and_open_ones_do_not():
    assert Security(key=KEY).signer == Security(key=KEY).signer == signer_of(KEY)
    assert Security().signer != Security().signer
    assert KEY not in repr(Security(key=KEY))


def test_an_open_server_takes_the_settings_of_a_key(service: Service):
    app = create_app(service, Security())
    client = TestClient(app, base_url="http://127.0.0.1:8000")
    key = client.post(URL, json={"session": {"instructions": "be kind"}}).json()["value"]
    assert greeted(client, key)["instructions"] == "be kind"
    assert greeted(client, key[:-2])["instructions"] == ""


@pytest.mark.parametrize(
    "body",
    [
        {"session": [1]},
        {"session": 3},
        {"session": {"type": "transcription"}},
        {"session": {"instructions": "x" * 4096}},
        {"session": {"output_modalities": ["smell"]}},
        {"session": {"audio": {"input": {"format": {"type": "mp3"}}}}},
        {"expires_after": 600},
        {"expires_after": {"seconds": 9}},
        {"expires_after": {"seconds": 7201}},
        {"expires_after": {"seconds": 60.5}},
        {"expires_after": {"anchor": "now"}},
    ],
)
def test_mistakes(client: TestClient, body: dict[str, Any]):
    answer = client.post(URL, json=body, headers=BEARER)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")
