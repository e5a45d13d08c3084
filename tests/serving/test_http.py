"""The whole application in process: HTTP routes, the socket, and who may come in."""

import base64
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from realtime_client import sound
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from deeptalk.audio import decode_waveform
from deeptalk.decoding import Conversation, DecodingOptions, Limits, LoadedModel
from deeptalk.errors import ConfigError
from deeptalk.serving.app import create_app
from deeptalk.serving.audio_formats import encode_pcm
from deeptalk.serving.files import encode_file
from deeptalk.serving.http import Answering
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.security import LOOPBACK, OPEN_PATHS, Principal, Security, authorize, security_for
from deeptalk.serving.service import Service
from deeptalk.serving.speech import sentences

LIMITS = ServerLimits(answer_seconds=0.8, max_body_bytes=200_000, waiting_seconds=0.01)
KEY = "a-key-of-tests"


@pytest.fixture(scope="module")
def service(loaded: LoadedModel) -> Service:
    return Service(ModelThread(loaded, limits=LIMITS), model="tiny")


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service, Security()), base_url="http://127.0.0.1:8000") as client:
        assert client.get("/health").status_code == 200
        while not service.is_ready:
            time.sleep(0.01)
        yield client


def wav(seconds: float = 0.6, *, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    samples = 0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate))
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spoken_message(data: bytes) -> dict[str, Any]:
    part = {"type": "input_audio", "input_audio": {"data": base64_of(data), "format": "wav"}}
    return {"role": "user", "content": [part]}


def dialogue(loaded: LoadedModel, *, voice: str = "rms") -> Conversation:
    options = DecodingOptions(limits=Limits(max_frames=9, max_text_tokens=9))
    return Conversation(loaded.engine, loaded.codec, voice=voice, options=options)


def spoken(conversation: Conversation) -> bytes:
    return encode_pcm(torch.cat([piece.samples for piece in conversation.reply()]))


