"""Whatever clients send, to routes, sockets and parsers; ``make fuzz EXAMPLES=10000`` sends more of it.

``make fuzz-bytes MINUTES=10`` gives every parser of bytes something new for so long.
"""

import asyncio
import base64
import functools
import io
import json
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from openapi import DOCUMENT, PATHS
from random_model import random_model
from realtime_client import Client, sound
from running import serve
from test_matrix import DOCUMENTED

from deeptalk.audio import decode_waveform
from deeptalk.decoding import LoadedModel
from deeptalk.errors import AudioError
from deeptalk.serving import events
from deeptalk.serving.app import create_app
from deeptalk.serving.audio_formats import SoundIn
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.realtime import MAX_ERRORS, SessionClosed
from deeptalk.serving.security import Security
from deeptalk.serving.server import Server
from deeptalk.serving.service import Service
from deeptalk.serving.settings import RATES
from deeptalk.serving.talk_page import PATHS as PAGE
from deeptalk.serving.wire import ClientError, parse_base64, parse_json

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""How many of each kind; 0 for the few and always same ones of the suite."""

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
"""How long each parser of bytes is tried; 0 for a few examples."""

LONGEST = timedelta(seconds=5)
"""What an example of a parser that is tried for long may take."""

LIMITS = ServerLimits(answer_seconds=0.4, max_sessions=4, positions_per_tick=16, max_items=12)


def fuzz(few: int, **more: Any) -> settings:
    """As many examples as are wanted; drawn anew where somebody has asked for a number."""
    return settings(
        max_examples=EXAMPLES or few,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


# the socket


@functools.cache
def tiny() -> LoadedModel:
    return random_model()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "audio", "a"]), inner)
    ),
    max_leaves=4,
)
DETECTION = st.sampled_from(
    [
        None,
        {"type": "server_vad"},
        {"type": "server_vad", "interrupt_response": False},
        {"type": "semantic_vad"},
    ]
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "turn_detection": DETECTION,
        "output_modalities": st.sampled_from([["text"], ["audio"], ["text", "audio"]]),
        "max_output_tokens": st.sampled_from([1, 3, "inf"]),
        "truncation": st.sampled_from(["auto", "disabled"]),
        "input_audio_format": st.sampled_from(["pcm16", "g711_ulaw", "g711_alaw"]),
        "output_audio_format": st.sampled_from(["pcm16", "g711_ulaw", "g711_alaw"]),
        "voice": st.sampled_from(["rms", "nobody", {"id": "x"}]),
        "seed": st.integers(0, 3),
        "temperature": st.sampled_from([0, 0.7, 1]),
        "tools": JUNK,
    },
)
ITEM_IDS = ("u1", "u2", "a1", "none")
ANY_ID = st.sampled_from(ITEM_IDS) | JUNK


class Sessions(RuleBasedStateMachine):
    """A client that does anything at any time; the model works when it is let, the clock moves when told."""

    @initialize(is_beta=st.booleans(), first=SETTINGS)
    def begin(self, is_beta: bool, first: dict[str, Any]) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = ModelThread(tiny(), limits=LIMITS)
        self.moment, self.is_beta, self.num_checked = 0.0, is_beta, 0
        self.silenced: set[str] = set()
        self.run(self.open())
        self.send("session.update", session=first)

    async def open(self) -> None:
        self.client = Client(self.thread, is_beta=self.is_beta, now=self.now)
        self.num_checked, self.silenced = 0, set()
        await self.client.session.open()

    def now(self) -> float:
        self.moment += 0.01
        return self.moment

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Let the model work until a coroutine is done."""

        async def main() -> Any:
            task = asyncio.ensure_future(coroutine)
            until = time.monotonic() + 60
            while not task.done():
                await asyncio.sleep(0)
                self.thread.tick()
                assert time.monotonic() < until, "it hangs"
            return await task

        return self.loop.run_until_complete(main())

    def text(self, text: str) -> None:
        is_over = False
        try:
            self.run(self.client.session.receive(text))
        except SessionClosed as closed:
            is_over = closed.reason == "too_many_errors"
            if not is_over:
                raise
        if is_over:
            assert len(self.client.of(events.ERROR)) > MAX_ERRORS
            self.run(self.client.session.close())
            self.run(self.open())

    def send(self, name: str, **fields: Any) -> None:
        self.text(json.dumps({"type": name, **fields}))

    @rule(session=SETTINGS | JUNK)
    def update(self, session: Any) -> None:
        self.send("session.update", session=session)

    @rule(seconds=st.sampled_from([0.02, 0.2, 0.6]), is_voice=st.booleans())
    def speak(self, seconds: float, is_voice: bool) -> None:
        quiet = base64.b64encode(bytes(2 * int(24_000 * seconds))).decode()
        self.send("input_audio_buffer.append", audio=sound(seconds) if is_voice else quiet)

    @rule(name=st.sampled_from(["input_audio_buffer.commit", "input_audio_buffer.clear"]))
    def end_turn(self, name: str) -> None:
        self.send(name)

    @rule(item_id=st.sampled_from(ITEM_IDS), role=st.sampled_from(["user", "assistant", "system"]), junk=JUNK)
    def write(self, item_id: str, role: str, junk: Any) -> None:
        kind = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": "a"}], "id": item_id}
        self.send("conversation.item.create", item=item, previous_item_id=None)
        self.send("conversation.item.create", item=junk)

    @rule(name=st.sampled_from(["retrieve", "delete"]), item_id=ANY_ID)
    def look_up(self, name: str, item_id: Any) -> None:
        self.send(f"conversation.item.{name}", item_id=item_id)

    @rule(end_ms=st.sampled_from([0, 50, 300]) | JUNK, nth=st.integers(0, 2))
    def truncate(self, end_ms: Any, nth: int) -> None:
        answers = [event["item_id"] for event in self.client.of(events.PART_ADDED)]
        item_id = answers[-1 - nth % len(answers)] if answers else "none"
        self.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=end_ms)

    @rule(response=st.none() | SETTINGS | st.just({"conversation": "none"}) | JUNK)
    def respond(self, response: Any) -> None:
        self.send("response.create", response=response)

    @rule(name=st.sampled_from(["response.cancel", "output_audio_buffer.clear"]))
    def stop(self, name: str) -> None:
        self.send(name)

    @rule(ticks=st.integers(1, 12), seconds=st.sampled_from([0.0, 0.3, 20.0]))
    def wait(self, ticks: int, seconds: float) -> None:
        self.moment += seconds

        async def rest() -> None:
            for _ in range(ticks):
                self.thread.tick()
                await asyncio.sleep(0)

        self.run(rest())

    @rule(event=JUNK, text=st.text(max_size=8))
    def babble(self, event: Any, text: str) -> None:
        self.text(json.dumps(event))
        self.text(text)

    @invariant()
    def the_protocol_holds(self) -> None:
        """Known types; one end for each answer; and no delta behind the end, nor behind what interrupts."""
        if not hasattr(self, "client"):
            return
        names = {events.BETA_NAMES.get(name, name) if self.is_beta else name for name in events.SERVER_EVENTS}
        for event in self.client.events[self.num_checked :]:
            kind, response_id = event["type"], event.get("response_id")
            assert kind in names
            if kind == events.ERROR:
                assert event["error"]["code"] in DOCUMENTED
            if kind.endswith("audio.done") or kind.endswith("text.done"):
                self.silenced.add(response_id)
            assert not (kind.endswith("audio.delta") and response_id in self.silenced)
        self.num_checked = len(self.client.events)
        begun = [event["response"]["id"] for event in self.client.of(events.RESPONSE_CREATED)]
        done = [event["response"]["id"] for event in self.client.of(events.RESPONSE_DONE)]
        assert done == begun[: len(done)]
        assert len(begun) - len(done) <= 1
        assert self.thread.metrics.total("deeptalk_engine_faults_total") == 0

    def teardown(self) -> None:
        """A turn still works, and nothing is left."""
        if not hasattr(self, "client"):
            return
        self.run(self.finish())
        self.the_protocol_holds()
        assert not self.client.session.is_answering
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()

    async def finish(self) -> None:
        session = self.client.session
        await session.finish_answer()
        self.moment += 1000.0
        flat = {"turn_detection": None, "output_modalities": ["text"], "max_output_tokens": 2}
        await self.client.send("session.update", session=flat)
        while session.is_answering:  # a turn that was found before may still be owed an answer
            await session.finish_answer()
            await asyncio.sleep(0)
        brought = [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]
        await self.client.send("response.create", response={"conversation": "none", "input": brought})
        await session.finish_answer()
        assert self.client.of(events.RESPONSE_DONE)[-1]["response"]["status"] == "incomplete"
        await session.close()


