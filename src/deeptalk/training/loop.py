"""The one training loop: counts first, then gradients, one report per step."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn

from deeptalk.errors import DeepTalkError
from deeptalk.training.average import WeightAverage
from deeptalk.training.checkpoint import (
    Progress,
    checkpoints,
    generator_states,
    load_checkpoint,
    save_checkpoint,
)
from deeptalk.training.interruption import Interruption
from deeptalk.training.objective import Objective, Task
from deeptalk.training.optim import set_lr
from deeptalk.training.recipe import Recipe

logger = logging.getLogger(__name__)


class DivergedError(DeepTalkError):
    """Too many steps in a row had a loss or a gradient that is not finite."""


class Batches(Protocol):
    """This process's endless micro-batches, which can be put back to an earlier position."""

    def __next__(self) -> Any:
        """The next micro-batch, on the CPU."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position, as plain JSON values; `rejects` among them counts what was left out, by reason."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position that `state_dict` gave."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What one optimiser step did; `evaluation` is filled on the steps that evaluate.

    `rejected` counts what this process has left out of the data so far, by reason.
    """

    step: int
    num_steps: int
    loss: float
    losses: Mapping[str, float]
    lr: float
    grad_norm: float
    tokens_per_second: float
    skipped: int
    is_interrupted: bool = False
    evaluation: Mapping[str, float] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)


def build_accelerator() -> Accelerator:
    """The device and the processes that this run was launched with."""
    # told that there is no accelerator, Accelerate joins CPU processes by gloo
    only_cpu = not torch.accelerator.is_available()
    return Accelerator(
        cpu=only_cpu, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)]
    )


