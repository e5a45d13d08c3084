"""A seeded, endless mixture of sources in batches of like length; its position is two numbers.

What is drawn when is a pure function of the seed, so that a stream continued from a state gives exactly what
an uninterrupted one gives, at no cost but finding its place.
"""

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice
from typing import Any, Generic, TypeVar

import numpy as np

from deeptalk.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_NUM_NAMED = 3
"""So many samples that can't be used are named aloud for every reason, the others in the finer log."""

Sample = TypeVar("Sample")
Batched = TypeVar("Batched")


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """The `number`-th draw from a source, which is its record `index`."""

    source: int
    number: int
    index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MixturePlan:
    """Which records of which source make up each round: shares by weight, every source in shuffled order."""

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int
    round_size: int = 2_048

    def __post_init__(self) -> None:
        if not self.sizes or len(self.sizes) != len(self.weights):
            raise ConfigError(
                f"a mixture needs a weight for each source, got {len(self.sizes)} and {len(self.weights)}"
            )
        if min(self.sizes) < 1:
            raise DataError(
                f"source {self.sizes.index(min(self.sizes))} of the mixture has no usable records"
            )
        if min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ConfigError(f"weights of a mixture must be 0 or more and not all 0, got {self.weights}")

    def counts(self) -> tuple[int, ...]:
        """How many samples of each source every round has; none that has weight is left out."""
        total = sum(self.weights)
        return tuple(max(1, round(self.round_size * w / total)) if w else 0 for w in self.weights)

    def draws(self, number: int) -> list[Draw]:
        """The samples of a round, source by source."""
        drawn = []
        for source, count in enumerate(self.counts()):
            for k in range(number * count, (number + 1) * count):
                epoch, place = divmod(k, self.sizes[source])
                order = _order(self.seed, source, epoch, self.sizes[source])
                drawn.append(Draw(source=source, number=k, index=int(order[place])))
        return drawn


class BatchStream(ABC, Generic[Sample, Batched]):
    """Batches of like length from a mixture, endless and resumable; a process of many takes its share.

    `rejects` counts what was dropped, by reason; a subclass raises `DataError(reason)` for it. In its place
    stands another of its batch, which are of like length, so that every batch is full. `last` names the
    samples of the last batch. A batch holds at most `batch_size` units of `_size`, padding included.
    Seeds of a sample depend on its draw alone.
    """

    def __init__(self, plan: MixturePlan, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank must be from 0 to {world_size - 1}, got {rank}")
        self.plan, self.batch_size = plan, batch_size
        self.rank, self.world_size = rank, world_size
        self.rejects: Counter[str] = Counter()
        self.last: tuple[str, ...] = ()
        self._num_drawn = self._num_dropped = 0
        self._round, self._position = 0, 0
        self._batches: list[list[Draw]] | None = None

    @abstractmethod
    def _size(self, draw: Draw) -> int:
        """About how many units a sample takes, cheap to tell."""

    @abstractmethod
    def _make(self, draw: Draw, generator: np.random.Generator) -> Sample:
        """The sample; `DataError` with a countable reason where it can't be used."""

    @abstractmethod
    def _collate(self, samples: list[Sample]) -> Batched:
        """Samples as one batch."""

    def __iter__(self) -> "BatchStream[Sample, Batched]":
        """The stream itself."""
        return self

    def __next__(self) -> Batched:
        """The next batch, on the CPU; never empty."""
        empty_rounds = 0
        while True:
            batches = self._current_batches()
            if self._position >= len(batches):
                self._round, self._position, self._batches = self._round + 1, 0, None
                empty_rounds += 1
                if empty_rounds > 3:
                    raise DataError(f"no sample of the mixture can be used; dropped: {dict(self.rejects)}")
                continue
            samples = self._samples(batches[self._position])
            self._position += 1
            if samples:
                return self._collate(samples)

    def state_dict(self) -> dict[str, Any]:
        """The position, as plain JSON values."""
        state = {"round": self._round, "position": self._position, "rejects": dict(self.rejects)}
        return state | {"drawn": self._num_drawn, "dropped": self._num_dropped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position that `state_dict` gave."""
        self._round, self._position = int(state["round"]), int(state["position"])
        self.rejects = Counter(state["rejects"])
        self._num_drawn, self._num_dropped = state.get("drawn", 0), state.get("dropped", 0)
        self._batches = None

    def bad_fraction(self) -> float:
        """The share of records that can't be used, or of draws that were dropped, whichever is larger.

        Of less than a thousand draws it is taken of a thousand: the first dropped one says little.
        """
        before = sum(self.rejects.values()) - self._num_dropped
        of_records = before / (before + sum(self.plan.sizes))
        return max(of_records, self._num_dropped / max(self._num_drawn, 1_000))

    def num_batches_per_epoch(self, source: int = 0) -> int:
        """About how many batches of this process go by while a source is seen once."""
        own = self._own_batches(0)
        return max(1, round(len(own) * self.plan.sizes[source] / max(1, self.plan.counts()[source])))

    def _current_batches(self) -> list[list[Draw]]:
        if self._batches is None:
            self._batches = self._own_batches(self._round)
        return self._batches

    def _own_batches(self, number: int) -> list[list[Draw]]:
        """This process's batches of a round; every process has equally many."""
        generator = np.random.default_rng([self.plan.seed, 1, number])
        sized = [(self._size(draw) * generator.uniform(1.0, 1.03), draw) for draw in self.plan.draws(number)]
        batches = bucket(sorted(sized, key=lambda pair: pair[0]), self.batch_size)
        order = generator.permutation(len(batches)).tolist()
        even = len(order) // self.world_size * self.world_size or len(order)
        return [batches[i] for i in order[self.rank : even : self.world_size]]

    def _generator(self, draw: Draw) -> np.random.Generator:
        """Chance of a sample, the same whenever it is asked for."""
        return np.random.default_rng([self.plan.seed, 2, draw.source, draw.number])

    def _samples(self, draws: Sequence[Draw]) -> list[Sample]:
        samples, names = [], []
        for draw in draws:
            self._num_drawn += 1
            try:
                samples.append(self._make(draw, self._generator(draw)))
                names.append(self._name(draw))
            except DataError as error:
                self._drop(draw, str(error))
        self.last = tuple(names)
        return list(islice(cycle(samples), len(draws)))

    def _drop(self, draw: Draw, reason: str) -> None:
        self.rejects[reason] += 1
        self._num_dropped += 1
        level = logging.WARNING if self.rejects[reason] <= _NUM_NAMED else logging.INFO
        logger.log(level, "%s can't be used: %s", self._name(draw), reason)

    def _name(self, draw: Draw) -> str:
        """What people call a sample."""
        return f"record {draw.index} of source {draw.source}"


def bucket(sized: Sequence[tuple[float, Draw]], batch_size: int) -> list[list[Draw]]:
    """Neighbours in a sorted list as batches whose longest sample times their number fits `batch_size`."""
    batches: list[list[Draw]] = []
    current: list[Draw] = []
    for size, draw in sized:
        if current and size * (len(current) + 1) > batch_size:
            batches.append(current)
            current = []
        current.append(draw)
    return [*batches, current] if current else batches


@lru_cache(maxsize=64)
def _order(seed: int, source: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, source, epoch]).permutation(size)
