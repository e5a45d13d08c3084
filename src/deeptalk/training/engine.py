"""How a model is held while it trains: whole in every process, or divided among them.

The loop knows batches, losses and steps; an engine knows where weights, gradients and optimiser states are.
"""

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


def is_zero() -> bool:
    """Whether the launcher asked for DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def is_fsdp() -> bool:
    """Whether the launcher asked for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def build_engine(task: Task, *, recipe: Recipe, accelerator: Accelerator) -> Engine:
    """The engine that the run was launched with: ZeRO, FSDP2, or the whole model in every process."""
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
        is_taken = is_finite and bool(torch.tensor(grad_norm).isfinite())
        if self.accelerator.num_processes > 1:
            is_taken = not any_process(self.accelerator, not is_taken)
        if is_taken:
            with _drawing(chance) if isinstance(self.optimizer, Rounding) else nullcontext():
                self._prepared.step()
        self._prepared.zero_grad(set_to_none=True)
        return Step(grad_norm=grad_norm, is_taken=is_taken)

    def states(self) -> Iterator[tuple[str, States]]:
        """What is known of every trainable parameter."""
        for name, parameter in trainable(self.task.model):
            known = self.optimizer.state.get(self._held(parameter), {})
            tensors = {"weight": self._held(parameter).detach()}
            tensors |= known or {"step": torch.zeros(())}  # its own: a step may pass a parameter by
            parts = (part for key, value in tensors.items() for part in _parts(key, value))
            yield name, {key: inner.cpu() for key, inner in parts}

    @torch.no_grad()
    def put_states(self, read: Callable[[str], States], *, num_steps: int) -> None:
        """Put back what `states` gave."""
        self._make_states()
        for name, parameter in trainable(self.task.model):
            held, states = self._held(parameter), read(name)
            known = self.optimizer.state[held]
            for key, value in {"weight": held.detach(), **known}.items():
                for part, inner in _parts(key, value) if key != "step" else ():
                    if part in states:  # else no gradient has reached it, and it is zero
                        inner.copy_(states[part])
            known["step"].fill_(states.get("step", num_steps))
            parameter.copy_(held)

    def _make_states(self) -> None:
        """A step of length zero, in which the optimiser makes what it keeps."""
        set_lr(self.optimizer, 0.0)
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def make_whole(self) -> None:
        """It is."""

    def _held(self, parameter: nn.Parameter) -> Tensor:
        """What the optimiser moves: the parameter, or its copy of higher precision."""
        masters = getattr(self.optimizer, "masters", {})
        return masters.get(parameter, parameter)


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
