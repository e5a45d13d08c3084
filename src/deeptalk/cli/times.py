"""How long the stages of a long run took, added up over its interruptions."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deeptalk.files import write_text


class Times:
    """Seconds by name in a JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time of what happens inside, even if it is interrupted."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - started)

    def add(self, name: str, seconds: float) -> None:
        """Add to what a name has taken so far."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        write_text(self.path, json.dumps(self.seconds, indent=1) + "\n")
