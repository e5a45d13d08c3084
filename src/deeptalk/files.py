"""Files that appear whole or not at all, and what tells one from another."""

import os
from hashlib import file_digest
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text (UTF-8) beside its place and rename it; the folder is made where it is missing.

    A reader, or a crash at any time, finds the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def digest_of(path: Path) -> str | None:
    """Sixteen hex digits of a file's SHA-256; None where there is no file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()[:16]
