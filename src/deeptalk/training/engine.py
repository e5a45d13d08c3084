"""How a model is held while it trains: whole in every process, or divided among them.

The loop knows batches, losses and steps; an engine knows where weights, gradients and optimiser states are.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, patch_environment
from torch import Tensor, nn

from deeptalk.errors import ConfigError
from deeptalk.training.launch import Groups, is_fsdp, is_zero
from deeptalk.training.objective import Task
from deeptalk.training.optim import Rounding, set_lr
from deeptalk.training.recipe import Recipe

States = Mapping[str, Tensor]
"""What a run knows of one parameter: ``weight``, and by their names the optimiser's tensors.

Where no gradient has reached it yet, the weight may be all.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What became of an optimiser step; one that is not finite is not taken, in no process."""

    grad_norm: float
    is_taken: bool


class Engine(Protocol):
    """A task, its optimiser, and the processes that they are spread over."""

    optimizer: torch.optim.Optimizer

    def __call__(self, batch: Any, generator: torch.Generator | None) -> Any:
        """The task's forward pass, as `Task.forward`."""
        ...

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one micro-batch; after the last one gradients are shared."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss; over processes their mean is taken."""
        ...

    def step(self, *, lr: float, is_finite: bool, chance: int) -> Step:
        """Clip, move the weights unless something is not finite anywhere, and forget the gradients.

        ``chance`` seeds what an optimiser draws, alike in all processes.
        """
        ...

    def states(self) -> Iterator[tuple[str, States]]:
        """What is known of every trainable parameter, whole and on the CPU; all processes go through it."""
        ...

    def put_states(self, read: Callable[[str], States], *, num_steps: int) -> None:
        """Put back what `states` gave after so many steps; ``read`` gives it by name."""
        ...

    def make_whole(self) -> None:
        """End training: the first process holds the whole model, on the CPU where it was divided."""
        ...


def build_accelerator() -> Accelerator:
    """The device and the processes that this run was launched with.

    Raises:
        ConfigError: it was launched with the first FSDP.
    """
    only_cpu = not torch.accelerator.is_available()
    if is_fsdp() and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("launch FSDP with --fsdp_version 2; the first one is not supported.")
    # every process reads its own weights; told nothing, the launcher's ZeRO-3 would have them read in parts
    os.environ.setdefault("ACCELERATE_DEEPSPEED_ZERO3_INIT", "false")
    # FsdpEngine asks torch itself: on CPUs Accelerate would take DDP instead without a word
    with patch_environment(ACCELERATE_USE_FSDP="false") if is_fsdp() else nullcontext():
        # told that there is no accelerator, Accelerate joins CPU processes by gloo
        return Accelerator(
            cpu=only_cpu,
            mixed_precision="no",  # the recipe says it
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )


def build_engine(task: Task, *, recipe: Recipe, accelerator: Accelerator, groups: Groups) -> Engine:
    """The engine that a run was launched with, or the one that divides experts in groups of processes."""
    if groups.size > 1:
        from deeptalk.training.expert_parallel import ExpertParallelEngine

        return ExpertParallelEngine(task, recipe=recipe, accelerator=accelerator, groups=groups)
    if is_zero():
        from deeptalk.training.zero import ZeroEngine

        return ZeroEngine(task, recipe=recipe, accelerator=accelerator)
    if is_fsdp():
        from deeptalk.training.fsdp import FsdpEngine

        return FsdpEngine(task, recipe=recipe, accelerator=accelerator)
    return WholeEngine(task, recipe=recipe, accelerator=accelerator)


