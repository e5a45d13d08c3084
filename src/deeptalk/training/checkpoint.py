"""Checkpoints that are whole or absent, and from which a run goes on bit for bit.

A checkpoint holds what the stage moves (trainable parameters, buffers, their average), optimiser, generators
and the position in the data. What the stage freezes is in the folders that the recipe starts from.
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deeptalk.errors import CheckpointError

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run stands: steps done and skipped, where each process is in the data, and whose run it is."""

    step: int
    num_skipped: int
    recipe_hash: str
    data: list[dict[str, Any]]


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, and rename it into its place; a crash leaves the old state.

    Between the renames that replace a folder, the old one stands beside its place: see `put_back`.
    """
    put_back(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    write(unfinished)
    for path in [*unfinished.rglob("*"), unfinished]:
        _sync(path)
    if folder.exists():
        replaced = _replaced(folder)
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
        unfinished.rename(folder)
        shutil.rmtree(replaced)
    else:
        unfinished.rename(folder)
    _sync(folder.parent)


def put_back(folder: Path) -> Path:
    """The folder; if `write_folder` was stopped while it replaced it, with what it held before."""
    if not folder.exists():
        with suppress(FileNotFoundError):  # there is nothing to put back, or another process has done it
            _replaced(folder).rename(folder)
    return folder


def save_checkpoint(
    folder: Path,
    *,
    model: nn.Module,
    average: dict[str, Tensor] | None,
    optimizer: torch.optim.Optimizer,
    generators: list[dict[str, Any]],
    progress: Progress,
    keep: int = 2,
) -> Path:
    """Save `folder/step-N`, with one of `generators` per process, and delete all but the last `keep`."""

    def write(path: Path) -> None:
        save_file({name: t.contiguous() for name, t in _moving(model).items()}, path / "model.safetensors")
        if average is not None:
            save_file(average, path / "average.safetensors")
        torch.save(optimizer.state_dict(), path / "optimizer.pt")
        torch.save(generators, path / "generators.pt")
        state = {
            "format_version": FORMAT_VERSION,
            "step": progress.step,
            "num_skipped": progress.num_skipped,
            "recipe_hash": progress.recipe_hash,
            "data": progress.data,
        }
        (path / "progress.json").write_text(json.dumps(state, indent=1))

    target = folder / f"step-{progress.step:08d}"
    write_folder(target, write)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "progress.json").exists())


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was saved."""
    return int(checkpoint.name.removeprefix("step-"))


def read_progress(path: Path) -> Progress:
    """Where the run of a checkpoint stands.

    Raises:
        CheckpointError: the file is damaged or of another format.
    """
    try:
        state = json.loads((path / "progress.json").read_text())
        version = state.pop("format_version")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a training checkpoint ({error}).") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format version {version}, this program reads {FORMAT_VERSION}.")
    return Progress(**state)


def load_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    average: dict[str, Tensor] | None,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    recipe_hash: str,
    process_index: int = 0,
    num_processes: int = 1,
) -> Progress:
    """Put a run back to where `path` was saved, global generators included.

    Raises:
        CheckpointError: the checkpoint is damaged, or was written by another recipe or number of processes.
    """
    progress = read_progress(path)
    if progress.recipe_hash != recipe_hash:
        raise CheckpointError(
            f"{path} was written by another recipe (hash {progress.recipe_hash}, this one {recipe_hash}); "
            "give the recipe it was started with, or begin again (--anew)."
        )
    if len(progress.data) != num_processes:
        raise CheckpointError(
            f"{path} was written by {len(progress.data)} processes, this run has {num_processes}; "
            "resume with as many."
        )
    try:
        weights = load_file(path / "model.safetensors")
        averaged = {} if average is None else load_file(path / "average.safetensors")
        moments = torch.load(path / "optimizer.pt", weights_only=True)
        states = torch.load(path / "generators.pt", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); remove it to go on from the one before."
        ) from error
    _copy_into(_moving(model), weights, path)
    if average is not None:
        _copy_into(average, averaged, path)
    optimizer.load_state_dict(moments)
    set_generators(states[process_index], generator)
    return progress


def generator_states(generator: torch.Generator) -> dict[str, Any]:
    """The states of the run's own generator and of the global ones of this process."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "loop": generator.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }


def set_generators(states: dict[str, Any], generator: torch.Generator) -> None:
    """Put all generators back to the states that `generator_states` gave."""
    generator.set_state(states["loop"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def _moving(model: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters and the buffers, by name; tied ones once."""
    tensors = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    saved = model.state_dict().keys()
    tensors.update({name: buffer for name, buffer in model.named_buffers() if name in saved})
    return tensors


def _copy_into(target: dict[str, Tensor], source: dict[str, Tensor], path: Path) -> None:
    if target.keys() != source.keys():
        different = sorted(target.keys() ^ source.keys())
        raise CheckpointError(f"{path}: its tensors differ from the model's: {', '.join(different[:5])}.")
    with torch.no_grad():
        for name, tensor in target.items():
            if tensor.shape != source[name].shape:
                raise CheckpointError(
                    f"{path}: {name} has shape {tuple(source[name].shape)}, the model {tuple(tensor.shape)}."
                )
            tensor.copy_(source[name])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
