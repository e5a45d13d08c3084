"""Delayed streams: stream k is written ``delays[k]`` steps late, so one step predicts all of them.

Axes: B batch, K streams, T steps, T2 = T + the largest delay.
"""

from dataclasses import dataclass

import torch

from deeptalk.errors import ConfigError
from deeptalk.shapes import Int, Tensor


@dataclass(frozen=True, slots=True)
class DelayPattern:
    """How many steps late each stream is written; text is stream 0."""

    delays: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)

    def __post_init__(self) -> None:
        if not self.delays or min(self.delays) < 0:
            raise ConfigError(f"delays must be one or more numbers >= 0, got {self.delays}.")

    def apply(self, codes: Int[Tensor, "B K T"], *, pad_ids: tuple[int, ...]) -> Int[Tensor, "B K T2"]:
        """Write each stream late, with the stream's own pad id in the steps this opens."""
        batch, _, steps = codes.shape
        pads = codes.new_tensor(pad_ids)[None, :, None]
        delayed = pads.repeat(batch, 1, steps + max(self.delays))
        for k, delay in enumerate(self.delays):
            delayed[:, k, delay : delay + steps] = codes[:, k]
        return delayed

    def undo(self, delayed: Int[Tensor, "B K T2"]) -> Int[Tensor, "B K T"]:
        """The steps that every stream has reached; the inverse of ``apply``."""
        steps = delayed.shape[-1] - max(self.delays)
        return torch.stack([delayed[:, k, d : d + steps] for k, d in enumerate(self.delays)], dim=1)


class DelayBuffer:
    """The streaming twin of ``DelayPattern.undo``: delayed steps in, whole steps out."""

    def __init__(self, pattern: DelayPattern) -> None:
        self._delays = pattern.delays
        self._depth = max(pattern.delays) + 1
        self._ring = [[0] * len(pattern.delays) for _ in range(self._depth)]
        self._num_pushed = 0

    def push(self, ids: list[int]) -> list[int] | None:
        """Take the ids of one delayed step; give the step they complete, if there is one."""
        if len(ids) != len(self._delays):
            raise ConfigError(f"A step has {len(self._delays)} streams, got {len(ids)} ids.")
        step = self._num_pushed
        self._ring[step % self._depth] = list(ids)
        self._num_pushed += 1
        first = step - (self._depth - 1)
        if first < 0:
            return None
        return [self._ring[(first + delay) % self._depth][k] for k, delay in enumerate(self._delays)]
