"""Long jobs in processes of their own, some at a time, one thread each; Ctrl-C lets them save."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deeptalk.cli.pipeline import last_line
from deeptalk.errors import DeepTalkError
from deeptalk.training.interruption import Interruption

_POLL_SECONDS = 0.5
_INTERRUPTED = (130, -signal.SIGTERM, -signal.SIGINT)


class JobFailedError(DeepTalkError):
    """A job's process ended with an error, which its log tells."""


class Show(Protocol):
    """Draws a bar: what, how much is done, of how much or None, and a note."""

    def __call__(self, name: str, done: int, total: int | None, note: str = "", /) -> None:
        """Draw it anew."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """``done`` of ``total`` steps, None where that isn't known, and a note."""

    done: int = 0
    total: int | None = None
    note: str = ""


def unknown() -> Progress:
    """Of a job that doesn't tell."""
    return Progress()


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A command, what has to be done before it (if that is to be done at all), and where it writes."""

    name: str
    command: tuple[str, ...]
    log: Path
    after: tuple[str, ...] = ()
    progress: Callable[[], Progress] = unknown


def run_jobs(jobs: Sequence[Job], *, processes: int, show: Show) -> bool:
    """Run all jobs, at most ``processes`` at a time; False when interrupted.

    What a job prints goes to its log. A bar called *all* adds up the jobs that tell how much they do.

    Raises:
        JobFailedError: a job failed; what runs beside it is stopped first.
    """
    waiting, running = list(jobs), dict[str, tuple[Job, subprocess.Popen[bytes]]]()
    with Interruption() as interruption:
        try:
            while (waiting or running) and not interruption.requested:
                undone = {job.name for job in waiting} | running.keys()
                for job in [job for job in waiting if undone.isdisjoint(job.after)]:
                    if len(running) < processes:
                        waiting.remove(job)
                        running[job.name] = (job, _begin(job))
                time.sleep(_POLL_SECONDS)
                _show(jobs, running, show)
                for name, (job, process) in list(running.items()):
                    code = process.poll()
                    if code is None:
                        continue
                    del running[name]
                    if code in _INTERRUPTED:
                        return False
                    if code:
                        why = last_line(job.log) or "it said nothing"
                        raise JobFailedError(f"{name} failed (exit {code}): {why} ({job.log} has it all).")
        finally:  # nothing goes on running: what still does saves itself first
            for _, process in running.values():
                process.send_signal(signal.SIGTERM)
            for _, process in running.values():
                process.wait()
        return not interruption.requested


def _begin(job: Job) -> "subprocess.Popen[bytes]":
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        # in a session of its own, so that Ctrl-C asks it once: by the signal above
        return subprocess.Popen(
            job.command,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def _show(jobs: Sequence[Job], running: dict[str, tuple[Job, "subprocess.Popen[bytes]"]], show: Show) -> None:
    told = {job.name: job.progress() for job in jobs}
    for name in running:
        show(name, told[name].done, told[name].total, told[name].note)
    known = [one for one in told.values() if one.total is not None]
    if len(known) > 1:
        show("all", sum(one.done for one in known), sum(one.total or 0 for one in known))
