"""Caches of what frozen parts say about the data: codes of answers, encoder output of questions."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import soxr
import torch
from torch import nn

from deeptalk.audio import MelSpec
from deeptalk.codec import Codec
from deeptalk.data.alignment import align_answer
from deeptalk.data.augment import Augmentation
from deeptalk.data.library import Clip, MelReader
from deeptalk.data.manifest import read_manifest, write_lines, write_manifest
from deeptalk.data.packs import SAID_SUFFIX, AudioPack, save_array, write_code_pack
from deeptalk.data.vocabulary import read_lexicon
from deeptalk.errors import DataError
from deeptalk.files import write_text

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_MEL_FRAMES_PER_BATCH = 6_000
_CLIPS_PER_SHARD = 2_000


class Encoded(Protocol):
    """What an encoder returns: frames `[N, U2, D2]` and how many of each clip count."""

    frames: torch.Tensor
    lengths: torch.Tensor


def encode_answers(
    folder: Path,
    codec: Codec,
    *,
    parts: Sequence[str] = ("answers", "aloud"),
    seconds_per_batch: float = 60.0,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Codes of all recorded answers: `codes/<part>.npy` with an index beside it; returns frames per part.

    `codes/<part>.said.npy` tells for each frame what is said in it, where the manifest has phones.
    Packs are resampled to the codec's rate. A part that is encoded already is encoded again: codecs differ.
    """
    words = folder / "lexicon.json"
    frames, lexicon = {}, read_lexicon(words) if words.is_file() else {}
    for part in parts:
        records = list(read_manifest(folder / f"{part}.jsonl", kind="recording").records)
        packs = {path: AudioPack(Path(path)) for path in {record["audio"] for record in records}}
        order = sorted(range(len(records)), key=lambda i: records[i]["duration"])
        codes: list[npt.NDArray[np.int16]] = [np.zeros((0, 0), dtype=np.int16)] * len(records)
        done = 0
        for group in _groups(order, [r["duration"] for r in records], seconds_per_batch):
            for i, found in zip(group, _codes_of([records[i] for i in group], packs, codec), strict=True):
                codes[i] = found
            done += len(group)
            if progress is not None:
                progress(done, len(records))
        spans = write_code_pack(folder / "codes" / f"{part}.npy", codes)
        seconds = codec.samples_per_frame / codec.sample_rate
        said = [
            align_answer(
                record["text"],
                record.get("phones"),
                lexicon,
                num_frames=span.length,
                seconds_per_frame=seconds,
            )
            for record, span in zip(records, spans, strict=True)
        ]
        save_array(folder / "codes" / f"{part}{SAID_SUFFIX}", np.concatenate(said))
        indexed = [
            {name: value for name, value in record.items() if name != "phones"}
            | {"audio": str(Path("..") / Path(record["audio"]).name), "order": "breadth"}
            | {"first_frame": span.offset, "num_frames": span.length}
            for record, span in zip(records, spans, strict=True)
        ]
        write_manifest(folder / "codes" / f"{part}.jsonl", indexed, kind="recording")
        frames[part] = sum(span.length for span in spans)
    return frames


