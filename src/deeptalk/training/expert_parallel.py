"""Experts divided among the processes of a group, all else whole in each.

Asked for by `deeptalk train --expert-parallel N`. Each process holds its experts' weights, gradients and
optimiser states. The processes of a group take the same batches, and groups share the training as processes
do under DDP.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from deeptalk.backbone import Backbone
from deeptalk.backbone.divided import Division, divide_experts, unite_experts
from deeptalk.errors import ConfigError
from deeptalk.training.codec import CodecTraining
from deeptalk.training.ctc import Ctc
from deeptalk.training.engine import States, Step, put_states_into, states_of, take_step
from deeptalk.training.launch import Groups
from deeptalk.training.objective import Task
from deeptalk.training.optim import AdamW, Muon, set_lr
from deeptalk.training.recipe import Recipe


def check_divisible(recipe: Recipe) -> None:
    """Refuse a recipe whose experts can't be divided.

    Raises:
        ConfigError: it has none, averages its weights, or an optimiser whose states can't be taken apart.
    """
    if isinstance(recipe.objective, CodecTraining | Ctc):
        raise ConfigError(f"recipe {recipe.name!r} trains no experts that --expert-parallel could divide.")
    if type(recipe.optim) not in (AdamW, Muon) or recipe.average is not None:
        raise ConfigError(
            f"recipe {recipe.name!r}: with --expert-parallel take AdamW or Muon, and no average of the "
            "weights."
        )


class ExpertParallelEngine:
    """A task and its optimiser, of whose routed experts each process of a group holds a part.

    Gradients are shared in `step`, parameter by parameter: those of experts over the processes that hold the
    same ones, all others over all processes.
    """

    def __init__(self, task: Task, *, recipe: Recipe, accelerator: Accelerator, groups: Groups) -> None:
        check_divisible(recipe)
        self.accelerator, self.task, self.groups = accelerator, task, groups
        self.clip_norm = recipe.optim.clip_norm
        mesh = init_device_mesh(
            accelerator.device.type, (groups.number, groups.size), mesh_dim_names=("across", "within")
        )
        self._across, self._within = mesh.get_group("across"), mesh.get_group("within")
        self._backbones = [module for module in task.modules() if isinstance(module, Backbone)]
        self._divisions: dict[Tensor, Division] = {}
        for backbone in self._backbones:
            self._divisions |= divide_experts(backbone, group=self._within)
        task.to(accelerator.device).train()
        self.optimizer = recipe.optim.build(task.model)
        self._parameters = [p for p in task.model.parameters() if p.requires_grad]
        self._share_chance()

    def __call__(self, batch: Any, generator: torch.Generator | None) -> Any:
        """The task's forward pass."""
        return self.task(batch, generator)

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Gradients stay with their process until the step."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        loss.backward()

    def step(self, *, lr: float, is_finite: bool, chance: int) -> Step:
        """Share gradients, clip, move the weights unless something is not finite anywhere."""
        set_lr(self.optimizer, lr)
        self._share_gradients()
        return take_step(self.optimizer, self.accelerator, grad_norm=self._clip(), is_finite=is_finite)

    def states(self) -> Iterator[tuple[str, States]]:
        """What is known of every trainable parameter; experts are gathered one tensor at a time."""
        return states_of(self.task.model, self.optimizer, whole=self._whole)

    def put_states(self, read: Callable[[str], States], *, num_steps: int) -> None:
        """Put back what `states` gave, of experts the own part."""
        put_states_into(self.task.model, self.optimizer, read, num_steps=num_steps, part=self._part)

    def make_whole(self) -> None:
        """The first process gathers all experts in main memory."""
        is_main = self.accelerator.is_main_process
        for backbone in self._backbones:
            unite_experts(backbone, self._divisions, keeps=is_main)
        if is_main:
            self.task.to("cpu")

    def _share_gradients(self) -> None:
        """The mean over groups; what no batch has used has no gradient in any process, as in a single one."""
        is_used = torch.tensor([float(p.grad is not None) for p in self._parameters])
        is_used = is_used.to(self.accelerator.device)
        dist.all_reduce(is_used, op=dist.ReduceOp.MAX)
        for parameter, used in zip(self._parameters, is_used.tolist(), strict=True):
            if used and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is None or not parameter.numel():
                continue
            is_divided = parameter in self._divisions
            if is_divided and self.groups.number == 1:
                continue
            dist.all_reduce(parameter.grad, group=self._across if is_divided else None)
            parameter.grad /= self.groups.number if is_divided else self.accelerator.num_processes

    def _clip(self) -> float:
        """Clip by the norm over the whole model, each parameter counted once; the norm before."""
        device = self.accelerator.device
        squares = torch.zeros(2, device=device)
        for index, is_divided in enumerate((False, True)):
            given = (p.grad for p in self._parameters if (p in self._divisions) == is_divided)
            gradients = [gradient for gradient in given if gradient is not None and gradient.numel()]
            squares[index] = get_total_norm(gradients).to(device).float().square()
        dist.all_reduce(squares[1:], group=self._within)
        norm = squares.sum().sqrt()
        clip_grads_with_norm_(self._parameters, self.clip_norm, norm)
        return float(norm)

    def _share_chance(self) -> None:
        """Let the processes of a group drop out the same, as the first of them would."""
        states = [torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None]
        dist.broadcast_object_list(states, group=self._within, group_src=0)
        torch.set_rng_state(states[0])
        if states[1] is not None:
            torch.cuda.set_rng_state(states[1])

    def _whole(self, parameter: Tensor, tensor: Tensor) -> Tensor:
        division = self._divisions.get(parameter)
        return tensor if division is None or not tensor.dim() else division.whole(tensor)

    def _part(self, parameter: Tensor, tensor: Tensor) -> Tensor:
        division = self._divisions.get(parameter)
        return tensor if division is None or not tensor.dim() else division.part(tensor)
