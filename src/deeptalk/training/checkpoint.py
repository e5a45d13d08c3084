"""Checkpoints that are whole or absent, and from which a run goes on bit for bit.

A checkpoint holds what the stage moves (trainable parameters, buffers, their average), optimiser, generators
and the position in the data. What the stage freezes is in the folders that the recipe starts from. A manifest
with the size and SHA-256 of every file is written last: what doesn't agree with it is no checkpoint.

It is stored by parameter, in as many files as there are writers (format 2, `deeptalk.training.states`), so
that any number of processes can read it, however they hold the model. Checkpoints of format 1, of models that
were held whole, are read and no longer written.
"""

import json
import logging
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
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from deeptalk.errors import CheckpointError
from deeptalk.files import write_text
from deeptalk.training.manifest import File, broken, file_of, write_manifest

logger = logging.getLogger(__name__)

LATEST = "latest"
"""A text beside the checkpoints that names the newest, for people and other programs."""

WHOLE, IN_PARTS = 1, 2
"""Formats of checkpoints."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run stands: steps done and skipped, where each process is in the data, and whose run it is."""

    step: int
    num_skipped: int
    recipe_hash: str
    data: list[dict[str, Any]]
    num_bad_in_a_row: int = 0
    format_version: int = IN_PARTS


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, and rename it into its place; a crash leaves the old state.

    Between the renames that replace a folder, the old one stands beside its place: see `put_back`.
    """
    put_back(folder)
    unfinished = _begin(folder)
    try:
        write(unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _finish(unfinished, folder)


def _begin(folder: Path) -> Path:
    """An empty folder beside the place of another."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    return unfinished


def _finish(unfinished: Path, folder: Path) -> None:
    """Rename a filled folder into its place, once it is on the disk."""
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
    write: Callable[[Path], list[Path]],
    progress: Progress,
    about: dict[str, Any],
    accelerator: Accelerator | None = None,
    keep: int = 2,
) -> Path:
    """Save `folder/step-N` and delete all but the last `keep`.

    Every process calls this and lets `write` write files of its own and list them. `about` stands in the
    manifest.

    Raises:
        CheckpointError: some process could not write; nothing is left of it, and older checkpoints stay.
    """
    is_main = accelerator is None or accelerator.is_main_process
    target = folder / f"step-{progress.step:08d}"
    unfinished = target.with_name(f".{target.name}.unfinished")
    error: Exception | None = None
    if is_main:
        try:
            _begin(target)
        except OSError as given:
            error = given
    _wait(accelerator)
    files: list[File] = []
    if error is None:
        try:
            files = [file_of(path) for path in write(unfinished)]
        except (OSError, SafetensorError, RuntimeError) as given:
            error = given
    own = [(None if error is None else " ".join(str(error).split()), files)]
    written = own if accelerator is None else gather_object(own)
    failures = [why for why, _ in written if why]
    if is_main and not failures:
        try:
            _write_progress(unfinished, progress)
            told = {"step": progress.step, "recipe_hash": progress.recipe_hash, **about}
            every = [file for _, some in written for file in some]
            write_manifest(unfinished, files=[*every, file_of(unfinished / PROGRESS)], about=told)
            _finish(unfinished, target)
            write_text(folder / LATEST, f"{target.name}\n")
        except OSError as given:
            failures = [" ".join(str(given).split())]
    if accelerator is not None and accelerator.num_processes > 1:
        failures = [why for why in gather_object([failures[0] if failures else None]) if why]
    if failures:
        if is_main:
            shutil.rmtree(unfinished, ignore_errors=True)
        last = checkpoints(folder)[-1:]
        goes_on = f"{last[0].name} is there to go on from (--resume)" if last else "there is none before it"
        raise CheckpointError(f"{target} can't be written ({failures[0]}); {goes_on}.")
    if is_main:
        for old in checkpoints(folder)[:-keep]:
            shutil.rmtree(old)
    _wait(accelerator)
    return target


PROGRESS = "progress.json"


