"""Sets that are published as Parquet with their sounds inside (VoiceBench), as files that all else reads."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deeptalk.errors import ConfigError, DataError
from deeptalk.files import write_text

QUESTIONS, FOLDER = "questions.jsonl", "audio"
BATCH_ROWS = 32

_QUESTION, _ANSWER, _ID = ("prompt", "question"), ("reference", "answers", "answer"), ("id", "index")
_ENDINGS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}


def unpack(path: Path, folder: Path, *, answer_column: str | None = None) -> tuple[int, int]:
    """Write ``questions.jsonl`` (layout ``native``) and ``audio/ID``; the numbers of questions and of sounds.

    Without an ``id`` a question is known by its row. What only a judge can score has no right answers.

    Raises:
        ConfigError: ``pyarrow`` is not installed.
        DataError: the file is no Parquet, or lacks the questions or the named column.
    """
    lines, num_sounds = [], 0
    for number, row in enumerate(_rows(path)):
        columns = {name: next((c for c in names if c in row), None) for name, names in _NAMES.items()}
        answers = answer_column or columns["answer"]
        if columns["question"] is None or (answer_column is not None and answer_column not in row):
            wanted = answer_column or " or ".join(_QUESTION)
            raise DataError(f"{path}: there is no column {wanted}; there are: {', '.join(row)}.")
        name = str(number if columns["id"] is None else row[columns["id"]])
        if Path(name).name != name or name in ("", ".."):
            raise DataError(f"{path}, row {number}: the id {name!r} can't name a sound file.")
        sound = _sound(row.get("audio"))
        place = None
        if sound is not None:
            place = f"{FOLDER}/{name}{_ENDINGS.get(sound[:4], '.mp3')}"
            (folder / FOLDER).mkdir(parents=True, exist_ok=True)
            (folder / place).write_bytes(sound)
            num_sounds += 1
        right = None if answers is None else row[answers]
        given = [] if right is None else list(right) if isinstance(right, list) else [right]
        lines.append(
            {
                "id": name,
                "audio": place,
                "question": str(row[columns["question"]] or ""),
                "answers": [str(one) for one in given],
            }
        )
    if not lines:
        raise DataError(f"{path}: there is nothing in it.")
    write_text(folder / QUESTIONS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return len(lines), num_sounds


_NAMES: Mapping[str, tuple[str, ...]] = {"question": _QUESTION, "answer": _ANSWER, "id": _ID}


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a file, some at a time: sounds are large."""
    try:
        from pyarrow import ArrowException  # pyright: ignore[reportMissingImports]
        from pyarrow.parquet import ParquetFile  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow: pip install 'deeptalk[parquet]'.") from error
    try:
        for batch in ParquetFile(path).iter_batches(batch_size=BATCH_ROWS):
            yield from batch.to_pylist()
    except (OSError, ArrowException) as error:
        raise DataError(f"{path}: no Parquet that can be read ({str(error).splitlines()[0]}).") from error


def _sound(value: Any) -> bytes | None:
    """The bytes of a sound as `datasets` stores it; None without."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return value if isinstance(value, bytes) and value else None
