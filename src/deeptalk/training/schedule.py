"""Learning rate over a stage, as a function of the step alone, so a resumed run needs no state."""

import math
from dataclasses import dataclass

from deeptalk.errors import ConfigError
from deeptalk.training.objective import added


@dataclass(frozen=True, kw_only=True, slots=True)
class Cosine:
    """Linear warm-up, then half a cosine down to `final_fraction` of the peak.

    A cosine `horizon` times as long as the stage is ended early: over the last `cooldown_fraction` of the
    steps the rate falls to the same end in a straight line (Hägele et al. 2024, arXiv 2405.18392).
    """

    warmup_fraction: float = 0.03
    final_fraction: float = 0.0
    horizon: float = added(1.0)
    cooldown_fraction: float = added(0.0)

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_fraction < 1 or not 0 <= self.final_fraction <= 1:
            raise ConfigError(
                "warmup_fraction must be in [0, 1) and final_fraction in [0, 1], "
                f"got {self.warmup_fraction} and {self.final_fraction}."
            )
        if not 1 <= self.horizon < math.inf or not 0 <= self.cooldown_fraction <= 1 - self.warmup_fraction:
            raise ConfigError(
                "horizon must be at least 1 and finite and cooldown_fraction in [0, 1 - warmup_fraction], "
                f"got {self.horizon} and {self.cooldown_fraction}."
            )
        if self.horizon > 1 and not self.cooldown_fraction:
            raise ConfigError(f"a horizon of {self.horizon} needs a cooldown_fraction to come down by.")

    def factor(self, step: int, num_steps: int) -> float:
        """The fraction of the peak rate at `step`, which counts from 0."""
        warmup = max(1, round(self.warmup_fraction * num_steps))
        if step < warmup:
            return (step + 1) / warmup
        cooldown = round(self.cooldown_fraction * num_steps)
        progress = (min(step, num_steps - cooldown) - warmup) / max(
            1, round(self.horizon * num_steps) - warmup
        )
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        left = min(1.0, (num_steps - step) / cooldown) if cooldown else 1.0
        return self.final_fraction + (1 - self.final_fraction) * cosine * max(0.0, left)
