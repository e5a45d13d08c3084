"""Who has said what: clips of users' turns by text, and codes of answers by text and speaker."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from deeptalk.audio import MelSpec, log_mel
from deeptalk.data.augment import Augmentation, augment, warp_formants
from deeptalk.data.codes import read_codes
from deeptalk.data.manifest import read_manifest
from deeptalk.data.packs import SAID_SUFFIX, AudioFile, AudioPack, CodePack, CodeSpan, open_clips
from deeptalk.errors import DataError
from deeptalk.shapes import Float, Int, Tensor
from deeptalk.streams.layout import num_encoder_frames

_MOST_OPEN = 64
"""A process may map far fewer files than a corpus has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A stretch of a recording: the file, where it begins and how long it is, in seconds.

    `room` counts the rooms in which it was encoded, for a reader that has several.
    """

    id: str
    audio: str
    offset: float
    duration: float
    room: int = 0

    @classmethod
    def of(cls, record: Mapping[str, Any], *, id: str | None = None) -> "Clip":
        """The clip of a manifest's record or of a message with `audio`."""
        duration = record.get("duration")
        if duration is None:
            raise DataError("no duration")
        return cls(
            id=id or record["id"], audio=record["audio"], offset=record.get("offset", 0.0), duration=duration
        )


class SpeechReader(Protocol):
    """Gives a clip in the form that the batch carries: log-mel `[M, F]`, or encoder output `[U2, D2]`."""

    is_encoded: bool

    def place(self, clip: Clip, generator: np.random.Generator) -> Clip:
        """The clip in one of its rooms, where the reader has a choice."""
        ...

    def num_frames(self, clip: Clip) -> int:
        """About how many encoder frames the clip will have, told without reading it."""
        ...

    def read(self, clip: Clip, generator: np.random.Generator) -> Tensor:
        """The clip; chance, if any, comes from the generator."""
        ...


