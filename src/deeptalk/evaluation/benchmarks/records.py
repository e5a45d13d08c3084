"""Reading data files line by line: what is wrong with one is told with its file and line."""

import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import SEEK_END, StringIO
from pathlib import Path
from typing import Any

from deeptalk.errors import DataError

SETTINGS, RECOGNISER, TIMING = "run.json", "recogniser.json", "timing.json"
"""Beside a run's answers: what they are of, who has listened to them, and how long they took."""

UNCLAIMED = ("git", "device")
"""Of what a run notes of itself, what may change while it goes on: it decides no answer."""


_SPLIT = re.compile(
    r"(?:^|[-_.])((?:train|dev|valid|validation|test|eval|evaluation)(?:[-_](?:clean|other|net|meeting))?)$",
    re.IGNORECASE,
)
"""The end of a name, with what LibriSpeech and WenetSpeech put behind it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One record of a file, and where it stands, for complaints."""

    values: Mapping[str, Any]
    place: str

    def text(self, name: str, *, default: str | None = None) -> str:
        """The text of a field; DataError where it is no text, or is missing and has no default."""
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise DataError(f"{self.place}: {name!r} must be a text, got {value!r}.")
        return value


def claimed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of settings those that tell one run from another."""
    return {name: value for name, value in settings.items() if name not in UNCLAIMED}


def split_of(name: str) -> str | None:
    """Which split of its set a file or folder says that it is by its name (test-clean); None if none."""
    found = _SPLIT.search(name)
    return found and found[1]


def read_lines(path: Path) -> list[tuple[str, str]]:
    """The lines that are not blank, each after its place ("FILE, line 3")."""
    lines = enumerate(_read(path).split("\n"), start=1)  # not splitlines: a text may hold U+2028
    return [(f"{path}, line {number}", line.rstrip("\r")) for number, line in lines if line.strip()]


def read_json(path: Path) -> list[Row]:
    """The objects of a JSON list, or of JSON lines."""
    if not _read(path).lstrip().startswith("["):
        return [_row(place, _parse(place, line)) for place, line in read_lines(path)]
    return [_row(f"{path}, entry {n}", value) for n, value in enumerate(_parse(str(path), _read(path)))]


def read_texts(path: Path, *, field: str) -> dict[str, str]:
    """Of JSON lines with an ``id`` the text in ``field``, without those where it is null.

    Raises:
        DataError: a line lacks the field, or an id comes twice.
    """
    rows = read_json(path)
    for row in rows:
        if field not in row.values:
            raise DataError(f"{row.place}: there is no {field!r}; null stands for no answer.")
    kept = [row for row in rows if row.values[field] is not None]
    return unique((row.place, row.text("id"), row.text(field)) for row in kept)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record to a file that grows while a run lasts; file and folder are made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(max(0, file.seek(0, SEEK_END) - 1))
        is_begun = file.read() in (b"", b"\n")  # else the last run was killed while it wrote
        file.write(b"\n" * (not is_begun) + json.dumps(record).encode() + b"\n")


def read_appended(path: Path) -> list[Row]:
    """The records of `append_line` but those cut off in writing; none where there is no file."""
    rows = []
    for place, line in read_lines(path) if path.exists() else ():
        try:
            rows.append(_row(place, _parse(place, line)))
        except DataError:
            if not line.startswith("{"):
                raise
    return rows


def read_csv(path: Path) -> list[Row]:
    """The rows of a CSV file with a header."""
    reader = csv.DictReader(StringIO(_read(path), newline=""), strict=True)
    try:
        return [Row(values=values, place=f"{path}, line {reader.line_num}") for values in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: no CSV ({error}).") from error


def read_pairs(path: Path) -> dict[str, str]:
    """A first word and the rest of its line, as in Kaldi's files; the rest may be empty."""
    entries = []
    for place, line in read_lines(path):
        name, *rest = line.split(maxsplit=1)
        entries.append((place, name, rest[0].strip() if rest else ""))
    return unique(entries)


def unique(entries: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """A table of entries of place, id and value; DataError where an id comes twice."""
    table: dict[str, str] = {}
    for place, name, value in entries:
        if name in table:
            raise DataError(f"{place}: the id {name!r} comes twice.")
        table[name] = value
    return table


def check_ids(path: Path, ids: Iterable[str]) -> None:
    """DataError where an id comes twice or there is none."""
    if not unique((str(path), name, "") for name in ids):
        raise DataError(f"{path}: there is nothing in it.")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read ({error}).") from error


def _parse(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{place}: no JSON ({error}).") from error


def _row(place: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{place}: an object is expected, got {str(value)[:40]!r}.")
    return Row(values=value, place=place)
