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
from accelerate.utils import gather_object
from torch import Tensor, nn

from deeptalk.errors import CheckpointError, DataError, DeepTalkError
from deeptalk.training.average import WeightAverage, blend, trainable_weights
from deeptalk.training.checkpoint import (
    WHOLE,
    Progress,
    check_run,
    data_of,
    generator_states,
    load_whole,
    newest_checkpoint,
    read_progress,
    save_checkpoint,
    set_generators,
)
from deeptalk.training.engine import (
    WholeEngine,
    any_process,
    build_accelerator,
    build_engine,
)
from deeptalk.training.interruption import Interruption
from deeptalk.training.launch import Groups, groups_of, is_fsdp, is_zero
from deeptalk.training.manifest import read_manifest
from deeptalk.training.objective import Objective, Task
from deeptalk.training.recipe import Recipe
from deeptalk.training.states import StatesReader, read_rest, write_rest, write_states

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


Forward = Callable[[Any, torch.Generator | None], Any]
"""A task's forward pass, through the engine that holds the model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What one optimiser step did; `evaluation` is filled on the steps that evaluate.

    `rejected` counts what all processes have left out of the data so far, by reason.
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


def train(
    model: nn.Module,
    *,
    recipe: Recipe,
    batches: Batches,
    objective: Objective | None = None,
    folder: Path | None = None,
    resume: bool = False,
    evaluate: Callable[[Task, Forward], Mapping[str, float]] | None = None,
    accelerator: Accelerator | None = None,
    asked: Recipe | None = None,
    expert_parallel: int = 1,
    keep_going: bool = False,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[StepReport]:
    """Run the recipe's steps on a model whose parameters are already frozen or free, in place.

    `objective` is the recipe's own, bound to what only the run knows; left out, it is the recipe's as it is.
    Checkpoints go to `folder`, where `resume` goes on from the last one that is whole. After the last step
    the model holds the averaged weights if the recipe asks for them, with a share of those it began with, and
    in the first process it is whole.
    An interruption saves, reports and ends the iteration. `asked` is the recipe before its epochs were
    counted in steps and its micro-batches shared; another number of processes may go on with a run of it.
    Groups of `expert_parallel` processes hold the experts together; those of a group are to be given the
    same `batches`.
    With `keep_going` a checkpoint that can't be written is told and left out.

    Raises:
        DivergedError: `recipe.max_bad_steps` steps in a row were not finite.
        DataError: more than `recipe.max_bad_fraction` of the samples can't be used.
        CheckpointError: `resume` finds the checkpoint of another recipe, or none that is whole; a checkpoint
            can't be written.
    """
    task = Task(model, objective or recipe.objective, precision=recipe.precision)
    start = newest_checkpoint(folder) if resume and folder is not None else None
    accelerator = accelerator or build_accelerator()
    run = _Run(
        task,
        recipe=recipe,
        asked=asked or recipe,
        batches=batches,
        accelerator=accelerator,
        groups=groups_of(accelerator, size=expert_parallel),
        start=start,
    )
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
                    evaluation = evaluate(run.task, run.engine)
            is_due = is_last or is_stopped or run.step % recipe.save_every == 0
            if folder is not None and is_due:
                run.save(folder, keep_going=keep_going and not is_stopped)
            run.check_samples()
            yield StepReport(
                step=run.step,
                num_steps=num_steps,
                tokens_per_second=run.num_positions / max(seconds, 1e-9),
                skipped=run.num_skipped,
                is_interrupted=is_stopped,
                evaluation=evaluation,
                rejected=run.rejected(is_due),
                **report,
            )
            if is_stopped:
                return
    if run.average is not None:
        run.average.adopt(model)
    if run.began_with is not None:
        blend(model, run.began_with, share=recipe.start_share)
    run.engine.make_whole()


class _Run:
    """Everything that changes while a stage trains."""

    def __init__(
        self,
        task: Task,
        *,
        recipe: Recipe,
        asked: Recipe,
        batches: Batches,
        accelerator: Accelerator,
        groups: Groups,
        start: Path | None = None,
    ) -> None:
        self.recipe, self.asked, self.batches = recipe, asked, batches
        self.accelerator, self.groups = accelerator, groups
        self.task, model = task, task.model
        self.began_with = trainable_weights(model) if recipe.start_share else None
        progress = None if start is None else self._read_progress(start)
        if start is not None and progress is not None and progress.format_version != WHOLE:
            with StatesReader(start) as reader:  # before the model is divided
                reader.put_weights(model)
        self.engine = build_engine(task, recipe=recipe, accelerator=accelerator, groups=groups)
        self.average = WeightAverage(model, decay=recipe.average) if recipe.average is not None else None
        self.generator = torch.Generator(device=accelerator.device)
        self.generator.manual_seed(recipe.seed + groups.index)
        self.step = self.num_skipped = self.num_bad_in_a_row = self.num_positions = 0
        self._left_out = dict(batches.state_dict().get("rejects", {}))
        if start is not None and progress is not None:
            self._load(start, progress)
        self._rejected = self._left_out

    def advance(self, num_steps: int) -> dict[str, Any]:
        """One optimiser step over all micro-batches of all processes."""
        lr = self.recipe.optim.lr * self.recipe.schedule.factor(self.step, num_steps)
        sums, counts, samples = self._gradients()
        objective = self.task.objective
        loss = float(objective.total(sums, counts))
        is_finite = bool(torch.tensor(loss).isfinite())
        taken = self.engine.step(lr=lr, is_finite=is_finite, chance=self.recipe.seed + self.step)
        self.step += 1
        if taken.is_taken:
            self.num_bad_in_a_row = 0
            if self.average is not None:
                self.average.update(self.task.model, step=self.step)
        else:
            self._count_bad(loss, taken.grad_norm, samples)
        means = (sums / counts.clamp(min=1)).tolist()
        losses = {
            term.name: mean
            for term, mean, count in zip(objective.terms, means, counts.tolist(), strict=True)
            if count > 0
        }
        return {"loss": loss, "losses": losses, "lr": lr, "grad_norm": taken.grad_norm}

    def _gradients(self) -> tuple[Tensor, Tensor, list[str]]:
        """Backward over the micro-batches; sums and counts of all processes, and the samples of this one."""
        objective, device = self.task.objective, self.accelerator.device
        micro, samples = [], []
        for _ in range(self.recipe.accumulate):
            micro.append(next(self.batches).to(device))
            samples += getattr(self.batches, "last", ())
        counts = torch.stack([objective.counts(batch).to(device, torch.float32) for batch in micro]).sum(0)
        positions = sum(objective.num_positions(batch) for batch in micro)
        self._check_alike(torch.cat([counts, counts.new_tensor([positions])]))
        counts = self._total(counts)
        self.num_positions = positions * self.groups.number  # about: shares are alike
        sums = torch.zeros_like(counts)
        for index, batch in enumerate(micro):
            with self.engine.micro_batch(is_last=index == len(micro) - 1):
                part = self.engine(batch, self.generator).float()
                # gradients are averaged over the groups, each a process where experts aren't divided; the
                # loss is a sum over them
                self.engine.backward(objective.total(part, counts) * self.groups.number)
            sums += part.detach()
        return self._total(sums), counts, samples

    def _check_alike(self, sizes: Tensor) -> None:
        """Refuse batches that differ within a group, whose processes compute parts of the same tokens."""
        if self.groups.size == 1:
            return
        every = self.accelerator.gather(sizes[None])
        assert isinstance(every, Tensor)
        of_groups = every.unflatten(0, (-1, self.groups.size))
        if not bool((of_groups == of_groups[:, :1]).all()):
            raise DataError(
                f"step {self.step + 1}: processes that hold the experts together have made different batches "
                "of the same samples; let all of them read the same files, or leave out --expert-parallel."
            )

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is up in at least one process; all of them get the same answer."""
        return any_process(self.accelerator, flag)

    def check_samples(self) -> None:
        """End the run where too many samples can't be used."""
        most, fraction = self.recipe.max_bad_fraction, getattr(self.batches, "bad_fraction", None)
        if most is None or fraction is None or not self.any_process(fraction() > most):
            return
        raise DataError(
            f"recipe {self.recipe.name!r}: more than {most:.2%} of the samples can't be used "
            f"({self.rejected(True)}, in this process {fraction():.2%}); mend the data or raise "
            "max_bad_fraction."
        )

    def rejected(self, is_due: bool) -> Mapping[str, int]:
        """What all processes have left out, by reason, as it was when it was last asked for with `is_due`.

        What is known before the first draw is the same in all and counts once.
        """
        if self.accelerator.num_processes == 1:
            return self.batches.state_dict().get("rejects", {})
        if is_due:
            own = self.batches.state_dict().get("rejects", {})
            total = dict(self._left_out)
            for counts in gather_object([own])[:: self.groups.size]:
                for reason, count in counts.items():
                    total[reason] = total.get(reason, 0) + count - self._left_out.get(reason, 0)
            self._rejected = total
        return self._rejected

    def _total(self, values: Tensor) -> Tensor:
        """The sum over all groups of processes."""
        own = values if self.groups.is_first else torch.zeros_like(values)
        total = self.accelerator.reduce(own, "sum")
        assert isinstance(total, Tensor)
        return total

    def _count_bad(self, loss: float, grad_norm: float, samples: list[str]) -> None:
        self.num_skipped += 1
        self.num_bad_in_a_row += 1
        seen = ", ".join(samples) or "unnamed"
        logger.warning(
            "step %d skipped: loss %s, gradient norm %s; samples: %s", self.step, loss, grad_norm, seen
        )
        if self.num_bad_in_a_row >= self.recipe.max_bad_steps:
            raise DivergedError(
                f"recipe {self.recipe.name!r}: {self.num_bad_in_a_row} steps in a row were not finite "
                f"(loss {loss}, gradient norm {grad_norm}) at step {self.step}; "
                "lower optim.lr or look at the data of these steps."
            )

    def averaged(self) -> Any:
        return self.average.applied(self.task.model) if self.average is not None else nullcontext()

    def save(self, folder: Path, *, keep_going: bool) -> None:
        """A checkpoint, with the generators and positions of all processes."""
        try:
            self._save(folder)
        except CheckpointError as error:  # in all processes
            if not keep_going:
                raise
            logger.warning("%s Training goes on without.", error)

    def _save(self, folder: Path) -> None:
        own = [(generator_states(self.generator), self.batches.state_dict())]
        states = gather_object(own) if self.accelerator.num_processes > 1 else own
        states = states[:: self.groups.size]  # a group's are alike
        save_checkpoint(
            folder,
            write=lambda path: self._write(path, [generators for generators, _ in states]),
            progress=Progress(
                step=self.step,
                num_skipped=self.num_skipped,
                recipe_hash=self.recipe.hash,
                data=[data for _, data in states],
                num_bad_in_a_row=self.num_bad_in_a_row,
            ),
            about={
                "num_steps": self.recipe.num_steps,
                "num_processes": self.groups.number,
                **({"expert_parallel": self.groups.size} if self.groups.size > 1 else {}),
                "recipe": self.asked.to_dict(),
                "versions": {"torch": torch.__version__},
            },
            accelerator=self.accelerator,
        )

    def _write(self, path: Path, generators: list[dict[str, Any]]) -> list[Path]:
        """Write this process's files of a checkpoint."""
        is_main, average, model = self.accelerator.is_main_process, self.average, self.task.model
        averaged = average.tensors if average is not None else None
        is_divided = not isinstance(self.engine, WholeEngine)
        if not (is_main or is_divided):
            return []
        files = write_states(
            path,
            self.engine,
            process_index=self.accelerator.process_index,
            num_writers=self.accelerator.num_processes if is_divided else 1,
        )
        if is_main:
            files += write_rest(path, model=model, average=averaged, generators=generators)
        return files

    def _read_progress(self, start: Path) -> Progress:
        """Where a checkpoint stands; refused if it is another recipe's."""
        progress, stored = read_progress(start), read_manifest(start).get("recipe")
        is_same = stored is not None and self.asked.makes_the_same_as(stored, but=("accumulate",))
        check_run(
            start,
            progress,
            recipe_hash=self.recipe.hash,
            num_processes=self.groups.number,
            is_same=is_same,
        )
        if progress.format_version == WHOLE and (is_zero() or is_fsdp() or self.groups.size > 1):
            raise CheckpointError(
                f"{start} was written by a run that held its model whole; go on without ZeRO, FSDP and "
                "--expert-parallel, or begin again (--anew)."
            )
        return progress

    def _load(self, start: Path, progress: Progress) -> None:
        model, average = self.task.model, self.average
        averaged = average.tensors if average is not None else None
        index, number = self.groups.index, self.groups.number
        if progress.format_version == WHOLE:
            generators = load_whole(start, model=model, average=averaged, optimizer=self.engine.optimizer)
        else:
            with StatesReader(start) as reader:
                num_taken = progress.step - progress.num_skipped
                self.engine.put_states(reader.read, num_steps=num_taken)
            generators = read_rest(start, model=model, average=averaged)
        if index < len(generators):
            set_generators(generators[index], self.generator)
        self.batches.load_state_dict(data_of(progress, process_index=index, num_processes=number))
        self.step, self.num_skipped = progress.step, progress.num_skipped
        self.num_bad_in_a_row = progress.num_bad_in_a_row
