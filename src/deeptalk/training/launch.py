"""How a run was launched: by what, and in which groups its processes take batches and hold experts."""

import os
from dataclasses import dataclass

from accelerate import Accelerator

from deeptalk.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """Groups of ``size`` neighbours that take the same batches.

    There are ``number`` of them, and this process is in ``index``. Without expert parallelism every process
    is a group of its own.
    """

    size: int
    number: int
    index: int
    is_first: bool
    """Whether this process is the first of its group, the one that is counted."""


def is_zero() -> bool:
    """Whether the launcher asked for DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def is_fsdp() -> bool:
    """Whether the launcher asked for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def groups_of(accelerator: Accelerator, *, size: int = 1) -> Groups:
    """The groups of the processes that were launched.

    Raises:
        ConfigError: they don't make groups of this size, or were launched to be divided in another way.
    """
    number = accelerator.num_processes
    if size < 1 or number % size:
        raise ConfigError(
            f"--expert-parallel {size}: groups of so many processes can't be made of {number}; launch a "
            "multiple of it (accelerate launch --num_processes, torchrun --nproc-per-node)."
        )
    if size > 1 and (is_zero() or is_fsdp()):
        raise ConfigError(
            "--expert-parallel divides the experts itself; launch without DeepSpeed and FSDP, "
            "or leave the option out."
        )
    index, place = divmod(accelerator.process_index, size)
    return Groups(size=size, number=number // size, index=index, is_first=place == 0)
