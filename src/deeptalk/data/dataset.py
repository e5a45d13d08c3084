"""Batches of dialogues for the model: sources with tasks and weights, seeded and resumable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeptalk.data.manifest import Record, index_manifest
from deeptalk.data.mixture import BatchStream, Draw, MixturePlan
from deeptalk.data.tasks import (
    SpokenExample,
    TaskContext,
    TaskName,
    make_example,
    manifest_kind,
    plan_example,
    usable,
)
from deeptalk.errors import DataError
from deeptalk.streams import Batch, collate


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A set of samples, the task they are used for, and how often it is drawn from.

    `manifest` is its name in the data folder, with or without `.jsonl`; `weight` is relative to the other
    sources; `only` keeps the records of these categories, sources, or families of facts.
    """

    manifest: str
    task: str
    weight: float = 1.0
    only: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedSource:
    """The records of a source that its task can use, and why others were left out."""

    task: TaskName
    weight: float
    records: Sequence[Record]
    rejects: Mapping[str, int]


def load_source(source: Source, folder: Path, context: TaskContext) -> LoadedSource:
    """Go through a source's manifest in the data folder and keep what its task can use, in the file."""
    kind = manifest_kind(source.task)
    task: TaskName = source.task  # type: ignore[assignment]  # manifest_kind has checked it
    name = source.manifest if source.manifest.endswith(".jsonl") else f"{source.manifest}.jsonl"
    records = index_manifest(
        folder / name,
        kind=kind,
        check=lambda record: usable(record, task, context),
        choose=None if not source.only else lambda record: not _names(record).isdisjoint(source.only),
    )
    if not len(records):
        among = f" among those of {', '.join(source.only)}" if source.only else ""
        left_out = dict(records.rejects)
        raise DataError(f"{folder / name}: no record{among} can serve {task}; left out: {left_out}")
    return LoadedSource(task=task, weight=source.weight, records=records, rejects=records.rejects)


def _names(record: Record) -> set[str]:
    """By what `only` may choose a record: `facts`, `digit`, and of a fact `currency/spain` its family."""
    family = str(record.get("fact", "")).partition("/")[0]
    return {name for name in (record.get("category"), record.get("source"), family) if name}


class DialogueBatches(BatchStream[SpokenExample, Batch]):
    """An endless stream of `Batch`es from weighted sources; `batch_size` counts positions with padding."""

    def __init__(
        self,
        sources: Sequence[LoadedSource],
        context: TaskContext,
        *,
        batch_size: int,
        seed: int,
        round_size: int = 2_048,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        plan = MixturePlan(
            sizes=tuple(len(source.records) for source in sources),
            weights=tuple(source.weight for source in sources),
            seed=seed,
            round_size=round_size,
        )
        super().__init__(plan, batch_size=batch_size, rank=rank, world_size=world_size)
        self.sources, self.context = tuple(sources), context
        for source in sources:
            self.rejects.update(source.rejects)

    def _record(self, draw: Draw) -> tuple[Mapping[str, Any], TaskName]:
        source = self.sources[draw.source]
        return source.records[draw.index], source.task

    def _name(self, draw: Draw) -> str:
        return str(self._record(draw)[0].get("id", super()._name(draw)))

    def _size(self, draw: Draw) -> int:
        try:
            return plan_example(*self._record(draw), self.context, self._generator(draw)).size(self.context)
        except DataError:
            return 1  # it is dropped, and counted, where it is made

    def _make(self, draw: Draw, generator: np.random.Generator) -> SpokenExample:
        return make_example(*self._record(draw), self.context, generator)

    def _collate(self, samples: list[SpokenExample]) -> Batch:
        reader = self.context.reader
        return collate(
            [sample.example for sample in samples],
            [list(sample.speech) for sample in samples],
            layout=self.context.layout,
            is_encoded=reader is not None and reader.is_encoded,
            stride=self.context.stride,
        )
