"""The loss of eight streams (eq. 4): summed here, divided by global counts in the loop."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from deeptalk.shapes import Float, Int, Tensor
from deeptalk.streams.layout import IGNORE, TEXT
from deeptalk.training.objective import Measure, Term

Reduction = Literal["head_mean", "token_sum"]
Head = Callable[[Tensor], Tensor]


def stream_counts(labels: Int[Tensor, "B K T"]) -> Float[Tensor, "K"]:
    """Supervised tokens of each stream."""
    return (labels != IGNORE).sum(dim=(0, 2)).float()


def stream_sums(
    hidden: Float[Tensor, "B T D"],
    heads: Sequence[Head],
    labels: Int[Tensor, "B K T"],
    *,
    chunk: int | None = None,
) -> Float[Tensor, "K"]:
    """Summed cross-entropy of each stream; a head runs on its own supervised positions only.

    The first head, that of text, runs on ``chunk`` positions at a time where that is given.
    """
    sums = []
    for stream, head in enumerate(heads):
        chosen = labels[:, stream] != IGNORE
        own = (head, hidden[chosen], labels[:, stream][chosen])
        if chunk is not None and stream == TEXT:
            sums.append(chunked_cross_entropy(*own, chunk=chunk))
        else:
            sums.append(F.cross_entropy(head(own[1]).float(), own[2], reduction="sum"))
    return torch.stack(sums)


def chunked_cross_entropy(
    head: Head, hidden: Float[Tensor, "N D"], labels: Int[Tensor, "N"], *, chunk: int
) -> Float[Tensor, ""]:
    """The summed cross-entropy of a head too large for all its logits to be in memory at once.

    Logits of ``chunk`` positions are; the backward pass computes them again.
    """
    losses = [
        checkpoint(_cross_entropies, head, *part, use_reentrant=False)
        for part in zip(hidden.split(chunk), labels.split(chunk), strict=True)
    ]
    return torch.cat(losses).sum()


def _cross_entropies(head: Head, hidden: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden).float(), labels, reduction="none")


def reduce_streams(
    terms: tuple[Term, ...], sums: Float[Tensor, "K"], counts: Float[Tensor, "K"], *, reduction: Reduction
) -> Float[Tensor, ""]:
    """`head_mean`: weighted sum of each stream's mean. `token_sum`: the weighted mean over all tokens.

    A stream without labels is skipped either way.
    """
    weights = sums.new_tensor([term.weight for term in terms])
    if reduction == "head_mean":
        return (weights * sums / counts.clamp(min=1)).sum()
    return (weights * sums).sum() / counts.sum().clamp(min=1)


def text_against(
    head: Head, hidden: Float[Tensor, "B T D"], labels: Int[Tensor, "B T"], said: Float[Tensor, "P V"]
) -> dict[str, Measure]:
    """Text against what a text backbone has ``said`` (log-probabilities at the labels), in nats per token.

    Cross-entropies of the labels, and the divergence of the backbone's words from those of the head.
    """
    chosen = labels != IGNORE
    tokens, log_probs = labels[chosen], head(hidden[chosen]).float().log_softmax(-1)
    sums = {
        "text_nats": F.nll_loss(log_probs, tokens, reduction="sum"),
        "text_nats_backbone": F.nll_loss(said, tokens, reduction="sum"),
        "text_kl": F.kl_div(log_probs, said, reduction="sum", log_target=True),
    }
    return {name: Measure(total=float(total), count=float(len(tokens))) for name, total in sums.items()}


def exact_rows(head: Head, hidden: Float[Tensor, "B T D"], labels: Int[Tensor, "B T"]) -> Measure:
    """Rows with labels of which every one is the likeliest token, and how many rows have labels."""
    chosen = labels != IGNORE
    wrong = torch.zeros_like(chosen)
    wrong[chosen] = head(hidden[chosen]).argmax(-1) != labels[chosen]
    rows = chosen.any(1)
    return Measure(total=float((rows & ~wrong.any(1)).sum()), count=float(rows.sum()))
