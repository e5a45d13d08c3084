"""A model divided among processes by torch's FSDP2: weights, gradients and states, gathered layer by layer.

Asked for by `accelerate launch --use_fsdp --fsdp_version 2`. Written for GPUs; on CPUs it runs by gloo, for
tests. The parameters of a layer are gathered together, and their gradients are shared out together: all
processes have to use the same ones (`deeptalk.training.silence`).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from deeptalk.backbone import Backbone
from deeptalk.errors import ConfigError
from deeptalk.training.engine import States, Step, moment, take_step, trainable
from deeptalk.training.objective import Task
from deeptalk.training.optim import AdamW, set_lr
from deeptalk.training.recipe import Recipe
from deeptalk.training.silence import use_all_parts

_MOMENTS = ("exp_avg", "exp_avg_sq")


class FsdpEngine:
    """A task and its optimiser under FSDP2, every decoder layer a unit of its own."""

    def __init__(self, task: Task, *, recipe: Recipe, accelerator: Accelerator) -> None:
        if type(recipe.optim) is not AdamW or recipe.average is not None:
            raise ConfigError(
                f"recipe {recipe.name!r}: under FSDP2 take AdamW and no average of the weights."
            )
        self.accelerator, self.task, self.clip_norm = accelerator, task.train(), recipe.optim.clip_norm
        device, number = accelerator.device, accelerator.num_processes
        use_all_parts(task, recipe)
        self._mesh = init_device_mesh(device.type, (number,))
        for module in list(task.modules()):
            if isinstance(module, Backbone):
                for layer in module.decoder_layers():
                    fully_shard(layer, mesh=self._mesh)
        self._sharded: Any = fully_shard(task, mesh=self._mesh)
        self.optimizer = recipe.optim.build(task.model)

    def __call__(self, batch: Any, generator: torch.Generator | None) -> Any:
        """The task's forward pass.

        Without a backward pass behind it what it has gathered is divided again: else states, which go by the
        divided parameters, wouldn't be found.
        """
        result = self.task(batch, generator)
        if not torch.is_grad_enabled():
            self._sharded.reshard()
        return result

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Gradients stay with their process until the last micro-batch."""
        self._sharded.set_requires_gradient_sync(is_last)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        loss.backward()

    def step(self, *, lr: float, is_finite: bool, chance: int) -> Step:
        """Clip, move the weights unless something is not finite anywhere, and forget the gradients."""
        set_lr(self.optimizer, lr)
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in trainable(self.task.model)], self.clip_norm)
        return take_step(self.optimizer, self.accelerator, grad_norm=float(_whole(norm)), is_finite=is_finite)

    def states(self) -> Iterator[tuple[str, States]]:
        """What is known of every trainable parameter, gathered one by one."""
        for name, parameter in trainable(self.task.model):
            held = self._held(parameter)
            state = self.optimizer.state.get(held, {})
            known = {key: state.get(key, torch.zeros_like(held)) for key in _MOMENTS}  # zero before any step
            known["weight"] = held.detach()
            yield name, {key: _whole(value.detach()).cpu() for key, value in known.items()}

    @torch.no_grad()
    def put_states(self, read: Callable[[str], States], *, num_steps: int) -> None:
        """Put back what `states` gave."""
        for name, parameter in trainable(self.task.model):
            held, states = self._held(parameter), read(name)
            held.copy_(self._divided(states["weight"], held))
            parameter.copy_(held)
            state = {key: self._divided(moment(states, key), held) for key in _MOMENTS}
            step = torch.tensor(float(num_steps), device=self.accelerator.device)
            self.optimizer.state[held] = {"step": step, **state}

    def make_whole(self) -> None:
        """The first process gathers the parameters in main memory."""
        for module in self.task.model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                whole = _whole(parameter.detach())
                if self.accelerator.is_main_process:
                    plain = nn.Parameter(whole.cpu().clone(), requires_grad=parameter.requires_grad)
                    module.register_parameter(name, plain)

    def _held(self, parameter: nn.Parameter) -> Tensor:
        return getattr(self.optimizer, "masters", {}).get(parameter, parameter)

    def _divided(self, tensor: Tensor, like: Tensor) -> Tensor:
        tensor = tensor.to(device=self.accelerator.device, dtype=like.dtype)
        return distribute_tensor(tensor, self._mesh, like.placements) if isinstance(like, DTensor) else tensor


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
