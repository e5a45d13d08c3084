"""Extra experts: copies of a layer's own that stand beside them, with a router or router rows of their own.

Stock experts and stock router stay where and what they are. Under ``overlay`` and ``union`` tokens of group 0
read nothing else, so that their states are the stock model's bit by bit, whatever the copies learn (at equal
batch shape and kernels). ``append`` opens the copies to every token, which is how MoExtend adds a modality.

Axes: N tokens, E stock experts, k copies, D model width.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from deeptalk.backbone.backbone import Backbone
from deeptalk.backbone.banks import ExpertBanks, is_split, select_experts
from deeptalk.backbone.router import Decision, SelectionRule, is_in_order, mask_selection, turned
from deeptalk.errors import ConfigError
from deeptalk.shapes import Bool, Float, Int, Tensor

ExtraRouting = Literal["overlay", "union", "append"]
"""Who chooses copies, and among what.

``overlay``: groups above 0, by a router of their own; each copy stands in for its original, E candidates.
``union``: groups above 0, by a router of their own with further rows; all originals and copies, E + k.
``append``: every token, by the stock router and further rows; all originals and copies, E + k.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtraExperts:
    """Which experts of each layer are copied, once, and who may choose the copies.

    The copies of a layer are its experts E, E + 1, … in the order of ``sources``, which rises.
    """

    sources: tuple[tuple[int, ...], ...]
    routing: ExtraRouting = "overlay"

    def __post_init__(self) -> None:
        if self.routing not in get_args(ExtraRouting):
            raise ConfigError(
                f"extra experts are routed by {', '.join(get_args(ExtraRouting))}, got {self.routing!r}."
            )
        counts = {len(layer) for layer in self.sources}
        is_sound = len(counts) == 1 and 0 not in counts
        if not is_sound or not all(_is_rising(layer) for layer in self.sources):
            raise ConfigError(
                "sources of extra experts must name experts in rising order, as many in every layer, at "
                f"least one; got {self.sources}."
            )

    @property
    def num_experts(self) -> int:
        """Copies in each layer, k."""
        return len(self.sources[0])

    @property
    def is_lossless(self) -> bool:
        """Whether tokens of group 0 never meet what is extra."""
        return self.routing != "append"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return {"sources": [list(layer) for layer in self.sources], "routing": self.routing}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ExtraExperts":
        """Read what ``to_dict`` wrote."""
        return cls(sources=tuple(tuple(layer) for layer in values["sources"]), routing=values["routing"])


class ExtraRouter(nn.Module):
    """Decides for the tokens that may choose copies, beside the stock router, which decides for the others.

    ``base`` is a copy of the stock router. ``rows`` and ``bias`` are the further rows, equal to those of the
    originals at first. ``place`` gives each candidate its expert number.
    """

    place: Tensor

    def __init__(
        self, router: nn.Module, is_source: Bool[Tensor, "E"], *, routing: ExtraRouting, rule: SelectionRule
    ) -> None:
        super().__init__()
        stock: Any = router
        weight, bias = stock.weight, getattr(stock, "bias", None)
        self.routing, self.rule = routing, rule
        self.num_extra = int(is_source.sum())
        self.base = None if routing == "append" else _copy_of(router)
        has_rows = routing != "overlay"
        self.rows = nn.Parameter(weight.detach()[is_source]) if has_rows else None
        self.bias = nn.Parameter(bias.detach()[is_source]) if has_rows and bias is not None else None
        place = torch.arange(len(is_source) + self.num_extra, device=is_source.device)
        if not has_rows:
            place, copies = place.split([len(is_source), self.num_extra])
            place = place.masked_scatter(is_source, copies)
        self.register_buffer("place", place.to(weight.device), persistent=False)

    def forward(
        self,
        hidden: Float[Tensor, "..."],
        stock: Decision,
        *,
        groups: Int[Tensor, "N"] | None,
        allowed: Bool[Tensor, "N E2"] | None,
    ) -> Decision:
        """The decisions of all tokens over E2 = E + k experts, given those of the stock router.

        ``allowed`` limits the tokens that may choose copies; the others keep the stock decision.
        """
        if self.routing == "append":
            return self._choose(hidden, stock, allowed)
        kept = (F.pad(stock[0], (0, self.num_extra), value=float("-inf")), *stock[1:])
        if groups is None:
            return kept
        may_choose = (groups > 0).unsqueeze(-1)
        chosen = self._choose(hidden, stock, None if allowed is None else allowed | ~may_choose)
        logits, weights, experts = (torch.where(may_choose, *pair) for pair in zip(chosen, kept, strict=True))
        return logits, weights, experts

    def _choose(self, hidden: Tensor, stock: Decision, allowed: Tensor | None) -> Decision:
        if self.base is not None:
            stock = self.base(hidden)
            stock = stock if is_in_order(stock) else turned(stock)
        logits, weights, experts = stock
        if self.rows is not None:
            logits = self._with_rows(hidden, logits)
        is_open = torch.ones_like(logits, dtype=torch.bool) if allowed is None else allowed[:, self.place]
        if self.rows is not None or not bool(is_open.all()):  # else the copied router's choice, to the bit
            native = (logits, weights, experts)
            logits, weights, experts = mask_selection(self.base, native, is_open, self.rule)
        wide = logits.new_full((len(logits), stock[0].shape[-1] + self.num_extra), float("-inf"))
        return wide.index_copy(1, self.place, logits), weights, self.place[experts]

    def _with_rows(self, hidden: Tensor, logits: Float[Tensor, "N E"]) -> Float[Tensor, "N E2"]:
        assert self.rows is not None
        bias = None if self.bias is None else self.bias.to(logits.dtype)
        flat = hidden.reshape(-1, hidden.shape[-1]).to(logits.dtype)
        return torch.cat([logits, F.linear(flat, self.rows.to(logits.dtype), bias)], dim=-1)


