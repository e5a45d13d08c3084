"""Shards made by the processes of many machines, through Ray (``deeptalk[ray]``).

All machines see the folders under the same paths, and have DeepTalk installed. Ray runs the code that it is
given: its ports belong into a private network.
"""

import logging
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from deeptalk.data.shards import Make, Shard
from deeptalk.errors import ConfigError, DataError

HERE = "local"
"""The address that begins a cluster of this machine alone."""

_SECONDS = 10


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """The processes of a Ray cluster: its ``HOST:PORT``, ``auto`` for the one this machine is in, or `HERE`.

    A task takes one core. Ray gives the shard of a lost worker to another one by itself; where it gives up,
    the round ends.
    """

    address: str

    def make(self, shards: Sequence[Shard], make: Make) -> Iterator[None]:
        """Make shards side by side on all machines."""
        ray = _ray()
        with _connected(ray, self.address):
            task = ray.remote(num_cpus=1, max_retries=3)(_make_there)
            left = [task.remote(shard, make, socket.gethostname()) for shard in shards]
            while left:
                done, left = ray.wait(left)
                try:
                    ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    for other in left:
                        ray.cancel(other)
                    cause = error.cause
                    raise cause if isinstance(cause, Exception) else error from error
                except ray.exceptions.RayError:
                    return  # lost too often; what isn't whole is made in the next round
                yield


def _make_there(shard: Shard, make: Make, driver: str) -> None:
    """Make a shard in a worker, if it sees the folder that was made for it."""
    if not shard.path.parent.is_dir():
        here = socket.gethostname()
        raise DataError(
            f"{shard.path.parent} is a folder of {driver} that {here} doesn't see; all machines of the "
            "cluster need it under the same path."
        )
    make(shard)


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """A connection to the cluster, ended at the end unless it was there before."""
    if ray.is_initialized():
        yield
        return
    try:
        if found := re.fullmatch(r"([\w.-]+):(\d+)", address):
            socket.create_connection(
                (found[1], int(found[2])), timeout=_SECONDS
            ).close()  # Ray tries for minutes
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"There is no Ray cluster at {address!r} ({reason}); begin one with `ray start --head`, or give "
            f"--ray {HERE}."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("--ray needs Ray: pip install 'deeptalk[ray]'.") from error
    return ray
