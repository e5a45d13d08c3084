"""What a stage holds in memory, by arithmetic; one that can't fit is told before it trains.

A weight takes 2 bytes in bf16, 4 in fp32. One that trains takes more beside it: in bf16 a gradient (2), and
in fp32 a master weight and two moments (12); in fp32 a gradient (4) and two moments (8); with 8-bit states a
gradient and two moments of a byte each. What a forward pass keeps comes on top.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deeptalk.backbone.divided import expert_parameters
from deeptalk.errors import ConfigError
from deeptalk.training.launch import is_fsdp, is_zero
from deeptalk.training.optim import AdamW8bit
from deeptalk.training.recipe import Recipe

GIB = 2**30
WEIGHT_BYTES = {"fp32": 4, "bf16": 2}
GRADIENT_BYTES = {"fp32": 4, "bf16": 2}
STATE_BYTES = {"fp32": 8, "bf16": 12}
STATE_BYTES_8BIT = 2


def least_bytes(model: nn.Module, recipe: Recipe, *, num_processes: int = 1, expert_parallel: int = 1) -> int:
    """What one process of a launched run holds on its device at least: weights, gradients, optimiser states.

    The recipe's white list has been applied. Under DeepSpeed they are divided as its stage says, and routed
    experts among `expert_parallel` processes.
    """
    experts = set(expert_parameters(model)) if expert_parallel > 1 else set()
    shares = [(p, expert_parallel if p in experts else 1) for p in model.parameters()]
    sizes = [(-(-p.numel() // share), p.requires_grad) for p, share in shares]
    num_parameters = sum(size for size, _ in sizes)
    num_trained = sum(size for size, trains in sizes if trains)
    is_8bit = isinstance(recipe.optim, AdamW8bit)
    states = (STATE_BYTES_8BIT if is_8bit else STATE_BYTES[recipe.weights]) * num_trained
    gradients = GRADIENT_BYTES[recipe.weights] * num_trained
    weights = WEIGHT_BYTES[recipe.weights] * num_parameters
    if is_zero():
        config = _zero_config(recipe)
        offloaded = config.get("offload_optimizer", {}).get("device", "none") != "none"
        states = 0 if offloaded else states // num_processes
        gradients //= num_processes if config["stage"] >= 2 else 1
        weights //= num_processes if config["stage"] == 3 else 1
    elif is_fsdp():
        return (weights + gradients + states) // num_processes
    return weights + gradients + states


def check_memory(
    model: nn.Module, recipe: Recipe, *, device: torch.device, num_processes: int, expert_parallel: int = 1
) -> None:
    """Refuse a stage that its device can't hold.

    Raises:
        ConfigError: it needs more than there is, without even what a forward pass keeps.
    """
    needed = least_bytes(model, recipe, num_processes=num_processes, expert_parallel=expert_parallel)
    there = device_bytes(device)
    needed *= num_processes if device.type == "cpu" else 1  # they share it
    if there is None or needed <= there:
        return
    ways = ["more GPUs under ZeRO (accelerate launch --use_deepspeed --zero_stage 3)"]
    if recipe.weights != "bf16":
        ways.append("--set weights=bf16")
    if recipe.partition is not None:
        ways.append("--dense")
    raise ConfigError(
        f"recipe {recipe.name!r} needs at least {needed / GIB:,.1f} GiB on {device}, which has "
        f"{there / GIB:,.1f}; ways out: {', '.join(ways)} (docs/large-runs.md)."
    )


def device_bytes(device: torch.device) -> int | None:
    """The memory of a device; None where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "cpu":
        import psutil  # comes with accelerate

        return psutil.virtual_memory().total
    return None


def holds_weights(device: torch.device, model: nn.Module) -> bool:
    """Whether a device has room for a model's weights and as much again as a tenth of them."""
    there = device_bytes(device)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    return there is None or 1.1 * weights <= there


def checkpoint_bytes(model: nn.Module, recipe: Recipe) -> int:
    """About the size of one checkpoint: trained weights and optimiser states in fp32, the average if any."""
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return num_trained * (4 + 8 + (0 if recipe.average is None else 4))


def disk_shortage(model: nn.Module, recipe: Recipe, folder: Path, *, keep: int = 2) -> str:
    """What to say where a run's checkpoints and its result may not find room; empty where they do."""
    result = sum(p.numel() for p in model.parameters()) * WEIGHT_BYTES[recipe.weights]
    needed = (keep + 1) * checkpoint_bytes(model, recipe) + result
    free = shutil.disk_usage(_existing(folder)).free
    if needed <= free:
        return ""
    return (
        f"{folder} may run full: {keep + 1} checkpoints and the result take about {needed / GIB:,.1f} GiB, "
        f"{free / GIB:,.1f} are free."
    )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _zero_config(recipe: Recipe) -> dict[str, Any]:
    from deeptalk.training.zero import zero_config

    return zero_config(recipe)["zero_optimization"]
