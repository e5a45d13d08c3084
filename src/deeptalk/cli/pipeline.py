"""The stages of a pipeline on all cores: what doesn't wait for each other trains side by side."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deeptalk.cli.times import Times
from deeptalk.errors import DeepTalkError
from deeptalk.training.interruption import Interruption
from deeptalk.training.recipe import Recipe
from deeptalk.training.run import METRICS, is_finished, is_shareable
from deeptalk.training.stage import Places

LOG = "train.log"
_POLL_SECONDS = 0.5
_INTERRUPTED = 130

Show = Callable[..., None]


class StageFailedError(DeepTalkError):
    """A stage's process ended with an error, which its log tells."""


def run_pipeline(
    recipes: Sequence[Recipe],
    *,
    root: Path,
    processes: int,
    show: Show,
    times: Times,
    compiled: bool = False,
) -> bool:
    """Train all recipes; False when interrupted, to be gone on with by the same call.

    A recipe whose micro-batches `processes` can share runs on all of them alone; the others run in one
    process each, as many at a time as there are. What a stage prints goes to `root/NAME/train.log`.

    Raises:
        StageFailedError: a stage failed; what runs beside it is stopped and saved.
    """
    places = Places(root=root, data=root / "data")
    finished = {recipe.name for recipe in recipes if is_finished(recipe, places)}
    waiting = [recipe for recipe in recipes if recipe.name not in finished]
    running: dict[str, _Stage] = {}
    with Interruption() as interruption:
        try:
            while (waiting or running) and not interruption.requested:
                for recipe in _startable(waiting, finished, running, processes):
                    waiting.remove(recipe)
                    running[recipe.name] = _Stage(recipe, places, processes, compiled)
                time.sleep(_POLL_SECONDS)
                for name, stage in list(running.items()):
                    stage.show(show)
                    code = stage.exit_code()
                    if code is None:
                        continue
                    del running[name]
                    times.add(name, stage.seconds)
                    if code == _INTERRUPTED:
                        return False
                    if code:
                        raise StageFailedError(f"stage {name!r} failed (exit {code}); {stage.log} says why.")
                    finished.add(name)
        finally:  # nothing goes on running: what still does saves itself first
            for name, stage in running.items():
                stage.stop()
                times.add(name, stage.seconds)
        return not interruption.requested


def command_of(recipe: Recipe, *, root: Path, compiled: bool, is_shared: bool) -> list[str]:
    """The verb that trains one stage in a process of its own."""
    command = [sys.executable, "-m", "deeptalk", "train", recipe.name, "--resume", "--root", str(root)]
    return command + ["--compile"] * compiled + ["--share"] * is_shared


class _Stage:
    """A stage that trains in one process, or in several that share its micro-batches."""

    def __init__(self, recipe: Recipe, places: Places, processes: int, compiled: bool) -> None:
        self.recipe, self.log = recipe, places.root / recipe.name / LOG
        self.metrics = places.run(recipe.name) / METRICS
        self.started = time.monotonic()
        number = processes if _is_shared(recipe, processes) else 1
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            command = command_of(recipe, root=places.root, compiled=compiled, is_shared=number > 1)
            # in sessions of their own, so that Ctrl-C asks them once: by `stop`
            self.processes = [
                subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
                for env in _environments(number)
            ]

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.started

    def exit_code(self) -> int | None:
        """None while it runs, else the first code that isn't 0; one failed process ends the others."""
        codes = [process.poll() for process in self.processes]
        failed = next((code for code in codes if code), 0)
        if None not in codes:
            return failed
        if failed and failed != _INTERRUPTED:
            self.stop()
            return failed
        return None

    def stop(self) -> None:
        """Ask for an end after this step, and wait for it."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait()

    def show(self, show: Show) -> None:
        """The last line of the metrics as a bar."""
        last = last_line(self.metrics)
        if last:
            report = json.loads(last)
            show(self.recipe.name, report["step"], report["num_steps"], f"loss {report['loss']:.3f}")


def _is_shared(recipe: Recipe, processes: int) -> bool:
    return processes > 1 and is_shareable(recipe, processes)


def _startable(
    waiting: Sequence[Recipe], finished: set[str], running: dict[str, _Stage], processes: int
) -> list[Recipe]:
    """What may start now, in the order of the pipeline; a stage that takes all processes waits for them."""
    if any(_is_shared(stage.recipe, processes) for stage in running.values()):
        return []
    ready = [recipe for recipe in waiting if finished.issuperset(recipe.starts_from)]
    alone = [recipe for recipe in ready if not _is_shared(recipe, processes)]
    if alone or running:
        return alone[: processes - len(running)]
    return ready[:1]


def _environments(number: int) -> list[dict[str, str]]:
    """What each process has to know: one thread, and of several the place among them."""
    shared = {**os.environ, "OMP_NUM_THREADS": "1"}
    if number == 1:
        return [shared]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(number)}
    shared["LOCAL_WORLD_SIZE"] = str(number)
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]


def last_line(path: Path) -> str:
    """The last whole line of a file that another process is writing; empty where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 20_000))
        lines = file.read().split(b"\n")[:-1]
    return lines[-1].decode() if lines else ""