TestSessions = Sessions.TestCase
TestSessions.settings = fuzz(30, stateful_step_count=20)


# the HTTP routes


def test_the_document_names_every_route():
    service = Service(ModelThread(tiny(), limits=LIMITS), model="tiny")
    app: Any = create_app(service, Security()).app
    paths = {route.path.replace(":path", "") for route in app.routes}
    assert paths - {"/v1/realtime", *PAGE} == set(PATHS)


@pytest.mark.filterwarnings("ignore")  # of the tool and of what it generates
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_http_routes_by_their_schema(mode: str, monkeypatch: pytest.MonkeyPatch):
    """What the document allows and what it forbids: no fault of ours, and answers as it has them."""
    schemathesis: Any = pytest.importorskip("schemathesis", reason="pip install 'deeptalk[fuzz]' to run it")
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    drawn: list[Any] = []
    for operation in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations():
        with suppress(TypeError, ValueError):
            drawn.append(operation.ok().as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    assert len(drawn) >= 5

    def send_to(base: str) -> None:
        @fuzz(40)
        @given(case=st.one_of(drawn))
        def send(case: Any) -> None:
            answer = case.call(base_url=base, timeout=60)
            assert answer.status_code < 500, (case.method, case.path, answer.text)
            if answer.status_code >= 400 and answer.content:
                assert answer.json()["error"]["code"] in DOCUMENTED
            case.validate_response(answer, checks=checks)

        send()

    async def script(server: Server, service: Service, url: str) -> None:
        await asyncio.to_thread(send_to, url.replace("ws", "http", 1).removesuffix("/v1/realtime"))
        assert service.metrics.total("deeptalk_engine_faults_total") == 0
        async with asyncio.timeout(60):
            while service.admission.num_active:
                await asyncio.sleep(0.01)

    serve(tiny(), script, answer_seconds=0.4, max_sessions=4)


# what reads bytes


def lasting(few: int) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """A test of ``few`` examples, or of new ones for as long as was asked for."""

    def decorate(test: Callable[[], None]) -> Callable[[], None]:
        if not MINUTES:
            return fuzz(few)(test)
        drawn = settings(max_examples=1000, deadline=LONGEST, database=None)(test)

        def last() -> None:
            until = time.monotonic() + 60 * MINUTES
            while time.monotonic() < until:
                drawn()

        last.__name__, last.__doc__ = test.__name__, test.__doc__
        return last

    return decorate


def wav_of(samples: np.ndarray, form: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=form)
    return file.getvalue()


FILES = [wav_of(0.1 * np.sin(np.arange(3200) / 9), form) for form in ("WAV", "FLAC", "OGG", "MP3")]
DAMAGE = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=8)