def chunks_of(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_the_model_is_listed(client: TestClient):
    [card] = client.get("/v1/models").json()["data"]
    assert card["id"] == "tiny"
    assert client.get("/v1/models/tiny").json() == card
    missing = client.get("/v1/models/other")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert client.get("/v1/chat/completions").status_code == 405
    assert client.get("/ready").json() == {"status": "ok"}


def test_spoken_chat_whole_and_streamed_are_the_same(loaded: LoadedModel, client: TestClient):
    """Two turns; the second names the first answer by its audio id."""
    own = dialogue(loaded, voice="slt")
    own.listen(decode_waveform(wav(), name="question"))
    first_sound = spoken(own)
    first_text = own.last_reply.text
    body: dict[str, Any] = {
        "model": "tiny",
        "modalities": ["text", "audio"],
        "audio": {"voice": "slt", "format": "pcm16"},
        "messages": [spoken_message(wav())],
    }
    completion = client.post("/v1/chat/completions", json=body).json()
    [choice] = completion["choices"]
    audio = choice["message"]["audio"]
    assert base64.b64decode(audio["data"]) == first_sound
    assert audio["transcript"].strip() == first_text
    assert choice["finish_reason"] == "length"
    assert completion["usage"]["completion_tokens_details"]["audio_tokens"] == 9
    answer = client.post("/v1/chat/completions", json=body | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = chunks_of(answer.text)
    deltas = [chunk["choices"][0]["delta"].get("audio", {}) for chunk in chunks]
    assert b"".join(base64.b64decode(delta.get("data", "")) for delta in deltas) == first_sound
    assert "".join(delta.get("transcript", "") for delta in deltas) == audio["transcript"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    body["messages"] += [
        {"role": "assistant", "audio": {"id": audio["id"]}},
        {"role": "user", "content": "and then?"},
    ]
    body["audio"]["format"] = "wav"
    audio = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["audio"]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(audio["data"])))
    fresh = dialogue(loaded)
    fresh.say_text("and then?")
    assert audio["transcript"].strip() != (spoken(fresh) and fresh.last_reply.text)
    assert (len(samples), rate) == (9 * 2048, 24_000)


def test_written_chat(loaded: LoadedModel, client: TestClient):
    body = {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "hello"}]}
    message = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    own = dialogue(loaded)
    own._mode = "text"
    own.say_text("hello")
    list(own.reply())
    assert message["content"].strip() == own.last_reply.text
    given = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 5}
    chunks = chunks_of(client.post("/v1/chat/completions", json=body | given).text)
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
    assert message["content"].startswith(text)
    assert chunks[-1]["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("form", ["pcm", "wav"])
def test_a_text_is_read_aloud(loaded: LoadedModel, client: TestClient, form: str):
    body = {"input": "One. Two", "voice": "slt", "response_format": form, "speed": 1.0, "model": "x"}
    answer = client.post("/v1/audio/speech", json=body)
    assert answer.status_code == 200, answer.text
    reader, expected = dialogue(loaded, voice="slt"), []
    for sentence in ("One.", "Two"):
        expected += [piece.samples for piece in reader.read_aloud(sentence)]
    samples = torch.cat(expected)
    assert answer.content == encode_file(samples, form=form, sample_rate=24_000)
    assert len(samples) > 9 * 2048


@pytest.mark.parametrize("form", ["wav", "mp3", "opus", "flac"])
def test_sound_files_are_read_back(form: str):
    tone = torch.sin(torch.arange(24_000) / 20)
    heard = decode_waveform(encode_file(tone, form=form, sample_rate=24_000), name="tone")
    assert abs(len(heard) - 16_000) < 1600
    assert heard.abs().max() > 0.8


def test_long_texts_are_cut_between_sentences_and_words():
    assert sentences(" One two. Three!\nFour ") == ["One two.", "Three!", "Four"]
    parts = sentences("word " * 100)
    assert " ".join(parts) == ("word " * 100).strip()
    assert max(map(len, parts)) <= 200


@pytest.mark.parametrize("form", ["json", "text", "verbose_json"])
def test_what_is_said_is_written_down(loaded: LoadedModel, client: TestClient, form: str):
    expected = dialogue(loaded).transcribe(decode_waveform(wav(), name="x"))
    answer = client.post(
        "/v1/audio/transcriptions", files={"file": ("a.wav", wav())}, data={"response_format": form}
    )
    assert (answer.text if form == "text" else answer.json()["text"]).strip() == expected
    if form == "verbose_json":
        assert answer.json()["duration"] == pytest.approx(0.6)


@pytest.mark.parametrize(("sentence_seconds", "number"), [(None, 1), (0.5, 3)])
def test_a_model_of_sentences_writes_down_one_after_the_other(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch, sentence_seconds, number
):
    heard: list[int] = []
    listen, model = Answering.listen, service.thread.loaded.model
    monkeypatch.setattr(model, "config", replace(model.config, sentence_seconds=sentence_seconds))
    monkeypatch.setattr(
        Answering, "listen", lambda self, samples: heard.append(len(samples)) or listen(self, samples)
    )
    answer = client.post("/v1/audio/transcriptions", files={"file": ("a.wav", wav(1.2))})
    assert answer.status_code == 200
    assert (len(heard), sum(heard)) == (number, 19_200)


NAN_WAV = io.BytesIO()
soundfile.write(NAN_WAV, np.full(16_000, np.nan, dtype=np.float32), 16_000, format="WAV", subtype="FLOAT")
USER = [{"role": "user", "content": "hello"}]
AUDIO = ["text", "audio"]
CHAT_MISTAKES: list[tuple[Any, str]] = [
    ({}, "invalid_value"),
    ({"messages": []}, "invalid_value"),
    ({"messages": "hello"}, "invalid_value"),
    ({"messages": [{"role": "cat", "content": "x"}]}, "invalid_value"),
    ({"messages": [{"role": [], "content": "x"}]}, "invalid_value"),
    ({"messages": [{"role": "user", "content": "x" * 65_537}]}, "invalid_value"),
    ({"messages": [{"role": "user", "content": "x"}] * 257}, "invalid_value"),
    ({"messages": [{"role": "user", "content": 3}]}, "invalid_value"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "invalid_value"),
    ({"messages": [{"role": "user", "content": " "}]}, "invalid_value"),
    ({"messages": [*USER, {"role": "assistant", "content": "x"}]}, "invalid_value"),
    ({"messages": USER, "n": 2}, "invalid_value"),
    ({"messages": USER, "temperature": "hot"}, "invalid_value"),
    ({"messages": USER, "seed": 1.5}, "invalid_value"),
    ({"messages": USER, "max_tokens": 0}, "invalid_value"),
    ({"messages": USER, "modalities": ["smell"]}, "invalid_value"),
    ({"messages": USER, "modalities": AUDIO, "audio": {"format": "aac"}}, "invalid_value"),
    ({"messages": USER, "modalities": AUDIO, "audio": {"format": "wav"}, "stream": True}, "invalid_value"),
    ({"messages": [spoken_message(b"no sound")]}, "invalid_audio"),
    ({"messages": [spoken_message(b"")]}, "invalid_audio"),
    ({"messages": [spoken_message(NAN_WAV.getvalue())]}, "invalid_audio"),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": 1}]}]},
        "invalid_value",
    ),
    ({"messages": [{"role": "user", "content": "x" * 2000}]}, "context_length_exceeded"),
    ({"messages": [{"role": "user", "content": "x" * 2000}], "stream": True}, "context_length_exceeded"),
    (b"{", "invalid_json"),
    (b'{"messages": NaN}', "invalid_json"),
    (b"\xff", "invalid_json"),
    (b" " * 200_001, "body_too_large"),
]