def _write_progress(path: Path, progress: Progress) -> None:
    state = {
        "format_version": progress.format_version,
        "step": progress.step,
        "num_skipped": progress.num_skipped,
        "recipe_hash": progress.recipe_hash,
        "data": progress.data,
    }
    if progress.num_bad_in_a_row:
        state["num_bad_in_a_row"] = progress.num_bad_in_a_row
    (path / PROGRESS).write_text(json.dumps(state, indent=1))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first; whether they are whole is asked by `newest_checkpoint`."""
    return sorted(path for path in folder.glob("step-*") if (path / PROGRESS).exists())


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that agrees with its manifest, or is from before there were any.

    Raises:
        CheckpointError: there are some, and all are broken.
    """
    found = checkpoints(folder)
    why = ""
    for path in reversed(found):
        why = broken(path)
        if not why:
            return path
        logger.warning("%s is passed over: %s", path, why)
    if found:
        raise CheckpointError(
            f"{folder}: no checkpoint is whole ({found[0].name}: {why}); begin again (--anew)."
        )
    return None


def clear_leftovers(folder: Path) -> None:
    """Delete what saves that were killed have left in a run's folder."""
    for path in folder.glob(".step-*.unfinished"):
        shutil.rmtree(path, ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was saved."""
    return int(checkpoint.name.removeprefix("step-"))


def read_progress(path: Path) -> Progress:
    """Where the run of a checkpoint stands.

    Raises:
        CheckpointError: the file is damaged or of another format.
    """
    try:
        state = json.loads((path / PROGRESS).read_text())
        version = state["format_version"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a training checkpoint ({error}).") from error
    if version not in (WHOLE, IN_PARTS):
        raise CheckpointError(f"{path}: format version {version}, this program reads {WHOLE} and {IN_PARTS}.")
    return Progress(**state)


def check_run(path: Path, progress: Progress, *, recipe_hash: str, num_processes: int, is_same: bool) -> None:
    """Refuse the checkpoint of another run.

    The hash tells, where as many processes go on as have written; with others the number of steps and the
    share of each differ, and ``is_same`` says whether the recipe that was asked for is the same but for them.

    Raises:
        CheckpointError: it was written by another recipe.
    """
    if len(progress.data) != num_processes:
        is_ours = is_same
        logger.warning(
            "%s was written by %d processes, %d go on with it: not bit for bit as those would have",
            path,
            len(progress.data),
            num_processes,
        )
    else:
        is_ours = progress.recipe_hash == recipe_hash
    if not is_ours:
        raise CheckpointError(
            f"{path} was written by another recipe (hash {progress.recipe_hash}, this one {recipe_hash}); "
            "give the recipe it was started with, or begin again (--anew)."
        )


def load_whole(
    path: Path, *, model: nn.Module, average: dict[str, Tensor] | None, optimizer: torch.optim.Optimizer
) -> list[dict[str, Any]]:
    """Put weights and optimiser of format 1 back; the generators' states of all processes are given back.

    Raises:
        CheckpointError: the checkpoint is damaged, or another model's.
    """
    try:
        weights = load_file(path / "model.safetensors")
        averaged = {} if average is None else load_file(path / "average.safetensors")
        moments = torch.load(path / "optimizer.pt", weights_only=True)
        states = torch.load(path / "generators.pt", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); remove it to go on from the one before."
        ) from error
    copy_into(_moving(model), weights, path)
    if average is not None:
        copy_into(average, averaged, path)
    optimizer.load_state_dict(moments)
    return states


def data_of(progress: Progress, *, process_index: int, num_processes: int) -> dict[str, Any]:
    """Where a process goes on in the data; with another number of processes, about where they all were.

    Raises:
        CheckpointError: the data don't say where they are by round and position.
    """
    before = progress.data
    if len(before) == num_processes:
        return before[process_index]
    if any("round" not in state or "position" not in state for state in before):
        raise CheckpointError(
            f"the run was written by {len(before)} processes, this one has {num_processes}; "
            "resume with as many."
        )
    first = min(before, key=lambda state: (state["round"], state["position"]))
    return {**first, "position": first["position"] * len(before) // num_processes}


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


def copy_into(target: dict[str, Tensor], source: dict[str, Tensor], path: Path) -> None:
    """Copy tensors by name; `CheckpointError` where names or shapes differ."""
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


def _wait(accelerator: Accelerator | None) -> None:
    if accelerator is not None:
        accelerator.wait_for_everyone()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