def add_extra_experts(backbone: Backbone, extra: ExtraExperts) -> None:
    """Copy experts beside the stock ones of every layer, in place; nothing of the stock model changes.

    Copies stand in ``….experts.extra``, what routes to them in ``….extra_router``. They are new parameters:
    make the optimizer afterwards.

    Raises:
        ConfigError: the experts don't exist, the backbone has banks already, or further router rows are asked
            of a family whose experts compete in groups.
    """
    shape = backbone.layers
    if is_split(backbone) or backbone.kept is not None:
        raise ConfigError("the experts are split, pruned or extended already; open the stock model first.")
    highest = max(layer[-1] for layer in extra.sources)
    if len(extra.sources) != shape.num_moe_layers or highest >= shape.num_experts:
        raise ConfigError(
            f"sources must name experts 0 to {shape.num_experts - 1} of {shape.num_moe_layers} layers, got "
            f"numbers up to {highest} in {len(extra.sources)} layers."
        )
    if extra.routing != "overlay" and getattr(backbone.hooks[0].rule, "limit", None) is not None:
        raise ConfigError(
            f"routing {extra.routing!r} adds router rows, but the experts of this backbone compete in groups "
            "of equal size; 'overlay' fits it."
        )
    is_extra = torch.arange(shape.num_experts + extra.num_experts) >= shape.num_experts
    block: Any
    for index, block in enumerate(backbone.moe_blocks()):
        hook, stock = backbone.hooks[index], block.experts
        is_source = torch.zeros(shape.num_experts, dtype=torch.bool, device="cpu")
        is_source[list(extra.sources[index])] = True
        copies, marks = select_experts(stock, is_source), is_extra.to(next(stock.parameters()).device)
        block.experts = ExpertBanks(stock, copies, marks, names=("stock", "extra"), adds=True)
        router = backbone.model.get_submodule(backbone.router_names[index])
        block.extra_router = ExtraRouter(router, is_source, routing=extra.routing, rule=hook.rule)
        hook.extra = block.extra_router
    backbone.layers = replace(shape, num_experts=shape.num_experts + extra.num_experts)


def is_extra_name(name: str) -> bool:
    """Whether a tensor of the backbone, by its name, was added to the stock model."""
    return ".experts.extra." in name or ".extra_router." in name


def _copy_of(router: nn.Module) -> nn.Module:
    """A router like the stock one that nobody listens to."""
    twin = copy.deepcopy(router)
    twin._forward_hooks.clear()
    return twin


def _is_rising(numbers: tuple[int, ...]) -> bool:
    return all(
        isinstance(number, int) and before < number
        for before, number in zip((-1, *numbers), numbers, strict=False)
    )
