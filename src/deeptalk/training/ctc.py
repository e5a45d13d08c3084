"""Encoder pretraining: text tokens by connectionist temporal classification at the top, phones lower down.

The phones have no blank but silence at both ends, so they are the full-sum training of a left-to-right hidden
Markov model: without a blank there is no plateau on which everything is blank, which small data never leave.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from deeptalk.errors import ConfigError
from deeptalk.model.encoder import SpeechEncoder
from deeptalk.shapes import Float, Int
from deeptalk.streams.text import TextCodec
from deeptalk.training.edit_distance import edit_distance
from deeptalk.training.masking import Masking
from deeptalk.training.objective import Measure, Term, weighted_means

_NO_LABEL = -100
_NEVER = -1e4


class CtcBatch(Protocol):
    """Clips with what is said in them; ids beyond a length are padding."""

    mel: Tensor
    mel_lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    phones: Tensor
    phone_lengths: Tensor
    frames: Any


class EncoderForCtc(nn.Module):
    """A speech encoder with two linear heads that only pretraining needs; each has the blank as last id."""

    def __init__(
        self,
        encoder: SpeechEncoder,
        *,
        num_tokens: int,
        num_phones: int,
        phone_layer: int,
        tokenizer: TextCodec | None = None,
    ) -> None:
        super().__init__()
        num_layers = encoder.settings.layers
        if not 1 <= phone_layer <= num_layers:
            raise ConfigError(f"phone_layer must be from 1 to {num_layers}, got {phone_layer}.")
        self.encoder = encoder
        self.phone_layer = phone_layer
        self.tokenizer = tokenizer
        self.token_head = nn.Linear(encoder.settings.d_model, num_tokens + 1)
        self.phone_norm = nn.LayerNorm(encoder.settings.d_model)
        self.phone_head = nn.Linear(encoder.settings.d_model, num_phones + 1)

    def forward(self, mel: Float[Tensor, "N M F"], lengths: Int[Tensor, "N"]) -> "CtcOutput":
        """Log-probabilities of tokens from the top and of phones from the middle."""
        encoded, layers = self.encoder.forward_layers(mel, lengths)
        phones = self.phone_head(self.phone_norm(layers[self.phone_layer - 1]))
        return CtcOutput(
            tokens=self.token_head(encoded.frames).float().log_softmax(-1),
            phones=phones.float().log_softmax(-1),
            lengths=encoded.lengths,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CtcOutput:
    """Log-probabilities `[N, U2, ids + 1]` and the frames that count."""

    tokens: Tensor
    phones: Tensor
    lengths: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Ctc:
    """CTC per target token at the top, and the path loss per phone at layer `phone_layer`, weighted.

    `aligned` weighs a cross-entropy against guessed labels of all frames, as training of hidden Markov models
    begins: it leads to where the path losses work.
    """

    token_weight: float = 1.0
    phone_weight: float = 0.5
    phone_layer: int = 3
    aligned: float = 0.0
    masking: Masking | None = None

    @property
    def terms(self) -> tuple[Term, ...]:
        """Tokens, phones, and the guessed phones and tokens of all frames."""
        return (
            Term(name="tokens", weight=self.token_weight),
            Term(name="phones", weight=self.phone_weight),
            Term(name="frame_phones", weight=self.aligned),
            Term(name="frame_tokens", weight=self.aligned),
        )

    def num_positions(self, batch: CtcBatch) -> int:
        """Mel frames."""
        return int(batch.mel_lengths.sum())

    def counts(self, batch: CtcBatch) -> Tensor:
        """Target tokens, target phones, and the labelled frames for both kinds of labels."""
        tokens, frames = batch.token_lengths.sum(), torch.tensor(0)
        if self.aligned and batch.frames is not None:
            frames = (batch.frames.phones != _NO_LABEL).sum()
        return torch.stack([tokens, batch.phone_lengths.sum(), frames, frames]).float()

    def sums(self, model: EncoderForCtc, batch: CtcBatch, *, generator: torch.Generator) -> Tensor:
        """The negative log-likelihood of all targets; a clip too short for its target gives none."""
        mel = batch.mel
        if self.masking is not None and model.training:
            mel = self.masking.apply(mel, batch.mel_lengths, generator=generator)
        output = model(mel, batch.mel_lengths)
        tokens = _ctc(output.tokens, output.lengths, batch.tokens, batch.token_lengths)
        phones = _paths(output.phones, output.lengths, batch.phones, batch.phone_lengths)
        labelled = [tokens.new_zeros(()), tokens.new_zeros(())]
        if self.aligned:
            if batch.frames is None:
                raise ConfigError("aligned training needs batches with labels of their frames.")
            labelled = [
                _frame_loss(output.phones, batch.frames.phones),
                _frame_loss(output.tokens, batch.frames.tokens),
            ]
        return torch.stack([tokens, phones, *labelled])

    def total(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The weighted sum of the means."""
        return weighted_means(self.terms, sums, counts)

    def measures(self, model: EncoderForCtc, batch: CtcBatch) -> Mapping[str, Measure]:
        """Greedy error rates: of tokens, and of words where the model knows its tokenizer."""
        output = model(batch.mel, batch.mel_lengths)
        heard = greedy(output.tokens, output.lengths)
        said = [ids[:n].tolist() for ids, n in zip(batch.tokens, batch.token_lengths.tolist(), strict=True)]
        figures = {"token_error": _error_rate(said, heard)}
        if model.tokenizer is not None:
            decode = model.tokenizer.decode
            words = [[decode(ids).split() for ids in side] for side in (said, heard)]
            figures["word_error"] = _error_rate(words[0], words[1])
        return figures


def greedy(log_probs: Float[Tensor, "N U2 C"], lengths: Int[Tensor, "N"]) -> list[list[int]]:
    """The best label of each frame, repeats merged and blanks (the last id) taken out."""
    blank = log_probs.shape[-1] - 1
    decoded = []
    for labels, length in zip(log_probs.argmax(-1), lengths.tolist(), strict=True):
        merged = torch.unique_consecutive(labels[:length]).tolist()
        decoded.append([label for label in merged if label != blank])
    return decoded


def _ctc(log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    return F.ctc_loss(
        log_probs.transpose(0, 1),
        targets,
        lengths,
        target_lengths,
        blank=log_probs.shape[-1] - 1,
        reduction="sum",
        zero_infinity=True,
    )


def _paths(log_probs: Tensor, lengths: Tensor, phones: Tensor, phone_lengths: Tensor) -> Tensor:
    """Minus the log-likelihood of all ways to stretch silence, the phones and silence over the frames.

    It is CTC with a blank that can't be; equal neighbours, which would need it between them, count once.
    """
    silence = log_probs.shape[-1] - 1
    rows = [
        torch.unique_consecutive(F.pad(row[:length], (1, 1), value=silence))
        for row, length in zip(phones, phone_lengths.tolist(), strict=True)
    ]
    targets = pad_sequence(rows, batch_first=True)
    sizes = torch.tensor([len(row) for row in rows], device=targets.device)
    return _ctc(F.pad(log_probs, (0, 1), value=_NEVER), lengths, targets, sizes)


def _frame_loss(log_probs: Tensor, labels: Tensor) -> Tensor:
    return F.nll_loss(log_probs.flatten(0, 1), labels.flatten(), ignore_index=_NO_LABEL, reduction="sum")


def _error_rate(said: Sequence[Sequence[object]], heard: Sequence[Sequence[object]]) -> Measure:
    errors = sum(edit_distance(a, b) for a, b in zip(said, heard, strict=True))
    return Measure(total=float(errors), count=float(sum(len(a) for a in said)))
