"""Jobs in processes of their own: order, how many at a time, failures, and being stopped."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from deeptalk.cli.jobs import Job, JobFailedError, Progress, run_jobs


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deeptalk.cli.jobs._POLL_SECONDS", 0.01)


def job(folder: Path, name: str, script: str = "", **more: Any) -> Job:
    text = f"open({str(folder / 'order')!r}, 'a').write({name + chr(10)!r})\n{script}"
    return Job(name=name, command=(sys.executable, "-c", text), log=folder / "logs" / f"{name}.log", **more)


def silent(*_: object) -> None:
    pass


def test_a_job_waits_for_those_before_it(tmp_path):
    jobs = [
        job(tmp_path, "b", after=("a", "not among them")),
        job(tmp_path, "a", "import time; time.sleep(0.2)"),
    ]
    assert run_jobs(jobs, processes=2, show=silent)
    assert (tmp_path / "order").read_text().split() == ["a", "b"]


def test_one_at_a_time_where_one_is_asked_for(tmp_path):
    script = f"""
from pathlib import Path
mark = Path({str(tmp_path / "mark")!r})
mark.touch(exist_ok=False)
mark.unlink()
"""
    assert run_jobs([job(tmp_path, f"j{n}", script) for n in range(3)], processes=1, show=silent)


def test_a_failure_names_the_log_and_stops_the_others(tmp_path):
    sleeper = job(tmp_path, "sleeper", "import time; time.sleep(60)")
    failing = job(tmp_path, "failing", "import sys; print('no room'); sys.exit(3)")
    with pytest.raises(JobFailedError, match=r"failing failed \(exit 3\): no room .*failing.log"):
        run_jobs([sleeper, failing], processes=2, show=silent)
    assert "no room" in (tmp_path / "logs" / "failing.log").read_text()


@pytest.mark.parametrize("how", ["sys.exit(130)", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_a_job_that_was_interrupted_ends_the_run(tmp_path, how):
    jobs = [job(tmp_path, "a", f"import os, signal, sys; {how}"), job(tmp_path, "b", after=("a",))]
    assert not run_jobs(jobs, processes=2, show=silent)
    assert (tmp_path / "order").read_text().split() == ["a"]


def test_an_interruption_asks_every_job_to_save(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    script = f"""
import os, signal, sys, time
from pathlib import Path
saved = Path({str(tmp_path)!r}) / f"saved-{{os.getpid()}}"
signal.signal(signal.SIGTERM, lambda *_: saved.touch() or sys.exit(130))
os.kill({os.getpid()}, signal.SIGINT)
time.sleep(60)
"""
    assert not run_jobs([job(tmp_path, "a", script)], processes=1, show=silent)
    assert len(list(tmp_path.glob("saved-*"))) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_bars_show_each_job_and_all_of_them(tmp_path):
    seen = {}
    jobs = [
        job(tmp_path, "a", progress=lambda: Progress(done=2, total=5, note="loss 1")),
        job(tmp_path, "b", progress=lambda: Progress(done=1, total=3)),
        job(tmp_path, "c"),
    ]
    assert run_jobs(jobs, processes=3, show=lambda name, *told: seen.__setitem__(name, told))
    assert seen["a"] == (2, 5, "loss 1")
    assert seen["all"] == (3, 8)
    assert seen["c"] == (0, None, "")
