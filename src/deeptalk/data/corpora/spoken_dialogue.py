"""Spoken questions with spoken answers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deeptalk.data.corpora.corpus import Corpus, Manifests
from deeptalk.data.manifest import Record
from deeptalk.errors import DataError

_SPEECH = "<|audio|>"


def _read_audio_qa(folder: Path) -> Manifests:
    """JSON or JSON lines in either layout that names AudioQA-1M's recordings.

    VITA-Audio's has ``messages`` of ``role`` and ``content``, with ``<|audio|>`` where speech stands, and
    ``audios`` in the same order; questions have no words then. The authors' of DeepTalk has
    ``conversations`` of ``role``, ``content``, ``wavpath`` and ``codec``: seven whole numbers a frame in a
    text file, breadth-first. Paths are relative to ``folder``, or to the one that holds ``datasets/``.
    """
    paths = sorted(path for path in folder.rglob("*.json*") if path.suffix in (".json", ".jsonl"))
    if not paths:
        raise DataError(f"{folder} holds no JSON of AudioQA-1M; its recordings alone don't say what is said.")
    return {"audioqa-1m": (record for path in paths for record in _read_file(path, folder))}


def _read_file(path: Path, folder: Path) -> Iterator[Record]:
    for number, row in enumerate(_rows(path)):
        name = f"audioqa-1m-{path.relative_to(folder).with_suffix('')}-{number}"
        if not isinstance(row, dict):
            yield {"id": name}
        elif isinstance(row.get("conversations"), list):
            yield {"id": name, "messages": [_told(turn, folder) for turn in row["conversations"]]}
        else:
            yield {"id": name, "messages": _marked(row.get("messages"), row.get("audios"), folder)}


def _rows(path: Path) -> Iterator[Any]:
    """The objects of a list, or of lines."""
    try:
        with path.open(encoding="utf-8") as file:
            if path.suffix == ".jsonl":
                yield from (json.loads(line) for line in file if line.strip())
                return
            rows = json.load(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable as JSON ({error}).") from error
    yield from rows if isinstance(rows, list) else (rows,)


def _told(turn: object, folder: Path) -> Mapping[str, Any]:
    """A turn of the authors' layout."""
    if not isinstance(turn, dict):
        return {}
    message = {"role": turn.get("role"), "text": _plain(turn.get("content"))}
    if isinstance(turn.get("wavpath"), str):
        message["audio"] = _place(folder, turn["wavpath"])
    if message["role"] == "assistant" and isinstance(turn.get("codec"), str):
        message |= {"codes": _place(folder, turn["codec"]), "order": "breadth"}
    if isinstance(turn.get("speaker"), str):
        message["speaker"] = turn["speaker"]
    return message


def _marked(messages: object, audios: object, folder: Path) -> Sequence[Mapping[str, Any]] | None:
    """The turns of VITA-Audio's layout; None where marks and recordings don't fit each other."""
    if not isinstance(messages, list) or not isinstance(audios, list):
        return None
    left, turns = list(audios), []
    for given in messages:
        if not isinstance(given, dict) or not isinstance(given.get("content"), str):
            return None
        message = {"role": given.get("role"), "text": _plain(given["content"])}
        if _SPEECH in given["content"]:
            if not left or not isinstance(left[0], str):
                return None
            message["audio"] = _place(folder, left[0])
            if message["role"] == "assistant":
                message["speaker"] = Path(left[0]).stem.rpartition("_")[2]  # ID_F10.wav
            left.pop(0)
        turns.append(message)
    return None if left else turns


def _plain(content: object) -> object:
    return content.replace(_SPEECH, "").strip() if isinstance(content, str) else content


def _place(folder: Path, given: str) -> str:
    """The file that a path of the corpus means: below the folder, or below one of those around it."""
    for base in (folder, *folder.resolve().parents):
        if (base / given).is_file():
            return str((base / given).resolve())
    return str(folder / given)


AUDIO_QA = Corpus(
    name="audioqa-1m",
    kind="dialogue",
    licence="Apache-2.0",
    source="https://huggingface.co/datasets/shenyunhang/AudioQA-1M",
    lang=None,
    read=_read_audio_qa,
)
