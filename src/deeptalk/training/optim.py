"""AdamW over the parameters that train; frozen ones are not in it, so no decay can move them."""

from dataclasses import dataclass

import torch
from torch import nn

from deeptalk.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamW:
    """AdamW with decoupled decay on matrices only, and gradients clipped to a norm of `clip_norm`."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    eps: float = 1e-8
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.clip_norm <= 0 or self.weight_decay < 0:
            raise ConfigError(
                "lr and clip_norm must be above 0 and weight_decay at least 0, "
                f"got {self.lr}, {self.clip_norm} and {self.weight_decay}."
            )

    def build(self, model: nn.Module) -> torch.optim.AdamW:
        """The optimiser over the trainable parameters of `model`."""
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
