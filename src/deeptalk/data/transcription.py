"""Clips with the words and phones that are said in them: what an encoder learns to hear from."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from deeptalk.audio import MelSpec
from deeptalk.data.augment import Augmentation
from deeptalk.data.library import Clip, MelReader
from deeptalk.data.manifest import read_manifest
from deeptalk.data.mixture import BatchStream, Draw, MixturePlan
from deeptalk.data.pocket import read_names
from deeptalk.data.vocabulary import phone_ids, read_lexicon, spoken_form, spoken_punctuated, words_of
from deeptalk.errors import DataError
from deeptalk.shapes import Float, Int, Tensor
from deeptalk.streams.text import TextTokenizer

# The encoder halves the rate of the log-mel, and every label needs a frame of its own.
_MEL_FRAMES_PER_LABEL = 2
_PAUSE = 0.2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CtcBatch:
    """Log-mels with their targets, padded on the right; ids beyond a length mean nothing."""

    mel: Float[Tensor, "N M F"]
    mel_lengths: Int[Tensor, "N"]
    tokens: Int[Tensor, "N S"]
    token_lengths: Int[Tensor, "N"]
    phones: Int[Tensor, "N P"]
    phone_lengths: Int[Tensor, "N"]
    frames: "FrameLabels | None" = None

    def to(self, device: torch.device | str) -> "CtcBatch":
        """The same batch on another device."""
        return CtcBatch(
            mel=self.mel.to(device),
            mel_lengths=self.mel_lengths.to(device),
            tokens=self.tokens.to(device),
            token_lengths=self.token_lengths.to(device),
            phones=self.phones.to(device),
            phone_lengths=self.phone_lengths.to(device),
            frames=None if self.frames is None else self.frames.to(device),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FrameLabels:
    """A guess at what is said in each encoder frame; -100 behind a clip's end.

    Phones have silence as their last id; tokens stand at the end of their word, and the blank (last id)
    elsewhere.
    """

    phones: Int[Tensor, "N U2"]
    tokens: Int[Tensor, "N U2"]

    def to(self, device: torch.device | str) -> "FrameLabels":
        """The same labels on another device."""
        return FrameLabels(phones=self.phones.to(device), tokens=self.tokens.to(device))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Heard:
    mel: Float[Tensor, "M F"]
    tokens: Int[Tensor, "S"]
    phones: Int[Tensor, "P"]
    frame_phones: Int[Tensor, "U2"]
    frame_tokens: Int[Tensor, "U2"]


class Transcripts:
    """From a text to its targets: tokens of the spoken form, and phones of its words."""

    def __init__(self, folder: Path, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self.names = read_names(folder)
        self.lexicon = read_lexicon(folder / "lexicon.json")
        self.phone_ids = phone_ids(self.lexicon)
        self.durations = json.loads((folder / "durations.json").read_text(encoding="utf-8"))

    def tokens(self, text: str) -> list[int]:
        """Ids of the words without punctuation, each with the space before it."""
        return self.tokenizer.encode(f" {spoken_form(text, self.names)}")

    def phones(self, text: str) -> list[int]:
        """Ids of the phones; `DataError` where a word is not in the lexicon."""
        words = [word.lower() for word in words_of(text)]
        if any(word not in self.lexicon for word in words):
            raise DataError("word without pronunciation")
        return [self.phone_ids[phone] for word in words for phone in self.lexicon[word]]

    def spread(self, text: str, mel: Float[Tensor, "M F"]) -> tuple[Int[Tensor, "U2"], Int[Tensor, "U2"]]:
        """A guess at phone and token of each encoder frame (20 ms) of a clip without noise.

        Phones take the loud part of the clip in proportion to how long each lasts on average, a comma a fifth
        of a second; a token stands in the last two fifths of its word.
        """
        silence, blank = len(self.phone_ids), self.tokenizer.vocab_size
        level = mel.mean(dim=0)
        loud = (level >= level.amax() - 0.6 * (level.amax() - level.amin())).nonzero()
        first, last = int(loud[0]), int(loud[-1]) + 1
        pieces: list[tuple[int, int, float]] = []
        for piece in re.findall(r"[,.?!;]|[^\s,.?!;]+", spoken_punctuated(text, self.names)):
            if piece in ",.?!;":
                pieces.append((silence, blank, _PAUSE))
            for word in words_of(piece):
                pieces += self._word(word, blank)
        while pieces and pieces[-1][0] == silence:
            pieces.pop()
        if not pieces:
            raise DataError("no words")
        ends = np.cumsum([seconds for _, _, seconds in pieces])
        ends = (first + ends / ends[-1] * (last - first)) / 2
        phones = torch.full((-(-mel.shape[1] // 2),), silence)
        tokens = torch.full_like(phones, blank)
        start = first / 2
        for (phone, token, _), end in zip(pieces, ends.tolist(), strict=True):
            phones[round(start) : round(end)] = phone
            tokens[round(start) : round(end)] = token
            start = end
        return phones, tokens

    def _word(self, word: str, blank: int) -> list[tuple[int, int, float]]:
        phones = self.lexicon[word.lower()]
        tokens = self.tokenizer.encode(f" {word}")
        total = sum(self.durations[phone] for phone in phones)
        pieces, passed = [], 0.0
        for phone in phones:
            for _ in range(2):
                passed += self.durations[phone] / 2
                share = (passed / total - 0.6) / 0.4
                at = min(len(tokens) - 1, int(share * len(tokens))) if share > 0 else -1
                pieces.append(
                    (self.phone_ids[phone], tokens[at] if at >= 0 else blank, self.durations[phone] / 2)
                )
        return pieces


class TranscriptionBatches(BatchStream[_Heard, CtcBatch]):
    """An endless stream of `CtcBatch`es from weighted manifests; `batch_size` counts mel frames.

    Every clip is heard in another room each time, or as it was recorded without `augmentation`. With
    `labels_frames` a guess at the labels of all frames comes along, and no room moves a frame.
    """

    def __init__(
        self,
        manifests: Sequence[Path],
        weights: Sequence[float],
        transcripts: Transcripts,
        *,
        mel: MelSpec,
        augmentation: Augmentation | None,
        batch_size: int,
        seed: int,
        labels_frames: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        contents = [read_manifest(path, kind="recording") for path in manifests]
        self.records = [content.records for content in contents]
        self.transcripts, self.mel = transcripts, mel
        self.recorded = MelReader(mel) if labels_frames else None
        if labels_frames and augmentation is not None:
            augmentation = replace(augmentation, speed=(1.0, 1.0), margins=(0.0, 0.0), tight=0.0)
        self.reader = MelReader(mel, augmentation=augmentation)
        plan = MixturePlan(sizes=tuple(map(len, self.records)), weights=tuple(weights), seed=seed)
        super().__init__(plan, batch_size=batch_size, rank=rank, world_size=world_size)
        for content in contents:
            self.rejects.update(content.rejects)

    def _record(self, draw: Draw) -> Mapping[str, Any]:
        return self.records[draw.source][draw.index]

    def _size(self, draw: Draw) -> int:
        return int(self._record(draw)["duration"] * self.mel.sample_rate / self.mel.hop_length)

    def _make(self, draw: Draw, generator: np.random.Generator) -> _Heard:
        record = self._record(draw)
        tokens, phones = self.transcripts.tokens(record["text"]), self.transcripts.phones(record["text"])
        mel = self.reader.read(Clip.of(record), generator)
        if not torch.isfinite(mel).all():
            raise DataError("speech not finite")
        if mel.shape[1] < _MEL_FRAMES_PER_LABEL * max(len(tokens), len(phones), 1):
            raise DataError("too short for its text")
        labels = (torch.zeros(0, dtype=torch.long),) * 2
        if self.recorded is not None:
            as_recorded = self.recorded.read(Clip.of(record), generator)
            labels = self.transcripts.spread(record["text"], as_recorded[:, : mel.shape[1]])
        return _Heard(
            mel=mel,
            tokens=torch.tensor(tokens),
            phones=torch.tensor(phones),
            frame_phones=labels[0],
            frame_tokens=labels[1],
        )

    def _collate(self, samples: list[_Heard]) -> CtcBatch:
        return CtcBatch(
            mel=pad_sequence([s.mel.T for s in samples], batch_first=True).transpose(1, 2),
            mel_lengths=torch.tensor([s.mel.shape[1] for s in samples]),
            tokens=pad_sequence([s.tokens for s in samples], batch_first=True),
            token_lengths=torch.tensor([len(s.tokens) for s in samples]),
            phones=pad_sequence([s.phones for s in samples], batch_first=True),
            phone_lengths=torch.tensor([len(s.phones) for s in samples]),
            frames=None
            if self.recorded is None
            else FrameLabels(
                phones=pad_sequence([s.frame_phones for s in samples], batch_first=True, padding_value=-100),
                tokens=pad_sequence([s.frame_tokens for s in samples], batch_first=True, padding_value=-100),
            ),
        )