@pytest.mark.parametrize(("body", "code"), CHAT_MISTAKES)
def test_every_mistake_in_a_chat_has_its_code(client: TestClient, service: Service, body: Any, code: str):
    given = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = client.post("/v1/chat/completions", **given)
    assert answer.json()["error"]["code"] == code
    assert answer.status_code == (413 if code == "body_too_large" else 400)
    assert service.admission.num_active == 0


def test_mistakes_of_the_audio_routes(client: TestClient):
    for body in (
        {"input": " "},
        {"input": "x" * 4097},
        {"input": 3},
        {"input": "a", "response_format": "aac"},
    ):
        answer = client.post("/v1/audio/speech", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")
    for given, code in (
        ({"json": {}}, "invalid_value"),
        ({"data": {"a": "b"}, "files": {"other": b"x"}}, "invalid_value"),
        ({"files": {"file": b"no sound"}}, "invalid_audio"),
        ({"files": {"file": wav()}, "data": {"response_format": "srt"}}, "invalid_value"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, "invalid_value"),
    ):
        answer = client.post("/v1/audio/transcriptions", **given)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), given


def test_a_session_over_the_socket(client: TestClient, service: Service):
    with client.websocket_connect(
        "ws://127.0.0.1:8000/v1/realtime?model=whatever", subprotocols=["x", "realtime"]
    ) as socket:
        assert socket.accepted_subprotocol == "realtime"
        session = socket.receive_json()["session"]
        assert session["model"] == "whatever"
        socket.send_bytes(b"x")
        assert socket.receive_json()["error"]["code"] == "binary_not_supported"
        socket.send_json(
            {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}}
        )
        socket.send_json({"type": "input_audio_buffer.append", "audio": sound(0.3)})
        socket.send_json({"type": "input_audio_buffer.commit"})
        socket.send_json({"type": "response.create"})
        while (event := socket.receive_json())["type"] != "response.done":
            assert event["type"] != "error"
        assert event["response"]["status"] == "incomplete"
        assert service.admission.num_active == 1
    while service.admission.num_active:
        time.sleep(0.01)


def test_a_browser_asks_for_the_beta_dialect_in_a_subprotocol(client: TestClient):
    offered = ["realtime", "openai-insecure-api-key.none", "openai-beta.realtime-v1"]
    with client.websocket_connect("ws://127.0.0.1:8000/v1/realtime", subprotocols=offered) as socket:
        assert socket.accepted_subprotocol == "realtime"
        assert socket.receive_json()["session"]["input_audio_format"] == "pcm16"


def test_sessions_over_the_limit_are_refused_before_the_upgrade(client: TestClient, service: Service):
    with (
        client.websocket_connect("ws://127.0.0.1:8000/v1/realtime") as one,
        client.websocket_connect("ws://127.0.0.1:8000/v1/realtime") as other,
    ):
        assert one.receive_json()["session"]["id"] != other.receive_json()["session"]["id"]
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            client.websocket_connect("ws://127.0.0.1:8000/v1/realtime"),
        ):
            pass
        assert refused.value.status_code == 503
        assert refused.value.json()["error"]["code"] == "session_limit_reached"
        answer = client.post("/v1/chat/completions", json={"messages": USER})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    while service.admission.num_active:
        time.sleep(0.01)
    assert client.post("/v1/chat/completions", json={"messages": USER, "max_tokens": 1}).status_code == 200


