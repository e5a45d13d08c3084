"""Codec pretraining: the codec states its own losses, the loop runs them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from deeptalk.codec import PocketCodec
from deeptalk.codec.losses import log_mel_error
from deeptalk.training.objective import Measure, Term, weighted_means


class WaveformBatch(Protocol):
    """Clips of equal length, `[B, S]`, and the phones in them, `[B, N]`, where known."""

    @property
    def waveform(self) -> Tensor:
        """Samples at the codec's rate."""
        ...

    @property
    def phones(self) -> Tensor | None:
        """The phone of each latent frame, negative where unknown."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecTraining:
    """The codec's own `loss`, whose `parts` are watched too, and the phones that its coarser codes tell."""

    parts: tuple[str, ...] = ("spectral", "pitch", "commitment")
    phone_weight: float = 0.0

    @property
    def terms(self) -> tuple[Term, ...]:
        """The loss, phones where they are learnt, then parts of the loss with no weight."""
        phones = [Term(name="phones", weight=self.phone_weight)] if self.phone_weight else []
        return (
            Term(name="codec", weight=1.0),
            *phones,
            *(Term(name=part, weight=0.0) for part in self.parts),
        )

    def num_positions(self, batch: WaveformBatch) -> int:
        """Samples."""
        return batch.waveform.numel()

    def counts(self, batch: WaveformBatch) -> Tensor:
        """Clips, once for each term."""
        return torch.full((len(self.terms),), float(len(batch.waveform)))

    def sums(self, model: PocketCodec, batch: WaveformBatch, *, generator: torch.Generator) -> Tensor:
        """The mean losses times the number of clips."""
        losses = model.training_losses(batch.waveform, phones=batch.phones, generator=generator)
        learnt = [losses["loss"], losses["phones"]] if self.phone_weight else [losses["loss"]]
        parts = [losses[part].detach() for part in self.parts]
        return torch.stack([*learnt, *parts]) * len(batch.waveform)

    def total(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The mean loss."""
        return weighted_means(self.terms, sums, counts)

    def measures(self, model: PocketCodec, batch: WaveformBatch) -> Mapping[str, Measure]:
        """The error of the log-mel after a round trip through the codes."""
        made = model.decode(model.encode(batch.waveform))
        error = float(log_mel_error(made, batch.waveform, sample_rate=model.sample_rate))
        return {"log_mel_error": Measure(total=error * len(made), count=float(len(made)))}
