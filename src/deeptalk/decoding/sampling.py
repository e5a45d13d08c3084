"""From logits to an id: greedy, temperature, top-k and repetition penalty."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from deeptalk.errors import ConfigError
from deeptalk.shapes import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How one stream chooses; temperature 0 or ``top_k`` 1 is greedy, ``top_k`` 0 keeps all ids.

    ``repetition_penalty`` p divides the positive and multiplies the negative logits of ids that the answer
    holds already: once per ``distinct`` id, or once per ``occurrence`` (p to the power of m).
    """

    temperature: float = 0.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    penalty: Literal["distinct", "occurrence"] = "distinct"

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or self.top_k < 0:
            raise ConfigError(
                f"temperature and top_k must be finite, 0 or more, got {self.temperature} and {self.top_k}."
            )
        if self.repetition_penalty <= 0:
            raise ConfigError(f"repetition_penalty must be above 0, got {self.repetition_penalty}.")
        if self.penalty not in ("distinct", "occurrence"):
            raise ConfigError(f"penalty must be distinct or occurrence, got {self.penalty!r}.")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest id is taken."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def is_penalised(self) -> bool:
        """Whether earlier ids count."""
        return self.repetition_penalty != 1.0


def sample_token(
    logits: Float[Tensor, "*B C"], sampling: Sampling, generator: torch.Generator | None = None
) -> Int[Tensor, "*B"]:
    """One id per row of logits; ids at minus infinity are never taken.

    Random numbers are drawn where ``generator`` lives, so that a seed gives the same on every device.
    """
    if sampling.is_greedy:
        return logits.argmax(dim=-1)
    logits = logits.float() / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    device = logits.device if generator is None else generator.device
    race = torch.empty(logits.shape, device=device).exponential_(generator=generator).to(logits.device)
    return (logits.softmax(dim=-1) / race).argmax(dim=-1)


def penalise(logits: Float[Tensor, "C"], history: Sequence[int], sampling: Sampling) -> Float[Tensor, "C"]:
    """Logits with the repetition penalty for the ids of ``history``."""
    if not sampling.is_penalised or not history:
        return logits
    counts = Counter(history)
    ids = torch.tensor(list(counts), device=logits.device)
    times = [1 if sampling.penalty == "distinct" else count for count in counts.values()]
    factor = sampling.repetition_penalty ** torch.tensor(times, device=logits.device, dtype=logits.dtype)
    seen = logits[ids]
    return logits.index_copy(0, ids, torch.where(seen > 0, seen / factor, seen * factor))
