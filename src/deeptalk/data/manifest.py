"""JSONL manifests: recordings with text, dialogues, text and pairs, validated on the way in and out.

One object per line (method.md, section 9.3): every record has an `id`; a recording has `audio` and `text`, a
sentence `text` alone; a dialogue has `messages` of `role` and `text`, a user message optionally with `audio`,
an assistant message with `codes`, `order` and `speaker`. A preference has a `prompt`, its `text`, and two
ways of saying it, `win` and `lose`, each with `codes`, `order`, `wer` and `transcript`. Speech is a file, or
a pack with `offset` and `duration` in seconds. Bad records are rejected, never repaired, and counted by
reason.
"""

import json
import math
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from weakref import finalize

from deeptalk.errors import DataError

Kind = Literal["recording", "sentence", "dialogue", "text", "preference"]
Record = Mapping[str, Any]

ROLES = ("system", "user", "assistant")
CODE_ORDERS = ("breadth", "depth")
SIDES = ("win", "lose")
"""The two answers of a preference."""
_MISSING = "{path}: no such manifest; write it with `deeptalk prepare` or name another one"


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestContent:
    """The records of a manifest that can be used, and how many were rejected for which reason."""

    records: tuple[Record, ...]
    rejects: Counter[str] = field(default_factory=Counter)


class StoredRecords(Sequence[Record]):
    """Records of a manifest, each read from its line when it is asked for: twelve bytes of it stay in memory.

    ``places`` and ``lengths`` say where their lines stand; what others were left out for is in ``rejects``.
    """

    def __init__(
        self, path: Path, places: "array[int]", lengths: "array[int]", *, rejects: Counter[str]
    ) -> None:
        self.rejects = rejects
        self._places, self._lengths, self._folder = places, lengths, path.parent
        self._file = os.open(path, os.O_RDONLY)
        finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Record:  # pyright: ignore[reportIncompatibleMethodOverride]
        record = _parsed(os.pread(self._file, self._lengths[index], self._places[index]))
        assert record is not None, "it was read before"
        return _resolved(record, self._folder)


def write_manifest(path: Path, records: Iterable[Record], *, kind: Kind) -> int:
    """Write records as JSONL in one atomic step and count them; `DataError` names the first bad one."""
    return write_lines(path, (_checked(record, kind, path) for record in records))


def read_manifest(
    path: Path, *, kind: Kind, check: Callable[[Record], str | None] | None = None
) -> ManifestContent:
    """Read a manifest, keeping the good records in their order.

    `check` adds a test of the caller's, for instance of a code range, that returns a reason or None.
    Relative paths are resolved against the manifest's folder. Raises `DataError` where the file is missing.
    """
    rejects: Counter[str] = Counter()
    records = tuple(record for *_, record in _good(path, kind, check, rejects))
    return ManifestContent(records=records, rejects=rejects)


def index_manifest(
    path: Path,
    *,
    kind: Kind,
    check: Callable[[Record], str | None] | None = None,
    choose: Callable[[Record], bool] | None = None,
) -> StoredRecords:
    """What `read_manifest` keeps, for manifests of millions: records stay in the file, only places are kept.

    Records that `choose` doesn't want are passed over, neither kept nor rejected.
    """
    rejects: Counter[str] = Counter()
    places, lengths = array("Q"), array("I")
    for place, length, _ in _good(path, kind, check, rejects, choose=choose):
        places.append(place)
        lengths.append(length)
    return StoredRecords(path, places, lengths, rejects=rejects)


def read_whole_manifest(path: Path, *, kind: Kind) -> tuple[Record, ...]:
    """The records of a manifest that will be written again: `DataError` counts those that can't be used."""
    content = read_manifest(path, kind=kind)
    if content.rejects:
        faults = ", ".join(f"{count:,} {reason}" for reason, count in content.rejects.items())
        raise DataError(f"{path} has records that can't be used ({faults}); mend it, or prepare it first.")
    return content.records


def find_fault(record: Record, *, kind: Kind) -> str | None:
    """The reason why a record of this kind can't be used, or None; reasons are few and countable."""
    if not isinstance(record.get("id"), str) or not record["id"] or not _is_unicode(record["id"]):
        return "no id"
    if kind in ("recording", "sentence"):
        return _fault_of_text(record) or (_fault_of_audio(record) if kind == "recording" else None)
    if kind == "preference":
        return _fault_of_preference(record)
    return _fault_of_messages(record.get("messages"), with_speech=kind == "dialogue")


def kind_of(record: Record) -> Kind | None:
    """What kind of record this is by its fields; None for a stranger."""
    if "messages" in record:
        return "dialogue"
    if "win" in record:
        return "preference"
    if "audio" in record:
        return "recording"
    return "sentence" if "text" in record else None


def kind_of_manifest(path: Path) -> Kind | None:
    """What kind a manifest's first record is of; `DataError` where there is no such file."""
    return kind_of(_parsed(next((line for _, line in _lines(path)), b"{}")) or {})


