"""Two expert banks per layer, so that one modality's experts can be frozen exactly.

Stock experts stand in stacked tensors, and a tensor is trained as a whole: optimizer state would exist for
every expert, and weight decay would move the ones that get no gradient. `split_experts` sorts them into two
banks, each a stock experts module with fewer experts; `fuse_experts` puts every tensor back bit by bit. Extra
experts (`deeptalk.backbone.extra`) are a second bank beside the whole stock module.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from deeptalk.backbone.backbone import Backbone
from deeptalk.errors import CheckpointError, ConfigError
from deeptalk.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Deferred:
    """A tensor that is made only when it is written; ``shape`` is known before."""

    shape: tuple[int, ...]
    make: Callable[[], Tensor]


class ExpertBanks(nn.Module):
    """Two stock experts modules that act as one; takes the place and the arguments of the stock module.

    ``is_second`` says of every expert which of the two holds it, each in the order of numbers. With ``adds``
    the first is the stock module itself, untouched, and the second holds further experts.

    Each bank only sees the tokens that chose one of its experts. The sum over a token's experts runs in the
    stock order. Which tokens these are is read on the host: fuse before capturing a decoding graph on a GPU.
    With ``uses_both`` a bank that no token chose sees one token with weight zero, so that all processes of a
    divided model use the same parameters.
    """

    is_second: Tensor
    local: Tensor

    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        is_second: Bool[Tensor, "E"],
        *,
        names: tuple[str, str],
        adds: bool = False,
    ) -> None:
        super().__init__()
        self.names, self.adds, self.uses_both = names, adds, False
        ranks = torch.stack([(~is_second).cumsum(0), is_second.cumsum(0)]) - 1
        for name, bank in zip(names, (first, second), strict=True):
            self.add_module(name, bank)
        self.register_buffer("is_second", is_second, persistent=False)
        self.register_buffer("local", torch.where(is_second, ranks[1], ranks[0]), persistent=False)

    def forward(
        self, hidden: Float[Tensor, "N D"], experts: Int[Tensor, "N k"], weights: Float[Tensor, "N k"]
    ) -> Float[Tensor, "N D"]:
        """The weighted sum of the chosen experts' outputs."""
        is_second, local = self.is_second[experts], self.local[experts]
        first, second = (self.get_submodule(name) for name in self.names)
        if not self.uses_both and not is_second.any():
            return first(hidden, local, weights)
        if not self.uses_both and is_second.all():
            return second(hidden, local, weights)
        places = hidden.new_zeros(experts.numel(), hidden.shape[-1])
        for bank, chosen in ((first, ~is_second), (second, is_second)):
            place = chosen.reshape(-1).nonzero().squeeze(-1)
            if not len(place):
                nothing = bank(hidden[:1], torch.zeros_like(local[:1, :1]), torch.zeros_like(weights[:1, :1]))
                places = places.index_add(0, place.new_zeros(1), nothing)
                continue
            picks = (local.reshape(-1)[place, None], weights.reshape(-1)[place, None])
            places = places.index_copy(0, place, bank(hidden[place // experts.shape[-1]], *picks))
        return places.unflatten(0, experts.shape).sum(dim=1)

    def fuse(self) -> nn.Module:
        """One stock module with the experts in their first order."""
        first, second = (self.get_submodule(name) for name in self.names)
        fused = _like(first, {})
        fused.num_experts = self.is_second.numel()
        for name, tensor in first.named_parameters(recurse=False):
            other = second.get_parameter(name)
            joined = nn.Parameter(self.join(tensor.detach(), other.detach()))
            fused.register_parameter(name, joined.requires_grad_(tensor.requires_grad or other.requires_grad))
        return fused

    def join(self, first: Float[Tensor, "..."], second: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The stacked tensor in stock order of a tensor of each bank."""
        joined = first.new_empty((self.is_second.numel(), *first.shape[1:]))
        is_second = self.is_second.to(first.device)  # parameters that were divided come back to main memory
        joined[~is_second], joined[is_second] = first, second
        return joined


def split_experts(
    backbone: Backbone, is_second: Bool[Tensor, "L E"], *, names: tuple[str, str] = ("text", "audio")
) -> None:
    """Sort the experts of every layer into two banks, in place; the second holds the experts marked True.

    Parameters become new objects: make the optimizer afterwards.
    """
    expected = (backbone.layers.num_moe_layers, backbone.layers.num_experts)
    if tuple(is_second.shape) != expected or is_second.dtype != torch.bool:
        raise ConfigError(
            f"banks need a bool table {expected}, got {is_second.dtype} {tuple(is_second.shape)}."
        )
    num_second = is_second.sum(dim=-1)
    if bool(((num_second == 0) | (num_second == expected[1])).any()):
        raise ConfigError("each bank needs at least one expert in every layer.")
    check_whole(backbone)
    block: Any
    for block, members in zip(backbone.moe_blocks(), is_second, strict=True):
        device = next(block.experts.parameters()).device
        first, second = (select_experts(block.experts, side) for side in (~members, members))
        block.experts = ExpertBanks(first, second, members.to(device), names=names)


def fuse_experts(backbone: Backbone) -> None:
    """Undo `split_experts` in place; apart from training in between, every tensor is bit-equal to before."""
    for prefix, banks in _banks(backbone):
        if banks.adds:
            raise ConfigError("extra experts have no place in the stock order; they can't be fused.")
        block: Any = backbone.model.get_submodule(prefix)
        block.experts = banks.fuse()


def use_both_banks(model: nn.Module) -> None:
    """Let every forward of a model use both banks of all its layers, whatever its tokens choose."""
    for module in model.modules():
        if isinstance(module, ExpertBanks):
            module.uses_both = True


def is_split(backbone: Backbone) -> bool:
    """Whether the experts stand in banks, or extra ones beside them."""
    return any(True for _ in _banks(backbone))


def check_whole(backbone: Backbone) -> None:
    """Refuse a backbone whose experts are divided already.

    Raises:
        ConfigError: they are split into banks, or some of them are left out.
    """
    if is_split(backbone):
        raise ConfigError("the experts are split already; fuse them first.")
    if backbone.kept is not None:
        raise ConfigError("the backbone is pruned; open the full model instead.")


def fused_state_dict(backbone: Backbone) -> dict[str, Tensor]:
    """The tensors of the stock model under their stock names, whether or not the experts are split.

    Extra experts and what routes to them come under names of their own.

    Raises:
        CheckpointError: the backbone is pruned and lacks experts (`deeptalk.backbone.merged_tensors` adds
            them).
    """
    return {name: made(tensor) for name, tensor in fused_tensors(backbone).items()}


def fused_tensors(backbone: Backbone) -> dict[str, Tensor | Deferred]:
    """What `fused_state_dict` gives, where tensors of two banks are joined only when they are asked for.

    Raises:
        CheckpointError: as `fused_state_dict`.
    """
    if backbone.kept is not None:
        raise CheckpointError("a pruned backbone lacks experts; merge it into the checkpoint it came from.")
    state: dict[str, Any] = dict(backbone.model.state_dict())
    for prefix, banks in _banks(backbone):
        first, second = (f"{prefix}.experts.{name}." for name in banks.names)
        for name in [name for name in state if name.startswith(first)]:
            leaf, whole = name.removeprefix(first), state.pop(name)
            if not banks.adds:
                shape = (banks.is_second.numel(), *whole.shape[1:])
                join = partial(banks.join, whole, state.pop(second + leaf))
                whole = Deferred(shape=shape, make=join)
            state[f"{prefix}.experts.{leaf}"] = whole
    return state


def made(tensor: Tensor | Deferred) -> Tensor:
    """The tensor, made now if it wasn't."""
    return tensor.make() if isinstance(tensor, Deferred) else tensor


def load_fused_state_dict(backbone: Backbone, state: dict[str, Tensor]) -> None:
    """Load stock names into a backbone whether or not it is split; the inverse of `fused_state_dict`."""
    state = dict(state)
    for prefix, banks in _banks(backbone):
        for leaf, _ in banks.get_submodule(banks.names[0]).named_parameters(recurse=False):
            stacked = state.pop(f"{prefix}.experts.{leaf}", None)
            if stacked is not None and banks.adds:
                state[f"{prefix}.experts.{banks.names[0]}.{leaf}"] = stacked
            elif stacked is not None and stacked.shape[0] == banks.is_second.numel():
                for name, members in zip(banks.names, (~banks.is_second, banks.is_second), strict=True):
                    state[f"{prefix}.experts.{name}.{leaf}"] = stacked[members.to(stacked.device)]
    try:
        backbone.model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"the tensors don't fit the backbone: {error}") from error


def _banks(backbone: Backbone) -> list[tuple[str, ExpertBanks]]:
    modules = backbone.model.named_modules()
    return [
        (name.removesuffix(".experts"), banks) for name, banks in modules if isinstance(banks, ExpertBanks)
    ]


def select_experts(experts: nn.Module, members: Bool[Tensor, "E"]) -> nn.Module:
    """A stock experts module with copies of the marked experts only, in their order.

    Raises:
        ConfigError: a tensor of the module isn't stacked by expert.
    """
    num_experts, rows = members.numel(), members.nonzero().flatten()  # rows, since meta tensors take no mask
    parameters = {}
    for name, tensor in experts.named_parameters():
        if "." in name or tensor.shape[0] != num_experts:
            raise ConfigError(f"{type(experts).__name__} has a tensor {name!r} that isn't stacked by expert.")
        parameters[name] = nn.Parameter(tensor.detach()[rows], requires_grad=tensor.requires_grad)
    bank = _like(experts, parameters)
    bank.num_experts = len(rows)
    return bank


def _like(experts: nn.Module, parameters: dict[str, nn.Parameter]) -> Any:
    """A stock module with the settings of ``experts`` and parameters of its own."""
    bank = copy.copy(experts)
    bank._parameters = dict(parameters)
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        setattr(bank, hooks, OrderedDict())  # of its own: a copy would share those of ``experts``
    return bank
