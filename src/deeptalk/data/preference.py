"""Pairs of spoken answers, one better than the other, from a manifest to batches (method.md, 9.3 and 11).

Both answers say the same text to the same prompt; each is a row of its own, with its own codes as input.
Axes: B pairs, L frames, Q codebooks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

import numpy as np
import torch

from deeptalk.data.dataset import Source
from deeptalk.data.library import codes_of_message
from deeptalk.data.manifest import SIDES, Record, read_manifest
from deeptalk.data.mixture import BatchStream, Draw, MixturePlan
from deeptalk.errors import ConfigError, DataError
from deeptalk.shapes import Float, Int, Tensor
from deeptalk.streams import Batch, Example, StreamLayout, Turn, collate, encode_dialogue
from deeptalk.streams.layout import IGNORE
from deeptalk.streams.prompt import count_positions
from deeptalk.streams.text import TextCodec

TASK = "preference"
"""What a source of pairs is used for."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PairAnswer:
    """One way of saying a text, and its log-probability under the reference model; NaN before it is known.

    An answer that `is_cut` didn't end by itself, so its end isn't scored: nobody has chosen it.
    """

    codes: Int[Tensor, "L Q"]
    is_cut: bool = False
    ref_log_prob: float = nan


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pair:
    """What the user wrote, the text of the answer, and a winner and a loser that say it in one voice."""

    prompt: str
    text: str
    win: PairAnswer
    lose: PairAnswer
    speaker: str | None = None

    def turns(self, answer: PairAnswer) -> list[Turn]:
        """The dialogue that ends with one of the two answers."""
        said = Turn(role="assistant", text=self.text, codes=answer.codes, speaker=self.speaker)
        return [Turn(role="user", text=self.prompt), said]

    @property
    def mode(self) -> str:
        """The mode of the answers, with the voice where there is one."""
        return f"speaker:{self.speaker}" if self.speaker else "answer"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedPair:
    """A pair as two examples."""

    pair: Pair
    win: Example
    lose: Example


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PreferenceBatch:
    """Pairs side by side: the rows of all winners, then those of the losers in the same order."""

    rows: Batch
    ref_log_prob: Float[Tensor, "2 B"]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "PreferenceBatch":
        """The same batch on another device."""
        return PreferenceBatch(
            rows=self.rows.to(device, non_blocking=non_blocking),
            ref_log_prob=self.ref_log_prob.to(device, non_blocking=non_blocking),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """By which model pairs were scored: the hash of its weights, and the precision of the scoring."""

    model: str
    precision: str = "fp32"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPairs:
    """The pairs of a source that can be learnt from, and why others were left out."""

    weight: float
    pairs: tuple[Pair, ...]
    rejects: Mapping[str, int]


def load_pairs(source: Source, folder: Path, *, layout: StreamLayout, reference: Reference) -> LoadedPairs:
    """Read a source's pairs from the data folder.

    Raises:
        ConfigError: the source is meant for another task.
        DataError: nothing can be used, or the pairs were scored by another model than `reference`.
    """
    if source.task != TASK:
        raise ConfigError(
            f"pairs are learnt from as {TASK!r}, the source {source.manifest!r} has the task {source.task!r}."
        )
    path = folder / f"{source.manifest.removesuffix('.jsonl')}.jsonl"
    content = read_manifest(path, kind="preference")
    rejects, pairs = Counter(content.rejects), []
    for record in content.records:
        try:
            pairs.append(pair_of(record, layout=layout))
        except DataError as error:
            rejects[str(error)] += 1
            continue
        _check_reference(path, record["ref_logp"], reference)
    if not pairs:
        raise DataError(f"{path}: no pair can be used; left out: {dict(rejects)}")
    return LoadedPairs(weight=source.weight, pairs=tuple(pairs), rejects=dict(rejects))


def pair_of(record: Record, *, layout: StreamLayout) -> Pair:
    """The pair of a valid record; `DataError` with a countable reason where it can't be learnt from."""
    speaker = record.get("speaker") or None
    if speaker is not None and speaker not in layout.speakers:
        raise DataError("unknown speaker")
    reference = record.get("ref_logp")
    if reference is None:
        raise DataError("no reference log-probabilities")
    win, lose = (
        PairAnswer(
            codes=codes_of_message(record[side], codebook_size=layout.codebook_size).to(torch.int16),
            is_cut=bool(record[side].get("is_cut", False)),
            ref_log_prob=float(reference[side]),
        )
        for side in SIDES
    )
    return Pair(prompt=record["prompt"], text=record["text"], win=win, lose=lose, speaker=speaker)


def encode_pair(pair: Pair, *, tokenizer: TextCodec, layout: StreamLayout) -> EncodedPair:
    """Both answers as examples; the text is the same, the codes are each one's own."""
    win, lose = (
        _encode(pair, answer, tokenizer=tokenizer, layout=layout) for answer in (pair.win, pair.lose)
    )
    return EncodedPair(pair=pair, win=win, lose=lose)


def collate_pairs(encoded: Sequence[EncodedPair], *, layout: StreamLayout) -> PreferenceBatch:
    """Pairs as one batch of twice as many rows, padded on the right."""
    rows = [one.win for one in encoded] + [one.lose for one in encoded]
    known = [[one.pair.win.ref_log_prob for one in encoded], [one.pair.lose.ref_log_prob for one in encoded]]
    return PreferenceBatch(
        rows=collate(rows, [()] * len(rows), layout=layout, is_encoded=False, stride=1),
        ref_log_prob=torch.tensor(known),
    )


class PreferenceBatches(BatchStream[EncodedPair, PreferenceBatch]):
    """An endless stream of pairs; `batch_size` counts the positions of both rows with padding."""

    def __init__(
        self,
        sources: Sequence[LoadedPairs],
        *,
        tokenizer: TextCodec,
        layout: StreamLayout,
        max_positions: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        plan = MixturePlan(
            sizes=tuple(len(source.pairs) for source in sources),
            weights=tuple(source.weight for source in sources),
            seed=seed,
        )
        super().__init__(plan, batch_size=batch_size, rank=rank, world_size=world_size)
        self.sources, self.max_positions = tuple(sources), max_positions
        self._tokenizer, self._layout = tokenizer, layout
        for source in sources:
            self.rejects.update(source.rejects)

    def _pair(self, draw: Draw) -> Pair:
        return self.sources[draw.source].pairs[draw.index]

    def _size(self, draw: Draw) -> int:
        pair = self._pair(draw)
        return 2 * max(
            count_positions(
                pair.turns(answer), tokenizer=self._tokenizer, layout=self._layout, mode=pair.mode
            )
            for answer in (pair.win, pair.lose)
        )

    def _make(self, draw: Draw, generator: np.random.Generator) -> EncodedPair:
        encoded = encode_pair(self._pair(draw), tokenizer=self._tokenizer, layout=self._layout)
        if max(one.grid.shape[1] for one in (encoded.win, encoded.lose)) > self.max_positions:
            raise DataError("too long")
        return encoded

    def _collate(self, samples: list[EncodedPair]) -> PreferenceBatch:
        return collate_pairs(samples, layout=self._layout)


def _check_reference(path: Path, found: Mapping[str, object], wanted: Reference) -> None:
    """Refuse log-probabilities that the model at the start of the stage would not give."""
    given = Reference(model=str(found["model"]), precision=str(found.get("precision", "fp32")))
    if given != wanted:
        raise DataError(
            f"{path}: its pairs were scored by model {given.model} in {given.precision}, the stage starts "
            f"from model {wanted.model} in {wanted.precision}; make them anew with `deeptalk pairs`."
        )


def _encode(pair: Pair, answer: PairAnswer, *, tokenizer: TextCodec, layout: StreamLayout) -> Example:
    example = encode_dialogue(pair.turns(answer), tokenizer=tokenizer, layout=layout, mode=pair.mode)
    if not answer.is_cut:
        return example
    labels = example.labels.clone()
    labels[1:][labels[1:] == layout.eoa] = IGNORE
    return replace(example, labels=labels)
