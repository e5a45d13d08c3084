"""A stage from a recipe to its result: open, freeze, train, save; begun again, it goes on where it was."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn

from deeptalk.backbone import Backbone
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.files import digest_of
from deeptalk.model.origin import BACKBONE_HASH, origin_of
from deeptalk.training.checkpoint import (
    checkpoints,
    clear_leftovers,
    newest_checkpoint,
    put_back,
    step_of,
    write_folder,
)
from deeptalk.training.codec import CodecTraining
from deeptalk.training.ctc import Ctc
from deeptalk.training.engine import build_accelerator
from deeptalk.training.evaluate import evaluate
from deeptalk.training.expert_parallel import check_divisible
from deeptalk.training.launch import groups_of
from deeptalk.training.loop import Forward, StepReport, train
from deeptalk.training.manifest import read_manifest
from deeptalk.training.memory import check_memory, disk_shortage
from deeptalk.training.metrics import MetricsWriter
from deeptalk.training.objective import Task
from deeptalk.training.preference import Preference
from deeptalk.training.recipe import Recipe
from deeptalk.training.retention import TextBound, open_gate
from deeptalk.training.stage import Places, Progress, Stage, silent
from deeptalk.training.stage_codec import CodecStage
from deeptalk.training.stage_dialogue import DialogueStage
from deeptalk.training.stage_encoder import EncoderStage
from deeptalk.training.stage_preference import PreferenceStage
from deeptalk.training.stage_text import TextStage
from deeptalk.training.supervised import Supervised
from deeptalk.training.text import TextLm
from deeptalk.training.trainable import freeze_all_but

logger = logging.getLogger(__name__)

RECIPE = "recipe.json"
METRICS = "metrics.jsonl"

_STAGES: dict[type, Callable[[Recipe, Places], Stage]] = {
    CodecTraining: CodecStage,
    Ctc: EncoderStage,
    TextLm: TextStage,
    Supervised: DialogueStage,
    Preference: PreferenceStage,
}


def open_stage(
    recipe: Recipe,
    places: Places,
    *,
    dense: bool = False,
    device: torch.device | None = None,
    progress: Progress = silent,
) -> Stage:
    """The model, data and objective of a recipe; random weights come from the recipe's seed alone.

    `dense` opens stage 2.1 without the experts that it masks. On `device` an expert load is measured.
    `progress` is told of recordings that are encoded first.
    """
    kind = type(recipe.objective)
    if kind not in _STAGES:
        raise ConfigError(f"no stage runs the objective {kind.__name__}.")
    if dense and kind is not Supervised:
        raise ConfigError(f"recipe {recipe.name!r} masks no experts; only stage 2.1 trains without them.")
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        if kind is Supervised:
            return DialogueStage(recipe, places, dense=dense, device=device, progress=progress)
        return _STAGES[kind](recipe, places)


def run_stage(
    recipe: Recipe,
    *,
    root: Path,
    data: Path | None = None,
    resume: bool = True,
    anew: bool = False,
    compiled: bool = False,
    shared: bool = False,
    dense: bool = False,
    expert_parallel: int = 1,
    keep_going: bool = False,
    text_bound: TextBound | None = None,
    accelerator: Accelerator | None = None,
    progress: Progress = silent,
) -> Iterator[StepReport]:
    """Train a recipe and leave its result in `root/NAME/model`, checkpoints and metrics in `root/NAME/run`.

    `data` is `root/data` unless given. With `resume` a run that was interrupted goes on, and one that is
    finished yields nothing; without it, only `anew` deletes what an interrupted run has kept, and that once
    the stage is open. `compiled` fuses the backbone's layers, for the same results up to rounding.
    Each process takes `accumulate` micro-batches a step; `shared`, all together take them. `dense` trains
    stage 2.1 without the experts that it masks, for the same results up to rounding. Groups of
    `expert_parallel` processes take the same micro-batches and hold the experts together: a group then is
    what a process is otherwise. With `keep_going` it
    goes on where a full disk takes no checkpoint. With `text_bound` text is measured against the text
    backbone whenever the stage evaluates, and a run that takes too much from it ends. The main process tells
    `progress` what it encodes before the first step.

    Raises:
        ConfigError: the recipe fits neither its data nor the stages it starts from, its micro-batches
            can't be shared out evenly, its experts can't be divided so, or it would delete an interrupted run
            unasked.
        CheckpointError: an earlier stage is missing, or the folder holds another recipe's run.
        TextLostError: text has lost more than `text_bound` lets it.
    """
    places = Places(root=root, data=data if data is not None else root / "data")
    if resume and anew:
        raise ConfigError("--resume goes on with a run and --anew begins it again; give one of them.")
    if resume and is_finished(recipe, places):
        return
    asked, accelerator = recipe, accelerator or build_accelerator()
    groups = groups_of(accelerator, size=expert_parallel)
    if groups.size > 1:
        check_divisible(recipe)
        if compiled:
            raise ConfigError("--compile and --expert-parallel don't go together; leave one of them out.")
    if shared:
        recipe = _share(recipe, groups.number)
    folder = places.run(recipe.name)
    if not (resume or anew):
        _check_nothing_is_lost(recipe, places)
    accelerator.wait_for_everyone()  # all have looked before anything moves
    if accelerator.is_main_process:
        clear_leftovers(folder)
    with _without(folder) if accelerator.is_main_process and not resume else nullcontext():
        with accelerator.main_process_first():  # it makes the caches and the partition that the others read
            told = progress if accelerator.is_main_process else silent
            stage = open_stage(recipe, places, dense=dense, device=accelerator.device, progress=told)
        freeze_all_but(stage.model, recipe.trains)
        check_memory(
            stage.model,
            recipe,
            device=accelerator.device,
            num_processes=accelerator.num_processes,
            expert_parallel=groups.size,
        )
        shortage = disk_shortage(stage.model, recipe, folder) if accelerator.is_main_process else ""
        if shortage:
            logger.warning(shortage)
        batches = stage.batches(rank=groups.index, world_size=groups.number)
        measure = _measure(stage, text_bound)
        accelerator.wait_for_everyone()  # what was left there goes once all can begin
    if recipe.recompute != "none":
        recompute(stage.model, recipe)
    if compiled:
        _compile(stage.model)
    start = newest_checkpoint(folder) if resume else None
    if recipe.num_steps is None:
        num_batches = batches.num_batches_per_epoch() * (recipe.epochs or 1)
        num_steps = _steps_of_others(start, groups.number)
        num_steps = num_steps or max(1, num_batches // recipe.accumulate)
        recipe = dataclasses.replace(recipe, num_steps=num_steps, epochs=None)
    note = provenance(dataclasses.replace(recipe, accumulate=asked.accumulate), places)
    note |= {
        "asked_hash": asked.hash,
        "asked_epochs": asked.epochs,
        "num_processes": groups.number,
    }
    metrics = _open_metrics(folder, start) if accelerator.is_main_process else None
    rejected: Mapping[str, int] = {}
    for report in train(
        stage.model,
        recipe=recipe,
        batches=batches,
        objective=stage.objective,
        folder=folder,
        resume=resume,
        evaluate=measure,
        accelerator=accelerator,
        asked=asked,
        expert_parallel=groups.size,
        keep_going=keep_going,
    ):
        if metrics is not None:
            line = dataclasses.asdict(report)
            if line["rejected"] == rejected:
                del line["rejected"]
            _write_metrics(metrics, line, keep_going=keep_going)
            rejected = report.rejected
        yield report
        if report.is_interrupted:
            return
    if accelerator.is_main_process:
        _save(stage, places.result(recipe.name), note)
    accelerator.wait_for_everyone()


def _measure(stage: Stage, bound: TextBound | None) -> Callable[[Task, Forward], Mapping[str, float]] | None:
    """What is measured of a stage while it trains; None where it is nothing."""
    held_out = stage.held_out()
    gate = None if bound is None else open_gate(stage, bound)
    if gate is None and not held_out:
        return None

    def measure(task: Task, forward: Forward) -> Mapping[str, float]:
        figures = evaluate(task, held_out, forward=forward) if held_out else {}
        return figures if gate is None else figures | dict(gate.measure(task, forward))

    return measure


def is_shareable(recipe: Recipe, num_processes: int) -> bool:
    """Whether so many processes can take the same number of micro-batches of a step each."""
    return recipe.accumulate % num_processes == 0


def _share(recipe: Recipe, num_processes: int) -> Recipe:
    if not is_shareable(recipe, num_processes):
        raise ConfigError(
            f"{num_processes} processes can't share the {recipe.accumulate} micro-batches of a step of "
            f"recipe {recipe.name!r}; take a number of processes that divides it, or set accumulate."
        )
    return dataclasses.replace(recipe, accumulate=recipe.accumulate // num_processes)


def recompute(model: nn.Module, recipe: Recipe) -> None:
    """Let a model's backbone compute again in the backward pass what the recipe says."""
    backbones = [module for module in model.modules() if isinstance(module, Backbone)]
    if not backbones:
        raise ConfigError(f"recipe {recipe.name!r} has no backbone of which it could recompute anything.")
    for backbone in backbones:
        if recipe.recompute == "layers":
            backbone.enable_checkpointing()
        else:
            backbone.recompute_experts()


