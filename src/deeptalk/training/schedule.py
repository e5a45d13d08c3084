"""Learning rate over a stage, as a function of the step alone, so a resumed run needs no state."""

import math
from dataclasses import dataclass

from deeptalk.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Cosine:
    """Linear warm-up, then half a cosine down to `final_fraction` of the peak."""

    warmup_fraction: float = 0.03
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_fraction < 1 or not 0 <= self.final_fraction <= 1:
            raise ConfigError(
                "warmup_fraction must be in [0, 1) and final_fraction in [0, 1], "
                f"got {self.warmup_fraction} and {self.final_fraction}."
            )

    def factor(self, step: int, num_steps: int) -> float:
        """The fraction of the peak rate at `step`, which counts from 0."""
        warmup = max(1, round(self.warmup_fraction * num_steps))
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, num_steps - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.final_fraction + (1 - self.final_fraction) * cosine
