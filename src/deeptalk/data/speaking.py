"""Written texts become speech, shard by shard: questions that are heard and answers that are said.

Whoever speaks is a `Speaker`: flite, espeak-ng, or any program. Who says what depends on the seed and the
record alone, never on shards or workers.
"""

import io
import json
import re
import shlex
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import soundfile
import soxr

from deeptalk.data.manifest import Record, kind_of_manifest, read_whole_manifest, write_lines
from deeptalk.data.packs import AudioPackWriter, Samples
from deeptalk.data.shards import (
    Make,
    Processes,
    Progress,
    Shard,
    Workers,
    clear_folder,
    make_shards,
    plan_shards,
)
from deeptalk.data.synthesis import Voice, check_programs, find_sound, synthesise
from deeptalk.errors import ConfigError, DataError
from deeptalk.files import write_text

Role = Literal["user", "assistant"]
RATES: Mapping[Role, int] = {"user": 16_000, "assistant": 24_000}
"""Samples a second of what an encoder hears, and of what a codec learns to say."""

ENGINES = {"flite": "flite", "espeak-ng": "espeak"}
_SECONDS_PER_TEXT = 600
_NO_SOUND, _FAILED = "no sound", "the voice failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Speaker:
    """A voice by name: one of flite or espeak-ng, or a program that speaks.

    ``command`` is a program with its arguments. ``{text}`` in it is the text, which comes on standard input
    otherwise; ``{out}`` is the sound file that it shall write, which is read from standard output otherwise.
    """

    name: str
    voice: Voice | None = None
    command: tuple[str, ...] = ()

    def say(self, text: str, *, sample_rate: int) -> Samples:
        """The samples of a text, with moderate silence around it; `DataError` with a countable reason."""
        if self.voice is not None:
            try:
                return synthesise(text, self.voice, sample_rate=sample_rate).samples
            except (DataError, OSError, ValueError) as error:  # too long for an argument, a zero byte
                raise DataError(_NO_SOUND if "made no sound" in str(error) else _FAILED) from error
        samples, rate = _run(self.command, text)
        start, stop = find_sound(samples, sample_rate=rate)
        if start == stop:
            raise DataError(_NO_SOUND)
        samples = samples[start:stop]
        return samples if rate == sample_rate else soxr.resample(samples, rate, sample_rate).astype(np.int16)


def read_speaker(given: str) -> Speaker:
    """A speaker as the command line names it.

    ``flite:slt`` and ``espeak-ng:en-us+m3`` are voices of these programs, ``NAME=`` before them is what the
    manifest shall call them. ``NAME=PROGRAM ARGUMENTS`` is any other program (`Speaker`); no shell reads it.

    Raises:
        ConfigError: it is none of these, or the program or its voice isn't there.
    """
    name, is_named, told = given.partition("=") if re.match(r"[\w.-]+=", given) else ("", "", given)
    engine, _, voice = told.partition(":")
    if engine in ENGINES and re.fullmatch(r"[\w-]+(\+[\w -]+)?", voice):
        accent, _, variant = voice.partition("+")
        own = Voice(name=f"{engine}-{voice}", engine=ENGINES[engine], voice=accent, variant=variant)  # type: ignore[arg-type]
        check_programs([own])
        _check_voice(engine, accent, variant)
        return Speaker(name=name or voice, voice=own)
    try:
        command = tuple(shlex.split(told))
    except ValueError as error:
        raise ConfigError(f"the voice {given!r} can't be read ({error}).") from error
    if not is_named or not command:
        raise ConfigError(
            f"a voice is flite:NAME, espeak-ng:NAME+VARIANT or NAME=PROGRAM ARGUMENTS, got {given!r}."
        )
    if shutil.which(command[0]) is None:
        raise ConfigError(f"{command[0]} is no program that can be run here; give its path.")
    return Speaker(name=name, command=command)


