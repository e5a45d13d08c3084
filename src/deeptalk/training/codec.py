"""Codec pretraining: the codec states its own losses, the loop runs them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from deeptalk.training.objective import Measure, Term, weighted_means


class WaveformBatch(Protocol):
    """Clips of equal length, `[B, S]`."""

    waveform: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecTraining:
    """Weights of the losses that `codec.training_losses` names; each is a mean over the batch."""

    weights: tuple[tuple[str, float], ...]

    @property
    def terms(self) -> tuple[Term, ...]:
        """The codec's losses."""
        return tuple(Term(name=name, weight=weight) for name, weight in self.weights)

    def num_positions(self, batch: WaveformBatch) -> int:
        """Samples."""
        return batch.waveform.numel()

    def counts(self, batch: WaveformBatch) -> Tensor:
        """Clips, once for each loss."""
        return torch.full((len(self.weights),), float(len(batch.waveform)))

    def sums(self, model: nn.Module, batch: WaveformBatch, *, generator: torch.Generator) -> Tensor:
        """Each loss times the number of clips."""
        losses = model.training_losses(batch.waveform, generator=generator)
        return torch.stack([losses[name] for name, _ in self.weights]) * len(batch.waveform)

    def total(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The weighted sum of the means."""
        return weighted_means(self.terms, sums, counts)

    def measures(self, model: nn.Module, batch: WaveformBatch) -> Mapping[str, Measure]:
        """Nothing beside the losses."""
        return {}