def write_lines(path: Path, records: Iterable[Record]) -> int:
    """Write JSON lines through a temporary file that is renamed at the end; returns the number of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    number = 0
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                number += 1
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return number


def _good(
    path: Path,
    kind: Kind,
    check: Callable[[Record], str | None] | None,
    rejects: Counter[str],
    *,
    choose: Callable[[Record], bool] | None = None,
) -> Iterator[tuple[int, int, Record]]:
    """The good records of a manifest, with place and length of their lines; others are counted by reason."""
    seen: set[str] = set()
    for place, line in _lines(path):
        record = _parsed(line)
        if record is None:
            rejects["not a JSON object"] += 1
            continue
        reason = find_fault(record, kind=kind)
        if reason is None and record["id"] in seen:
            reason = "repeated id"
        if reason is None:
            seen.add(record["id"])
            record = _resolved(record, path.parent)
            if choose is not None and not choose(record):
                continue
            reason = None if check is None else check(record)
        if reason is not None:
            rejects[reason] += 1
            continue
        yield place, len(line), record


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that aren't empty, and the byte at which each begins."""
    if not path.is_file():
        raise DataError(_MISSING.format(path=path))
    place = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield place, line
            place += len(line)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line.decode("utf-8", errors="replace"))
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _checked(record: Record, kind: Kind, path: Path) -> Record:
    reason = find_fault(record, kind=kind)
    if reason is not None:
        raise DataError(f"{path}: record {record.get('id', '?')!r} can't be written as {kind}: {reason}")
    return record


def _fault_of_text(record: Record) -> str | None:
    text = record.get("text")
    if not isinstance(text, str) or not text.strip():
        return "empty text"
    return None if _is_unicode(text) else "text not Unicode"


def _is_unicode(text: str) -> bool:
    """Whether no half of a character stands alone, as JSON lets one: no tokenizer and no file takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fault_of_audio(record: Record) -> str | None:
    if not isinstance(record.get("audio"), str) or not record["audio"]:
        return "no audio"
    duration, offset = record.get("duration"), record.get("offset", 0.0)
    if duration is not None and not (_is_number(duration) and duration > 0):
        return "bad duration"
    return None if _is_number(offset) and offset >= 0 else "bad offset"


def _fault_of_messages(messages: object, *, with_speech: bool) -> str | None:
    if not isinstance(messages, list) or not messages:
        return "no messages"
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return "unknown role"
        is_heard = with_speech and "audio" in message
        is_untold = is_heard and message["role"] == "user" and message.get("text") == ""
        reason = None if is_untold else _fault_of_text(message)
        if reason is None and is_heard:
            reason = _fault_of_audio(message)
        if reason is None and not isinstance(message.get("speaker") or "", str):
            reason = "unknown speaker"
        if reason is None and with_speech and "codes" in message:
            reason = _fault_of_codes(message)
        if reason is not None:
            return reason
    return None if messages[-1]["role"] == "assistant" else "no answer at the end"


def _fault_of_preference(record: Record) -> str | None:
    if not isinstance(record.get("prompt"), str) or not record["prompt"].strip():
        return "empty prompt"
    if not _is_unicode(record["prompt"]):
        return "text not Unicode"
    if not isinstance(record.get("speaker") or "", str):
        return "unknown speaker"
    reason = _fault_of_text(record)
    for side in SIDES:
        reason = reason or _fault_of_answer(record.get(side), side)
    return reason or _fault_of_reference(record.get("ref_logp"))


def _fault_of_answer(answer: object, side: str) -> str | None:
    if not isinstance(answer, dict) or "codes" not in answer:
        return "no winner" if side == "win" else "no loser"
    if not _is_number(answer.get("wer")) or answer["wer"] < 0:
        return "bad wer"
    return _fault_of_codes(answer) if isinstance(answer.get("transcript"), str) else "no transcript"


def _fault_of_reference(reference: object) -> str | None:
    if reference is None:
        return None
    is_whole = (
        isinstance(reference, dict)
        and all(_is_number(reference.get(side)) for side in SIDES)
        and isinstance(reference.get("model"), str)
    )
    return None if is_whole else "bad reference"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _fault_of_codes(message: Record) -> str | None:
    if message.get("order") not in CODE_ORDERS:
        return "unknown order of codes"
    codes = message["codes"]
    if isinstance(codes, str):
        return None if codes else "no codes"
    if not isinstance(codes, list) or not codes:
        return "no codes"
    return fault_of_code_rows(codes)


def fault_of_code_rows(rows: Sequence[object], *, codebook_size: int | None = None) -> str | None:
    """The reason why codes, `[L][7]` or a flat list of 7 L numbers, can't be used, or None."""
    flat: list[Any] = []
    for row in rows:
        if isinstance(row, list | tuple):
            if len(row) != 7:
                return "codes not a multiple of seven"
            flat.extend(row)
        else:
            flat.append(row)
    if len(flat) % 7:
        return "codes not a multiple of seven"
    if not all(isinstance(code, int) for code in flat):
        return "codes not whole numbers"
    top = codebook_size if codebook_size is not None else 1 << 15
    return None if all(0 <= code < top for code in flat) else "code out of range"


def _resolved(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    messages = record.get("messages")
    if isinstance(messages, list):
        return {**record, "messages": [_with_paths(message, folder) for message in messages]}
    answers = {
        side: _with_paths(record[side], folder) for side in SIDES if isinstance(record.get(side), dict)
    }
    return _with_paths(record, folder) | answers


def _with_paths(part: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    paths = {key: str(folder / part[key]) for key in ("audio", "codes") if isinstance(part.get(key), str)}
    return {**part, **paths}
