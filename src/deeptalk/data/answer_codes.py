"""Codes of recorded answers: a manifest's recordings through a codec, shard by shard."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deeptalk.codec import Codec, load_codec
from deeptalk.data.manifest import read_whole_manifest, write_lines
from deeptalk.data.packs import AudioFile, save_array
from deeptalk.data.shards import (
    Make,
    Processes,
    Progress,
    Shard,
    Workers,
    clear_folder,
    make_shards,
    plan_shards,
)
from deeptalk.errors import DataError
from deeptalk.files import write_text

ORDER = "breadth"


@dataclass(frozen=True, kw_only=True, slots=True)
class SpokenAnswer:
    """A recorded answer: its place in the manifest and in its recording, in seconds."""

    record: int
    message: int
    audio: str
    offset: float
    duration: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedManifest:
    """What became of a manifest: ``num_made`` shards were made now, the others stood there."""

    manifest: str
    num_answers: int
    num_frames: int
    num_shards: int
    num_made: int
    rejects: Mapping[str, int] = field(default_factory=dict)


def encode_manifest(
    path: Path,
    codec_folder: Path,
    *,
    workers: Workers | None = None,
    answers_per_shard: int = 1_000,
    progress: Progress | None = None,
    make: Make | None = None,
) -> EncodedManifest:
    """Give every recorded answer of a dialogue manifest its codes, in ``codes/NAME/`` beside it.

    Interrupted, it goes on shard by shard; a shard whose worker was lost is made again. Another codec, or
    other clips, make their shards anew. At the end the manifest is replaced by one whose answers name their
    codes; answers that can't be read have none and are counted, those that came with codes keep them.
    ``make`` replaces the encoding itself, for tests.

    Raises:
        DataError: a record can't be used, a recording has no duration, no answer has a recording, or no
            worker comes to an end.
        CheckpointError: the codec can't be opened.
    """
    path = path.resolve()  # so that its paths hold when it is read again
    records = [dict(record) for record in read_whole_manifest(path, kind="dialogue")]
    answers = tuple(_answers(path, records))
    if not answers:
        raise DataError(f"{path}: no answer has a recording (audio) and no codes of its own to be encoded.")
    folder = path.parent / "codes" / path.stem
    mark = _digest(codec_folder, load_codec(codec_folder))
    shards = plan_shards(folder, answers, size=answers_per_shard, mark=mark, suffix=".npy")
    num_made = make_shards(
        shards,
        make or partial(encode_shard, codec_folder=codec_folder.resolve()),
        workers=workers or Processes(),
        progress=progress,
    )
    rejects: Counter[str] = Counter()
    num_frames = 0
    for shard in shards:
        for answer, found in zip(shard.items, shard.found() or (), strict=True):
            message = records[answer.record]["messages"][answer.message]
            for key in ("codes", "order", "first_frame", "num_frames"):
                message.pop(key, None)
            if "reason" in found:
                rejects[found["reason"]] += 1
                continue
            num_frames += found["num_frames"]
            message |= {"codes": str(shard.path.relative_to(path.parent)), "order": ORDER, **found}
    write_lines(path, records)
    clear_folder(folder, shards)
    return EncodedManifest(
        manifest=str(path),
        num_answers=len(answers) - rejects.total(),
        num_frames=num_frames,
        num_shards=len(shards),
        num_made=num_made,
        rejects=dict(rejects),
    )


def encode_shard(shard: Shard, codec_folder: Path) -> None:
    """Encode a shard's answers one by one; the index, written last, says that it is whole."""
    torch.set_num_threads(1)
    codec = load_codec(codec_folder)
    codes, index, first = [np.zeros((0, codec.num_codebooks), dtype=np.int16)], [], 0
    for answer in shard.items:
        try:
            samples = AudioFile(Path(answer.audio), sample_rate=codec.sample_rate).read(
                answer.offset, answer.duration
            )
        except DataError as error:
            index.append({"reason": str(error)})
            continue
        with torch.inference_mode():
            found = codec.encode(torch.from_numpy(samples)[None])[0].T.cpu().numpy().astype(np.int16)
        index.append({"first_frame": first, "num_frames": len(found)})
        codes.append(found)
        first += len(found)
    save_array(shard.path, np.concatenate(codes))
    write_text(shard.index, json.dumps(index))


def _answers(path: Path, records: Sequence[Mapping[str, Any]]) -> Iterator[SpokenAnswer]:
    for number, record in enumerate(records):
        for place, message in enumerate(record["messages"]):
            is_recorded = message["role"] == "assistant" and "audio" in message
            if is_recorded and ("codes" not in message or "first_frame" in message):
                if message.get("duration") is None:
                    raise DataError(
                        f"{path}: record {record['id']!r} has an answer whose audio has no duration; "
                        "`deeptalk prepare folder` measures recordings."
                    )
                yield SpokenAnswer(
                    record=number,
                    message=place,
                    audio=message["audio"],
                    offset=message.get("offset", 0.0),
                    duration=message["duration"],
                )


def _digest(folder: Path, codec: Codec) -> str:
    """What tells one codec from another: its files."""
    files = sorted((folder / "config.json", *folder.glob("*.safetensors")))
    sizes = f"{codec.num_codebooks} {codec.codebook_size}"
    return sha256(b"".join(path.read_bytes() for path in files) + sizes.encode()).hexdigest()
