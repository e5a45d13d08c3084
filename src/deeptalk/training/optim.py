"""AdamW, alone or with Muon for the matrices; frozen parameters are in neither, so no decay can move them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Tensor
from deeptalk.training.trainable import is_named

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5
_RMS_OF_ADAM = 0.2
_PORTION = 2**28
"""Numbers whose gradients are in fp32 at a time: 1 GiB."""


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

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over the trainable parameters of `model`; in fp32, whatever these are held in."""
        groups = self.groups(model)
        is_rounded = any(p.dtype != torch.float32 for group in groups for p in group["params"])
        kind = MasterAdamW if is_rounded else torch.optim.AdamW
        return kind(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The trainable parameters: matrices, which decay, and the others."""
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]


class MasterAdamW(torch.optim.AdamW):
    """AdamW of fp32 copies of parameters that are held in a lower precision and follow them, rounded.

    Gradients are taken to fp32 a few tensors at a time, so that a parameter costs 14 bytes beside its own.
    """

    def __init__(self, groups: list[dict[str, Any]], **options: Any) -> None:
        self.masters: dict[Tensor, Tensor] = {
            p: p.detach().to(torch.float32, copy=True).requires_grad_() for g in groups for p in g["params"]
        }
        super().__init__([{**g, "params": [self.masters[p] for p in g["params"]]} for g in groups], **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """One step of all parameters that have a gradient."""
        assert closure is None
        for few in _in_portions([pair for pair in self.masters.items() if pair[0].grad is not None]):
            for parameter, master in few:
                assert parameter.grad is not None
                master.grad = parameter.grad.float()
            super().step()
            for parameter, master in few:
                master.grad = None
                parameter.copy_(master)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the parameters."""
        for parameter in self.masters:
            parameter.grad = None


def _in_portions(pairs: list[tuple[Tensor, Tensor]]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Neighbours that together have at most as many numbers as `_PORTION`, or one that has more alone."""
    few: list[tuple[Tensor, Tensor]] = []
    for pair in pairs:
        if few and sum(parameter.numel() for parameter, _ in few) + pair[0].numel() > _PORTION:
            yield few
            few = []
        few.append(pair)
    if few:
        yield few


class Rounding:
    """Marks optimisers that round by chance; their draws have to be alike in all processes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamW8bit(AdamW):
    """AdamW whose moments take 8 bits each, in blocks, and weights in bf16 are rounded by chance.

    torchao's, which `deeptalk[8bit]` installs (Dettmers et al. 2022, arXiv 2110.02861). A parameter that
    trains takes about 4 bytes beside its weight instead of 14.
    """

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over the trainable parameters of `model`."""
        try:
            from torchao.optim import AdamW8bit as TorchaoAdamW  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ConfigError(
                "8-bit optimiser states need torchao; install deeptalk[8bit], or take AdamW."
            ) from error

        class RoundingAdamW(TorchaoAdamW, Rounding):
            pass

        return RoundingAdamW(
            self.groups(model),
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            bf16_stochastic_round=any(p.dtype == torch.bfloat16 for p in model.parameters()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Muon(AdamW):
    """Muon for the matrices that `matrices` names, also those of experts stacked in one tensor; AdamW else.

    Momentum is made orthogonal and scaled to the size of AdamW's steps, so that both share `lr` (Jordan et
    al. 2024; scale: Liu et al. 2025, arXiv 2502.16982). `torch.optim.Muon` takes no stacked matrices.
    """

    matrices: tuple[str, ...] = ("*layers.*", "!*.gate.weight")
    momentum: float = 0.95

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over the trainable parameters of `model`."""
        chosen, others = [], []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                is_matrix = parameter.ndim in (2, 3) and is_named(name, self.matrices)
                (chosen if is_matrix else others).append(parameter)
        if not chosen:
            raise ConfigError(f"Muon's patterns {self.matrices} match no matrix that trains.")
        groups = [
            {"params": chosen, "weight_decay": self.weight_decay, "momentum": self.momentum},
            {"params": [p for p in others if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return MuonAdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)


class MuonAdamW(torch.optim.AdamW):
    """AdamW whose groups with a `momentum` take orthogonal steps instead; one state for both."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all groups."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if "momentum" not in group]
        try:
            result = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if "momentum" in group:
                self._step_orthogonally(group)
        return result

    def _step_orthogonally(self, group: dict[str, Any]) -> None:
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:  # AdamW asks every state for its step when it is loaded
                state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(parameter)}
            state["step"] += 1
            state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
            update = orthogonal(parameter.grad.lerp(state["momentum"], group["momentum"]))
            size = _RMS_OF_ADAM * math.sqrt(max(parameter.shape[-2:]))
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * size)


def orthogonal(matrices: Float[Tensor, "*E R C"]) -> Float[Tensor, "*E R C"]:
    """Each matrix with all its singular values near 1, by five Newton-Schulz steps in bf16."""
    a, b, c = _NEWTON_SCHULZ
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if is_tall else matrices
    # sums within the products, on contiguous rows: a third less time than the plain expression
    x = wide.bfloat16().contiguous().reshape(wide.shape[:-2].numel(), *wide.shape[-2:])  # there may be none
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.reshape(wide.shape)
    return x.mT if is_tall else x


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # torchao's, which its compiled step reads
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
