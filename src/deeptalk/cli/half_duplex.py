"""A conversation on the clock of a recording: turns are heard out, replies spoken into fall silent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from deeptalk.decoding import Conversation
from deeptalk.errors import AudioError
from deeptalk.evaluation.benchmarks.duplex import Interval, Word, spread_words
from deeptalk.evaluation.benchmarks.generation import read_sound
from deeptalk.serving.detector import FRAME, LoudVoice, TurnDetector
from deeptalk.serving.settings import TurnDetection
from deeptalk.shapes import Float, Tensor

RATE = 16_000
"""What the user's side is heard at."""

_AUDIBLE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Uttered:
    """A reply, in seconds of the recording; ``end`` is before its last sample where it was cut."""

    text: str
    samples: Float[Tensor, "S"]
    rate: int
    start: float
    end: float

    @property
    def heard(self) -> Float[Tensor, "S"]:
        """What was heard of it."""
        return self.samples[: max(0, round((self.end - self.start) * self.rate))]


def time_to_first_audio(talk: Conversation) -> float:
    """Seconds from the end of the turn to the first sound of the last reply, as measured."""
    return (talk.last_reply.time_to_first_audio_ms or 0.0) / 1000


def take_turns(
    samples: Float[Tensor, "S"],
    talk: Conversation,
    detector: TurnDetector,
    *,
    delay: Callable[[Conversation], float] = time_to_first_audio,
) -> list[Uttered]:
    """What a model says to a recording at 16 kHz, until the recording ends.

    ``delay`` gives the seconds from the end of a turn to the first sound of its reply. Of a reply that was
    cut the model remembers all.
    """
    said: list[Uttered] = []
    turn: list[Tensor] = []
    for at in range(0, len(samples) - FRAME + 1, FRAME):
        now = (at + FRAME) / RATE
        is_audible = bool(said) and said[-1].start <= now < said[-1].end
        for event in detector.push(samples[at : at + FRAME], is_audible=is_audible):
            if event.kind == "started":
                turn = []
                if said and now < said[-1].end:
                    said[-1] = replace(said[-1], end=max(now, said[-1].start))
            if event.kind in ("started", "sound"):
                turn.append(event.samples)
            if event.kind == "stopped" and (uttered := _reply(talk, torch.cat(turn), now, delay)):
                said.append(uttered)
    length = len(samples) / RATE
    return [replace(uttered, end=min(uttered.end, length)) for uttered in said]


def mix(said: Sequence[Uttered], *, seconds: float, rate: int) -> Float[Tensor, "S"]:
    """All that was heard, in a recording of so many seconds."""
    mixed = torch.zeros(round(seconds * rate))
    for uttered in said:
        start = round(uttered.start * rate)
        heard = uttered.heard[: max(0, len(mixed) - start)]
        mixed[start : start + len(heard)] = heard
    return mixed


def words_of(said: Sequence[Uttered]) -> list[Word]:
    """The words of all replies over what was heard of them; of a reply that was cut as many as its part."""
    found: list[Word] = []
    for uttered in said:
        loud = (uttered.heard.abs() > _AUDIBLE).nonzero().flatten()
        if not len(loud):
            continue
        words = uttered.text.split()
        kept = words[: max(1, round(len(words) * len(uttered.heard) / len(uttered.samples)))]
        first, last = (uttered.start + int(loud[n]) / uttered.rate for n in (0, -1))
        found += spread_words(" ".join(kept), start=first, end=last)
    return found


def speech_intervals(path: Path) -> list[Interval]:
    """Where a recording has voice, in seconds, by energy and spectrum; AudioError where it can't be read."""
    samples, voice = read_sound(path).numpy(), LoudVoice(TurnDetection().threshold)
    return [
        (at / RATE, (at + FRAME) / RATE)
        for at in range(0, len(samples) - FRAME + 1, FRAME)
        if voice.is_voice(samples[at : at + FRAME])
    ]


def _reply(
    talk: Conversation, turn: Float[Tensor, "S"], now: float, delay: Callable[[Conversation], float]
) -> Uttered | None:
    """The reply to a turn that ends now; None for one too short to be heard."""
    try:
        talk.listen(turn)
    except AudioError:
        return None
    sound = torch.cat([torch.zeros(0), *(piece.samples for piece in talk.reply())])
    start = now + delay(talk)
    return Uttered(
        text=talk.last_reply.text,
        samples=sound,
        rate=talk.sample_rate,
        start=start,
        end=start + len(sound) / talk.sample_rate,
    )
