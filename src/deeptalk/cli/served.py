"""A server of its own for a measurement, and what a server tells over HTTP."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deeptalk.errors import ConfigError


@contextmanager
def served(*options: str, log: Path = Path(os.devnull)) -> Iterator[str]:
    """``deeptalk serve`` on a free port of this machine while the block runs, ready; its Realtime address.

    What the server tells goes behind what is in the file ``log``. ConfigError where it does not start.
    """
    command = [sys.executable, "-m", "deeptalk", "serve", "--port", "0", *options]
    surroundings = {name: value for name, value in os.environ.items() if name != "DEEPTALK_API_KEY"}
    with (
        log.open("a", encoding="utf-8") as told_here,
        subprocess.Popen(
            command, env=surroundings, stdout=subprocess.PIPE, stderr=told_here, text=True
        ) as server,
    ):
        try:
            assert server.stdout is not None
            base = re.match(r"http(s?://\S+/v1)", server.stdout.readline())
            if base is None:
                raise ConfigError(f"The server has not started: try deeptalk {' '.join(command[3:])}")
            url = f"ws{base[1]}/realtime"
            while told(url, "/ready") is None:
                if server.poll() is not None:
                    raise ConfigError("The server has ended before it was ready.")
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()


def told(url: str, path: str, *, key: str | None = None) -> str | None:
    """What the server of a Realtime address says at another path; None where it says nothing good."""
    address = re.sub("^ws", "http", url).partition("/v1/")[0] + path
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            return answer.read().decode("utf-8", errors="replace")
    except (OSError, ValueError):
        return None
