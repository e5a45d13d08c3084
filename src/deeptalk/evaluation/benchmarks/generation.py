"""A model at work on a set: every item asked once, answers kept as they come, whatever interrupts the run.

A folder holds a run: ``run.json`` (what it is of), ``cache.jsonl`` (answers and transcripts by the content
of what was asked or heard, appended), ``audio/ID.wav`` (spoken answers), and at its end ``answers.jsonl``, a
line for every item of the set, and ``timing.json``, how long the answers took.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypeVar

import soundfile
import torch

from deeptalk.audio import audible_parts, load_waveform, resample, save_waveform
from deeptalk.codec import Codec
from deeptalk.errors import AudioError, DataError
from deeptalk.evaluation.answers import Answered, Asked, Respondent
from deeptalk.evaluation.benchmarks.records import SETTINGS, TIMING, append_line, claimed, read_appended
from deeptalk.evaluation.pocket import sound_of
from deeptalk.evaluation.recognisers import SAMPLE_RATE, Recogniser
from deeptalk.files import digest_of, write_text
from deeptalk.shapes import Float, Tensor

CACHE, ANSWERS, AUDIO = "cache.jsonl", "answers.jsonl", "audio"
BATCH_SIZE = 16

Progress = Callable[[str, int, int], None]
T = TypeVar("T")

_KEPT = ("text", "audio", "seconds", "finish_reason")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """An item to ask: a recording, or a text without one; ``said`` is an answer that is only to be spoken."""

    id: str
    audio: Path | None
    text: str = ""
    said: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What came of one item: a line of ``answers.jsonl``.

    Attributes:
        id: the item's.
        text: the text row; None where nothing could be asked.
        audio: the spoken answer, relative to the run's folder; None for an answer in text, or without sound.
        seconds: how long it is.
        transcript: what a recogniser heard in it; None where none was asked or there is no sound.
        finish_reason: ``stop``, or ``length`` for an answer that was cut off; None where nothing was asked.
        reason: empty, or why nothing was asked.
    """

    id: str
    text: str | None
    audio: str | None = None
    seconds: float | None = None
    transcript: str | None = None
    finish_reason: str | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reply:
    """What came of one item: ``text`` is None where nothing could be asked, and ``reason`` tells why.

    ``sound`` is None for an answer in text, or without sound.
    """

    text: str | None
    sound: Float[Tensor, "S"] | None = None
    finish_reason: str | None = None
    reason: str = ""