def test_only_who_may_comes_in(service: Service, client: TestClient):
    """Every route, with every way to send a key or to come from elsewhere."""
    app = create_app(service, Security(key=KEY))
    guarded = TestClient(app, base_url="http://127.0.0.1:8000")
    paths = [
        (route.path, getattr(route, "methods", None))  # pyright: ignore
        for route in app.app.routes  # pyright: ignore
    ]
    assert len(paths) >= 8
    bearer = {"authorization": f"Bearer {KEY}"}
    for path, methods in paths:
        path = path.replace("{name:path}", "tiny")
        for headers, query, status in (
            ({}, "", 401),
            ({"authorization": "Bearer wrong"}, "", 401),
            ({"authorization": f"Basic {KEY}"}, "", 401),
            ({"api-key": KEY}, "", 401),
            ({}, f"?api_key={KEY}", 401),
            (bearer, f"?key={KEY}", 401),
            (bearer | {"origin": "http://evil.example"}, "", 403),
            (bearer | {"host": "evil.example"}, "", 403),
            (bearer, "", None),
            (bearer | {"origin": "http://127.0.0.1:8000"}, "", None),
            ({"sec-websocket-protocol": f"realtime, openai-insecure-api-key.{KEY}"}, "", None),
        ):
            is_open = path in OPEN_PATHS and status == 401
            if methods is None:
                try:
                    with guarded.websocket_connect(
                        "ws://127.0.0.1:8000" + path + query, headers=headers
                    ) as socket:
                        assert socket.accepted_subprotocol in (None, "realtime")
                        got = None
                except WebSocketDenialResponse as refused:
                    got = refused.status_code
            else:
                got = guarded.request(min(methods), path + query, headers=headers).status_code
                got = None if got not in (401, 403) else got
            assert got == (None if is_open else status), (path, headers, query)


def test_a_public_bind_needs_a_key():
    with pytest.raises(ConfigError, match="--insecure"):
        security_for("0.0.0.0", key=None, origins=(), is_insecure=False)
    with pytest.raises(ConfigError, match="at least 8"):
        security_for("0.0.0.0", key="short", origins=(), is_insecure=False)
    assert security_for("0.0.0.0", key=KEY, origins=(), is_insecure=False).hosts == ()
    assert security_for("127.0.0.1", key=None, origins=(), is_insecure=False).hosts == LOOPBACK
    page = security_for("::1", key=None, origins=["https://a.example"], is_insecure=False)
    scope = {"type": "http", "path": "/v1/models", "headers": [(b"host", b"[::1]:8000")]}
    assert isinstance(authorize(scope, page, now=0.0), Principal)
    for origin, is_allowed in (("https://a.example", True), ("https://b.example", False), ("null", False)):
        scope["headers"] = [(b"host", b"[::1]:8000"), (b"origin", origin.encode())]
        assert isinstance(authorize(scope, page, now=0.0), Principal) == is_allowed


def test_going_down_lets_sessions_end(loaded: LoadedModel):
    service = Service(ModelThread(loaded, limits=LIMITS), model="tiny")
    with TestClient(create_app(service, Security()), base_url="http://localhost") as client:
        while not service.is_ready:
            time.sleep(0.01)
        with client.websocket_connect("ws://127.0.0.1:8000/v1/realtime") as socket:
            socket.receive_json()
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]}
            socket.send_json({"type": "conversation.item.create", "item": item})
            socket.send_json({"type": "response.create"})
            while socket.receive_json()["type"] != "response.created":
                pass
            assert client.portal is not None
            client.portal.start_task_soon(service.drain)
            while (event := socket.receive_json())["type"] != "response.done":
                pass
            assert event["response"]["status"] == "incomplete"
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_json()
            assert closed.value.code == 1001
        assert client.get("/ready").status_code == 503
        refused = client.post("/v1/chat/completions", json={"messages": USER})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
    assert not service.thread.is_alive(within_seconds=100)
