"""Manifests as lhotse Shar: tar files that are read from front to end."""

import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from deeptalk.data.codes import read_codes
from deeptalk.data.manifest import Record, kind_of_manifest, read_whole_manifest
from deeptalk.data.shar.layout import NOTES, PLACE, RECORD, SHAR, need_lhotse
from deeptalk.data.shards import Make, Processes, Progress, Shard, Workers, make_shards, plan_shards
from deeptalk.errors import DataError
from deeptalk.files import write_text

_SOUND = ("audio", "offset", "duration")
_CODES = ("codes", "order", "first_frame", "num_frames")
_ANY_CODE = 1 << 15
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenShar:
    """What was written: ``num_made`` shards were made now, the others stood there."""

    folder: str
    num_records: int
    num_cuts: int
    hours: float
    num_shards: int
    num_made: int
    rejects: Mapping[str, int] = field(default_factory=dict)


def write_shar(
    manifest: Path,
    target: Path,
    *,
    workers: Workers | None = None,
    records_per_shard: int = 1_000,
    progress: Progress | None = None,
    make: Make | None = None,
) -> WrittenShar:
    """Write recordings, dialogues or texts with all their sound and codes as Shar, into ``target/shar``.

    Interrupted, it goes on shard by shard; a shard whose worker was lost is made again. A record with sound
    or codes that can't be read is left out and counted. ``make`` replaces the writing itself, for tests.

    Raises:
        ConfigError: lhotse isn't installed.
        DataError: a record can't be used, ``target`` holds other shards, nothing can be written, or no worker
            comes to an end.
    """
    need_lhotse()
    kind = kind_of_manifest(manifest)
    if kind not in ("recording", "dialogue"):
        raise DataError(
            f"{manifest}: recordings, dialogues and texts can be written as Shar; these are neither."
        )
    records = read_whole_manifest(manifest.resolve(), kind=kind)
    if not records:
        raise DataError(f"{manifest} has no records.")
    notes = target.resolve() / NOTES
    shards = plan_shards(notes, records, size=records_per_shard, mark="shar", suffix=".json")
    known = {shard.path.name for shard in shards}
    strangers = [path for path in notes.glob("*.json") if path.name not in known]
    if strangers or (not notes.exists() and target.exists() and any(target.iterdir())):
        raise DataError(f"{target} holds something else; give a new folder (--out), or remove it first.")
    (target / SHAR).mkdir(parents=True, exist_ok=True)
    num_made = make_shards(shards, make or write_shard, workers=workers or Processes(), progress=progress)
    for left in target.glob(f"{_UNFINISHED}*"):  # of workers that were lost
        shutil.rmtree(left)
    found = [one for shard in shards for one in shard.found() or ()]
    rejects = Counter(one["reason"] for one in found if "reason" in one)
    if rejects.total() == len(records):
        told = ", ".join(f"{count:,} {reason}" for reason, count in rejects.items())
        raise DataError(f"{manifest}: none of {len(records):,} records can be read ({told}).")
    return WrittenShar(
        folder=str(target / SHAR),
        num_records=len(records) - rejects.total(),
        num_cuts=sum(one.get("cuts", 0) for one in found),
        hours=sum(one.get("seconds", 0.0) for one in found) / 3600,
        num_shards=len(shards),
        num_made=num_made,
        rejects=dict(rejects),
    )


def write_shard(shard: Shard) -> None:
    """Write the files of one shard of Shar; they take their names one by one, the note of them last."""
    lhotse = need_lhotse()
    from lhotse.shar.writers import JsonlShardWriter, TarWriter  # pyright: ignore[reportMissingImports]

    number = int(shard.path.name[:5])
    folder, name = shard.path.parent.parent, f"{number:06d}"
    ends = {
        "recording": f"recording.{name}.tar",
        "codes": f"codes.{name}.tar",
        "cuts": f"cuts.{name}.jsonl.gz",
    }
    notes: list[dict[str, Any]] = []
    with _scratch(folder) as scratch:
        with (
            TarWriter(str(scratch / ends["recording"]), None) as sounds,
            TarWriter(str(scratch / ends["codes"]), None) as codes,
            JsonlShardWriter(str(scratch / ends["cuts"]), None) as cuts,
        ):
            for place, record in enumerate(shard.items):
                try:
                    parts = list(_parts(record))
                except DataError as error:
                    notes.append({"reason": str(error)})
                    continue
                for turn, part in enumerate(parts):
                    key = f"{number:05d}-{place:05d}-{turn:03d}"
                    _write(lhotse, key, part, sounds, codes, cuts)
                seconds = sum(part.seconds for part in parts)
                notes.append({"cuts": len(parts), "seconds": seconds})
        for end in ends.values():
            path = scratch / end
            if path.exists():  # a shard of which nothing can be read has none
                path.replace(folder / SHAR / end)
    write_text(shard.path, json.dumps(notes))


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for files that aren't whole yet, on the same disk."""
    with TemporaryDirectory(dir=folder, prefix=_UNFINISHED) as scratch:
        yield Path(scratch)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """What one cut is made of."""

    custom: Mapping[str, Any]
    text: str = ""
    speaker: str | None = None
    lang: str | None = None
    samples: npt.NDArray[np.int16] | None = None
    rate: int = 16_000
    codes: npt.NDArray[np.int64] | None = None

    @property
    def seconds(self) -> float:
        return 0.0 if self.samples is None else len(self.samples) / self.rate


