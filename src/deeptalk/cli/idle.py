"""Whether a machine is idle: a measurement beside other work measures that work."""

import time
from pathlib import Path

MOST_BUSY = 0.05
"""Cores that other processes may keep busy during a measurement."""


def busy_cores(seconds: float = 2.0, *, source: Path = Path("/proc/stat")) -> float | None:
    """How many cores are kept busy while this process waits; None where the system doesn't tell."""
    before = _times(source)
    time.sleep(seconds)
    after = _times(source)
    if before is None or after is None:
        return None
    num_cores, spent, idle = after[0], after[1] - before[1], after[2] - before[2]
    return round(num_cores * (1 - idle / spent), 3) if spent else 0.0


def _times(source: Path) -> tuple[int, int, int] | None:
    """The number of cores, all ticks and the idle ones among them, waiting for disks included."""
    try:
        lines = source.read_text().splitlines()
    except OSError:
        return None
    ticks = [int(word) for word in lines[0].split()[1:9]]
    num_cores = sum(line.startswith("cpu") for line in lines) - 1
    return num_cores, sum(ticks), ticks[3] + ticks[4]
