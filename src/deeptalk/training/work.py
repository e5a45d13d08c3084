"""How much a training step computes for each position, by the sizes of what it multiplies with.

Tables are looked up and cost nothing; experts cost what a token uses of them; attention's own products, which
grow with the length, and the encoder are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deeptalk.experts import Routing
from deeptalk.model.deeptalk import DeepTalk


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Weights that a position meets, and those of them that train."""

    num_active: float
    num_active_trained: float

    @property
    def six_n_flops(self) -> float:
        """Forward, gradients of states and gradients of weights, as if all weights trained."""
        return 6 * self.num_active

    @property
    def frozen_aware_flops(self) -> float:
        """The same without gradients of weights that are frozen."""
        return 4 * self.num_active + 2 * self.num_active_trained


def work_of(model: DeepTalk, routing: Routing | None) -> Work:
    """The work of a position of the backbone and the heads, white list and banks applied."""
    sizes = list(_met(model, routing or Routing()))
    return Work(
        num_active=sum(size for size, _ in sizes),
        num_active_trained=sum(size for size, trains in sizes if trains),
    )


def _met(model: DeepTalk, routing: Routing) -> Iterator[tuple[float, bool]]:
    shape, backbone = model.backbone.layers, model.backbone
    blocks = {f"{name}.experts." for name in backbone.block_names}
    table = backbone.embed_tokens.weight
    for name, parameter in backbone.model.named_parameters():
        if parameter is table and table is not backbone.lm_head.weight:
            continue
        share = 1.0
        if any(name.startswith(block) for block in blocks):
            experts: Any = parameter.shape[0]
            if routing.is_free:
                share = shape.experts_per_token / shape.num_experts
            elif f".experts.{routing.text}." in name:
                share = min(shape.experts_per_token, experts) / experts
            else:
                share = 0.0
        yield share * parameter.numel(), parameter.requires_grad
    for parameter in model.heads.parameters():
        yield float(parameter.numel()), parameter.requires_grad
