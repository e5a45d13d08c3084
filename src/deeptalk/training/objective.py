"""What a stage minimises: an objective turns a batch into sums that the loop divides by global counts.

The loop counts first, over all micro-batches and ranks, and then takes gradients, so the weight of a token
never depends on the batch it happens to share (method.md section 2.6).
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import Field, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from deeptalk.errors import ConfigError


def added(default: Any) -> Any:
    """A setting that came later: at its default it is in no hash and no file, so that older ones hold."""
    return field(default=default, metadata={"added": True})


def is_added(setting: Field[Any]) -> bool:
    """Whether a field of a dataclass was made by `added`."""
    return bool(setting.metadata.get("added"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One named part of a loss and its weight in the total."""

    name: str
    weight: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A held-out figure as a sum and what it is divided by, so that batches can be added."""

    total: float
    count: float


@runtime_checkable
class Objective(Protocol):
    """What a stage minimises; a frozen value that stands in the recipe."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """The parts of the loss, in the order of the sums."""
        ...

    def num_positions(self, batch: Any) -> int:
        """How many positions the batch holds, for the speed that is reported."""
        ...

    def counts(self, batch: Any) -> Tensor:
        """What each term's sum is divided by, `[num_terms]`; needs no forward pass."""
        ...

    def sums(self, model: Any, batch: Any, *, generator: torch.Generator) -> Tensor:
        """Each term summed over the batch, `[num_terms]`, with gradients."""
        ...

    def total(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The loss, linear in the sums so that micro-batches add up."""
        ...

    def measures(self, model: Any, batch: Any) -> Mapping[str, Measure]:
        """Held-out figures beside the loss."""
        ...


def weighted_means(terms: tuple[Term, ...], sums: Tensor, counts: Tensor) -> Tensor:
    """The weighted sum of each term's mean; a term without anything to count is skipped."""
    weights = sums.new_tensor([term.weight for term in terms])
    return (weights * sums / counts.clamp(min=1)).sum()


def _as_it_is(batch: Any) -> Any:
    return batch


class Task(nn.Module):
    """A model together with its objective, so that a distributed wrapper sees one forward pass.

    ``complete`` is what an engine does to batches first, without changing their loss.
    """

    def __init__(self, model: nn.Module, objective: Objective, *, precision: str = "fp32") -> None:
        super().__init__()
        if precision not in ("fp32", "bf16"):
            raise ConfigError(f"precision must be 'fp32' or 'bf16', got {precision!r}.")
        self.model = model
        self.objective = objective
        self.precision = precision
        self.complete: Callable[[Any], Any] = _as_it_is

    def forward(self, batch: Any, generator: torch.Generator | None) -> Any:
        """The objective's sums over one micro-batch, `[num_terms]`; without a generator its measures."""
        first, batch = next(self.model.parameters()), self.complete(batch)
        is_mixed = self.precision == "bf16" and (generator is not None or first.dtype != torch.float32)
        with torch.autocast(first.device.type, torch.bfloat16) if is_mixed else nullcontext():
            if generator is None:
                return self.objective.measures(self.model, batch)
            return self.objective.sums(self.model, batch, generator=generator)
