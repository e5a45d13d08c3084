"""The options of verbs that work shard by shard: who makes the shards, and how large they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import typer

from deeptalk.cli.progress import bars
from deeptalk.data.shards import Processes, Workers

NumWorkers = Annotated[int, typer.Option("--workers", metavar="N", help="Processes at a time.", min=1)]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="HOST:PORT",
        help="A Ray cluster makes the shards, in place of --workers: its address, 'auto' or 'local'.",
        show_default=False,
    ),
]


@contextmanager
def shard_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar of shards, which is told how many are done, of how many."""
    with bars() as show:
        yield partial(show, "shards")


def chosen_workers(number: int, ray: str | None) -> Workers:
    """The processes of this machine, or of a cluster where one is named."""
    if ray is None:
        return Processes(number)
    from deeptalk.data.cluster import RayWorkers

    return RayWorkers(ray)
