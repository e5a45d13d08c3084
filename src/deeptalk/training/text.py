"""Text pretraining: the next token of the assistant's answers, and the balance loss of the experts."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deeptalk.backbone import Backbone, BackboneOutput, sequence_balance_loss
from deeptalk.streams.batch import Batch
from deeptalk.streams.layout import IGNORE, TEXT
from deeptalk.training.loss import exact_rows
from deeptalk.training.objective import Measure, Term, weighted_means


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLm:
    """Cross-entropy of answers, `prompt_weight` times that of other tokens, and the balance loss."""

    prompt_weight: float = 0.0
    balance_weight: float = 0.003

    @property
    def terms(self) -> tuple[Term, ...]:
        """Answer, prompt, balance."""
        return (
            Term(name="answer", weight=1.0),
            Term(name="prompt", weight=self.prompt_weight),
            Term(name="balance", weight=self.balance_weight),
        )

    def num_positions(self, batch: Batch) -> int:
        """Tokens."""
        return int(batch.mask.sum())

    def counts(self, batch: Batch) -> Tensor:
        """Supervised answer tokens, prompt tokens, sequences."""
        answer = (batch.labels[:, TEXT] != IGNORE).sum()
        prompt = (_prompt_labels(batch) != IGNORE).sum() if self.prompt_weight else torch.zeros_like(answer)
        sequences = torch.tensor(len(batch.mask) if self.balance_weight else 0, device=answer.device)
        return torch.stack([answer, prompt, sequences]).float()

    def sums(self, model: Backbone, batch: Batch, *, generator: torch.Generator) -> Tensor:
        """Summed cross-entropies, and the balance loss once for each sequence."""
        output = _run(model, batch, collect=self.balance_weight > 0)
        answer = _cross_entropy(model, output.hidden, batch.labels[:, TEXT])
        prompt = balance = answer.new_zeros(())
        if self.prompt_weight:
            prompt = _cross_entropy(model, output.hidden, _prompt_labels(batch))
        if output.router is not None:
            balance = sequence_balance_loss(output.router, batch.mask) * len(batch.mask)
        return torch.stack([answer, prompt, balance])

    def total(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The weighted sum of the means."""
        return weighted_means(self.terms, sums, counts)

    def measures(self, model: Backbone, batch: Batch) -> Mapping[str, Measure]:
        """Rows whose every supervised token is the likeliest: greedy decoding would give the same answer."""
        labels = batch.labels[:, TEXT]
        hidden = _run(model, batch, collect=False).hidden
        return {"exact": exact_rows(model.lm_head, hidden, labels)}


def _run(model: Backbone, batch: Batch, *, collect: bool) -> BackboneOutput:
    ids = torch.where(batch.mask, batch.grid[:, TEXT], 0)
    return model(model.embed_tokens(ids), mask=batch.mask, collect=collect)


def _prompt_labels(batch: Batch) -> Tensor:
    """The next token wherever it exists and is no answer."""
    labels = torch.full_like(batch.grid[:, TEXT], IGNORE)
    labels[:, :-1] = torch.where(batch.mask[:, 1:], batch.grid[:, TEXT, 1:], IGNORE)
    return torch.where(batch.labels[:, TEXT] == IGNORE, labels, IGNORE)


def _cross_entropy(model: Backbone, hidden: Tensor, labels: Tensor) -> Tensor:
    chosen = labels != IGNORE
    logits = model.lm_head(hidden[chosen])
    return F.cross_entropy(logits.float(), labels[chosen], reduction="sum")
