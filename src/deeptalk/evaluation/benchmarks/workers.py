"""Several processes that answer items, a model each, on the devices that were named."""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue

import numpy as np
import torch

from deeptalk.decoding import DecodingOptions, LoadedModel, load
from deeptalk.errors import ConfigError, DataError
from deeptalk.evaluation.answers import Respondent
from deeptalk.evaluation.benchmarks.generation import Ask, Generator, Reply


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All that decides how a model is asked; it goes to other processes. ``mode`` as in `Generator`."""

    model: str
    mode: str
    longest_seconds: float
    options: DecodingOptions
    seed: int = 0

    def generator(self, loaded: LoadedModel) -> Generator:
        """The plan carried out by a model that is open."""
        return Generator(
            respondent=Respondent(loaded.engine, options=self.options),
            mode=self.mode,
            longest_seconds=self.longest_seconds,
            codec=loaded.codec if self.mode.startswith("speaker:") else None,
            seed=self.seed,
        )


class Workers:
    """A process for each device; a device may be named more than once. Used as a context.

    Batches are those of a single process and answers come in their order, so that devices of one kind give
    what one of them gives alone.
    """

    def __init__(self, plan: Plan, devices: Sequence[str], *, sample_rate: int | None) -> None:
        self.sample_rate = sample_rate
        context = get_context("spawn")
        waiting: SimpleQueue[str] = context.SimpleQueue()
        for device in devices:
            waiting.put(device)
        self._pool = ProcessPoolExecutor(
            len(devices), mp_context=context, initializer=_begin, initargs=(plan, waiting)
        )

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def answer_all(self, batches: Sequence[Sequence[Ask]]) -> Iterator[list[Reply]]:
        """The replies to each batch, in order.

        Raises:
            DataError: a process has ended; what was answered before is kept.
        """
        try:
            for replies in self._pool.map(_answer, batches):
                yield [
                    reply if sound is None else replace(reply, sound=torch.from_numpy(sound))
                    for reply, sound in replies
                ]
        except BrokenProcessPool as error:
            raise DataError(
                "a process that answers has ended, perhaps for want of memory; the same command goes on from "
                "what was answered, with fewer --device."
            ) from error


def check_device(name: str) -> str:
    """ConfigError for a device that this machine does not have."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        have = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
        reason = str(error).splitlines()[0]
        raise ConfigError(f"no device {name!r} here ({reason}); there are: {', '.join(have)}.") from error
    return name


_generator: Generator | None = None
"""Of a process of `Workers`."""


def _begin(plan: Plan, waiting: "SimpleQueue[str]") -> None:
    """Open the model on a device that no other process has taken; interruptions are the first process's."""
    global _generator
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _generator = plan.generator(load(plan.model, device=waiting.get()))


def _answer(asks: Sequence[Ask]) -> list[tuple[Reply, np.ndarray | None]]:
    """Replies with their sounds apart, as arrays: tensors would hold files open between processes."""
    assert _generator is not None
    return [
        (replace(reply, sound=None), None if reply.sound is None else reply.sound.cpu().numpy())
        for reply in _generator.answer(asks)
    ]
