"""The evaluation set: spoken questions by voices that training never hears, as text and one Opus file."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import soundfile
import torch

from deeptalk.audio import resample
from deeptalk.errors import DataError, reason
from deeptalk.shapes import Float, Tensor

FIVE_CATEGORIES = ("facts", "reasoning", "arithmetic", "strings", "smalltalk")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalTurn:
    """One turn of the user: its words, and where it stands in the recording in seconds."""

    text: str
    voice: str
    offset: float
    duration: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalItem:
    """A question, a dialogue or a sentence to transcribe; ``answers`` has one answer for each turn."""

    id: str
    category: str
    text_only: bool
    turns: tuple[EvalTurn, ...]
    answers: tuple[str, ...]

    @classmethod
    def of(cls, record: dict[str, Any]) -> "EvalItem":
        """An item from a line of the manifest."""
        turns, answers = [], []
        for message in record["messages"]:
            if message["role"] == "user":
                turns.append(
                    EvalTurn(
                        text=message["text"],
                        voice=message["voice"],
                        offset=message["offset"],
                        duration=message["duration"],
                    )
                )
            else:
                answers.append(message["text"])
        return cls(
            id=record["id"],
            category=record["category"],
            text_only=bool(record.get("text_only", False)),
            turns=tuple(turns),
            answers=tuple(answers),
        )


class EvalSet:
    """The items of one folder with ``questions.jsonl`` and ``questions.opus``; sound is read once, lazily."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
            self.items = tuple(EvalItem.of(json.loads(line)) for line in lines if line.strip())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder}: no readable questions.jsonl ({reason(error)}).") from error

    @cached_property
    def _recording(self) -> tuple[Float[Tensor, "S"], int]:
        path = self.folder / "questions.opus"
        try:
            samples, rate = soundfile.read(path, dtype="float32")
        except (OSError, soundfile.LibsndfileError) as error:
            raise DataError(f"{path}: can't be read ({error}).") from error
        return torch.from_numpy(samples), int(rate)

    def speech(self, turn: EvalTurn, *, sample_rate: int = 16_000) -> Float[Tensor, "S"]:
        """The samples of a turn."""
        samples, rate = self._recording
        start = round(turn.offset * rate)
        part = samples[start : start + round(turn.duration * rate)]
        if not len(part):
            raise DataError(f"{self.folder}: the recording ends before {turn.text!r}.")
        return resample(part, source_rate=rate, target_rate=sample_rate)

    def of(self, *categories: str) -> tuple[EvalItem, ...]:
        """The items of some categories, in the order of the file."""
        return tuple(item for item in self.items if item.category in categories)
