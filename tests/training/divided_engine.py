"""Run by torchrun from test_divided_engine.py: four processes in two groups take the steps of one.

divided_engine.py FOLDER; the first process prints as JSON what each holds, by case.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import gather_object
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from own_recipes import TINY_JOINT
from test_loop import RECIPE as SQUARES
from test_loop import Squares, linear
from two_processes import Share

from deeptalk.backbone.divided import expert_parameters
from deeptalk.cli.conformance import _batch
from deeptalk.errors import DataError
from deeptalk.model import DeepTalk, DeepTalkConfig
from deeptalk.training.engine import States, build_accelerator, states_of
from deeptalk.training.expert_parallel import ExpertParallelEngine
from deeptalk.training.launch import Groups, groups_of
from deeptalk.training.loop import train
from deeptalk.training.objective import Task
from deeptalk.training.optim import AdamW, Muon, set_lr
from deeptalk.training.recipe import Recipe
from deeptalk.training.states import StatesReader, write_states
from deeptalk.training.trainable import freeze_all_but

LR = 1e-3
CASES = {
    "adamw": replace(TINY_JOINT, optim=AdamW(lr=LR, weight_decay=0.1, clip_norm=0.05)),
    "muon": replace(TINY_JOINT, optim=Muon(lr=LR, clip_norm=0.05)),
    "masters": replace(TINY_JOINT, optim=AdamW(lr=LR), weights="bf16", precision="bf16"),
}


def make(recipe: Recipe) -> DeepTalk:
    """A tiny model in banks of three audio experts and five text experts, one of which is frozen."""
    torch.manual_seed(0)
    config = DeepTalkConfig.tiny()
    model = DeepTalk(replace(config, backbone={**config.backbone, "initializer_range": 0.2}))
    shape = model.backbone.layers
    model.split((torch.arange(shape.num_experts) < 3).expand(shape.num_moe_layers, -1))
    freeze_all_but(
        model, ("backbone.*", "!backbone.*.layers.1.*experts.text.*", "embedding.*", "heads.codec.*")
    )
    return model.to(recipe.dtype)


def alone(recipe: Recipe, batches: list[Any], num_steps: int) -> tuple[nn.Module, Any, list[float]]:
    """The steps of one process that takes all batches, and the norms of its gradients."""
    model, objective = make(recipe), recipe.objective
    task, optimizer, norms = Task(model, objective, precision=recipe.precision), recipe.optim.build(model), []
    set_lr(optimizer, LR)
    counts = torch.stack([objective.counts(batch).float() for batch in batches]).sum(0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for _ in range(num_steps):
        for batch in batches:
            objective.total(task(batch, torch.Generator()).float(), counts).backward()
        norms.append(float(nn.utils.clip_grad_norm_(trained, recipe.optim.clip_norm)))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model, optimizer, norms


def stepped(engine: ExpertParallelEngine, groups: Groups, batches: list[Any], num_steps: int) -> list[float]:
    objective, norms = engine.task.objective, []
    counts = torch.stack([objective.counts(batch).float() for batch in batches]).sum(0)
    for _ in range(num_steps):
        part = engine(batches[groups.index], torch.Generator()).float()
        engine.backward(objective.total(part, counts) * groups.number)
        taken = engine.step(lr=LR, is_finite=True, chance=0)
        assert taken.is_taken
        norms.append(taken.grad_norm)
    return norms


def check(name: str, recipe: Recipe, folder: Path, accelerator: Any, groups: Groups) -> dict[str, int]:
    batches = [_batch(make(recipe).layout, *questions) for questions in (("what", "who"), ("why",))]
    expected, optimizer, norms = alone(recipe, batches, 3)

    def engine() -> ExpertParallelEngine:
        task = Task(make(recipe), recipe.objective, precision=recipe.precision)
        return ExpertParallelEngine(task, recipe=recipe, accelerator=accelerator, groups=groups)

    divided = engine()
    rel = 1e-5 if recipe.weights == "fp32" else 0.02
    found = stepped(divided, groups, batches, 3)
    assert all(abs(one - other) <= rel * other for one, other in zip(found, norms, strict=True)), (
        found,
        norms,
    )
    held = held_by(divided)

    states: dict[str, States] = dict(divided.states())
    for key, known in states_of(expected, optimizer):
        assert known.keys() == states[key].keys(), key
        assert known["step"] == states[key]["step"]
        difference = (states[key]["weight"] - known["weight"]).abs()
        assert difference.mean() < LR / 50, (key, float(difference.mean()))
        assert name != "adamw" or difference.max() < LR / 50, (key, float(difference.max()))
    first = gather_object([{key: dict(known) for key, known in states.items()}])[0]
    for key, known in states.items():  # no process has another idea of what all hold in common
        assert all(torch.equal(tensor, first[key][part]) for part, tensor in known.items()), key

    path = folder / name
    path.mkdir(exist_ok=True)
    write_states(
        path, divided, process_index=accelerator.process_index, num_writers=accelerator.num_processes
    )
    accelerator.wait_for_everyone()
    resumed = engine()
    with StatesReader(path) as reader:
        resumed.put_states(reader.read, num_steps=3)
    assert stepped(resumed, groups, batches, 1) == stepped(divided, groups, batches, 1)
    for one, other in zip(resumed.task.parameters(), divided.task.parameters(), strict=True):
        assert torch.equal(one, other)

    resumed.make_whole()
    if accelerator.is_main_process:
        for (key, one), (other_key, other) in zip(
            resumed.task.model.named_parameters(), expected.named_parameters(), strict=True
        ):
            assert (key, one.shape, one.requires_grad) == (other_key, other.shape, other.requires_grad)
    return held


def check_batches(accelerator: Any) -> None:
    """Processes of a group that are given different batches are told so, all of them."""
    reports = train(
        linear(),
        recipe=SQUARES,
        objective=Squares(),
        batches=Share(accelerator.process_index, accelerator.num_processes),
        accelerator=accelerator,
        expert_parallel=2,
    )
    with pytest.raises(DataError, match=r"step 1: .* different batches of the same samples"):
        next(reports)


def held_by(engine: ExpertParallelEngine) -> dict[str, int]:
    """Bytes of experts, and of what is kept of those that train, and of all else."""
    experts, masters = set(expert_parameters(engine.task)), getattr(engine.optimizer, "masters", {})
    told = {"experts": 0, "expert_states": 0, "rest": 0}
    for parameter in engine.task.parameters():
        kept = masters.get(parameter, parameter)
        tensors = [*engine.optimizer.state.get(kept, {}).values(), *([kept] if kept is not parameter else [])]
        size = sum(tensor.nbytes for tensor in tensors if tensor.dim())
        told["experts" if parameter in experts else "rest"] += parameter.nbytes
        told["expert_states" if parameter in experts else "rest"] += size
    return told


def whole_by(recipe: Recipe) -> dict[str, int]:
    """Bytes of all experts, and of those that train."""
    experts = list(expert_parameters(make(recipe)))
    trained = sum(parameter.nbytes for parameter in experts if parameter.requires_grad)
    return {"experts": sum(parameter.nbytes for parameter in experts), "trained": trained}


def main(folder: Path) -> None:
    """All cases, in all processes."""
    accelerator = build_accelerator()
    groups = groups_of(accelerator, size=2)
    assert (accelerator.num_processes, groups.number) == (4, 2)
    check_batches(accelerator)
    told = {}
    for name, recipe in CASES.items():
        held = check(name, recipe, folder, accelerator, groups)
        told[name] = {"held": gather_object([held]), "whole": whole_by(recipe)}
    if accelerator.is_main_process:
        print(json.dumps(told), flush=True)
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
