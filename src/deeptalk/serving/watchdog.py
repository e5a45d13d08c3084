"""The watchdog: a process whose model thread is stuck tells where, and ends for its supervisor to restart."""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from threading import Event, Thread, enumerate

from deeptalk.decoding import LoadedModel

_logger = logging.getLogger(__name__)

STUCK = 70
"""The exit status of a process that was stuck."""


def patience_of(loaded: LoadedModel) -> float:
    """How many seconds a tick of this model may last: on a CPU much longer than on an accelerator."""
    return 60.0 if loaded.model.device.type == "cpu" else 10.0


class Watchdog:
    """Asks again and again for how long nothing has happened.

    After ``patience_seconds`` the stacks of all threads go to the log, after as many again the process ends.
    """

    def __init__(
        self,
        silent_seconds: Callable[[], float],
        *,
        patience_seconds: float,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self._silent_seconds, self._patience, self._leave = silent_seconds, patience_seconds, leave
        self._told_at: float | None = None
        self._is_over = Event()
        self._thread = Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look, ten times in the time of its patience."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._is_over.set()
        self._thread.join()

    def look(self) -> None:
        """Tell or leave where that is due; a process that slept and goes on has its patience anew."""
        silent = self._silent_seconds()
        if silent <= self._patience:
            self._told_at = None
        elif self._told_at is None:
            self._told_at = silent
            _logger.critical("nothing has happened for %.0f s; all threads:\n%s", silent, _stacks())
        elif silent - self._told_at >= self._patience:
            _logger.critical("nothing has happened for %.0f s: the process ends.", silent)
            self._leave(STUCK)

    def _run(self) -> None:
        while not self._is_over.wait(self._patience / 10):
            self.look()


def _stacks() -> str:
    """Where every thread stands: names, files and lines, no values."""
    names = {thread.ident: thread.name for thread in enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        parts += [f"thread {names.get(ident, ident)}:\n", *traceback.format_stack(frame)]
    return "".join(parts)