@lasting(60)
@given(given_bytes=st.binary(max_size=64) | st.text(max_size=64).map(str.encode), depth=st.integers(0, 200))
def test_json_of_any_bytes(given_bytes: bytes, depth: int):
    for data in (given_bytes, b'{"a":' + b"[" * depth + given_bytes + b"]" * depth + b"}"):
        with suppress(ClientError):
            assert isinstance(parse_json(data), dict)


@lasting(60)
@given(text=st.text(max_size=64), data=st.binary(max_size=64))
def test_base64_of_any_text(text: str, data: bytes):
    with suppress(ClientError):
        assert base64.b64encode(parse_base64(text, param="audio")).decode() == text
    assert parse_base64(base64.b64encode(data).decode(), param="audio") == data


@lasting(30)
@given(pieces=st.lists(st.binary(max_size=200), max_size=4), kind=st.sampled_from(sorted(RATES)))
def test_samples_of_any_bytes(pieces: list[bytes], kind: Any):
    from deeptalk.serving.audio_formats import AudioFormat

    heard = SoundIn(AudioFormat(kind, RATES[kind][0]))
    for piece in pieces:
        with suppress(AudioError):
            assert bool(heard.push(piece).isfinite().all())
    assert bool(heard.finish().isfinite().all())


@lasting(60)
@given(number=st.integers(0, 3), damage=DAMAGE, cut=st.integers(0, 2**14), junk=st.binary(max_size=64))
def test_files_of_any_bytes(number: int, damage: list[tuple[int, int]], cut: int, junk: bytes):
    data = bytearray(FILES[number])
    for at, value in damage:
        data[at % len(data)] = value
    for each in (junk, bytes(data), bytes(data[: cut % len(data)])):
        with suppress(AudioError):
            assert bool(decode_waveform(each, name="file").isfinite().all())
