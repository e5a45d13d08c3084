"""What was freed goes back to the system when nobody talks."""

import asyncio
import platform
from pathlib import Path
from threading import Event

import pytest
from random_model import random_model

from deeptalk.serving import model_thread
from deeptalk.serving.allocator import return_freed_memory
from deeptalk.serving.limits import ServerLimits
from deeptalk.serving.model_thread import ModelThread


class Nothing:
    """Work that is done at once."""

    def advance(self, *, most: int) -> bool:
        return True


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_memory_below_used_pieces_is_returned() -> None:
    pieces = [bytearray(3_000) for _ in range(20_000)]
    last = pieces.pop()
    full = resident_bytes()
    del pieces
    return_freed_memory()
    assert resident_bytes() < full - 40_000_000
    assert len(last) == 3_000


def test_it_is_returned_once_after_each_time_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    returned, is_returned = [], Event()

    def note() -> None:
        returned.append(True)
        is_returned.set()

    monkeypatch.setattr(model_thread, "return_freed_memory", note)
    thread = ModelThread(random_model(), limits=ServerLimits())
    thread.start()
    try:
        assert is_returned.wait(60)
        is_returned.clear()
        asyncio.run(thread.work(Nothing()))
        assert is_returned.wait(60)
    finally:
        thread.stop()
    assert len(returned) == 2
