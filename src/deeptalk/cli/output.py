"""What the verbs print: one JSON object per line, or text for people; mistakes go to standard error."""

import json
import sys
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from rich.console import Console

from deeptalk.errors import DeepTalkError


def console() -> Console:
    """A console on standard output that prints what it is given, without guessing at markup."""
    return Console(highlight=False, markup=False, soft_wrap=True)


def print_json(values: Mapping[str, Any]) -> None:
    """One object on a line of its own, at once; numbers that JSON lacks become null."""
    print(json.dumps(finite(values), ensure_ascii=False, allow_nan=False), flush=True)


def finite(value: Any) -> Any:
    """What is to be JSON, with null for numbers that JSON lacks."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def complain(error: DeepTalkError) -> None:
    """One line on standard error; the verb goes on with its next input and exits with 2 at its end."""
    print(error, file=sys.stderr, flush=True)


def free_path(folder: Path, stem: str, taken: set[Path]) -> Path:
    """``folder/stem.wav``, numbered where an earlier input of this call has that name already."""
    path, number = folder / f"{stem}.wav", 2
    while path in taken:
        path, number = folder / f"{stem}-{number}.wav", number + 1
    taken.add(path)
    return path


def print_made(made: Mapping[str, Any], *, name: str, is_json: bool) -> None:
    """What a verb has made: a JSON object, or its figures under the one that ``name`` says."""
    if is_json:
        print_json(made)
    else:
        print_counts(made[name], {key: value for key, value in made.items() if key != name}, is_json=False)


def print_counts(name: str, counts: Mapping[str, Any], *, is_json: bool) -> None:
    """Figures under one name: a JSON object, or a line for each."""
    if is_json:
        print_json({"name": name, **counts})
        return
    screen = console()
    screen.print(name, style="bold")
    for key, value in counts.items():
        screen.print(f"  {key:<24}{value:,.2f}" if isinstance(value, float) else f"  {key:<24}{value}")