def _check_voice(engine: str, accent: str, variant: str) -> None:
    """Raise `ConfigError` for a voice that the program would replace by another one without a word."""
    if engine == "flite":
        told = subprocess.run(["flite", "-lv"], capture_output=True, text=True, check=False).stdout
        known, given = told.partition(":")[2].split(), accent
    else:
        lists = [["espeak-ng", f"--voices={kind}"] for kind in ("", "variant")]
        lines = [subprocess.run(c, capture_output=True, text=True, check=False).stdout for c in lists]
        codes = re.findall(r"^ *\d+ +(\S+)", lines[0], re.MULTILINE)
        known, given = (
            (re.findall(r"!v/(.+?)(?: {2}|$)", lines[1], re.MULTILINE), variant)
            if variant
            else (codes, accent)
        )
        known = [name.strip() for name in known]
    if given not in known:
        raise ConfigError(f"{engine} has no voice {given!r}; it has {', '.join(known[:60])}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpokenText:
    """A text to be said, its place in the manifest (no message: the record itself), and who says it."""

    record: int
    message: int | None
    role: Role
    text: str
    speaker: Speaker


@dataclass(frozen=True, kw_only=True, slots=True)
class SpokenManifest:
    """What became of a manifest: ``num_made`` shards were made now, the others stood there."""

    manifest: str
    kind: str
    num_records: int
    num_spoken: int
    hours: float
    num_shards: int
    num_made: int
    rejects: Mapping[str, int] = field(default_factory=dict)


def speak_manifest(
    path: Path,
    target: Path,
    *,
    speakers: Mapping[Role, Sequence[Speaker]],
    seed: int = 0,
    workers: Workers | None = None,
    texts_per_shard: int = 500,
    progress: Progress | None = None,
    make: Make | None = None,
) -> SpokenManifest:
    """Have the texts of a manifest said, into ``speech/NAME/`` beside ``target``, which names them.

    Sentences become recordings, said by the speakers of ``user``, or of ``assistant`` where there are no
    others. Of dialogues and texts the turns are said whose role has speakers, by the same one throughout;
    turns that came with sound or codes keep them. A turn without sound stays written, a sentence without
    sound is left out; both are counted by reason.
    Interrupted, it goes on shard by shard; a shard whose worker was lost is made again. ``make`` replaces the
    speaking itself, for tests.

    Raises:
        ConfigError: there is nobody to speak, or ``target`` is the manifest itself.
        DataError: a record can't be used, there is nothing to be said, no text gives a sound, or no worker
            comes to an end.
    """
    path, target = path.resolve(), target.resolve()
    if path == target:
        raise ConfigError(f"{target} is the manifest of the texts; its speech needs another one (--out).")
    if not any(speakers.values()):
        raise ConfigError("nobody speaks; name the voices of users or of assistants.")
    kind = kind_of_manifest(path)
    if kind not in ("sentence", "dialogue"):
        raise DataError(
            f"{path}: sentences, texts or dialogues can be said; its first line is none of these."
        )
    records = [dict(record) for record in read_whole_manifest(path, kind=kind)]
    texts = list(_texts(records, speakers, seed))
    if not texts:
        raise DataError(f"{path}: no turn of {' or '.join(speakers)} is without sound and codes.")
    _try_programs(texts)
    folder = target.parent / "speech" / target.stem
    shards: list[Shard] = []
    num_made = 0
    for role in get_args(Role):
        own = [text for text in texts if text.role == role]
        part = plan_shards(folder / role, own, size=texts_per_shard, mark=RATES[role], suffix=".wav")
        shards += part
        if part:
            num_made += make_shards(
                part,
                make or partial(speak_shard, sample_rate=RATES[role]),
                workers=workers or Processes(),
                progress=progress,
            )
    rejects, seconds = _name_sounds(records, shards, target.parent)
    spoken = [record for record in records if kind != "sentence" or "audio" in record]
    if rejects.total() == len(texts):
        raise DataError(f"{path}: none of {len(texts):,} texts gave a sound ({_told(rejects)}).")
    write_lines(target, spoken)
    for role in {text.role for text in texts}:
        clear_folder(folder / role, shards)
    return SpokenManifest(
        manifest=str(target),
        kind="recording" if kind == "sentence" else "dialogue",
        num_records=len(spoken),
        num_spoken=len(texts) - rejects.total(),
        hours=seconds / 3600,
        num_shards=len(shards),
        num_made=num_made,
        rejects=dict(rejects),
    )


def speak_shard(shard: Shard, sample_rate: int) -> None:
    """Say a shard's texts one by one, into a WAV pack; the index, written last, says that it is whole."""
    index: list[dict[str, Any]] = []
    with AudioPackWriter(shard.path, sample_rate=sample_rate) as pack:
        for text in shard.items:
            try:
                samples = text.speaker.say(text.text, sample_rate=sample_rate)
            except DataError as error:
                index.append({"reason": str(error)})
                continue
            offset, duration = pack.append(samples)
            index.append({"offset": offset, "duration": duration})
    write_text(shard.index, json.dumps(index))


def _texts(
    records: Sequence[Record], speakers: Mapping[Role, Sequence[Speaker]], seed: int
) -> Iterator[SpokenText]:
    sayer: Role = "user" if speakers.get("user") else "assistant"  # of sentences
    for number, record in enumerate(records):
        if "messages" not in record:
            speaker = _drawn(speakers[sayer], record, sayer, seed)
            yield SpokenText(record=number, message=None, role=sayer, text=record["text"], speaker=speaker)
            continue
        for place, message in enumerate(record["messages"]):
            role, own = message["role"], speakers.get(message["role"])
            if own and message["text"].strip() and not message.keys() & {"audio", "codes"}:
                speaker = _drawn(own, record, role, seed)
                yield SpokenText(
                    record=number, message=place, role=role, text=message["text"], speaker=speaker
                )


def _drawn(speakers: Sequence[Speaker], record: Record, role: str, seed: int) -> Speaker:
    """Who speaks in a record, by lot: the same whatever else the manifest holds."""
    lot = sha256(f"{seed} {role} {record['id']}".encode()).digest()
    return speakers[int.from_bytes(lot[:8]) % len(speakers)]


def _name_sounds(
    records: Sequence[dict[str, Any]], shards: Sequence[Shard], folder: Path
) -> tuple[Counter[str], float]:
    """Give every text the place of its sound; what has none by reason, and the seconds of the others."""
    rejects: Counter[str] = Counter()
    seconds = 0.0
    for shard in shards:
        for text, found in zip(shard.items, shard.found() or (), strict=True):
            if "reason" in found:
                rejects[found["reason"]] += 1
                continue
            seconds += found["duration"]
            record = records[text.record]
            name = "speaker" if text.role == "assistant" else "voice"
            sound = {"audio": str(shard.path.relative_to(folder)), **found, name: text.speaker.name}
            if text.message is None:
                record |= sound
                continue
            messages = record["messages"] = list(record["messages"])
            messages[text.message] = messages[text.message] | sound
    return rejects, seconds


def _run(command: Sequence[str], text: str) -> tuple[Samples, int]:
    """What a program says, in one channel, and its rate."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.wav"
        is_told, writes = (any(mark in part for part in command) for mark in ("{text}", "{out}"))
        filled = [part.replace("{out}", str(out)).replace("{text}", text) for part in command]
        try:
            done = subprocess.run(
                filled,
                input=b"" if is_told else text.encode(),
                capture_output=True,
                check=True,
                timeout=_SECONDS_PER_TEXT,
            )
            samples, rate = soundfile.read(
                out if writes else io.BytesIO(done.stdout), dtype="int16", always_2d=True
            )
        except (OSError, ValueError, subprocess.SubprocessError, soundfile.SoundFileError) as error:
            raise DataError(_FAILED) from error
    return samples[:, 0].astype(np.int16), rate


def _try_programs(texts: Sequence[SpokenText]) -> None:
    """Have every program say its first text, so that one that can't is told before hours are spent."""
    first = {text.speaker.name: text for text in reversed(texts) if text.speaker.command}
    for text in first.values():
        try:
            _run(text.speaker.command, text.text)
        except DataError as error:
            told = getattr(error.__cause__, "stderr", None) or str(error.__cause__).encode()
            last = told.decode(errors="replace").strip().splitlines()[-1:]
            program = shlex.join(text.speaker.command)
            raise ConfigError(
                f"{program} makes no sound file of {text.text[:60]!r}: {' '.join(last)}"
            ) from error


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