def train(
    model: nn.Module,
    *,
    recipe: Recipe,
    batches: Batches,
    objective: Objective | None = None,
    folder: Path | None = None,
    resume: bool = False,
    evaluate: Callable[[Task], Mapping[str, float]] | None = None,
    accelerator: Accelerator | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[StepReport]:
    """Run the recipe's steps on a model whose parameters are already frozen or free, in place.

    `objective` is the recipe's own, bound to what only the run knows; left out, it is the recipe's as it is.
    Checkpoints go to `folder`, where `resume` goes on from the last one. After the last step the model holds
    the averaged weights if the recipe asks for them. An interruption saves, reports and ends the iteration.

    Raises:
        DivergedError: `recipe.max_bad_steps` steps in a row were not finite.
        CheckpointError: `resume` finds the checkpoint of another recipe.
    """
    task = Task(model, objective or recipe.objective, precision=recipe.precision)
    run = _Run(task, recipe=recipe, batches=batches, accelerator=accelerator or build_accelerator())
    if resume and folder is not None and checkpoints(folder):
        run.load(checkpoints(folder)[-1])
    num_steps = recipe.num_steps or 0
    with Interruption() as interruption:
        while run.step < num_steps:
            started = now()
            report = run.advance(num_steps)
            is_last = run.step == num_steps
            is_stopped = run.any_process(interruption.requested) and not is_last
            evaluation: Mapping[str, float] = {}
            seconds = now() - started
            if evaluate is not None and (run.step % recipe.eval_every == 0 or is_last):
                with run.averaged():
                    evaluation = evaluate(run.task)
            is_due = is_last or is_stopped or run.step % recipe.save_every == 0
            if folder is not None and is_due:
                run.save(folder)
            yield StepReport(
                step=run.step,
                num_steps=num_steps,
                tokens_per_second=run.num_positions / max(seconds, 1e-9),
                skipped=run.num_skipped,
                is_interrupted=is_stopped,
                evaluation=evaluation,
                rejected=batches.state_dict().get("rejects", {}),
                **report,
            )
            if is_stopped:
                return
    if run.average is not None:
        run.average.adopt(model)


class _Run:
    """Everything that changes while a stage trains."""

    def __init__(self, task: Task, *, recipe: Recipe, batches: Batches, accelerator: Accelerator) -> None:
        self.recipe, self.batches, self.accelerator = recipe, batches, accelerator
        self.task, model = task, task.model
        self.task.to(accelerator.device).train()
        self.optimizer = recipe.optim.build(model)
        self.average = WeightAverage(model, decay=recipe.average) if recipe.average is not None else None
        self.wrapped, self.prepared = accelerator.prepare(self.task, self.optimizer)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        seed = recipe.seed + accelerator.process_index
        self.generator = torch.Generator(device=accelerator.device).manual_seed(seed)
        self.step = self.num_skipped = self.num_bad_in_a_row = self.num_positions = 0

    def advance(self, num_steps: int) -> dict[str, Any]:
        """One optimiser step over all micro-batches of all processes."""
        lr = self.recipe.optim.lr * self.recipe.schedule.factor(self.step, num_steps)
        set_lr(self.prepared, lr)
        sums, counts = self._gradients()
        objective = self.task.objective
        loss = float(objective.total(sums, counts))
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.optim.clip_norm))
        self.step += 1
        if torch.isfinite(torch.tensor([loss, grad_norm])).all():
            self.prepared.step()
            self.num_bad_in_a_row = 0
            if self.average is not None:
                self.average.update(self.task.model, step=self.step)
        else:
            self._count_bad(loss, grad_norm)
        self.prepared.zero_grad(set_to_none=True)
        means = (sums / counts.clamp(min=1)).tolist()
        losses = {
            term.name: mean
            for term, mean, count in zip(objective.terms, means, counts.tolist(), strict=True)
            if count > 0
        }
        return {"loss": loss, "losses": losses, "lr": lr, "grad_norm": grad_norm}

    def _gradients(self) -> tuple[Tensor, Tensor]:
        """Backward over the micro-batches; the sums and counts of the global batch."""
        objective, device = self.task.objective, self.accelerator.device
        micro = [next(self.batches).to(device) for _ in range(self.recipe.accumulate)]
        counts = torch.stack([objective.counts(batch).to(device, torch.float32) for batch in micro]).sum(0)
        counts = self._total(counts)
        positions = sum(objective.num_positions(batch) for batch in micro)
        self.num_positions = positions * self.accelerator.num_processes  # about: shares are alike
        sums = torch.zeros_like(counts)
        for index, batch in enumerate(micro):
            is_last = index == len(micro) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.wrapped):
                part = self.wrapped(batch, self.generator).float()
                # a distributed wrapper averages gradients over processes; the loss is a sum over them
                total = objective.total(part, counts) * self.accelerator.num_processes
                self.accelerator.backward(total)
            sums += part.detach()
        return self._total(sums), counts

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is up in at least one process; all of them get the same answer."""
        return bool(self._total(torch.tensor(float(flag), device=self.accelerator.device)))

    def _total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        total = self.accelerator.reduce(values, "sum")
        assert isinstance(total, Tensor)
        return total

    def _count_bad(self, loss: float, grad_norm: float) -> None:
        self.num_skipped += 1
        self.num_bad_in_a_row += 1
        logger.warning("step %d skipped: loss %s, gradient norm %s", self.step, loss, grad_norm)
        if self.num_bad_in_a_row >= self.recipe.max_bad_steps:
            raise DivergedError(
                f"recipe {self.recipe.name!r}: {self.num_bad_in_a_row} steps in a row were not finite "
                f"(loss {loss}, gradient norm {grad_norm}) at step {self.step}; "
                "lower optim.lr or look at the data of these steps."
            )

    def averaged(self) -> Any:
        return self.average.applied(self.task.model) if self.average is not None else nullcontext()

    def save(self, folder: Path) -> None:
        """The first process writes, with the generators and positions of all."""
        own = [(generator_states(self.generator), self.batches.state_dict())]
        states = gather_object(own) if self.accelerator.num_processes > 1 else own
        if self.accelerator.is_main_process:
            save_checkpoint(
                folder,
                model=self.task.model,
                average=self.average.tensors if self.average is not None else None,
                optimizer=self.optimizer,
                generators=[generators for generators, _ in states],
                progress=Progress(
                    step=self.step,
                    num_skipped=self.num_skipped,
                    recipe_hash=self.recipe.hash,
                    data=[data for _, data in states],
                ),
            )
        self.accelerator.wait_for_everyone()

    def load(self, path: Path) -> None:
        progress = load_checkpoint(
            path,
            model=self.task.model,
            average=self.average.tensors if self.average is not None else None,
            optimizer=self.optimizer,
            generator=self.generator,
            recipe_hash=self.recipe.hash,
            process_index=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
        )
        self.batches.load_state_dict(progress.data[self.accelerator.process_index])
        self.step, self.num_skipped = progress.step, progress.num_skipped
