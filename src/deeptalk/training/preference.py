"""Stage RL: direct preference optimisation on pairs of spoken answers (method.md, section 11).

Axes: B pairs, B2 = 2 B rows (winners, then losers), T positions, K streams, D model width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from deeptalk.data.preference import PreferenceBatch
from deeptalk.errors import ConfigError
from deeptalk.experts import Routing
from deeptalk.model.deeptalk import DeepTalk
from deeptalk.shapes import Float, Int
from deeptalk.streams.layout import IGNORE, TEXT
from deeptalk.training.loss import Head
from deeptalk.training.objective import Measure, Term, weighted_means

LengthNorm = Literal["none", "per_token"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """The winner of a pair shall gain more over the reference model than the loser, by one sigmoid per pair.

    An answer has one log-probability: the sum over all codes of all codebooks and their ends, the text being
    given. Its reward is `beta` times what this has gained since the reference, which is the model at the
    start of the stage; with `length_norm` "per_token", for each code. `sft_weight` adds the winner's mean
    negative log-probability of a code, `text_weight` the cross-entropy of the winner's text.
    """

    beta: float = 0.1
    length_norm: LengthNorm = "none"
    sft_weight: float = 0.0
    text_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.sft_weight < 0 or self.text_weight < 0:
            raise ConfigError(
                "beta must be above 0 and the weights at least 0, "
                f"got {self.beta}, {self.sft_weight} and {self.text_weight}."
            )
        if self.length_norm not in get_args(LengthNorm):
            raise ConfigError(
                f"length_norm must be one of {', '.join(get_args(LengthNorm))}, got {self.length_norm!r}."
            )

    @property
    def terms(self) -> tuple[Term, ...]:
        """The preference, the winners' codes, the winners' text."""
        return (
            Term(name="preference", weight=1.0),
            Term(name="sft", weight=self.sft_weight),
            Term(name="text", weight=self.text_weight),
        )

    def num_positions(self, batch: PreferenceBatch) -> int:
        """Positions of both rows that are no padding."""
        return int(batch.rows.mask.sum())

    def counts(self, batch: PreferenceBatch) -> Tensor:
        """Pairs, and text tokens of the winners; zero for a term without weight."""
        num_pairs = batch.ref_log_prob.shape[1]
        num_words = int((_text_labels(batch) != IGNORE).sum())
        counts = [num_pairs, num_pairs * (self.sft_weight > 0), num_words * (self.text_weight > 0)]
        return batch.ref_log_prob.new_tensor(counts)

    def sums(self, model: DeepTalk, batch: PreferenceBatch, *, generator: torch.Generator) -> Tensor:
        """Each term summed over the pairs."""
        hidden = model.hidden(batch.rows).hidden
        log_prob = _pair_log_probs(model, hidden, batch)
        reward_win, reward_lose = self._rewards(log_prob, batch)
        preference = -F.logsigmoid(reward_win - reward_lose).sum()
        sft = text = preference.new_zeros(())
        if self.sft_weight:
            sft = -(log_prob[0] / _num_codes(batch)[0]).sum()
        if self.text_weight:
            text = _text_sum(model, hidden, batch)
        return torch.stack([preference, sft, text])

    def total(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The weighted sum of the means."""
        return weighted_means(self.terms, sums, counts)

    def measures(self, model: DeepTalk, batch: PreferenceBatch) -> Mapping[str, Measure]:
        """Rewards and their margin, how often the winner's is higher, log-probabilities, frames.

        A negative `reward_win` warns that the model unlearns the winners too.
        """
        log_prob = _pair_log_probs(model, model.hidden(batch.rows).hidden, batch)
        rewards = self._rewards(log_prob, batch)
        margin = rewards[0] - rewards[1]
        first = _codec_labels(batch)[:, 0]
        frames = _per_row((first != IGNORE) & (first < model.layout.codebook_size), batch)
        figures = {
            "margin": margin,
            "accuracy": (margin > 0).float(),
            "reward_win": rewards[0],
            "reward_lose": rewards[1],
            "log_prob_win": log_prob[0],
            "log_prob_lose": log_prob[1],
            "frames_win": frames[0],
            "frames_lose": frames[1],
        }
        return {
            name: Measure(total=float(values.detach().sum()), count=float(len(values)))
            for name, values in figures.items()
        }

    def _rewards(self, log_prob: Float[Tensor, "2 B"], batch: PreferenceBatch) -> Float[Tensor, "2 B"]:
        gain = log_prob - batch.ref_log_prob
        return self.beta * (gain / _num_codes(batch) if self.length_norm == "per_token" else gain)


