"""All that clients get wrong, sent to one server: a documented code each, and the next turn works."""

import asyncio
import base64
import io
import json
import logging
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import test_bad_input
import test_completions
import test_http
import test_realtime
from realtime_client import sound
from running import serve
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from deeptalk.decoding import LoadedModel
from deeptalk.serving import events
from deeptalk.serving.logs import LONGEST_LINE, LineFormatter
from deeptalk.serving.server import Server
from deeptalk.serving.service import Service

DOCUMENTED = set(re.findall(r"`([a-z_]+)`", Path("docs/serving.md").read_text("utf-8")))
PER_SESSION = 15  # of more than twenty mistakes in ten seconds a session ends
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def file_of(samples: np.ndarray, *, rate: int = 16_000, form: str = "FLAC") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form)
    return file.getvalue()


def append(audio: str) -> str:
    return json.dumps({"type": "input_audio_buffer.append", "audio": audio})


EVENTS: list[tuple[str, str]] = [
    *test_realtime.MISTAKES,
    *test_bad_input.MISTAKES,
    (append("A" * (15 * 2**20 + 4)), "invalid_audio"),
    (append(sound(31.0)), "input_audio_too_long"),
    (append("AAAA" * 5 + "A"), "invalid_audio"),
    (append("AAAA AAAA"), "invalid_audio"),
    ('"' + "a" * 100_000 + '"', "invalid_json"),
    ('{"type": "response.create", "x": ' + "9" * 100_000 + "}", "invalid_json"),
    ('{"a":' * 10_000 + "1" + "}" * 10_000, "invalid_json"),
    ('{"type": "conversation.item.create", "item": {"role": "user", "content": "\\udfff"}}', "invalid_json"),
]

WITHOUT_SOUND: list[tuple[bytes, str]] = [
    (file_of(np.zeros(16_000)), "silence"),
    (file_of(np.zeros(8_000 * 60 * 30), rate=8_000), "half an hour"),
    (file_of(0.1 * np.ones((1600, 3))), "three channels"),
    (file_of(0.1 * np.ones(4_000), rate=4_000), "a rate that is too low"),
    (file_of(0.1 * np.ones(800)), "too short"),
    (file_of(0.1 * np.ones(16_000), form="WAV")[:40], "a torn file"),
    (np.full(4, np.inf, "<f4").tobytes(), "raw floats"),
]

Asked = tuple[str, str, bytes, dict[str, str]]
JSON = {"content-type": "application/json"}


def posted(path: str, body: Any) -> Asked:
    return "POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), JSON


def form_of(file: bytes) -> Asked:
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    return "POST", "/v1/audio/transcriptions", head + file + b"\r\n--x--\r\n", kind


REQUESTS: list[tuple[Asked, int, str]] = [
    *(
        (posted("/v1/chat/completions", body), 413 if code == "body_too_large" else 400, code)
        for body, code in test_http.CHAT_MISTAKES
    ),
    *((posted("/v1/completions", body), 400, code) for body, code in test_completions.MISTAKES),
    *((form_of(file), 400, "invalid_audio") for file, _ in WITHOUT_SOUND),
    *(
        (posted("/v1/chat/completions", {"messages": [test_http.spoken_message(file)]}), 400, "invalid_audio")
        for file, _ in WITHOUT_SOUND
    ),
    (posted("/v1/audio/speech", {"input": "a", "speed": "fast"}), 400, "invalid_value"),
    (posted("/v1/audio/speech", b"{}"), 400, "invalid_value"),
    (posted("/v1/realtime/client_secrets", {"session": 3}), 400, "invalid_value"),
    (("GET", "/v1/models/none", b"", {}), 404, "not_found"),
    (("GET", "/nothing", b"", {}), 404, "not_found"),
    (("DELETE", "/v1/models", b"", {}), 405, "invalid_request"),
    (("GET", "/v1/chat/completions", b"", {}), 405, "invalid_request"),
    (("GET", "/health", b"", {"host": "evil.example"}), 403, "wrong_host"),
    (("GET", "/v1/models", b"", {"origin": "https://evil.example"}), 403, "foreign_origin"),
]


