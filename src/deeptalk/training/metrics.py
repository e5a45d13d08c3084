"""One JSON object per line for every step, readable by any tool while the run goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deeptalk.files import write_text


class MetricsWriter:
    """Appends JSON lines to a file; on a resumed run, lines after the resumed step are dropped."""

    def __init__(self, path: Path, *, resume_step: int = 0) -> None:
        kept = [line for line in _lines(path) if line.get("step", 0) <= resume_step] if resume_step else []
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.path = path

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line; numbers that JSON lacks (NaN, infinity) become null."""
        finite = {key: None if _is_not_finite(value) else value for key, value in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(finite) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file; a line cut short by a crash is left out."""
    return list(_lines(path))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and (value != value or value in (float("inf"), float("-inf")))