class MelReader:
    """Reads clips as log-mel, augmented anew each time unless `augmentation` is None.

    WAV packs are fastest; other recordings are decoded and resampled at each reading.
    """

    is_encoded = False

    def __init__(self, spec: MelSpec, *, augmentation: Augmentation | None = None) -> None:
        self.spec, self.augmentation = spec, augmentation
        self._open: dict[str, AudioPack | AudioFile] = {}

    def place(self, clip: Clip, generator: np.random.Generator) -> Clip:
        """The clip itself: its room is made when it is read."""
        return clip

    def num_frames(self, clip: Clip) -> int:
        """Encoder frames of the clip at its own speed."""
        return num_encoder_frames(round(clip.duration * self.spec.sample_rate) // self.spec.hop_length)

    def samples(self, clip: Clip) -> npt.NDArray[np.float32]:
        """The clip's samples as they were recorded, at the rate of the spectrogram.

        `DataError` with a countable reason where they can't be had.
        """
        if clip.audio not in self._open:
            if not Path(clip.audio).is_file():
                raise DataError("recording missing")
            if len(self._open) >= _MOST_OPEN:
                del self._open[next(iter(self._open))]
            self._open[clip.audio] = open_clips(Path(clip.audio), sample_rate=self.spec.sample_rate)
        source = self._open[clip.audio]
        if isinstance(source, AudioFile):
            return source.read(clip.offset, clip.duration)
        try:
            return source.read(clip.offset, clip.duration)
        except DataError as error:  # it tells more, and every time something else
            raise DataError("clip outside its recording" if len(source) else "speech empty") from error

    def read(self, clip: Clip, generator: np.random.Generator) -> Float[Tensor, "M F"]:
        """The clip's log-mel, as heard in a room of chance."""
        samples, config = self.samples(clip), self.augmentation
        if config is not None:
            samples = augment(samples, generator, config=config, sample_rate=self.spec.sample_rate)
        mel = log_mel(torch.from_numpy(samples)[None], spec=self.spec)[0]
        if config is None or generator.random() < config.clean:
            return mel
        return torch.from_numpy(warp_formants(mel.numpy(), generator.uniform(*config.formants)))


class EncodedReader:
    """Reads cached encoder output; each clip was encoded in several rooms, of which one is drawn."""

    is_encoded = True

    def __init__(self, folders: Sequence[Path]) -> None:
        self._frames: list[npt.NDArray[np.float16]] = []
        self._spans: dict[str, list[tuple[int, int, int]]] = {}
        for folder in folders:
            for path in sorted(folder.glob("pass-*.npy")):
                self._add(path)
        if not self._spans:
            raise DataError(
                f"no encoded speech in {', '.join(map(str, folders))}; run the encoder over it first"
            )

    def __contains__(self, clip: Clip) -> bool:
        """Whether this clip was encoded."""
        return clip.id in self._spans

    def place(self, clip: Clip, generator: np.random.Generator) -> Clip:
        """The clip in one of its rooms."""
        return replace(clip, room=int(generator.integers(len(self._spans_of(clip)))))

    def num_frames(self, clip: Clip) -> int:
        """Frames of the clip in its room."""
        return self._spans_of(clip)[clip.room][2]

    def read(self, clip: Clip, generator: np.random.Generator) -> Float[Tensor, "U2 D2"]:
        """The encoder's output for the clip in its room."""
        index, start, length = self._spans_of(clip)[clip.room]
        return torch.from_numpy(self._frames[index][start : start + length].astype(np.float32))

    def _spans_of(self, clip: Clip) -> list[tuple[int, int, int]]:
        if clip.id not in self._spans:
            raise DataError("speech not encoded")
        return self._spans[clip.id]

    def _add(self, path: Path) -> None:
        number = len(self._frames)
        self._frames.append(np.load(path, mmap_mode="r"))
        for span in _read_spans(path.with_suffix(".jsonl")):
            self._spans.setdefault(span[0], []).append((number, span[1], span[2]))


class ClipLibrary:
    """Clips by what is said in them."""

    def __init__(self, manifests: Iterable[Path], *, known: EncodedReader | None = None) -> None:
        self._clips: dict[str, list[Clip]] = {}
        for manifest in manifests:
            for record in read_manifest(manifest, kind="recording").records:
                clip = Clip.of(record)
                if known is None or clip in known:
                    self._clips.setdefault(record["text"], []).append(clip)

    def __contains__(self, text: str) -> bool:
        """Whether anybody says this text."""
        return text in self._clips

    def draw(self, text: str, generator: np.random.Generator) -> Clip | None:
        """One of the clips that say this text, or None."""
        clips = self._clips.get(text)
        return None if not clips else clips[int(generator.integers(len(clips)))]


class AnswerLibrary:
    """Codes of answers by text and speaker, from `codes.npy` packs with their index."""

    def __init__(self, packs: Iterable[Path] = ()) -> None:
        self._packs: list[CodePack] = []
        self._said: list[npt.NDArray[np.int16] | None] = []
        self._spans: dict[str, dict[str, tuple[int, CodeSpan]]] = {}
        for path in packs:
            self._add(path)

    def speakers(self, text: str) -> list[str]:
        """Who says this answer, in the order of the pack."""
        return list(self._spans.get(text, ()))

    def read(self, text: str, speaker: str) -> Int[Tensor, "L Q"]:
        """The codes of an answer; `DataError` where this speaker doesn't say it."""
        try:
            pack, span = self._spans[text][speaker]
        except KeyError as error:
            raise DataError("answer without codes") from error
        return torch.from_numpy(self._packs[pack].read(span))

    def said(self, text: str, speaker: str) -> Int[Tensor, "L S"] | None:
        """Word and phones in each frame of an answer (`align_answer`), or None where nobody noted them."""
        pack, span = self._spans[text][speaker]
        said = self._said[pack]
        if said is None:
            return None
        return torch.from_numpy(said[span.offset : span.offset + span.length].astype(np.int64))

    def _add(self, path: Path) -> None:
        number = len(self._packs)
        self._packs.append(CodePack(path))
        said = path.with_name(path.stem + SAID_SUFFIX)
        self._said.append(np.load(said, mmap_mode="r") if said.is_file() else None)
        for record in read_manifest(path.with_suffix(".jsonl"), kind="recording").records:
            if record.get("order") != "breadth":
                raise DataError(
                    f"{path}: codes must stand in breadth-first order, not {record.get('order')!r}"
                )
            span = CodeSpan(offset=record["first_frame"], length=record["num_frames"])
            self._spans.setdefault(record["text"], {})[record["speaker"]] = (number, span)


def codes_of_message(message: Mapping[str, Any], *, codebook_size: int) -> Int[Tensor, "L Q"]:
    """The codes that a message brings itself."""
    return torch.from_numpy(read_codes(message, codebook_size=codebook_size))


def _read_spans(path: Path) -> list[tuple[str, int, int]]:
    """(id, first frame, number of frames) for each record of an index file."""
    with path.open(encoding="utf-8") as file:
        return [(r["id"], r["offset"], r["length"]) for r in map(json.loads, file)]