def test_everything_wrong_has_a_documented_code_and_the_next_turn_works(
    loaded: LoadedModel, caplog: pytest.LogCaptureFixture
):
    """No status from 500 up, no traceback, no fault of ours, and a turn after every fifteen mistakes."""
    caplog.set_level(logging.DEBUG, "deeptalk")
    assert len({text for text, _ in EVENTS}) >= 60
    assert len(REQUESTS) >= 60
    assert {code for _, code in EVENTS} | {code for *_, code in REQUESTS} <= DOCUMENTED

    async def script(server: Server, service: Service, url: str) -> None:
        for first in range(0, len(EVENTS), PER_SESSION):
            await mistakes_and_a_turn(url, EVENTS[first : first + PER_SESSION])
        await frames_that_end_a_session(url)
        base = url.replace("ws", "http", 1).removesuffix("/v1/realtime")
        for asked, status, code in REQUESTS:
            told, answer = await asyncio.to_thread(ask, base, asked)
            assert (told, json.loads(answer)["error"]["code"]) == (status, code), asked[1:3]
        await mistakes_and_a_turn(url, [])
        chat = posted("/v1/chat/completions", {"messages": test_http.USER, "max_tokens": 1})
        assert (await asyncio.to_thread(ask, base, chat))[0] == 200
        assert service.metrics.total("deeptalk_engine_faults_total") == 0

    serve(loaded, script, max_body_bytes=200_000)
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


def test_lines_of_the_log_are_bounded():
    record = logging.LogRecord("a", logging.INFO, "", 0, "x" * 10_000 + "\nshort", None, None)
    first, second = LineFormatter().format(record).split("\n")
    assert (len(first), second) == (LONGEST_LINE, "short")


async def mistakes_and_a_turn(url: str, mistakes: list[tuple[str, str]]) -> None:
    """A session that makes some mistakes and then has a spoken turn, a silent one, and one more."""
    async with connect(url, max_size=None) as socket:

        async def until(*names: str) -> Any:
            while (event := json.loads(await socket.recv()))["type"] not in names:
                pass
            return event

        written = {"turn_detection": None, "output_modalities": ["text"], "max_output_tokens": 2}
        await socket.send(json.dumps({"type": "session.update", "session": written}))
        await socket.send(json.dumps({"type": "conversation.item.create", "item": {"id": "u", **SAID}}))
        for text, code in mistakes:
            await socket.send(text)
            error = (await until(events.ERROR))["error"]
            assert (error["code"], text[:200]) == (code, text[:200])
        for spoken in (sound(0.4), base64.b64encode(bytes(24_000)).decode()):
            for event in (
                append(spoken),
                '{"type": "input_audio_buffer.commit"}',
                '{"type": "response.create"}',
            ):
                await socket.send(event)
            done = await until(events.RESPONSE_DONE, events.ERROR)
            assert done["type"] == events.RESPONSE_DONE, done
            assert done["response"]["status"] == "incomplete"


SAID = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}


async def frames_that_end_a_session(url: str) -> None:
    """What is no text at all: bytes that are no UTF-8, and a binary frame, which only earns an error."""
    async with connect(url) as socket:
        await socket.recv()
        await socket.send(b"\x00\xff")
        assert json.loads(await socket.recv())["error"]["code"] == "binary_not_supported"
        async with socket.send_context():
            socket.protocol.send_text(b"\xff\xfe")
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1007


def ask(base: str, asked: Asked) -> tuple[int, str]:
    """The status and the body that a request gets."""
    method, path, body, headers = asked
    request = urllib.request.Request(base + path, data=body or None, headers=headers, method=method)
    try:
        with OPENER.open(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
