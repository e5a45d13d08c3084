"""What all client scripts do alike: read the questions, ask them one after the other, write down the answers.

Standard library only: every client runs it in an environment of its own. Sound is 16-bit mono at 24 kHz.
"""

import argparse
import array
import asyncio
import json
import wave
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

RATE = 24_000
LOUD = 300  # of 32768
WINDOW = RATE // 50
SILENCE = bytes(2 * RATE)
"""A second in which nobody speaks: it ends a turn that the server detects."""


@dataclass(slots=True)
class Answer:
    """What a client got for a question; ``completed`` is the server's own word for it."""

    completed: bool
    text: str
    sound: bytes

    @property
    def seconds(self) -> float:
        """How long it takes to listen to it."""
        return len(self.sound) / (2 * RATE)


Ask = Callable[[bytes], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Arguments:
    """The server's address (``http://HOST:PORT/v1``), how turns end, and the questions."""

    url: str
    turns: str
    questions: list[bytes]

    @property
    def socket_url(self) -> str:
        """The address of the WebSocket."""
        return self.url.replace("http", "ws", 1) + "/realtime"


def read_arguments() -> Arguments:
    """The arguments that the driver gives to every client."""
    parser = argparse.ArgumentParser()
    for name in ("url", "turns", "questions"):
        parser.add_argument(name)
    given = parser.parse_args()
    return Arguments(
        given.url, given.turns, [read_wave(path) for path in sorted(Path(given.questions).glob("*.wav"))]
    )


async def talk(questions: list[bytes], ask: Ask, *, patience_seconds: float = 120.0) -> None:
    """Ask all questions and write a line of JSON for each; an answer is listened to before the next one."""
    for number, question in enumerate(questions):
        async with asyncio.timeout(patience_seconds):
            answer = await ask(question)
        record = {
            "turn": number,
            "completed": answer.completed,
            "text": answer.text,
            "seconds_of_audio": round(seconds_with_voice(answer.sound), 2),
        }
        print(json.dumps(record), flush=True)
        await asyncio.sleep(answer.seconds)


def pieces(sound: bytes, *, seconds: float = 0.1) -> Iterator[bytes]:
    """The sound cut as a microphone would deliver it."""
    size = 2 * int(RATE * seconds)
    for start in range(0, len(sound), size):
        yield sound[start : start + size]


def seconds_with_voice(sound: bytes) -> float:
    """The sound that is not silence, in windows of 20 ms."""
    samples = array.array("h", sound[: len(sound) // 2 * 2])
    windows = (samples[start : start + WINDOW] for start in range(0, len(samples), WINDOW))
    loud = sum(len(window) for window in windows if sum(x * x for x in window) > LOUD * LOUD * len(window))
    return loud / RATE


def read_wave(path: Path) -> bytes:
    """The samples of a WAV file as the driver writes it."""
    with wave.open(str(path)) as file:
        return file.readframes(file.getnframes())