def _parts(record: Record) -> Iterator[_Part]:
    """The cuts of a record, the first with all that is neither sound nor codes."""
    rest = _bare(record)
    if isinstance(record.get("messages"), list):
        rest["messages"] = [_bare(message) for message in record["messages"]]
        sounding = [(i, m) for i, m in enumerate(record["messages"]) if m.keys() & {"audio", "codes"}]
    else:
        sounding = [(None, record)]
    if not sounding:
        yield _Part(custom={RECORD: rest})
    for number, (place, part) in enumerate(sounding):
        samples, rate = _samples(part) if "audio" in part else (None, 16_000)
        yield _Part(
            custom={PLACE: place} | ({} if number else {RECORD: rest}),
            text=part["text"],
            speaker=part.get("speaker", part.get("voice")),
            lang=record.get("lang"),
            samples=samples,
            rate=rate,
            codes=read_codes(part, codebook_size=_ANY_CODE) if "codes" in part else None,
        )


def _bare(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key not in (*_SOUND, *_CODES)}


def _samples(part: Mapping[str, Any]) -> tuple[npt.NDArray[np.int16], int]:
    """A clip in 16 bits at the rate of its file, its first channel."""
    try:
        with soundfile.SoundFile(part["audio"]) as file:
            rate = file.samplerate
            file.seek(min(round(part.get("offset", 0.0) * rate), file.frames))
            number = -1 if part.get("duration") is None else round(part["duration"] * rate)
            samples = file.read(number, dtype="int16", always_2d=True)[:, 0].astype(np.int16)
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError("unreadable audio") from error
    if not len(samples):
        raise DataError("clip outside its recording")
    return samples, rate


def _write(lhotse: Any, key: str, part: _Part, sounds: Any, codes: Any, cuts: Any) -> None:
    """One cut, and what belongs to it in each field; ``.nodata`` stands for nothing."""
    from lhotse.shar.utils import to_shar_placeholder  # pyright: ignore[reportMissingImports]

    recording = array = None
    if part.samples is not None:
        sound = io.BytesIO()
        soundfile.write(sound, part.samples, part.rate, format="FLAC", subtype="PCM_16")
        recording = to_shar_placeholder(lhotse.Recording.from_bytes(sound.getvalue(), recording_id=key))
        _put(sounds, key, ".flac", sound, recording)
    else:
        _put(sounds, key)
    if part.codes is not None:
        content = io.BytesIO()
        np.save(content, part.codes.astype(np.int16))
        array = lhotse.array.Array(
            storage_type="shar", storage_path="", storage_key="", shape=list(part.codes.shape)
        )
        _put(codes, key, ".npy", content, array)
    else:
        _put(codes, key)
    duration = part.seconds or 1.0  # a cut without sound has a duration all the same
    said = lhotse.SupervisionSegment(
        id=key,
        recording_id=key,
        start=0.0,
        duration=duration,
        text=part.text,
        language=part.lang,
        speaker=part.speaker,
    )
    custom = {**part.custom, **({} if array is None else {"codes": array})}
    cuts.write(
        lhotse.MonoCut(
            id=key,
            start=0.0,
            duration=duration,
            channel=0,
            recording=recording,
            supervisions=[said] if part.text else [],
            custom=custom,
        )
    )


def _put(tar: Any, key: str, end: str = ".nodata", content: Any = None, manifest: Any = None) -> None:
    """A pair of files of a Shar archive: the data, and the manifest that describes it."""
    told = b"" if manifest is None else json.dumps(manifest.to_dict()).encode()
    tar.write(key + end, content or io.BytesIO())
    tar.write(f"{key}.nometa" if manifest is None else f"{key}.json", io.BytesIO(told), count=False)