def encode_questions(
    folder: Path,
    encoder: nn.Module,
    *,
    spec: MelSpec,
    passes: int,
    parts: Sequence[str] = ("questions", "reading"),
    augmentation: Augmentation | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> int:
    """Output of the frozen encoder for all clips in `passes` different rooms, fp16; returns frames written.

    Kept shard by shard under `encoded/<part>`: an interrupted run continues; another encoder or other
    clips begin anew. `progress` is told of shards that are made, not of those that stand there.
    """
    reader = MelReader(spec, augmentation=augmentation or Augmentation())
    mark = fingerprint(encoder, f"{spec} {reader.augmentation} {seed}")
    total = 0
    encoder.eval()
    for part in parts:
        target = folder / "encoded" / part
        said = sha256((folder / f"{part}.jsonl").read_bytes()).hexdigest()
        _forget_others(target, {"encoder": mark, "manifest": said})
        records = read_manifest(folder / f"{part}.jsonl", kind="recording").records
        shards = [(p, at) for p in range(passes) for at in range(0, len(records), _CLIPS_PER_SHARD)]
        for number, (turn, start) in enumerate(shards):
            path = target / f"pass-{turn}-{start // _CLIPS_PER_SHARD:03d}.npy"
            if not path.with_suffix(".jsonl").is_file():
                clips = [Clip.of(r) for r in records[start : start + _CLIPS_PER_SHARD]]
                total += _encode_shard(clips, path, encoder, reader, seed=[seed, turn, start, *part.encode()])
                if progress is not None:
                    progress(number + 1, len(shards))
    return total


def fingerprint(encoder: nn.Module, fed: str) -> str:
    """A hash of the encoder's weights and of how it is fed."""
    digest = sha256(fed.encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()


def _encode_shard(
    clips: Sequence[Clip], path: Path, encoder: nn.Module, reader: MelReader, *, seed: list[int]
) -> int:
    mels = [reader.read(clip, np.random.default_rng([*seed, i])) for i, clip in enumerate(clips)]
    order = sorted(range(len(clips)), key=lambda i: mels[i].shape[1])
    frames: list[npt.NDArray[np.float16]] = [np.zeros((0, 0), dtype=np.float16)] * len(clips)
    for group in _groups(order, [mel.shape[1] for mel in mels], _MEL_FRAMES_PER_BATCH):
        encoded = _run(encoder, [mels[i] for i in group])
        for row, i in enumerate(group):
            frames[i] = encoded.frames[row, : int(encoded.lengths[row])].cpu().numpy().astype(np.float16)
    spans = np.cumsum([0, *(len(part) for part in frames)]).tolist()
    save_array(path, np.concatenate(frames))
    write_lines(
        path.with_suffix(".jsonl"),
        (
            {"id": clip.id, "offset": start, "length": stop - start}
            for clip, start, stop in zip(clips, spans[:-1], spans[1:], strict=True)
        ),
    )
    return spans[-1]


@torch.inference_mode()
def _run(encoder: nn.Module, mels: Sequence[torch.Tensor]) -> Encoded:
    device = next(encoder.parameters()).device
    longest = max(mel.shape[1] for mel in mels)
    batch = torch.stack([torch.nn.functional.pad(mel, (0, longest - mel.shape[1])) for mel in mels])
    return encoder(batch.to(device), torch.tensor([mel.shape[1] for mel in mels], device=device))


def _codes_of(
    records: Sequence[Mapping[str, Any]], packs: Mapping[str, AudioPack], codec: Codec
) -> Iterator[npt.NDArray[np.int16]]:
    """Codes `[L, Q]` of clips, encoded side by side; L counts every frame that a clip begins."""
    waves = []
    for record in records:
        pack = packs[record["audio"]]
        samples = pack.read(record["offset"], record["duration"])
        waves.append(soxr.resample(samples, pack.sample_rate, codec.sample_rate).astype(np.float32))
    lengths = [-(-len(wave) // codec.samples_per_frame) for wave in waves]
    size = max(lengths) * codec.samples_per_frame
    batch = torch.from_numpy(np.stack([np.pad(wave, (0, size - len(wave))) for wave in waves]))
    with torch.inference_mode():
        codes = codec.encode(_to_codec(batch, codec)).cpu().numpy()
    if codes.shape[-1] < max(lengths):
        raise DataError(
            f"the codec gave {codes.shape[-1]} frames for {size} samples; {max(lengths)} were expected"
        )
    for row, length in zip(codes, lengths, strict=True):
        yield row[:, :length].T.astype(np.int16)


def _to_codec(batch: torch.Tensor, codec: Codec) -> torch.Tensor:
    parameters = getattr(codec, "parameters", None)
    first = next(iter(parameters()), None) if parameters is not None else None
    return batch if first is None else batch.to(first.device)


def _groups(order: Sequence[int], sizes: Sequence[float], limit: float) -> Iterator[list[int]]:
    """Neighbours of like size, as many as fit the limit when padded to the longest."""
    group: list[int] = []
    for i in order:
        if group and sizes[i] * (len(group) + 1) > limit:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _forget_others(folder: Path, marks: Mapping[str, str]) -> None:
    """Drop what another encoder made, or this one of other clips."""
    note = folder / "marks.json"
    if folder.is_dir() and not (note.is_file() and json.loads(note.read_text()) == marks):
        logger.info("%s was made by another encoder or of other clips; it is made again", folder)
        shutil.rmtree(folder)
    write_text(note, json.dumps(marks))
