"""By which code a report was made, and on what: every report tells both."""

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch

_CODE = Path(__file__).parents[2]


def scorer() -> str:
    """The release of this package, as reports name it."""
    return f"deeptalk {version('deeptalk')}"


@lru_cache
def git_hash() -> str | None:
    """The commit of the code, with a plus where something isn't committed; None outside of a checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(_CODE), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # else an installed copy in somebody's checkout
        return git("rev-parse", "--short=12", "HEAD") + "+" * bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.CalledProcessError):
        return None


def device_name(device: torch.device) -> str:
    """What computes there: the GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
