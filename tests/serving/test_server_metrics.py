"""What `/metrics` and the log tell of answers, and that they tell nothing else."""

import asyncio
import json
import logging
import re
import time

import pytest
import torch
from realtime_client import Client, sound
from starlette.testclient import TestClient

from deeptalk.decoding import DecodingOptions, LoadedModel
from deeptalk.serving import events
from deeptalk.serving.app import create_app
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.memory import num_positions_of
from deeptalk.serving.metrics import METRICS, Metrics
from deeptalk.serving.model_thread import BusyError, ModelThread, Request
from deeptalk.serving.security import Security
from deeptalk.serving.service import Service
from deeptalk.serving.turns import Ear, Said

KEY = "a-key-of-tests"
LINE = re.compile(r'([a-z_]+)(?:\{([a-z]+)="([^"\\\n]+)"\})? (-?[0-9.e+]+)')


def parsed(text: str) -> dict[str, float]:
    """Samples by name, with their label's value where they have one; every line must be one that is known."""
    found, kinds = {}, {}
    for line in text.splitlines():
        if line.startswith("# "):
            _, what, name, rest = line.split(" ", 3)
            if what == "TYPE":
                kinds[name] = rest
            continue
        match = LINE.fullmatch(line)
        assert match is not None, line
        name, _, value, number = match.groups()
        assert re.sub("_(bucket|sum|count)$", "", name) in kinds
        found[name if value is None else f"{name}:{value}"] = float(number)
    assert kinds == {name: METRICS[name].kind for name in kinds}
    return found


def test_the_text_format():
    metrics = Metrics()
    assert parsed(metrics.render({}))["deeptalk_turns_total:cancelled"] == 0
    for value in (0.005, 0.006, 99.0):
        metrics.observe("deeptalk_step_seconds", value)
    metrics.count("deeptalk_rejects_total", "not_ready", by=2)
    metrics.count("deeptalk_barge_ins_total")
    text = metrics.render({"deeptalk_tasks": 3})
    found = parsed(text)
    buckets = [value for name, value in found.items() if name.startswith("deeptalk_step_seconds_bucket")]
    assert buckets == [1, 2, 2, 2, 2, 2, 2, 2, 2, 3]
    assert found["deeptalk_step_seconds_bucket:+Inf"] == found["deeptalk_step_seconds_count"] == 3
    assert found["deeptalk_step_seconds_sum"] == pytest.approx(99.011)
    assert (found["deeptalk_rejects_total:not_ready"], found["deeptalk_tasks"]) == (2, 3)
    assert found["deeptalk_barge_ins_total"] == 1
    assert "deeptalk_gpu_bytes" not in text
    assert text.endswith("\n")


def test_what_a_server_has_done_is_counted(loaded: LoadedModel):
    limits = ServerLimits(answer_seconds=0.8, max_sessions=1, waiting_seconds=0.01)
    service = Service(ModelThread(loaded, limits=limits), model="tiny")
    messages = [{"role": "user", "content": "xylophone"}]
    key = {"authorization": f"Bearer {KEY}"}
    with TestClient(create_app(service, Security(key=KEY)), base_url="http://localhost") as client:
        assert client.post("/v1/chat/completions", headers=key, json={}).status_code in (400, 503)
        while not service.is_ready:
            time.sleep(0.01)
        before = parsed(client.get("/metrics", headers=key).text)
        body = {"messages": messages, "modalities": ["text", "audio"]}
        assert client.post("/v1/chat/completions", headers=key, json=body).status_code == 200
        text_only = {"messages": messages, "max_tokens": 3}
        assert client.post("/v1/chat/completions", headers=key, json=text_only).status_code == 200
        too_long = {"messages": [{"role": "user", "content": "x" * 2000}]}
        assert client.post("/v1/chat/completions", headers=key, json=too_long).status_code == 400
        assert client.get("/metrics", headers={"authorization": "Bearer wrong-one"}).status_code == 401
        with client.websocket_connect("ws://localhost/v1/realtime", headers=key) as socket:
            socket.receive_json()
            refused = client.post("/v1/chat/completions", headers=key, json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "session_limit_reached")
            during = parsed(client.get("/metrics", headers=key).text)
            assert (during["deeptalk_sessions_active"], during["deeptalk_sessions_limit"]) == (1, 1)
        while service.admission.num_active:
            time.sleep(0.01)
        answer = client.get("/metrics", headers=key)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = parsed(answer.text)
    assert {re.sub("(_bucket|_sum|_count)?(:.*)?$", "", name) for name in found} == set(METRICS)
    assert "xylophone" not in answer.text
    assert KEY not in answer.text
    size = num_positions_of(loaded.engine, [Said(role="user", text="xylophone")])
    gained = {name: found[name] - before.get(name, 0) for name in found}
    assert gained["deeptalk_prefill_positions_total"] == 2 * size
    assert gained["deeptalk_turns_total:incomplete"] == 2
    assert (gained["deeptalk_turns_total:failed"], gained["deeptalk_turns_total:cancelled"]) == (1, 0)
    assert gained["deeptalk_server_ttfa_seconds_count"] == 1
    assert gained["deeptalk_rejects_total:invalid_api_key"] == 1
    assert gained["deeptalk_rejects_total:session_limit_reached"] == 1
    assert found["deeptalk_sessions_active"] == found["deeptalk_engine_faults_total"] == 0
    assert found["deeptalk_batch_rows_sum"] == found["deeptalk_batch_rows_count"]
    assert found["deeptalk_batch_rows_count"] == found["deeptalk_step_seconds_count"] > 10
    assert found["deeptalk_cache_positions_limit"] == 512
    assert found["process_resident_memory_bytes"] > 10**7
    assert found["process_open_fds"] > 3


