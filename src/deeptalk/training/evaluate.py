"""Held-out loss and figures of a stage."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from deeptalk.training.objective import Measure, Task


@torch.no_grad()
def evaluate(
    task: Task,
    batches: Iterable[Any],
    *,
    forward: Callable[[Any, torch.Generator | None], Any] | None = None,
) -> dict[str, float]:
    """The mean of every loss term and every measure of the objective over `batches`.

    The generator is fresh at every call, so two calls on equal weights agree. `forward` is the task's own
    unless an engine has a way of its own to it.
    """
    objective, model, forward = task.objective, task.model, forward or task
    device = next(model.parameters()).device
    generator = torch.Generator(device=device).manual_seed(0)
    sums = torch.zeros(len(objective.terms), device=device)
    counts = torch.zeros_like(sums)
    figures: dict[str, Measure] = {}
    was_training = task.training
    task.eval()
    for batch in batches:
        batch = batch.to(device)
        sums += forward(batch, generator).float()
        counts += objective.counts(batch).to(device)
        for name, new in forward(batch, None).items():
            old = figures.get(name, Measure(total=0.0, count=0.0))
            figures[name] = Measure(total=old.total + new.total, count=old.count + new.count)
    task.train(was_training)
    result = {"loss": float(objective.total(sums, counts))}
    for term, mean, count in zip(objective.terms, sums / counts.clamp(min=1), counts, strict=True):
        if count > 0:
            result[f"loss_{term.name}"] = float(mean)
    return result | {name: figure.total / max(figure.count, 1.0) for name, figure in figures.items()}
