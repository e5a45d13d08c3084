"""Masked routing: which experts a token may choose, and how each family of routers chooses among them.

A stock router returns ``(logits, weights, experts)``. `RouterHook` is attached to it as a forward hook and
chooses again from the stock logits with the forbidden ones at minus infinity, before the softmax. That is
what section 3.3 of the paper asks: scores to zero, the rest normalised again. Without a mask the stock output
stays. `Renorm` has the other readings, for study.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import nn

from deeptalk.errors import ConfigError
from deeptalk.shapes import Bool, Float, Int, Tensor

Renorm = Literal["group", "topk", "none"]
"""What the weights of a masked choice are measured against (method.md, section 8).

``group``: the scores of all allowed experts, as the paper has it. ``topk``: those of the chosen ones alone,
so that they sum to 1. ``none``: the scores of all experts, so that they are as without a mask.
"""

Decision = tuple[Tensor, Tensor, Tensor]
"""What a stock router returns: logits ``[N, E]``, and weights and experts of the chosen ``[N, k]``."""

Selection = tuple[Tensor, Tensor]
SelectionRule = Callable[[Any, Tensor, Tensor], Selection]
"""From a router, its logits ``[N, E]`` and the allowed ones ``[N, E]`` to weights and experts ``[N, k]``."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RouterMask:
    """Which experts a token of each group may be routed to, in every mixture-of-experts layer."""

    table: Bool[Tensor, "G L E"]
    renorm: Renorm = "group"

    def __post_init__(self) -> None:
        if self.renorm not in get_args(Renorm):
            raise ConfigError(f"renorm must be one of {', '.join(get_args(Renorm))}, got {self.renorm!r}.")
        if self.table.dtype != torch.bool or self.table.dim() != 3:
            raise ConfigError(
                f"a router mask is a bool table [groups, layers, experts], got {self.table.dtype} of shape "
                f"{tuple(self.table.shape)}."
            )
        if not bool(self.table.any(dim=-1).all()):
            raise ConfigError(
                "a router mask leaves a group without any expert in some layer; allow at least one."
            )

    def allowed(self, layer: int, groups: Int[Tensor, "N"]) -> Bool[Tensor, "N E"]:
        """The experts each token may use in MoE layer ``layer`` (0 is the first layer that has experts)."""
        return self.table[groups, layer]

    def to(self, device: torch.device | str) -> "RouterMask":
        """The same mask on another device."""
        if self.table.device == torch.device(device):
            return self
        return RouterMask(table=self.table.to(device), renorm=self.renorm)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RouterOutput:
    """What one router decided for N tokens; forbidden experts have a logit of minus infinity."""

    logits: Float[Tensor, "N E"]
    weights: Float[Tensor, "N k"]
    experts: Int[Tensor, "N k"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RoutingCall:
    """What one forward asks of the routers: a mask with the group of every token, and whether to collect."""

    mask: RouterMask | None = None
    groups: Int[Tensor, "N"] | None = None
    collected: dict[int, RouterOutput] | None = None


@dataclass(slots=True)
class RoutingScope:
    """The call whose forward is running; stock layers pass no extra arguments down to their routers."""

    call: RoutingCall = field(default_factory=RoutingCall)

    @contextmanager
    def open(self, call: RoutingCall) -> Iterator[None]:
        """Show ``call`` to the routers inside the block, and the previous one after it."""
        previous, self.call = self.call, call
        try:
            yield
        finally:
            self.call = previous


@dataclass(slots=True, eq=False)
class RouterHook:
    """A forward hook of one stock router: applies the mask of the running call and collects its decisions.

    Where the layer has extra experts, ``extra`` decides about them (`deeptalk.backbone.extra`).
    """

    scope: RoutingScope
    layer: int
    rule: SelectionRule
    extra: Callable[..., Decision] | None = None

    def __call__(self, router: nn.Module, args: tuple, output: Decision) -> Decision:
        """The stock output, or the decision under the mask."""
        if is_in_order(output):
            return self._decide(router, args, output)
        return turned(self._decide(router, args, turned(output)))

    def _decide(self, router: nn.Module, args: tuple, output: Decision) -> Decision:
        call, allowed = self.scope.call, None
        if call.mask is not None and call.groups is not None:
            allowed = call.mask.allowed(self.layer, call.groups)
        if self.extra is not None:
            if call.mask is not None and call.mask.renorm != "group":
                raise ConfigError(f"layers with copied experts know no renorm {call.mask.renorm!r}.")
            output = self.extra(args[0], output, groups=call.groups, allowed=allowed)
        elif allowed is not None:
            assert call.mask is not None
            output = mask_selection(router, output, allowed, self.rule, renorm=call.mask.renorm)
        if call.collected is not None:
            logits, weights, experts = output
            call.collected[self.layer] = RouterOutput(logits=logits, weights=weights, experts=experts)
        return output


def is_in_order(output: Decision) -> bool:
    """Whether a router gives logits, weights and experts; in transformers 5.17 Granite's turns them round."""
    return output[0].is_floating_point()


def turned(output: Decision) -> Decision:
    """The same three, the last first."""
    first, second, third = output
    return third, second, first


def mask_selection(
    router: nn.Module | None,
    native: Decision,
    allowed: Bool[Tensor, "N E"],
    rule: SelectionRule,
    *,
    renorm: Renorm = "group",
) -> Decision:
    """The decision of a router when only the allowed experts exist.

    A token with fewer allowed experts than it has places uses each of them once; a place left over repeats
    the token's first expert with weight zero, so that no forbidden expert ever sees the token.
    """
    stock_logits, native_weights, _ = native
    logits = stock_logits.masked_fill(~allowed, float("-inf"))
    weights, experts = rule(router, logits, allowed)
    is_legal = allowed.gather(-1, experts)
    weights = weights.masked_fill(~is_legal, 0.0)
    if renorm != "group":
        weights = _measured_otherwise(weights, renorm, rule, logits=stock_logits, allowed=allowed)
    experts = torch.where(is_legal, experts, experts[..., :1])
    return logits, weights.to(native_weights.dtype), experts


def _measured_otherwise(
    weights: Float[Tensor, "N k"],
    renorm: Renorm,
    rule: SelectionRule,
    *,
    logits: Float[Tensor, "N E"],
    allowed: Bool[Tensor, "N E"],
) -> Float[Tensor, "N k"]:
    """Weights that are parts of the allowed experts' scores, as parts of what `renorm` names."""
    if not isinstance(rule, SoftmaxThenTopk) or rule.is_normalised:
        raise ConfigError(
            f"renorm {renorm!r} needs routers that take a softmax over all experts and don't normalise their "
            "choice, as DeepSeek-V2's; with others take 'group'."
        )
    if renorm == "topk":
        return weights / weights.sum(dim=-1, keepdim=True) * rule.scale
    scores = logits.softmax(dim=-1, dtype=torch.float32)
    return weights * scores.masked_fill(~allowed, 0.0).sum(dim=-1, keepdim=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupLimit:
    """DeepSeek's limit: ``kept`` of ``total`` sets of experts compete, best by the sum of ``of`` scores."""

    total: int
    kept: int
    of: int

    def is_open(self, scores: Float[Tensor, "N E"]) -> Bool[Tensor, "N E"]:
        """The experts whose group is among the best."""
        by_group = scores.unflatten(-1, (self.total, -1))
        best = by_group.topk(self.of, dim=-1).values.sum(dim=-1).topk(self.kept, dim=-1).indices
        is_best = torch.zeros_like(by_group[..., 0], dtype=torch.bool).scatter(-1, best, True)
        return is_best.unsqueeze(-1).expand_as(by_group).flatten(-2)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftmaxThenTopk:
    """Softmax over all experts, then the largest (DeepSeek-V2, Qwen-MoE, OLMoE, Mixtral)."""

    top_k: int
    is_normalised: bool
    scale: float = 1.0
    limit: GroupLimit | None = None

    def __call__(self, router: Any, logits: Tensor, allowed: Tensor) -> Selection:
        """Weights and experts of every token."""
        scores = logits.softmax(dim=-1, dtype=torch.float32)
        if self.limit is not None:
            scores = scores.masked_fill(~self.limit.is_open(scores), 0.0)
        ranked = scores.masked_fill(~allowed, -1.0)
        weights, experts = ranked.topk(self.top_k, dim=-1)
        weights = weights.clamp(min=0.0)
        if self.is_normalised:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights * self.scale, experts


@dataclass(frozen=True, kw_only=True, slots=True)
class TopkThenSoftmax:
    """The largest logits, then softmax over these (GPT-OSS, Granite)."""

    top_k: int

    def __call__(self, router: Any, logits: Tensor, allowed: Tensor) -> Selection:
        """Weights and experts of every token."""
        largest, experts = logits.topk(self.top_k, dim=-1)
        return largest.softmax(dim=-1), experts


@dataclass(frozen=True, kw_only=True, slots=True)
class BiasedSigmoid:
    """The largest of sigmoid plus a correction bias, weighed by the sigmoid alone (DeepSeek-V3, GLM4-MoE)."""

    top_k: int
    is_normalised: bool
    scale: float
    limit: GroupLimit

    def __call__(self, router: Any, logits: Tensor, allowed: Tensor) -> Selection:
        """Weights and experts of every token."""
        scores = logits.sigmoid()
        ranked = scores + router.e_score_correction_bias
        ranked = ranked.masked_fill(~allowed, torch.finfo(ranked.dtype).min / self.limit.of)
        ranked = ranked.masked_fill(~self.limit.is_open(ranked), float("-inf"))
        experts = ranked.topk(self.top_k, dim=-1).indices
        weights = scores.gather(-1, experts)
        if self.is_normalised:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return weights * self.scale, experts
