"""Full-Duplex-Bench (arXiv 2503.04721, 2507.23159): who takes the turn, how fast, and who falls silent.

DeepTalk is not full duplex: it hears a turn out, then speaks, and falls silent when it is spoken into. A
folder of the bench has one for each sample: ``input.wav`` (the user), ``output.wav`` (the reply, as long,
from the same start), ``output.json`` (its words with their times), and what tells when the user's turn ends.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from deeptalk.errors import ConfigError, DataError, reason
from deeptalk.evaluation.benchmarks.intervals import Ratios, bootstrap_interval
from deeptalk.evaluation.metrics import Score, share_score
from deeptalk.files import digest_of, write_text

OUTPUT, TIMING = "output.json", "latency_intervals.json"

SHORT_SECONDS, FEW_WORDS = 1.0, 3
"""A reply below so many seconds of at most so many words takes no turn."""

USER_GAP_SECONDS, MODEL_GAP_SECONDS = 0.6, 0.5
"""Pauses up to which speech is one interval."""

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Whether the turn should be taken, and the file and the place in it that tell where the user's ends."""

    should_take: bool
    file: str | None = None
    place: int = 0


TASKS: Mapping[str, Task] = {
    "pause": Task(should_take=False),
    "backchannel": Task(should_take=False),
    "turn_taking": Task(should_take=True, file="turn_taking.json", place=0),
    "interruption": Task(should_take=True, file="interrupt.json", place=1),
}
"""By name. In ``turn_taking.json`` the first time of the entry is where the user's turn ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """A word of the reply, in seconds from the start of the recording."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DuplexSample:
    """What a model did in one sample; ``words`` is None where there is no reply to look at."""

    id: str
    words: tuple[Word, ...] | None
    user_end: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DuplexReport:
    """The figures of one task.

    Attributes:
        task: its name in `TASKS`.
        take_over: the share of samples in which the turn was taken.
        latency: seconds from the user's end to the first word, over the turns that were taken (``count`` of
            ``total``); not a number where none was, None for a task in which none should be.
        num_missing: samples without a reply; they count as failures, whichever that is.
    """

    task: str
    take_over: Score
    latency: Score | None
    num_missing: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": "duplex",
            "task": self.task,
            "is_full_duplex": False,
            "goal": "high" if TASKS[self.task].should_take else "low",
            "take_over": self.take_over.to_dict(),
            "latency": self.latency and self.latency.to_dict(),
            "num_missing": self.num_missing,
            "num_items": self.take_over.total,
        }


def read_samples(folder: Path, task: str) -> tuple[DuplexSample, ...]:
    """Every sample of a folder, by name; one without a readable reply has no words.

    Raises:
        ConfigError: there is no such task.
        DataError: the folder has no samples, or one does not tell where the user's turn ends.
    """
    if task not in TASKS:
        raise ConfigError(f"no task is called {task!r}; there are: {', '.join(TASKS)}.")
    return tuple(
        DuplexSample(id=path.name, words=_words(path / OUTPUT), user_end=_user_end(path, TASKS[task]))
        for path in sample_folders(folder)
    )


def sample_folders(folder: Path) -> list[Path]:
    """The folders of a bench's samples, by name; DataError where there are none."""
    found = sorted(path.parent for path in folder.glob("*/input.wav"))
    if not found:
        raise DataError(f"{folder}: no folders with an input.wav.")
    return found


def samples_digest(folders: Sequence[Path]) -> str:
    """Sixteen hex digits that change with a sample's name or with what the user says in it."""
    told = "".join(f"{path.name} {digest_of(path / 'input.wav')} " for path in folders)
    return sha256(told.encode()).hexdigest()[:16]


def spread_words(text: str, *, start: float, end: float) -> list[Word]:
    """The words of a reply over its seconds, all of one length: only its first and last moment are true."""
    words = text.split()
    step = (end - start) / max(1, len(words))
    return [Word(text=w, start=start + n * step, end=start + (n + 1) * step) for n, w in enumerate(words)]


def write_words(path: Path, words: Sequence[Word]) -> None:
    """An ``output.json``."""
    chunks = [{"text": word.text, "timestamp": [round(word.start, 3), round(word.end, 3)]} for word in words]
    values = {"text": " ".join(word.text for word in words), "chunks": chunks}
    write_text(path, json.dumps(values, ensure_ascii=False, indent=1) + "\n")


