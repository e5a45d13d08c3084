"""Shar as manifests again, whoever wrote it."""

import io
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from deeptalk.data.manifest import CODE_ORDERS, Kind, Record, kind_of
from deeptalk.data.packs import AudioPackWriter, save_array
from deeptalk.data.shar.layout import PLACE, RECORD, SHAR, need_lhotse
from deeptalk.data.shards import Processes, Progress, Shard, Workers, make_shards, plan_shards
from deeptalk.errors import DataError
from deeptalk.files import write_text


@dataclass(frozen=True, kw_only=True, slots=True)
class UnpackedShar:
    """What was found in a Shar folder: the manifest's kind, its records, and what was left out."""

    kind: Kind
    records: tuple[Record, ...]
    rejects: Mapping[str, int]


def unpack_shar(
    source: Path,
    target: Path,
    *,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> UnpackedShar:
    """Sound and codes of a Shar folder as packs in ``target``, and the records that name them.

    What `write_shar` wrote comes back as it was, its sound in 16 bits. Of any other Shar each supervision
    with a text becomes a recording. Interrupted, it goes on shard by shard.

    Raises:
        ConfigError: lhotse isn't installed.
        DataError: files are missing or damaged, there is nothing to be used, or no worker comes to an end.
    """
    need_lhotse()
    found = _files(source)
    shards = plan_shards(target.resolve(), found, size=1, mark="unpacked", suffix=".jsonl")
    make_shards(shards, unpack_shard, workers=workers or Processes(), progress=progress)
    rejects: Counter[str] = Counter()
    records: list[Record] = []
    for shard in shards:
        rejects.update({one["reason"]: one["count"] for one in shard.found() or ()})
        with shard.path.open(encoding="utf-8") as file:
            records += [_placed(json.loads(line), shard.path.parent) for line in file]
    if not records:
        told = ", ".join(f"{count:,} {reason}" for reason, count in rejects.items())
        raise DataError(f"{source}: no cut has sound with a text ({told or 'there are no cuts'}).")
    kind = kind_of(records[0]) or "recording"
    if kind == "dialogue" and not any(m.keys() & {"audio", "codes"} for r in records for m in r["messages"]):
        kind = "text"
    return UnpackedShar(kind=kind, records=tuple(records), rejects=dict(rejects))


def unpack_shard(shard: Shard) -> None:
    """Unpack one shard of Shar: a pack of sound for each rate, one of codes, and the records."""
    lhotse = need_lhotse()
    (files,) = shard.items
    rejects: Counter[str] = Counter()
    records: dict[str, Any] = {}
    packs, codes, first = _Packs(shard.path), [], 0
    try:
        with packs:
            for cut in lhotse.CutSet.from_shar(fields={name: [path] for name, path, _ in files}):
                record, place = _record_of(cut, records, rejects)
                if record is None:
                    continue
                part = record if place is None else record["messages"][place]
                if (samples := _sound_of(cut)) is not None:
                    part |= packs.append(*samples)
                if cut.has_custom("codes"):
                    own = cut.load_custom("codes").astype(np.int16)
                    codes.append(own)
                    part |= {"codes": f"{shard.path.stem}.npy", "order": CODE_ORDERS[0]}
                    part |= {"first_frame": first, "num_frames": len(own)}
                    first += len(own)
    except Exception as error:  # lhotse meets damaged files with errors of many kinds
        if isinstance(error, DataError):
            raise
        names = ", ".join(Path(path).name for _, path, _ in files)
        raise DataError(
            f"{names} can't be read ({' '.join(str(error).split())[:200]}); copy them again."
        ) from error
    if codes:
        save_array(shard.path.with_suffix(".npy"), np.concatenate(codes))
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records.values())
    write_text(shard.path, lines)
    write_text(shard.index, json.dumps([{"reason": r, "count": n} for r, n in rejects.items()]))


