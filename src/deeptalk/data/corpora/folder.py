"""A corpus of one's own: recordings with texts beside them, and JSON lines as docs/data.md describes them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeptalk.data.manifest import Kind, Record, kind_of
from deeptalk.errors import DataError

SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
RECORDINGS = "recordings"


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnManifest:
    """A manifest of somebody's own: its kind, and its records while they are read."""

    kind: Kind
    records: Iterator[Record]


def read_folder(folder: Path) -> dict[str, OwnManifest]:
    """By name what a folder holds: ``recordings`` of sounds with texts, and each ``*.jsonl`` by its stem.

    A recording is a sound, at any depth, with a ``.txt`` of the same name beside it. Paths in JSON lines are
    relative to their file; a line without ``id`` is called by its number.

    Raises:
        DataError: there is nothing of the two, or the first line of a file is no record.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give one with recordings and texts, or with JSON lines.")
    found: dict[str, OwnManifest] = {}
    sounds = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SOUNDS]
    told = [path for path in sounds if path.with_suffix(".txt").is_file()]
    if told:
        found[RECORDINGS] = OwnManifest(kind="recording", records=_recordings(folder, told))
    for path in sorted(folder.glob("*.jsonl")):
        if path.stem in found:
            raise DataError(f"{path} and the recordings beside it would be one manifest; call it otherwise.")
        found[path.stem] = OwnManifest(kind=_kind(path), records=_lines(path))
    if not found:
        raise DataError(
            f"{folder} holds no sound ({', '.join(SOUNDS)}) with a .txt of its name beside it, and no .jsonl."
        )
    return found


def _recordings(folder: Path, paths: list[Path]) -> Iterator[Record]:
    for path in paths:
        text = path.with_suffix(".txt").read_text(encoding="utf-8", errors="replace").strip()
        yield {
            "id": str(path.relative_to(folder).with_suffix("")),
            "audio": str(path.resolve()),
            "text": text,
        }


def _kind(path: Path) -> Kind:
    first = next(_lines(path), {})
    kind = kind_of(first)
    if kind is None:
        raise DataError(f"{path}: its first line is no record; docs/data.md says what one has.")
    if kind != "dialogue":
        return kind
    has_speech = any(
        "audio" in message or "codes" in message
        for record in _lines(path)
        for message in record.get("messages") or ()
        if isinstance(message, dict)
    )
    return "dialogue" if has_speech else "text"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; a line that can't be read is an empty one, to be rejected and counted."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            yield (
                _placed({"id": f"{path.stem}-{number}", **record}, path.parent)
                if isinstance(record, dict)
                else {}
            )


def _placed(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The record with paths that hold wherever its manifest lies."""
    parts = {side: _absolute(record[side], folder) for side in ("win", "lose") if side in record}
    if isinstance(record.get("messages"), list):
        parts["messages"] = [_absolute(message, folder) for message in record["messages"]]
    return {**_absolute(record, folder), **parts}


def _absolute(part: Any, folder: Path) -> Any:
    if not isinstance(part, Mapping):
        return part
    paths = {
        key: str((folder / part[key]).resolve())
        for key in ("audio", "codes")
        if isinstance(part.get(key), str)
    }
    return {**part, **paths}
