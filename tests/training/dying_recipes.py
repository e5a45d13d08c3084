"""The recipes of `own_recipes.py`, for `deeptalk train --recipes`; after step DIE_AFTER it is killed."""

import os
import signal

from own_recipes import TINY_ALIGN, TINY_AUDIO_EXPERTS, TINY_JOINT, TINY_PREFERENCE, TINY_TEXT_EXPERTS

from deeptalk.training.metrics import MetricsWriter

__all__ = ["TINY_ALIGN", "TINY_AUDIO_EXPERTS", "TINY_JOINT", "TINY_PREFERENCE", "TINY_TEXT_EXPERTS"]

_write = MetricsWriter.write


def _write_and_die(writer: MetricsWriter, line: dict) -> None:
    _write(writer, line)
    if str(line["step"]) == os.environ["DIE_AFTER"]:
        os.kill(os.getpid(), signal.SIGKILL)


if "DIE_AFTER" in os.environ:
    MetricsWriter.write = _write_and_die