class Answering(Protocol):
    """Who answers items, batch by batch."""

    @property
    def sample_rate(self) -> int | None:
        """Of the spoken answers; None where none are spoken."""
        ...

    def answer_all(self, batches: Sequence[Sequence[Ask]]) -> Iterator[list[Reply]]:
        """The replies to each batch, in order, while they come."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Generator:
    """How items are asked of one model.

    ``mode`` is ``text``, ``asr`` or ``speaker:VOICE``; the last needs ``codec``. With ``asr`` a recording
    over ``longest_seconds``, or over what the model has learnt to hear at a time, is split at its pauses and
    heard without its silent parts; else it is refused over ``longest_seconds``. Where something is drawn, an
    item's answer depends on ``seed`` and its id, not on the items beside it.
    """

    respondent: Respondent
    mode: str
    longest_seconds: float
    codec: Codec | None = None
    seed: int = 0

    @property
    def sample_rate(self) -> int | None:
        """Of the spoken answers; None where none are spoken."""
        return None if self.codec is None else self.codec.sample_rate

    def answer_all(self, batches: Sequence[Sequence[Ask]]) -> Iterator[list[Reply]]:
        """The replies to each batch, in order, while they come."""
        return map(self.answer, batches)

    def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        """The replies to some items, in their order."""
        found = [self._parts(ask) for ask in asks]
        heard = [(ask, one) for ask, one in zip(asks, found, strict=True) if isinstance(one, list)]
        parts = [part for _, of_one in heard for part in of_one]
        seeds = [_seed(self.seed, ask.id, number) for ask, of_one in heard for number in range(len(of_one))]
        given = [ask.said for ask, of_one in heard for _ in of_one if ask.said is not None]
        answered = iter(
            self.respondent.answer(parts, mode=self.mode, seeds=seeds, said=given or None) if parts else []
        )
        return [
            self._reply(_joined([next(answered) for _ in one]))
            if isinstance(one, list)
            else Reply(text=None, reason=str(one))
            for one in found
        ]

    def _reply(self, answered: Answered) -> Reply:
        is_heard = self.codec is not None and len(answered.codes) > 0
        sound = sound_of(answered, self.codec) if is_heard and self.codec is not None else None
        return Reply(text=answered.text, sound=sound, finish_reason=answered.finish_reason)

    def _parts(self, ask: Ask) -> list[Asked] | AudioError:
        if ask.audio is None:
            return [self.respondent.written(ask.text)]
        try:
            samples = load_waveform(ask.audio)
        except AudioError as error:
            return AudioError(str(error).replace(str(ask.audio), ask.audio.name))  # reports hold no paths
        if self.mode == "asr":
            config = self.respondent.engine.model.config
            longest = min(self.longest_seconds, config.longest_part_seconds(len(samples) / SAMPLE_RATE))
            parts = audible_parts(samples, longest_seconds=longest)
            return [self.respondent.spoken(part) for part in parts]
        if len(samples) > self.longest_seconds * SAMPLE_RATE:
            return AudioError(f"{ask.audio.name}: longer than {self.longest_seconds:g} s.")
        return [self.respondent.spoken(samples)]


def generate(
    asks: Sequence[Ask],
    answering: Answering,
    folder: Path,
    *,
    settings: Mapping[str, Any],
    recogniser: Recogniser | None = None,
    progress: Progress = lambda name, done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
    now: Callable[[], float] | None = None,
) -> tuple[Given, ...] | None:
    """Ask every item that the folder has no answer to, and write ``answers.jsonl``.

    ``settings`` are all that decides an answer but its question: the model, its codec, mode and limits. None
    if ``should_stop`` has said so, between two batches; the same call goes on from there. By the clock
    ``now``, in seconds, answers are timed, and what they took stands in ``timing.json``.

    Raises:
        DataError: the folder holds a run of other settings, or an id can't name a file.
    """
    for ask in asks:
        if answering.sample_rate is not None and (Path(ask.id).name != ask.id or ask.id in ("", "..")):
            raise DataError(f"the id {ask.id!r} can't name a sound file.")
    claim_folder(folder / SETTINGS, settings)
    cache = {row.text("key"): row.values for row in read_appended(folder / CACHE)}
    took: dict[str, float | None] = {}
    found: dict[str, Given] = {}
    waiting: list[tuple[Ask, str]] = []
    for ask in asks:
        key = _digest("answer", "text" if ask.audio is None else "audio", _content(ask))
        kept = cache.get(key)
        if kept is not None and kept["sound"] == _sound_digest(folder, kept["audio"]):
            found[ask.id] = Given(id=ask.id, **{name: kept[name] for name in _KEPT})
            took[ask.id] = kept.get("took")
        else:
            waiting.append((ask, key))
    batches = list(_batches(waiting))
    replies = answering.answer_all([[ask for ask, _ in batch] for batch in batches])
    for batch in batches:
        progress("answers", len(found), len(asks))
        if should_stop():
            return None
        began = 0.0 if now is None else now()
        answered = next(replies)
        each = None if now is None else (now() - began) / len(batch)
        for (ask, key), reply in zip(batch, answered, strict=True):
            given = found[ask.id] = _given(ask, reply, answering.sample_rate, folder)
            if not given.reason:
                values = {name: getattr(given, name) for name in _KEPT}
                sound, took[ask.id] = _sound_digest(folder, given.audio), each
                append_line(folder / CACHE, {"key": key, "sound": sound, "took": each, **values})
    progress("answers", len(asks), len(asks))
    if recogniser is not None and not _transcribe(found, recogniser, folder, cache, progress, should_stop):
        return None
    in_order = tuple(found[ask.id] for ask in asks)
    lines = [json.dumps(asdict(given), ensure_ascii=False) + "\n" for given in in_order]
    write_text(folder / ANSWERS, "".join(lines))
    write_text(folder / TIMING, json.dumps(_timing(asks, took)) + "\n")
    return in_order


def _timing(asks: Sequence[Ask], took: Mapping[str, float | None]) -> dict[str, Any]:
    """Seconds of the recordings that were answered and of answering them, and how often real time that is.

    Batches are timed as a whole, with the reading of their files; answers that nobody has timed don't count.
    """
    heard = [(ask.audio, took.get(ask.id)) for ask in asks if ask.audio is not None]
    timed = [(soundfile.info(path).duration, each) for path, each in heard if each is not None]
    audio, compute = sum(long for long, _ in timed), sum(each for _, each in timed)
    return {
        "num_timed": len(timed),
        "audio_seconds": audio,
        "compute_seconds": compute,
        "rtfx": audio / compute if compute else None,
    }


def _transcribe(
    found: dict[str, Given],
    recogniser: Recogniser,
    folder: Path,
    cache: Mapping[str, Mapping[str, Any]],
    progress: Progress,
    should_stop: Callable[[], bool],
) -> bool:
    """Note what the recogniser hears in every spoken answer; False when it was stopped."""
    spoken = {name: folder / given.audio for name, given in found.items() if given.audio is not None}
    waiting = []
    for name, path in spoken.items():
        key = _digest("transcript", recogniser.hash, digest_of(path))
        if key in cache:
            found[name] = replace(found[name], transcript=cache[key]["text"])
        else:
            waiting.append((name, key))
    for number, batch in enumerate(_batches(waiting)):
        progress("transcripts", len(spoken) - len(waiting) + number * BATCH_SIZE, len(spoken))
        if should_stop():
            return False
        sounds = [read_sound(spoken[name]) for name, _ in batch]
        heard = recogniser.transcribe(sounds, sample_rate=SAMPLE_RATE)
        for (name, key), text in zip(batch, heard, strict=True):
            found[name] = replace(found[name], transcript=text)
            append_line(folder / CACHE, {"key": key, "text": text})
    progress("transcripts", len(spoken), len(spoken))
    return True


def _given(ask: Ask, reply: Reply, rate: int | None, folder: Path) -> Given:
    """The line of a reply, whose sound is saved."""
    given = Given(id=ask.id, text=reply.text, finish_reason=reply.finish_reason, reason=reply.reason)
    if reply.sound is None or rate is None:
        return given
    audio = f"{AUDIO}/{ask.id}.wav"
    save_waveform(folder / audio, reply.sound, sample_rate=rate)
    return replace(given, audio=audio, seconds=len(reply.sound) / rate)


def _joined(parts: Sequence[Answered]) -> Answered:
    """The answer to a recording that was heard in parts; it is cut off if one of them was."""
    first, *others = parts
    if not others:
        return first
    texts = [part.text for part in parts if part.text]
    is_cut = any(part.finish_reason == "length" for part in parts)
    reason = "length" if is_cut else first.finish_reason
    return Answered(text=" ".join(texts), codes=first.codes, finish_reason=reason)


def claim_folder(path: Path, settings: Mapping[str, Any]) -> None:
    """Note in a file what its folder is of; DataError where it is of something else.

    Where a run has gone on by other code or on another device, the last of them is noted.
    """
    text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        is_ours = isinstance(noted, dict) and claimed(noted) == json.loads(json.dumps(claimed(settings)))
    except FileNotFoundError:
        is_ours = True
    except (OSError, ValueError):
        is_ours = False
    if not is_ours:
        raise DataError(
            f"{path.parent} holds a run of another model or of other settings; name a new folder."
        )
    write_text(path, text)


def read_sound(path: Path) -> Float[Tensor, "S"]:
    """A recording at 16 kHz; silence is a sound too. AudioError where it can't be read."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioError(f"{path}: not audio that can be read ({error}).") from error
    return resample(torch.from_numpy(samples.mean(axis=1)), source_rate=rate, target_rate=SAMPLE_RATE)


def _content(ask: Ask) -> str | None:
    if ask.audio is not None:
        return digest_of(ask.audio)
    return ask.text if ask.said is None else f"{ask.text}\n{ask.said}"


def _sound_digest(folder: Path, audio: str | None) -> str | None:
    """What tells whether a spoken answer is still the one that was noted."""
    return None if audio is None else digest_of(folder / audio)


def _seed(seed: int, name: str, part: int) -> int:
    return int(sha256(f"{seed} {part} {name}".encode()).hexdigest()[:12], 16)


def _digest(*parts: str | None) -> str:
    return sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH_SIZE):
        yield items[start : start + BATCH_SIZE]
