"""Codes of recorded answers, shard by shard, by many processes: nothing is made twice and nothing is lost."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deeptalk.codec import Codec, load_codec
from deeptalk.data.manifest import read_manifest, write_lines
from deeptalk.data.packs import AudioFile, save_array
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
class Shard:
    """Answers that are encoded together, into ``path`` with an index (JSON) beside it.

    What it is made of, codec and clips, is in its name: the codes that a manifest names are never replaced.
    """

    path: Path
    answers: tuple[SpokenAnswer, ...]

    @property
    def index(self) -> Path:
        """The file that stands there once the shard is whole."""
        return self.path.with_suffix(".json")

    def found(self) -> list[dict[str, Any]] | None:
        """Where each answer's codes stand, or why there are none; None while the shard isn't whole."""
        try:
            found = json.loads(self.index.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if self.path.is_file() else None


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
    workers: int = 1,
    answers_per_shard: int = 1_000,
    progress: Callable[[int, int], None] | None = None,
    run: Callable[[Shard, Path], None] | None = None,
) -> EncodedManifest:
    """Give every recorded answer of a dialogue manifest its codes, in ``codes/NAME/`` beside it.

    Interrupted, it goes on shard by shard; a shard whose worker was lost is made again. Another codec, or
    other clips, make their shards anew. At the end the manifest is replaced by one whose answers name their
    codes; answers that can't be read have none and are counted, those that came with codes keep them.
    ``run`` replaces the encoding itself, for tests.

    Raises:
        DataError: a record can't be used, a recording has no duration, no answer has a recording, or no
            worker comes to an end.
        CheckpointError: the codec can't be opened.
    """
    path = path.resolve()  # so that its paths hold when it is read again
    content = read_manifest(path, kind="dialogue")
    if content.rejects:
        faults = ", ".join(f"{count:,} {reason}" for reason, count in content.rejects.items())
        raise DataError(f"{path} has records that can't be used ({faults}); mend it, or prepare it first.")
    records = [dict(record) for record in content.records]
    answers = tuple(_answers(path, records))
    if not answers:
        raise DataError(f"{path}: no answer has a recording (audio) and no codes of its own to be encoded.")
    codec_mark = _digest(codec_folder, load_codec(codec_folder))
    folder = path.parent / "codes" / path.stem
    shards = [
        _shard(folder, number, answers[start : start + answers_per_shard], codec_mark=codec_mark)
        for number, start in enumerate(range(0, len(answers), answers_per_shard))
    ]
    missing = [shard for shard in shards if shard.found() is None]
    folder.mkdir(parents=True, exist_ok=True)
    _make_all(missing, codec_folder, workers=workers, progress=progress, run=run or encode_shard)
    rejects: Counter[str] = Counter()
    num_frames = 0
    for shard in shards:
        for answer, found in zip(shard.answers, shard.found() or (), strict=True):
            message = records[answer.record]["messages"][answer.message]
            for key in ("codes", "order", "first_frame", "num_frames"):
                message.pop(key, None)
            if "reason" in found:
                rejects[found["reason"]] += 1
                continue
            num_frames += found["num_frames"]
            message |= {"codes": str(shard.path.relative_to(path.parent)), "order": ORDER, **found}
    write_lines(path, records)
    _clear(folder, shards)
    return EncodedManifest(
        manifest=str(path),
        num_answers=len(answers) - rejects.total(),
        num_frames=num_frames,
        num_shards=len(shards),
        num_made=len(missing),
        rejects=dict(rejects),
    )


def encode_shard(shard: Shard, codec_folder: Path) -> None:
    """Encode a shard's answers one by one; the index, written last, says that it is whole."""
    torch.set_num_threads(1)
    codec = load_codec(codec_folder)
    codes, index, first = [np.zeros((0, codec.num_codebooks), dtype=np.int16)], [], 0
    for answer in shard.answers:
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


def _shard(folder: Path, number: int, answers: tuple[SpokenAnswer, ...], *, codec_mark: str) -> Shard:
    clips = [(answer.audio, answer.offset, answer.duration) for answer in answers]
    mark = sha256(json.dumps([codec_mark, clips]).encode()).hexdigest()[:16]
    return Shard(path=folder / f"{number:05d}-{mark}.npy", answers=answers)


def _make_all(
    shards: Sequence[Shard],
    codec_folder: Path,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None,
    run: Callable[[Shard, Path], None],
) -> None:
    """Make shards in processes; where some are lost, what they had not finished is given to others."""
    left = list(shards)
    while left:
        if workers == 1:
            for number, shard in enumerate(left, 1):
                run(shard, codec_folder)
                if progress is not None:
                    progress(number, len(left))
            return
        before = len(left)
        with ProcessPoolExecutor(min(workers, len(left)), mp_context=_processes()) as pool:
            jobs = [pool.submit(run, shard, codec_folder) for shard in left]
            try:
                for job in as_completed(jobs):
                    job.result()
                    if progress is not None:
                        progress(len(shards) - before + sum(job.done() for job in jobs), len(shards))
            except BrokenProcessPool:
                pass  # a worker was killed; every shard that isn't whole is made in the next round
            finally:
                pool.shutdown(cancel_futures=True)  # a mistake is told before the rest is made
        left = [shard for shard in left if shard.found() is None]
        if len(left) == before:
            raise DataError(
                f"the workers were lost before any finished one of {before} shards; take fewer (--workers)."
            )


def _clear(folder: Path, shards: Sequence[Shard]) -> None:
    """Remove what lost workers had begun, and shards that the manifest no longer names."""
    kept = {path for shard in shards for path in (shard.path, shard.index)}
    for path in folder.iterdir():
        if path not in kept and path.name.lstrip(".")[:5].isdigit():
            path.unlink()


def _processes() -> ForkServerContext:
    """New processes that inherit no thread and no accelerator; what they import is imported once."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


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
