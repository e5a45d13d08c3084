"""A model divided among processes by DeepSpeed's ZeRO: states and gradients (stage 2), weights too (stage 3).

DeepSpeed is the extra `deeptalk[deepspeed]`; what it is told comes from `accelerate launch --use_deepspeed`.
"""

# pyright: reportMissingImports=false

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin
from torch import Tensor

from deeptalk.errors import ConfigError
from deeptalk.training.engine import States, Step, moment, trainable
from deeptalk.training.objective import Task
from deeptalk.training.optim import AdamW, set_lr
from deeptalk.training.recipe import Recipe
from deeptalk.training.silence import use_all_parts

_MOMENTS = ("exp_avg", "exp_avg_sq")
_REFUSED = ("optimizer", "scheduler", "fp16")
_OURS = ("gradient_clipping", "gradient_accumulation_steps", "train_batch_size")


class ZeroEngine:
    """A task and its optimiser under ZeRO-1, 2 or 3, with or without offload to main memory.

    Every process has to use the same parameters in the same order, or their messages don't meet: banks of
    experts are both used wherever tokens may choose between them, and batches without speech hear silence.
    """

    def __init__(self, task: Task, *, recipe: Recipe, accelerator: Accelerator) -> None:
        self.accelerator, self.task = accelerator, task
        config = zero_config(recipe)
        self._stage = config["zero_optimization"]["stage"]
        if self._stage == 3 and recipe.average is not None:
            raise ConfigError(
                f"recipe {recipe.name!r} averages its weights, which ZeRO-3 divides; launch with ZeRO-2."
            )
        deepspeed = _deepspeed()
        if self._stage < 3:
            task.to(accelerator.device)
        use_all_parts(task, recipe)
        # torch's own, since DeepSpeed divides its parameters and keeps them in fp32 itself
        options = {"lr": recipe.optim.lr, "betas": recipe.optim.betas, "eps": recipe.optim.eps}
        base = torch.optim.AdamW(recipe.optim.groups(task.model), **options, fused=True)
        deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), verbose=False)
        self._engine, *_ = deepspeed.initialize(model=task.train(), optimizer=base, config=config)
        self.optimizer = self._engine.optimizer
        self._make_states()

    def __call__(self, batch: Any, generator: torch.Generator | None) -> Any:
        """The task's forward pass."""
        return self._engine(batch, generator)

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Says whether the next step comes after this micro-batch."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, *, lr: float, is_finite: bool, chance: int) -> Step:
        """Clip, move the weights unless a gradient is not finite anywhere, and forget the gradients."""
        set_lr(self.optimizer, lr)
        self._engine.step()
        return Step(
            grad_norm=float(self._engine.get_global_grad_norm()), is_taken=not self.optimizer.overflow
        )

    def states(self) -> Iterator[tuple[str, States]]:
        """What is known of every trainable parameter, gathered one by one."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        for name, parameter in trainable(self.task.model):
            moments = {key: safe_get_full_optimizer_state(parameter, key).cpu() for key in _MOMENTS}
            yield name, {"weight": safe_get_full_fp32_param(parameter).cpu(), **moments}

    def put_states(self, read: Callable[[str], States], *, num_steps: int) -> None:
        """Put back what `states` gave; the model was made with these weights, rounded."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        for name, parameter in trainable(self.task.model):
            states, device = read(name), self.accelerator.device
            safe_set_full_fp32_param(parameter, states["weight"].to(device))
            for key in _MOMENTS:
                safe_set_full_optimizer_state(parameter, moment(states, key).to(device), key)
        for state in self.optimizer.optimizer.state.values():
            state["step"].fill_(num_steps)

    def make_whole(self) -> None:
        """The first process copies the parameters to main memory, each a tensor of its own again."""
        from deepspeed.runtime.zero.partition_parameters import GatheredParameters

        whole: list[Tensor] = []
        for parameter in self.task.model.parameters():
            with GatheredParameters([parameter], enabled=self._stage == 3):
                if self.accelerator.is_main_process:
                    whole.append(parameter.detach().cpu().clone())
        for parameter, tensor in zip(self.task.model.parameters(), whole, strict=False):
            parameter.data = tensor

    def _make_states(self) -> None:
        """Moments of zero, which AdamW would make at its first step: only so can DeepSpeed find them all."""
        zero = self.optimizer
        divided = (
            zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups
        )
        for part in divided:
            state = {key: torch.zeros_like(part, requires_grad=False) for key in _MOMENTS}
            state["step"] = torch.zeros((), dtype=torch.float32, device=part.device)
            zero.optimizer.state[part] = state
        if self._stage < 3:
            zero._lazy_init_hp_params_optimizer_state()


def zero_config(recipe: Recipe) -> dict[str, Any]:
    """What the launcher was told of DeepSpeed, and what the recipe says.

    Raises:
        ConfigError: one of them asks for what the other can't do.
    """
    if type(recipe.optim) is not AdamW:
        raise ConfigError(
            f"recipe {recipe.name!r} has the optimiser {type(recipe.optim).__name__}, which needs whole "
            "matrices; under DeepSpeed take AdamW."
        )
    try:
        config = dict(DeepSpeedPlugin().deepspeed_config)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"what the launcher says of DeepSpeed can't be used: {error}") from error
    given = [key for key in _REFUSED if key in config]
    if given:
        raise ConfigError(f"DeepSpeed's config gives {given[0]!r}, which the recipe does; take it out.")
    stage = config["zero_optimization"].get("stage")
    if stage not in (1, 2, 3):
        raise ConfigError(f"launch with --zero_stage 1, 2 or 3, got {stage}.")
    config = {key: value for key, value in config.items() if key not in _OURS}
    config["zero_optimization"] = {
        key: value for key, value in config["zero_optimization"].items() if value != "auto"
    }
    return config | {
        "train_micro_batch_size_per_gpu": 1,  # our batches are counted in positions; it asks for a number
        "gradient_accumulation_steps": recipe.accumulate,
        "gradient_clipping": recipe.optim.clip_norm,
        "bf16": {"enabled": recipe.weights == "bf16"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW runs on CPUs, too
    }


def _deepspeed() -> Any:
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    try:
        import deepspeed
    except ImportError as error:
        raise ConfigError("ZeRO needs DeepSpeed; install deeptalk[deepspeed].") from error
    return deepspeed
