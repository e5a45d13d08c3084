"""What a published corpus is here, and how its records become manifests."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import soundfile

from deeptalk.data.codes import read_codes
from deeptalk.data.corpora.contamination import KnownQuestions, texts_of
from deeptalk.data.manifest import Kind, Record, find_fault, write_lines
from deeptalk.errors import DataError

Manifests = Mapping[str, Iterable[Record]]
"""Records by the name of the manifest that they belong in, read while they are written."""

NOT_STATED = "not stated"

SPOKEN: tuple[Kind, ...] = ("recording", "dialogue")
"""The kinds of records whose recordings are measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """A corpus as it is published.

    ``licence`` is what its publisher states, or `NOT_STATED`; ``source`` is where it is published; ``read``
    takes the folder that holds it and raises `DataError` where it isn't laid out as it should be.
    """

    name: str
    kind: Kind
    licence: str
    source: str
    lang: str | None
    read: Callable[[Path], Manifests]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What was written into one manifest, what was left out and why, and hours of speech in it."""

    manifest: str
    kind: Kind | Literal["questions"]
    num_records: int
    hours: float
    rejects: Mapping[str, int] = field(default_factory=dict)
    overlaps: Mapping[str, int] = field(default_factory=dict)
    """By evaluation set the records left out because they say what it asks."""
    num_not_compared: int = 0
    """Of what was written, the records with a question whose words nobody knows."""


def prepare_records(
    path: Path,
    records: Iterable[Record],
    *,
    kind: Kind,
    note: Mapping[str, str],
    known: KnownQuestions | None = None,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Write the records of one manifest that can be used, in their order, in one atomic step.

    Recordings get their duration from the file's header where the corpus gives none. ``note`` (licence,
    source, language) is added to every record that doesn't say so itself. Records that an evaluation set of
    ``known`` asks about are left out. ``progress`` is told how many records were looked at.

    Raises:
        DataError: nothing can be used; the text says why.
    """
    rejects: Counter[str] = Counter()
    overlaps: Counter[str] = Counter()
    seconds, num_not_compared = 0.0, 0
    seen: set[str] = set()

    def usable() -> Iterator[Record]:
        nonlocal seconds, num_not_compared
        for number, given in enumerate(records, 1):
            if progress is not None:
                progress(number)
            record = {**note, **given}
            reason = find_fault(record, kind=kind) if given else "unreadable"
            if reason is None and record["id"] in seen:
                reason = "repeated id"
            if reason is None and kind in SPOKEN:
                reason = _measure(record)
            if reason is not None:
                rejects[reason] += 1
                continue
            if known is not None and (sets := known.sets_of(record)):
                overlaps.update(sets)
                continue
            num_not_compared += known is not None and not all(texts_of(record))
            seen.add(record["id"])
            seconds += _seconds(record) if kind in SPOKEN else 0.0
            yield record

    number = write_lines(path, usable())
    if not number:
        path.unlink()
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in (rejects + overlaps).items())
        raise DataError(f"{path.name} would be empty: {left_out or 'there are no records'}.")
    return Prepared(
        manifest=path.stem,
        kind=kind,
        num_records=number,
        hours=seconds / 3600,
        rejects=dict(rejects),
        overlaps=dict(overlaps),
        num_not_compared=num_not_compared,
    )


def _measure(record: dict[str, Any]) -> str | None:
    """Give every recording its duration; the reason where sound or codes aren't there or can't be read."""
    if "audio" in record:
        return _measure_one(record)
    messages = [dict(message) for message in record.get("messages", ())]
    for message in messages:
        reason = _measure_one(message) if "audio" in message else None
        reason = reason or (_fault_of_codes(message) if "codes" in message else None)
        if reason is not None:
            return reason
    if messages:
        record["messages"] = messages
    return None


def _measure_one(part: dict[str, Any]) -> str | None:
    if not Path(part["audio"]).is_file():
        return "no such audio"
    seconds = _seconds_of(part["audio"])
    if seconds is None:
        return "unreadable audio"
    if part.get("offset", 0.0) >= seconds:
        return "clip outside its recording"
    if part.get("duration") is None:
        part["duration"] = seconds - part.get("offset", 0.0)
    return None if part["duration"] > 0 else "bad duration"


@lru_cache(maxsize=1_024)  # long recordings hold many clips, one after the other
def _seconds_of(path: str) -> float | None:
    """How long a recording is by its header; None where it can't be read."""
    try:
        return soundfile.info(path).duration
    except (soundfile.SoundFileError, OSError):
        return None


def _fault_of_codes(message: Mapping[str, Any]) -> str | None:
    """Why codes can't be read; whether they are in a codebook is known where there is a model."""
    try:
        read_codes(message, codebook_size=1 << 15)
    except DataError as error:
        return str(error)
    return None


def _seconds(record: Record) -> float:
    parts = (record, *record.get("messages", ()))
    return sum(part["duration"] for part in parts if "audio" in part)