def check_experts(model: DeepTalk) -> None:
    """Refuse a model that limits who may use which expert: it would be scored otherwise than it decodes."""
    routing = Routing(**model.config.routing)  # pyright: ignore[reportArgumentType]  # checked by the class
    if not routing.is_free or model.config.extra_experts is not None:
        raise ConfigError(
            "pairs are made and learnt from by models whose every token may use every expert; this one has "
            f"routing {dict(model.config.routing)}"
            + ("." if model.config.extra_experts is None else " and extra experts.")
        )


def joint_log_probs(
    hidden: Float[Tensor, "B2 T D"], codec_heads: Sequence[Head], labels: Int[Tensor, "B2 K T"]
) -> Float[Tensor, "B2"]:
    """The log-probability of all labelled codes and ends of each row, in one number (method.md, 11.1)."""
    total = hidden.new_zeros(len(hidden), dtype=torch.float32)
    for head, stream in zip(codec_heads, labels[:, TEXT + 1 :].unbind(1), strict=True):
        chosen = stream != IGNORE
        losses = F.cross_entropy(head(hidden[chosen]).float(), stream[chosen], reduction="none")
        total = total.index_add(0, chosen.nonzero()[:, 0], -losses)
    return total


@torch.inference_mode()
def reference_log_probs(
    model: DeepTalk, batch: PreferenceBatch, *, precision: str = "fp32"
) -> Float[Tensor, "2 B"]:
    """What a model thinks of winners and losers, computed as training in this precision will."""
    device = model.device.type
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        return _pair_log_probs(model, model.hidden(batch.rows).hidden, batch)


def _pair_log_probs(model: DeepTalk, hidden: Tensor, batch: PreferenceBatch) -> Float[Tensor, "2 B"]:
    heads: Sequence[Head] = list(model.heads.codec)
    return joint_log_probs(hidden, heads, batch.rows.labels).unflatten(0, (2, -1))


def _codec_labels(batch: PreferenceBatch) -> Int[Tensor, "B2 Q T"]:
    return batch.rows.labels[:, TEXT + 1 :]


def _text_labels(batch: PreferenceBatch) -> Int[Tensor, "B T"]:
    """Of the winners: the text of both rows is the same."""
    return batch.rows.labels[: batch.ref_log_prob.shape[1], TEXT]


def _num_codes(batch: PreferenceBatch) -> Float[Tensor, "2 B"]:
    """Codes and ends that are scored, 7 (L + 1) of an answer that ended by itself."""
    return _per_row((_codec_labels(batch) != IGNORE).flatten(1), batch)


def _per_row(chosen: Tensor, batch: PreferenceBatch) -> Float[Tensor, "2 B"]:
    return chosen.sum(-1).to(batch.ref_log_prob.dtype).unflatten(0, (2, -1))


def _text_sum(model: DeepTalk, hidden: Tensor, batch: PreferenceBatch) -> Float[Tensor, ""]:
    labels = _text_labels(batch)
    chosen = labels != IGNORE
    logits = model.backbone.lm_head(hidden[: len(labels)][chosen])
    return F.cross_entropy(logits.float(), labels[chosen], reduction="sum")