def _compile(model: nn.Module) -> None:
    import torch._dynamo  # a second that only this needs

    torch._dynamo.config.optimize_ddp = False  # its split graphs don't take free shapes
    torch._dynamo.config.recompile_limit = 64  # every layer's router is one of its own
    for module in list(model.modules()):
        if isinstance(module, Backbone):
            module.compile_layers()


def _unfinished_step(recipe: Recipe, places: Places) -> int | None:
    """The step from which an interrupted run can go on; None where there is none, or its result is there."""
    last = checkpoints(places.run(recipe.name))[-1:]
    if not last:
        return None
    step, note = step_of(last[0]), put_back(places.result(recipe.name)) / RECIPE
    is_result = note.is_file() and json.loads(note.read_text())["recipe"]["num_steps"] == step
    return None if is_result else step


def _check_nothing_is_lost(recipe: Recipe, places: Places) -> None:
    step = _unfinished_step(recipe, places)
    if step is not None:
        raise ConfigError(
            f"{places.run(recipe.name)} holds an unfinished run, interrupted after step {step}; go on with "
            "it (--resume), or delete it and begin again (--anew)."
        )


@contextmanager
def _without(folder: Path) -> Iterator[None]:
    """Without what a folder held, which is deleted afterwards, or comes back if what happens inside fails."""
    aside = folder.with_name(f".{folder.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if aside.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def is_finished(recipe: Recipe, places: Places) -> bool:
    """Whether this very recipe has left its result, and no run after it was interrupted.

    The recipe may have gained settings with a default since.

    Raises:
        ConfigError: another recipe of the same name has.
    """
    note = put_back(places.result(recipe.name)) / RECIPE
    if not note.is_file() or _unfinished_step(recipe, places) is not None:
        return False
    found = json.loads(note.read_text())
    if found["asked_hash"] != recipe.hash and not recipe.makes_the_same_as(_asked(found)):
        raise ConfigError(
            f"{note.parent} was made by another recipe {recipe.name!r} (hash {found['asked_hash']}, this one "
            f"{recipe.hash}); remove the folder, or train without resuming."
        )
    return True


def _asked(note: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of the recipe that was asked for, before its epochs were counted in steps."""
    epochs = note.get("asked_epochs")
    return note["recipe"] if epochs is None else {**note["recipe"], "epochs": epochs, "num_steps": None}


def provenance(recipe: Recipe, places: Places) -> dict[str, Any]:
    """Where weights come from: the whole recipe, and hashes of manifests, stages before and text backbone."""
    manifests = {
        source.manifest: digest_of(places.data / f"{source.manifest.removesuffix('.jsonl')}.jsonl")
        for source in (*recipe.mixture, *recipe.evaluation)
    }
    before = {name: digest_of(places.result(name) / RECIPE) for name in recipe.starts_from}
    origins = filter(None, (origin_of(places.result(name)) for name in recipe.starts_from))
    return {
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe.hash,
        "manifests": manifests,
        "starts_from": before,
        BACKBONE_HASH: next(origins, None),
        "torch": torch.__version__,
    }


def _steps_of_others(start: Path | None, num_processes: int) -> int | None:
    """The number of steps that another number of processes has begun a run with; None where it is ours."""
    begun = read_manifest(start) if start is not None else {}
    return begun.get("num_steps") if begun.get("num_processes", num_processes) != num_processes else None


def _open_metrics(folder: Path, start: Path | None) -> MetricsWriter:
    return MetricsWriter(folder / METRICS, resume_step=0 if start is None else step_of(start))


def _write_metrics(metrics: MetricsWriter, line: Mapping[str, Any], *, keep_going: bool) -> None:
    try:
        metrics.write(line)
    except OSError as error:  # a full disk
        told = f"{metrics.path} can't be written ({' '.join(str(error).split())})"
        if not keep_going:
            raise CheckpointError(f"{told}; --resume goes on from the last checkpoint.") from error
        logger.warning("%s. Training goes on without.", told)


def _save(stage: Stage, folder: Path, note: dict[str, Any]) -> None:
    def write(unfinished: Path) -> None:
        stage.save(unfinished, note)
        (unfinished / RECIPE).write_text(json.dumps(note, indent=1))

    try:
        write_folder(folder, write)
    except (OSError, SafetensorError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder} can't be written ({why}); the run is kept: --resume saves it."
        ) from error