class _Packs:
    """WAV packs of a shard, one for each rate that comes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[int, AudioPackWriter] = {}

    def append(self, samples: npt.NDArray[np.int16], rate: int) -> dict[str, Any]:
        """Where the samples stand, as a record says it."""
        path = self._path.with_name(f"{self._path.stem}-{rate}.wav")
        if rate not in self._open:
            self._open[rate] = AudioPackWriter(path, sample_rate=rate)
            self._open[rate].__enter__()
        offset, duration = self._open[rate].append(samples)
        return {"audio": path.name, "offset": offset, "duration": duration}

    def __enter__(self) -> "_Packs":
        return self

    def __exit__(self, *error: Any) -> None:
        for pack in self._open.values():
            pack.__exit__(*error)


def _record_of(
    cut: Any, records: dict[str, Any], rejects: Counter[str]
) -> tuple[dict[str, Any] | None, int | None]:
    """The record that a cut belongs to, and the place of its turn; None where it belongs to none."""
    custom = cut.custom or {}
    if RECORD in custom:
        record = records.setdefault(custom[RECORD]["id"], custom[RECORD])
        return record, custom.get(PLACE)
    if custom.get(PLACE) is not None and records:  # a further turn of the record before
        return records[next(reversed(records))], custom[PLACE]
    said = [one for one in cut.supervisions if one.text and one.text.strip()]
    if not getattr(cut, "has_recording", False) or not said:
        rejects["cut without sound" if said else "cut without a text"] += 1
        return None, None
    if len(said) > 1:
        rejects["cut of several segments"] += 1  # cuts.trim_to_supervisions() of lhotse parts them
        return None, None
    told = {"id": cut.id, "text": said[0].text, "speaker": said[0].speaker, "lang": said[0].language}
    return records.setdefault(cut.id, {key: value for key, value in told.items() if value}), None


def _sound_of(cut: Any) -> tuple[npt.NDArray[np.int16], int] | None:
    """The samples of a cut in 16 bits, its first channel."""
    if not getattr(cut, "has_recording", False):
        return None
    source = cut.recording.sources[0]
    if source.type == "memory" and not cut.recording.transforms:
        samples, rate = soundfile.read(io.BytesIO(source.source), dtype="int16", always_2d=True)
        start = round(cut.start * rate)
        return samples[start : start + round(cut.duration * rate), 0].astype(np.int16), rate
    samples = np.clip(cut.load_audio()[0] * 32_768, -32_768, 32_767)
    return samples.astype(np.int16), cut.sampling_rate


def _placed(record: dict[str, Any], folder: Path) -> Record:
    """The record with paths that hold wherever its manifest lies."""
    for part in (record, *record.get("messages", ())):
        part |= {key: str(folder / part[key]) for key in ("audio", "codes") if key in part}
    return record


def _files(source: Path) -> list[tuple[tuple[str, str, int], ...]]:
    """Of each shard its fields: name, path and size, the cuts first."""
    folder = source / SHAR if (source / SHAR).is_dir() else source
    shards: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if named := re.fullmatch(r"(\w+)\.(\d{6})\.(?:tar|jsonl)(?:\.gz)?", path.name):
            shards.setdefault(int(named[2]), {})[named[1]] = path
    if not shards:
        raise DataError(f"{folder} holds no Shar of lhotse (cuts.000000.jsonl.gz, recording.000000.tar).")
    fields = set().union(*shards.values()) | {"cuts"}
    missing = [
        f"{name}.{number:06d}"
        for number in range(max(shards) + 1)
        for name in sorted(fields - shards.get(number, {}).keys())
    ]
    if missing:
        some = ", ".join(missing[:6]) + (", …" if len(missing) > 6 else "")
        raise DataError(f"{folder} lacks {len(missing)} files of its shards ({some}); copy them again.")
    return [
        tuple(
            (name, str(path.resolve()), path.stat().st_size)
            for name, path in sorted(shards[number].items(), key=lambda item: item[0] != "cuts")
        )
        for number in sorted(shards)
    ]
