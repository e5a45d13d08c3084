"""Work on many clips in shards, by many processes: nothing is made twice and nothing is lost.

A shard is made as a whole by one worker, which writes its index last: a shard without one isn't there, and
is made by whoever comes next. `Workers` says who makes them: processes of this machine, or of many.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Protocol

from deeptalk.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Items that are made together, into ``path`` with an index (JSON) beside it.

    What it is made of is in its name: what a manifest names is never replaced by something else.
    """

    path: Path
    items: tuple[Any, ...]

    @property
    def index(self) -> Path:
        """The file that stands there once the shard is whole."""
        return self.path.with_suffix(".json")

    def found(self) -> list[dict[str, Any]] | None:
        """What became of each item, or why nothing did; None while the shard isn't whole."""
        try:
            found = json.loads(self.index.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if self.path.exists() else None


Make = Callable[[Shard], None]
"""Makes a shard, its index last; it travels to other processes, so it is a function of a module."""
Progress = Callable[[int, int], None]
"""Is told how many shards of how many are made."""


_MOST_FRUITLESS = 3
"""A lost process takes the others of its round with it, and their shards: one such round proves nothing."""


class Workers(Protocol):
    """Who makes shards."""

    def make(self, shards: Sequence[Shard], make: Make) -> Iterator[None]:
        """Make shards in any order, a step for each; where workers are lost it ends before all are made."""
        ...


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes of this machine; one makes the shards in this process itself."""

    number: int = 1

    def make(self, shards: Sequence[Shard], make: Make) -> Iterator[None]:
        """Make shards one by one or side by side; a lost process ends the round."""
        if self.number == 1:
            for shard in shards:
                make(shard)
                yield
            return
        with ProcessPoolExecutor(min(self.number, len(shards)), mp_context=_processes()) as pool:
            jobs = [pool.submit(make, shard) for shard in shards]
            try:
                for job in as_completed(jobs):
                    job.result()
                    yield
            except BrokenProcessPool:
                return  # a worker was killed; every shard that isn't whole is made in the next round
            finally:
                pool.shutdown(cancel_futures=True)  # a mistake is told before the rest is made


def plan_shards(folder: Path, items: Sequence[Any], *, size: int, mark: object, suffix: str) -> list[Shard]:
    """Shards of ``size`` items, called by their number and a hash of ``mark`` and of what they are made of.

    ``mark`` and items must be told apart by their ``repr``.
    """
    shards = []
    for number, start in enumerate(range(0, len(items), size)):
        part = tuple(items[start : start + size])
        digest = sha256(repr((mark, part)).encode()).hexdigest()[:16]
        shards.append(Shard(path=folder / f"{number:05d}-{digest}{suffix}", items=part))
    return shards


def make_shards(
    shards: Sequence[Shard], make: Make, *, workers: Workers, progress: Progress | None = None
) -> int:
    """Make the shards that aren't there yet, and count them; where workers are lost, others make the rest.

    Raises:
        DataError: the workers are lost again and again before any of them finishes a shard.
    """
    left = [shard for shard in shards if shard.found() is None]
    number, fruitless = len(left), 0
    for folder in {shard.path.parent for shard in left}:
        folder.mkdir(parents=True, exist_ok=True)
    while left:
        done = number - len(left)
        for step, _ in enumerate(workers.make(left, make), done + 1):
            if progress is not None:
                progress(step, number)
        before, left = len(left), [shard for shard in left if shard.found() is None]
        fruitless = fruitless + 1 if len(left) == before else 0
        if fruitless == _MOST_FRUITLESS:
            raise DataError(
                f"the workers were lost {fruitless} times before any finished one of {before} shards; take "
                "fewer (--workers) or smaller ones (--shard)."
            )
    return number


def clear_folder(folder: Path, shards: Iterable[Shard]) -> None:
    """Remove what lost workers had begun, and shards that belong to no manifest any more."""
    kept = {path for shard in shards for path in (shard.path, shard.index)}
    for path in folder.iterdir():
        if path not in kept and path.name.lstrip(".")[:5].isdigit():
            path.unlink()


def _processes() -> ForkServerContext:
    """New processes that inherit no thread and no accelerator; what they import is imported once."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["deeptalk.data.answer_codes"])
    return context
