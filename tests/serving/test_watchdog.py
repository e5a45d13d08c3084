"""A model thread that is stuck is told of, refused further work, and in the end ends the process."""

import itertools
import logging
import time
from threading import Event

import pytest
from starlette.testclient import TestClient

from deeptalk.decoding import LoadedModel
from deeptalk.serving.app import create_app
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread
from deeptalk.serving.security import Security
from deeptalk.serving.service import Service
from deeptalk.serving.watchdog import STUCK, Watchdog, patience_of


@pytest.mark.parametrize(
    ("silences", "ends_at"),
    [
        ([0.0, 9.0, 10.0, 9.9], []),
        ([5.0, 10.1, 19.0, 20.0, 20.1], [4]),
        ([10.1, 15.0, 0.5, 10.1, 15.0, 20.2], [5]),
        ([99.0], []),
        ([99.0, 0.1, 99.0], []),
        ([99.0, 109.0], [1]),
    ],
)
def test_it_tells_first_and_ends_after_as_long_again(silences: list[float], ends_at: list[int]):
    moments, left = iter(silences), []
    watchdog = Watchdog(lambda: next(moments), patience_seconds=10.0, leave=left.append)
    ended = []
    for number in range(len(silences)):
        watchdog.look()
        ended += [number] * (len(left) - len(ended))
    assert ended == ends_at
    assert left == [STUCK] * len(ends_at)


def test_stacks_are_told_once(caplog: pytest.LogCaptureFixture):
    silence, left = [11.0], []
    watchdog = Watchdog(lambda: silence[0], patience_seconds=10.0, leave=left.append)
    watchdog.look()
    silence[0] = 15.0
    watchdog.look()
    [told] = caplog.records
    assert told.levelno == logging.CRITICAL
    assert "thread MainThread" in told.message
    assert "test_stacks_are_told_once" in told.message
    silence[0] = 21.0
    watchdog.look()
    assert left == [STUCK]


def test_it_looks_by_itself_until_it_is_stopped():
    left = Event()
    silence = itertools.count()
    watchdog = Watchdog(lambda: next(silence), patience_seconds=0.01, leave=lambda code: left.set())
    watchdog.start()
    assert left.wait(60)
    watchdog.stop()
    assert not watchdog._thread.is_alive()


def test_a_stuck_model_takes_no_work_until_it_goes_on(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    thread = ModelThread(loaded, limits=ServerLimits(), now=lambda: clock[0])
    service = Service(thread, model="tiny")
    assert service.patience_seconds == patience_of(loaded) == 60.0
    clock[0] = 1000.0  # the first turn may take its time
    assert thread.silent_seconds == 0.0
    begun, may_go_on, tick = Event(), Event(), thread.tick

    def stuck() -> bool:
        begun.set()
        may_go_on.wait()
        return tick()

    with TestClient(create_app(service, Security()), base_url="http://127.0.0.1:8000") as client:
        while not service.is_ready:
            time.sleep(0.01)
        assert client.get("/health").status_code == 200
        monkeypatch.setattr(thread, "tick", stuck)
        thread.wake()
        assert begun.wait(60)
        clock[0] += 60.0
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        clock[0] += 0.1
        assert client.get("/health").status_code == client.get("/ready").status_code == 503
        refused = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        may_go_on.set()
        while not service.is_ready:
            time.sleep(0.01)
        assert client.get("/health").status_code == 200
    clock[0] += 1e6
    assert thread.silent_seconds == 0.0
    assert not thread.is_alive(within_seconds=1e9)