def takes_turn(words: Sequence[Word]) -> bool:
    """Whether a reply takes the turn: it lasts a second, or has four words."""
    return bool(words) and (words[-1].end - words[0].start >= SHORT_SECONDS or len(words) > FEW_WORDS)


def score_samples(samples: Sequence[DuplexSample], task: str, *, seed: int = 0) -> DuplexReport:
    """The figures of a task, every sample counted."""
    should_take = TASKS[task].should_take
    taken = [takes_turn(s.words) if s.words is not None else not should_take for s in samples]
    delays = [
        (max(0.0, sample.words[0].start - sample.user_end), 1.0)
        for sample, is_taken in zip(samples, taken, strict=True)
        if is_taken and sample.words and sample.user_end is not None
    ]
    return DuplexReport(
        task=task,
        take_over=share_score("take_over", sum(taken), len(samples)),
        latency=_seconds("latency", delays, len(samples), seed=seed) if should_take else None,
        num_missing=sum(sample.words is None for sample in samples),
    )


def merged(intervals: Sequence[Interval], *, gap_seconds: float) -> list[Interval]:
    """Intervals of speech, those joined that no longer pause lies between; in their order."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start - found[-1][1] <= gap_seconds:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def timing(user: Sequence[Interval], model: Sequence[Interval]) -> dict[str, list[list[float]]]:
    """What ``latency_intervals.json`` holds, from the speech of both in seconds.

    ``latency_stop_list``: where both speak, until one is silent. ``latency_resp_list``: from the end of what
    the user said last to the beginning of what the model says next.
    """
    user = merged(user, gap_seconds=USER_GAP_SECONDS)
    model = merged(model, gap_seconds=MODEL_GAP_SECONDS)
    both = [(max(u[0], m[0]), min(u[1], m[1])) for u in user for m in model]
    stops = sorted(((start, end) for start, end in both if end > start), key=lambda interval: interval[1])
    replies = {}
    for _, end in user:  # a later end takes the place of an earlier one before the same reply
        following = [start for start, _ in model if start > end]
        if following:
            replies[following[0]] = end
    return {
        "latency_stop_list": [[round(start, 3), round(end, 3)] for start, end in stops],
        "latency_resp_list": [[round(end, 3), round(start, 3)] for start, end in sorted(replies.items())],
    }


def timing_scores(
    timings: Sequence[Mapping[str, Sequence[Sequence[float]]]], *, seed: int = 0
) -> list[Score]:
    """The mean length of all stops and of all responses, in seconds; counted are the samples with any."""
    return [
        _seconds(
            name,
            [(sum(end - start for start, end in one[key]), len(one[key])) for one in timings if one[key]],
            len(timings),
            seed=seed,
        )
        for name, key in (("stop_latency", "latency_stop_list"), ("response_latency", "latency_resp_list"))
    ]


def _seconds(name: str, samples: Ratios, total: int, *, seed: int) -> Score:
    """The mean of some times; of every sample that has any their sum and their number."""
    if not samples:
        return Score(name=name, value=math.nan, unit="s", count=0, total=total, low=math.nan, high=math.nan)
    low, high = bootstrap_interval(samples, seed=seed)
    mean = sum(above for above, _ in samples) / sum(below for _, below in samples)
    return Score(name=name, value=mean, unit="s", count=len(samples), total=total, low=low, high=high)


def _words(path: Path) -> tuple[Word, ...] | None:
    """None for a file that is not there, or of another kind; a word without an end ends where it starts."""
    try:
        chunks = json.loads(path.read_text(encoding="utf-8"))["chunks"]
        spans = [(str(chunk["text"]), *chunk["timestamp"]) for chunk in chunks]
        return tuple(
            Word(text=text, start=float(start), end=float(start if end is None else end))
            for text, start, end in spans
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _user_end(folder: Path, task: Task) -> float | None:
    if task.file is None:
        return None
    path = folder / task.file
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))[0]["timestamp"][task.place])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path}: it does not tell where the user's turn ends ({reason(error)}).") from error
