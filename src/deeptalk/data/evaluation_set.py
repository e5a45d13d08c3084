"""The evaluation set: questions that training never asks, by voices that training never hears.

`questions.jsonl` holds one dialogue per line, `questions.opus` all their speech in one file; every user turn
names its voice, and where it stands in the recording in seconds.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from deeptalk.data.domain import DomainItem, eval_questions
from deeptalk.data.manifest import write_manifest
from deeptalk.data.packs import Samples
from deeptalk.data.synthesis import HELD_OUT_VOICES, PACK_RATE, Speak, Voice, check_programs, synthesise
from deeptalk.errors import DataError

MAX_BYTES = 4_000_000
EXAMPLE_CATEGORIES = (
    "facts",
    "arithmetic",
    "reasoning",
    "strings",
    "smalltalk",
    "facts",
    "reasoning",
    "refusal",
)
"""What the example questions are about; the first fact is one that is learnt from text only."""

_GAP_SECONDS = 0.1
_BLOCK = 160_000


def build_eval_set(
    folder: Path, *, seed: int = 0, compression: float = 0.96, speak: Speak = synthesise
) -> dict[str, float]:
    """Write `questions.jsonl` and `questions.opus` and return what they hold.

    Needs flite and espeak-ng (`ConfigError`); more than 4 MB of speech is a `DataError`: raise `compression`
    (0 to 1). A dialogue is spoken by one voice throughout, and voices take turns within each category.
    """
    if speak is synthesise:
        check_programs(HELD_OUT_VOICES)
    generator = np.random.default_rng([seed, *b"evaluation"])
    records, parts, offset = [], [], 0
    for number, item in enumerate(eval_questions(seed=seed)):
        voice = HELD_OUT_VOICES[number % len(HELD_OUT_VOICES)]
        record, samples = _spoken(item, _in_some_mood(voice, generator), offset, speak)
        records.append(record)
        parts.append(samples)
        offset += len(samples)
    folder.mkdir(parents=True, exist_ok=True)
    size = _write_opus(folder / "questions.opus", np.concatenate(parts), compression)
    number = write_manifest(folder / "questions.jsonl", records, kind="dialogue")
    return {"items": number, "minutes": offset / PACK_RATE / 60, "megabytes": size / 1e6}


def example_items(*, seed: int = 0) -> list[DomainItem]:
    """A short evaluation question of each of `EXAMPLE_CATEGORIES`, no kind of question twice."""
    chosen: list[DomainItem] = []
    for category in EXAMPLE_CATEGORIES:
        kinds = {item.fact.split("/")[0] for item in chosen if item.category == category}
        rest = [
            item
            for item in eval_questions(seed=seed)
            if item.category == category
            and item not in chosen
            and (category not in ("facts", "reasoning") or item.fact.split("/")[0] not in kinds)
            and item.text_only == (category == "facts" and not kinds)
        ]
        chosen.append(min(rest, key=lambda item: (abs(len(item.messages[0].text) - 34), item.id)))
    return chosen


def build_examples(folder: Path, items: Sequence[DomainItem], *, speak: Speak = synthesise) -> list[Path]:
    """The first question of each item as a small WAV file named by its words, by one held-out voice each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, item in enumerate(items):
        text = item.messages[0].text
        spoken = speak(text, HELD_OUT_VOICES[number % len(HELD_OUT_VOICES)])
        words = "-".join("".join(c for c in word if c.isalnum()) for word in text.lower().split())
        path = folder / f"{number + 1}-{words}.wav"
        soundfile.write(path, spoken.samples, spoken.sample_rate, subtype="PCM_16")
        paths.append(path)
    return paths


def _in_some_mood(voice: Voice, generator: np.random.Generator) -> Voice:
    """Half of the questions at the voice's own rate and pitch, the others a little off."""
    return voice if generator.random() < 0.5 else voice.varied(generator)


def _spoken(item: DomainItem, voice: Voice, offset: int, speak: Speak) -> tuple[dict[str, object], Samples]:
    """The record of a dialogue and its user's turns, each followed by a short gap."""
    gap = np.zeros(round(_GAP_SECONDS * PACK_RATE), dtype=np.int16)
    messages: list[dict[str, object]] = []
    parts: list[Samples] = []
    for message in item.messages:
        entry: dict[str, object] = {"role": message.role, "text": message.text}
        if message.role == "user":
            samples = speak(message.text, voice).samples
            start = offset + sum(map(len, parts))
            entry |= {"audio": "questions.opus", "offset": start / PACK_RATE}
            entry |= {"duration": len(samples) / PACK_RATE, "voice": voice.name}
            parts += [samples, gap]
        messages.append(entry)
    record: dict[str, object] = {"id": item.id, "category": item.category, "text_only": item.text_only}
    return record | {"fact": item.fact, "messages": messages, "lang": "en"}, np.concatenate(parts)


def _write_opus(path: Path, samples: Samples, compression: float) -> int:
    """Write one Ogg Opus file and return its bytes; the file appears only if it is small enough."""
    temporary = path.with_name(f".{path.name}")
    try:
        with soundfile.SoundFile(
            temporary, "w", PACK_RATE, 1, subtype="OPUS", format="OGG", compression_level=compression
        ) as file:
            # In blocks: libsndfile's encoder keeps a whole write on its stack.
            for start in range(0, len(samples), _BLOCK):
                file.write(samples[start : start + _BLOCK])
        size = temporary.stat().st_size
        if size > MAX_BYTES:
            raise DataError(
                f"{path}: {size / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:.0f}; "
                f"raise compression above {compression}"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return size
