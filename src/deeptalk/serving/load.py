"""Sessions that talk to a server at the same time, and what their users would have heard.

A user speaks, listens to the whole answer and pauses; how long is drawn, so that turns come at any time
(arrivals are Poisson's). Milliseconds are told by percentiles, and an answer without sound is a failure.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deeptalk.serving.calling import Call, Received, call, play
from deeptalk.shapes import Tensor

REAL_TIME = 0.99
"""The least share of pieces that come in time in a session that stays in real time."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Load:
    """What each of ``num_sessions`` does: ask question after question, ``num_turns`` or for ``seconds``.

    Pauses last ``pause_seconds`` on average. A user who is ``hurried`` speaks and listens in no time.
    """

    questions: Sequence[Tensor]
    num_sessions: int = 1
    num_turns: int | None = None
    seconds: float | None = None
    pause_seconds: float = 0.0
    is_hurried: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """What a server tells of itself in ``/metrics``, in milliseconds; None where it tells nothing."""

    first_chunk_ms: float | None
    step_ms: float | None


async def put_load(url: str, load: Load, *, key: str | None = None) -> list[list[Received]]:
    """The answers of every session."""
    sessions = (_converse(url, load, key=key, number=number) for number in range(load.num_sessions))
    return list(await asyncio.gather(*sessions))


async def _converse(url: str, load: Load, *, key: str | None, number: int) -> list[Received]:
    """One session, to its end; everyone begins with another question."""
    chance = random.Random(f"{load.seed} {number}")
    ends_at = None if load.seconds is None else time.monotonic() + load.seconds
    answers: list[Received] = []
    async with call(url, key=key) as calling:
        while not _is_over(load, len(answers), ends_at):
            if load.pause_seconds:
                await asyncio.sleep(chance.expovariate(1.0 / load.pause_seconds))
            question = load.questions[(number + len(answers)) % len(load.questions)]
            answers.append(await ask_one(calling, question, is_hurried=load.is_hurried))
    return answers


def _is_over(load: Load, num_answers: int, ends_at: float | None) -> bool:
    has_all = load.num_turns is not None and num_answers >= load.num_turns
    return has_all or (ends_at is not None and num_answers > 0 and time.monotonic() >= ends_at)


async def ask_one(calling: Call, question: Tensor, *, is_hurried: bool) -> Received:
    """One turn, and the answer when it has been heard."""
    answer = await calling.say(question, is_paced=not is_hurried)
    if not is_hurried:
        await asyncio.sleep(max(0.0, play(answer.arrivals).until - time.monotonic()))
    return answer


def figures_of(sessions: Sequence[Sequence[Received]]) -> dict[str, Any]:
    """What the users of some sessions have heard, under the names that the command line prints."""
    answers = [answer for session in sessions for answer in session]
    waits = [wait for answer in answers if (wait := answer.first_audio_seconds) is not None]
    played = [play(answer.arrivals) for answer in answers]
    seconds = sum(answer.seconds for answer in answers)
    num_pieces, num_gaps = sum(each.num_pieces for each in played), sum(each.num_gaps for each in played)
    return {
        "turns": len(answers),
        "completed": sum(answer.status == "completed" for answer in answers),
        "silent": len(answers) - len(waits),
        "first_audio_ms": percentiles_ms(waits),
        "viability": 1 - sum(each.num_late for each in played) / num_pieces if num_pieces else 0.0,
        "underruns": num_gaps,
        "underruns_per_minute": 60 * num_gaps / seconds if seconds else 0.0,
        "seconds_of_audio": round(seconds, 3),
    }


def is_in_real_time(answers: Sequence[Received]) -> bool:
    """Whether the user of one session has heard every answer as it was meant."""
    figures = figures_of([answers])
    return figures["turns"] > 0 and not figures["silent"] and figures["viability"] >= REAL_TIME


def mean_first_audio_ms(sessions: Sequence[Sequence[Received]]) -> float | None:
    """The mean time from the end of a turn to the first sound."""
    waits = [answer.first_audio_seconds for session in sessions for answer in session]
    heard = [wait for wait in waits if wait is not None]
    return 1000 * sum(heard) / len(heard) if heard else None


def means_between(before: str, after: str) -> Means:
    """The means over what a server has done between two readings of its ``/metrics``."""
    old, new = values_of(before), values_of(after)

    def mean_ms(name: str) -> float | None:
        count = new.get(f"{name}_count", 0.0) - old.get(f"{name}_count", 0.0)
        total = new.get(f"{name}_sum", 0.0) - old.get(f"{name}_sum", 0.0)
        return 1000 * total / count if count else None

    return Means(
        first_chunk_ms=mean_ms("deeptalk_server_ttfa_seconds"), step_ms=mean_ms("deeptalk_step_seconds")
    )


def values_of(text: str) -> dict[str, float]:
    """The samples without a label of a page of metrics."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#" and "{" not in line)
    return {name: float(value) for name, value in lines}


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float | None]:
    """Of some waits, in milliseconds; None of none."""
    names = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    if not seconds:
        return dict.fromkeys(names)
    return {name: round(1000 * float(np.percentile(seconds, at)), 1) for name, at in names.items()}
