"""Full-Duplex-Bench's relevance: how well a reply takes up what a speaker was interrupted with, from 0 to 5.

A language model rates it. What it does not rate plainly is 0, and is counted; so is a sample without a reply.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from deeptalk.errors import DataError, reason
from deeptalk.evaluation.benchmarks.duplex import OUTPUT, sample_folders
from deeptalk.evaluation.benchmarks.intervals import bootstrap_interval
from deeptalk.evaluation.benchmarks.llm_judge import LlmJudge
from deeptalk.evaluation.metrics import Score

RATING, INTERRUPT = "rating.json", "interrupt.json"

PROMPT = """Someone speaks to a voice assistant, and interrupts it with something new. Rate the reply to it.

Said before: {context}
Interruption: {interrupt}
Reply: {reply}

0: no reply, or one that has nothing to do with the interruption. 1: hardly relevant. 2: ignores most of it.
3: takes it up, with faults. 4: relevant and of use. 5: just what was asked for. Answer with the digit alone.
"""

_FIELD = re.compile(r"\{(context|interrupt|reply)\}")

PROMPT_HASH = sha256(PROMPT.encode()).hexdigest()[:16]
"""What tells this text from others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interrupted:
    """A sample: what was said before, what interrupted it, and the reply; None without one."""

    id: str
    context: str
    interrupt: str
    reply: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rating:
    """Of one sample, from 0 to 5; ``reason`` is ``judged``, or why it could not be."""

    id: str
    value: int
    reason: str


def read_interrupted(folder: Path) -> tuple[Interrupted, ...]:
    """Every sample of the task interruption.

    Raises:
        DataError: a sample does not tell what interrupted it.
    """
    found = []
    for path in sample_folders(folder):
        try:
            told = json.loads((path / INTERRUPT).read_text(encoding="utf-8"))[0]
            context, interrupt = str(told["context"]), str(told["interrupt"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"{path / INTERRUPT}: no context and interruption to rate ({reason(error)})."
            ) from error
        found.append(Interrupted(id=path.name, context=context, interrupt=interrupt, reply=_reply(path)))
    return tuple(found)


def rate(sample: Interrupted, judge: LlmJudge) -> Rating:
    """What the judge says of a reply; ConfigError where it refuses to be asked."""
    if not (sample.reply or "").strip():
        return Rating(id=sample.id, value=0, reason="no answer")
    said = judge.ask(_FIELD.sub(lambda field: str(getattr(sample, field[1])), PROMPT))
    if said is None:
        return Rating(id=sample.id, value=0, reason="no reply")
    digit = said.strip().strip("\"'*.")
    if digit not in ("0", "1", "2", "3", "4", "5"):
        return Rating(id=sample.id, value=0, reason="unreadable")
    return Rating(id=sample.id, value=int(digit), reason="judged")


def rating_score(ratings: Sequence[Rating], *, seed: int = 0) -> Score:
    """The mean over all samples; ``count`` of ``total`` were judged, the others are 0."""
    low, high = bootstrap_interval([(float(one.value), 1.0) for one in ratings], seed=seed)
    return Score(
        name="relevance",
        value=sum(one.value for one in ratings) / len(ratings),
        unit="of 5",
        count=sum(one.reason == "judged" for one in ratings),
        total=len(ratings),
        low=low,
        high=high,
    )


def _reply(folder: Path) -> str | None:
    try:
        values = json.loads((folder / OUTPUT).read_text(encoding="utf-8"))
        return str(values.get("text") or " ".join(str(chunk["text"]) for chunk in values["chunks"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