def test_the_cache_of_a_session_that_is_over_is_freed_at_once_but_for_an_answer_that_still_runs(
    loaded: LoadedModel,
):
    still = ModelThread(loaded, limits=ServerLimits())

    async def main() -> None:
        memory, outlet = still.new_memory(), still.new_outlet()
        turns = [Said(role="user", text="hello")]
        still.ask(
            Request(turns=turns, mode="answer", options=DecodingOptions(), outlet=outlet, memory=memory)
        )
        while not outlet.waiting_seconds:
            still.tick()
        still.forget(memory)
        still.tick()
        assert still.gauges()["deeptalk_cache_positions_used"] > 0
        outlet.cancel()
        still.tick()
        assert still.gauges()["deeptalk_cache_positions_used"] == 0
        ear = Ear()
        still.hear(ear, memory)  # sound that comes late
        ear.push(torch.ones(16_000) / 2)
        ear.close()
        while still.tick():
            pass
        assert still.gauges()["deeptalk_cache_positions_used"] == 0

    asyncio.run(main())


def test_caches_queues_faults_and_rejects_of_the_model_thread(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    still = ModelThread(loaded, limits=ServerLimits(max_commands=1))

    async def main() -> None:
        memory, outlet = still.new_memory(), still.new_outlet()
        turns = [Said(role="user", text="hello")]
        asked = Request(turns=turns, mode="answer", options=DecodingOptions(), outlet=outlet, memory=memory)
        still.ask(asked)
        with pytest.raises(BusyError):
            still.hear(Ear())
        while not outlet.waiting_seconds:
            still.tick()
        gauges = still.gauges()
        assert gauges["deeptalk_cache_positions_used"] == num_positions_of(loaded.engine, turns)
        assert gauges["deeptalk_out_queue_seconds"] == pytest.approx(2048 / 24_000)

        def fail(states: object) -> None:
            raise RuntimeError("out of memory")

        monkeypatch.setattr(loaded.engine, "step_together", fail)
        still.tick()
        assert [piece async for piece in outlet.pieces()]
        assert outlet.ended is not None
        assert isinstance(outlet.ended.error, RuntimeError)

    asyncio.run(main())
    found = parsed(still.metrics.render(still.gauges()))
    assert found["deeptalk_engine_faults_total"] == 1
    assert found["deeptalk_rejects_total:server_busy"] == 1
    assert found["deeptalk_out_queue_seconds"] == 0


def test_late_sound_is_counted_and_answers_are_logged_without_words(
    thread: ModelThread, caplog: pytest.LogCaptureFixture
):
    """A minute passes at every piece of sound, so that all pieces but the first are late."""
    caplog.set_level(logging.INFO)
    clock = [0.0]
    before = parsed(thread.metrics.render({}))

    async def main() -> tuple[Client, dict]:
        async with Client(thread, now=lambda: clock[0]) as client:

            def pass_time(event: dict) -> None:
                clock[0] += 60.0 * (event["type"] == events.AUDIO_DELTA)

            await client.manual()
            await client.say("xylophone")
            client.on_event = pass_time
            return client, await client.answer()

    client, response = asyncio.run(main())
    found = parsed(thread.metrics.render({}))
    num_pieces = len(client.of(events.AUDIO_DELTA))
    assert num_pieces == 5
    assert found["deeptalk_underruns_total"] - before["deeptalk_underruns_total"] == num_pieces - 1
    [line] = [record.message for record in caplog.records if record.message.startswith("turn ")]
    assert json.loads(line.removeprefix("turn ")) == {
        "session": client.events[0]["session"]["id"],
        "response": response["id"],
        "status": "incomplete",
        "seconds": 60.0 * num_pieces,
        "usage": response["usage"],
    }
    assert "xylophone" not in caplog.text


def test_what_is_said_is_logged_where_that_is_wanted(loaded: LoadedModel, caplog: pytest.LogCaptureFixture):
    """`--log-transcripts`: a warning first, then the words of answers, by socket and HTTP, and heard ones."""
    caplog.set_level(logging.INFO)
    limits = ServerLimits(answer_seconds=0.4)
    service = Service(
        ModelThread(loaded, limits=limits), model="tiny", transcribes=True, logs_transcripts=True
    )
    assert "what is said goes to this log" in caplog.text
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    with TestClient(create_app(service, Security()), base_url="http://127.0.0.1:8000") as client:
        while not service.is_ready:
            time.sleep(0.01)
        answer = client.post("/v1/chat/completions", json=body).json()
        with client.websocket_connect("ws://127.0.0.1:8000/v1/realtime") as socket:
            written_down = {"audio": {"input": {"turn_detection": None, "transcription": {"model": "any"}}}}
            for event in (
                {"type": "session.update", "session": written_down},
                {"type": "input_audio_buffer.append", "audio": sound(0.4)},
                {"type": "input_audio_buffer.commit"},
                {"type": "response.create"},
            ):
                socket.send_json(event)
            names, transcript, output = set[str](), "", []
            while not {events.RESPONSE_DONE, events.TRANSCRIPTION_COMPLETED} <= names:
                event = socket.receive_json()
                names.add(event["type"])
                transcript = (
                    event.get("transcript", transcript) if "transcription" in event["type"] else transcript
                )
                output = event["response"]["output"] if event["type"] == events.RESPONSE_DONE else output
    told = [
        record.message.split(" ", 1) for record in caplog.records if record.message[:5] in ("turn ", "heard")
    ]
    [by_http, by_socket] = [json.loads(line) for kind, line in told if kind == "turn"]
    [heard] = [json.loads(line) for kind, line in told if kind == "heard"]
    assert by_http["said"] == answer["choices"][0]["message"]["content"]
    assert by_socket["output"] == output
    assert heard["transcript"] == transcript
