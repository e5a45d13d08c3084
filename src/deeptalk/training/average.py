"""Averages of weights: a moving one over the steps, and one with the weights that a stage began with."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def trainable_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters that train, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def blend(model: nn.Module, weights: Mapping[str, Tensor], *, share: float) -> None:
    """Move the model's weights by ``share`` of the way to ``weights`` (WiSE-FT, arXiv 2109.01903, eq. 1)."""
    for name, parameter in model.named_parameters():
        if name in weights:
            parameter.lerp_(weights[name].to(parameter), share)


class WeightAverage:
    """Keeps a moving average of the trainable parameters; the decay grows with the steps taken."""

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.tensors = trainable_weights(model)

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Move the average towards the weights; `step` counts from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            if name in self.tensors:
                self.tensors[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def adopt(self, model: nn.Module) -> None:
        """Make the average the model's weights."""
        for name, parameter in model.named_parameters():
            if name in self.tensors:
                parameter.copy_(self.tensors[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with averaged weights, for evaluation and for the stage's result."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if name in self.tensors:
                kept = parameter.detach().clone()
                parameter.copy_(self.tensors[name])
                self.tensors[name].copy_(kept)
