"""Experts divided among the processes of a group; each computes those that it holds, the outputs are summed.

This is what the plan of ``transformers`` does that moves no tokens (`AllReduceEP`): every process of a group
has all of the group's tokens. The library divides one stack of experts into equal parts; here every bank of a
layer is divided, whatever its size, and stays a stock experts module.

What goes in is the same in all processes and its gradients are summed; what comes out is summed and its
gradient is the same in all (f and g of Shoeybi et al. 2019, arXiv 1909.08053, section 3).

Axes: those of `deeptalk.shapes`; R rows of a bank.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from deeptalk.backbone.backbone import Backbone
from deeptalk.backbone.banks import ExpertBanks, select_experts
from deeptalk.backbone.dense import KeptExperts
from deeptalk.shapes import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Division:
    """Which rows of a bank's tensors each process of a group holds, and this process's place among them."""

    rows: tuple[Tensor, ...]
    place: int
    group: dist.ProcessGroup

    def part(self, whole: Float[Tensor, "R ..."]) -> Float[Tensor, "..."]:
        """The rows that this process holds, copied."""
        return whole[self.rows[self.place]]

    def whole(self, part: Float[Tensor, "..."]) -> Float[Tensor, "R ..."]:
        """All rows, bit by bit; every process of the group has to ask."""
        whole = part.new_empty((sum(map(len, self.rows)), *part.shape[1:]))
        for place, rows in enumerate(self.rows):
            if len(rows):
                is_own = place == self.place
                held = part.contiguous() if is_own else part.new_empty((len(rows), *part.shape[1:]))
                dist.broadcast(held, group_src=place, group=self.group)
                whole[rows] = held
        return whole


def divide_experts(backbone: Backbone, *, group: dist.ProcessGroup) -> dict[Tensor, Division]:
    """Leave each process of a group its part of every bank, in place; gives how each tensor is divided.

    Experts are dealt out one by one, bank after bank, so that in a layer a process has at most one more than
    another. Where a bank has fewer experts than there are processes some hold tensors of it without rows.

    Parameters become new objects: make the optimizer afterwards.
    """
    size, place = group.size(), group.rank()
    divisions: dict[Tensor, Division] = {}
    for experts in _experts_of(backbone):
        dealt, held = 0, []
        banks = _banks_of(experts)
        for name, numbers in banks.items():
            bank: Any = experts.get_submodule(name)
            owner = (torch.arange(bank.num_experts) + dealt) % size
            dealt += bank.num_experts
            division = Division(
                rows=tuple((owner == other).nonzero().flatten() for other in range(size)),
                place=place,
                group=group,
            )
            is_own = owner == place
            rows = torch.where(is_own, is_own.cumsum(0) - 1, -1)
            held.append(torch.where(numbers >= 0, rows[numbers], -1))
            part = select_experts(bank, is_own.to(next(bank.parameters()).device))
            bank.num_experts = part.num_experts
            for leaf, parameter in part.named_parameters():
                bank.register_parameter(leaf, parameter)
                divisions[parameter] = division
        experts.register_buffer("held", torch.stack(held), persistent=False)
        experts.forward = partial(_forward, experts, tuple(banks), group)
    return divisions


def unite_experts(backbone: Backbone, divisions: Mapping[Tensor, Division], *, keeps: bool) -> None:
    """Undo `divide_experts`, in main memory, in the processes that keep what the group gathers.

    The others stay as they are, but have to call it too.
    """
    for experts in _experts_of(backbone):
        for name in _banks_of(experts):
            bank: Any = experts.get_submodule(name)
            for leaf, parameter in list(bank.named_parameters()):
                whole = divisions[parameter].whole(parameter.detach())
                if keeps:
                    bank.num_experts = len(whole)
                    united = nn.Parameter(whole.cpu(), requires_grad=parameter.requires_grad)
                    bank.register_parameter(leaf, united)
        if keeps:
            del experts.forward, experts.held


def expert_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of routed experts that `divide_experts` divides, of all backbones in a model."""
    for module in model.modules():
        if isinstance(module, Backbone):
            for experts in _experts_of(module):
                yield from experts.parameters()


def _experts_of(backbone: Backbone) -> list[Any]:
    blocks: Any = backbone.moe_blocks()
    return [block.experts for block in blocks]


def _banks_of(experts: Any) -> dict[str, Int[Tensor, "E"]]:
    """The stock modules among or below a layer's experts, with the row of each expert in it, or -1."""
    if isinstance(experts, ExpertBanks):
        local, is_second = experts.local.cpu(), experts.is_second.cpu()
        rows = (torch.where(is_second, -1, local), torch.where(is_second, local, -1))
        return dict(zip(experts.names, rows, strict=True))
    if isinstance(experts, KeptExperts):
        return {experts.name: experts.local.cpu()}
    return {"": torch.arange(experts.num_experts)}


def _forward(
    module: Any,
    banks: tuple[str, ...],
    group: dist.ProcessGroup,
    hidden: Float[Tensor, "N D"],
    experts: Int[Tensor, "N k"],
    weights: Float[Tensor, "N k"],
) -> Float[Tensor, "N D"]:
    """The weighted sum of the chosen experts' outputs, whichever process holds them.

    ``held`` has for each bank the row that every expert has in this process, or -1.
    """
    hidden, weights = _Enter.apply(group, hidden, weights)
    places = hidden.new_zeros(experts.numel(), hidden.shape[-1])
    for name, rows in zip(banks, module.held, strict=True):
        bank, local = module.get_submodule(name), rows[experts].flatten()
        place = (local >= 0).nonzero().squeeze(-1)
        if len(place):
            picks = (local[place, None], weights.flatten()[place, None])
            made = type(bank).forward(bank, hidden[place // experts.shape[-1]], *picks)
            places = places.index_copy(0, place, made)
    total = places.unflatten(0, experts.shape).sum(dim=1)
    return _Leave.apply(group, total, weights, *module.parameters())


class _Enter(torch.autograd.Function):
    """Gives back what it is given; gradients are summed over the group, in one place of the backward pass."""

    @staticmethod
    def forward(ctx: Any, group: dist.ProcessGroup, hidden: Tensor, weights: Tensor) -> Any:
        ctx.group = group
        return hidden.view_as(hidden), weights.view_as(weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        needed = zip(gradients, ctx.needs_input_grad[1:], strict=True)
        return None, *(_summed(given, ctx.group) if is_needed else None for given, is_needed in needed)


class _Leave(torch.autograd.Function):
    """The sum over the group; gradients pass as they are.

    A process whose experts nobody chose, or that holds none of a bank, has to take part in the backward pass
    like the others: what it would depend on elsewhere is an input here, too. And it has to compute again what
    they do before a gradient goes on to `_Enter`: the saved tensor, asked for, sees to that.
    """

    @staticmethod
    def forward(ctx: Any, group: dist.ProcessGroup, total: Tensor, weights: Tensor, *_: Tensor) -> Any:
        ctx.save_for_backward(weights)
        return _summed(total, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert len(ctx.saved_tensors) == 1
        return None, gradient, *[None] * (len(ctx.needs_input_grad) - 2)


def _summed(tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total