class WholeEngine:
    """The whole model in every process, whose gradients are averaged where there are several."""

    def __init__(self, task: Task, *, recipe: Recipe, accelerator: Accelerator) -> None:
        task.to(accelerator.device).train()
        self.accelerator, self.task = accelerator, task
        self.clip_norm = recipe.optim.clip_norm
        self.optimizer = recipe.optim.build(task.model)
        self._wrapped, self._prepared = accelerator.prepare(task, self.optimizer)
        self._parameters = [p for p in task.model.parameters() if p.requires_grad]

    def __call__(self, batch: Any, generator: torch.Generator | None) -> Any:
        """The task's forward pass."""
        return (self._wrapped if torch.is_grad_enabled() else self.task)(batch, generator)

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Gradients stay with their process until the last micro-batch."""
        return nullcontext() if is_last else self.accelerator.no_sync(self._wrapped)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self.accelerator.backward(loss)

    def step(self, *, lr: float, is_finite: bool, chance: int) -> Step:
        """Clip, move the weights unless something is not finite anywhere, and forget the gradients."""
        set_lr(self._prepared, lr)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self.clip_norm))
        with _drawing(chance) if isinstance(self.optimizer, Rounding) else nullcontext():
            return take_step(self._prepared, self.accelerator, grad_norm=grad_norm, is_finite=is_finite)

    def states(self) -> Iterator[tuple[str, States]]:
        """What is known of every trainable parameter."""
        return states_of(self.task.model, self.optimizer)

    def put_states(self, read: Callable[[str], States], *, num_steps: int) -> None:
        """Put back what `states` gave."""
        put_states_into(self.task.model, self.optimizer, read, num_steps=num_steps)

    def make_whole(self) -> None:
        """It is."""


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that train, by name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def moment(states: States, key: str) -> Tensor:
    """A moment of a parameter; zero where no gradient has reached it."""
    return states[key] if key in states else torch.zeros_like(states["weight"])


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is up in at least one process; all of them get the same answer."""
    total = accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum")
    assert isinstance(total, Tensor)
    return bool(total)


def take_step(
    optimizer: torch.optim.Optimizer, accelerator: Accelerator, *, grad_norm: float, is_finite: bool
) -> Step:
    """Move the weights unless something is not finite in any process, and forget the gradients."""
    is_taken = not any_process(accelerator, not (is_finite and math.isfinite(grad_norm)))
    if is_taken:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Step(grad_norm=grad_norm, is_taken=is_taken)


def states_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    whole: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Iterator[tuple[str, States]]:
    """What an optimiser of torch knows of every trainable parameter.

    ``whole`` makes of a parameter and a tensor that goes with it the whole tensor.
    """
    for name, parameter in trainable(model):
        held = _held(optimizer, parameter)
        tensors = {"weight": held.detach()}
        tensors |= optimizer.state.get(held) or {"step": torch.zeros(())}  # its own: a step may pass it by
        parts = (part for key, value in tensors.items() for part in _parts(key, value))
        yield name, {key: (inner if whole is None else whole(parameter, inner)).cpu() for key, inner in parts}


@torch.no_grad()
def put_states_into(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    read: Callable[[str], States],
    *,
    num_steps: int,
    part: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> None:
    """Put back what `states_of` gave; ``part`` makes of a parameter and a whole tensor what is held of it."""
    _make_states(model, optimizer)
    for name, parameter in trainable(model):
        held, states = _held(optimizer, parameter), read(name)
        known = optimizer.state[held]
        for key, value in {"weight": held.detach(), **known}.items():
            for name_of_part, inner in _parts(key, value) if key != "step" else ():
                if name_of_part in states:  # else no gradient has reached it, and it is zero
                    given = states[name_of_part]
                    inner.copy_(given if part is None else part(parameter, given))
        known["step"].fill_(states.get("step", num_steps))
        parameter.copy_(held)


def _make_states(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A step of length zero, in which an optimiser makes what it keeps."""
    set_lr(optimizer, 0.0)
    for _, parameter in trainable(model):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _held(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> Tensor:
    """What the optimiser moves: the parameter, or its copy of higher precision."""
    return getattr(optimizer, "masters", {}).get(parameter, parameter)


def _parts(key: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """A tensor under its name, or the plain tensors that a packed one (8-bit states) is made of."""
    if not hasattr(value, "__tensor_flatten__"):
        return [(key, value)]
    names, _ = value.__tensor_flatten__()  # pyright: ignore[reportAttributeAccessIssue]
    return [(f"{key}.{name}", getattr(value, name)) for name in names]


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
