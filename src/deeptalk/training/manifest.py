"""What a checkpoint consists of: the size and SHA-256 of each file, written after all others."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from deeptalk.errors import CheckpointError

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One file of a checkpoint."""

    name: str
    bytes: int
    sha256: str


def file_of(path: Path) -> File:
    """A file as it is on the disk."""
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return File(name=path.name, bytes=path.stat().st_size, sha256=digest)


def write_manifest(folder: Path, *, files: Iterable[File], about: Mapping[str, Any]) -> None:
    """Write a folder's manifest; ``about`` stands in it, too."""
    listed = {file.name: {k: v for k, v in asdict(file).items() if k != "name"} for file in files}
    (folder / MANIFEST).write_text(json.dumps({**about, "files": listed}, indent=1))


def read_manifest(folder: Path) -> dict[str, Any]:
    """A folder's manifest; empty where it has none.

    Raises:
        CheckpointError: it can't be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read ({error}).") from error


def broken(folder: Path) -> str:
    """Why a folder is not what its manifest says; empty where it is, or where there is no manifest."""
    try:
        listed = read_manifest(folder).get("files", {})
        for name, wanted in listed.items():
            found = file_of(folder / name)
            if (found.bytes, found.sha256) != (wanted["bytes"], wanted["sha256"]):
                return f"{name} is not what the manifest says"
    except (OSError, KeyError, TypeError, AttributeError, CheckpointError) as error:
        return str(error)
    return ""
