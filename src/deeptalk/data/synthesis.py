"""Speech from text with flite and espeak-ng, in many voices: what the pocket model hears and how it speaks.

Only building data needs the two programs. The held-out voices are used for evaluation alone.
"""

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import soxr

from deeptalk.data.manifest import read_manifest, write_lines, write_manifest
from deeptalk.data.packs import AudioPack, AudioPackWriter, Samples
from deeptalk.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

PACK_RATE = 16_000
_FLITE_RATE = 16_000
_ESPEAK_RATE = 22_050
_ESPEAK_WORDS_PER_MINUTE = 165
_PROGRAMS = {"flite": "flite", "espeak": "espeak-ng"}
_KEPT_SILENCE = 0.08
_SECONDS_PER_CLIP = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Voice:
    """One way to speak: a synthesiser, its voice or accent, a variant of it, and relative rate and pitch."""

    name: str
    engine: Literal["flite", "espeak"]
    voice: str
    variant: str = ""
    rate: float = 1.0
    pitch: float = 1.0

    def varied(self, generator: np.random.Generator) -> "Voice":
        """The same voice in another mood: rate by 0.8 to 1.25, pitch by 0.85 to 1.18."""
        rate = self.rate * float(np.exp(generator.uniform(np.log(0.8), np.log(1.25))))
        pitch = self.pitch * float(np.exp(generator.uniform(np.log(0.85), np.log(1.18))))
        return replace(self, rate=round(rate, 2), pitch=round(pitch, 2))


def _flite(voice: str) -> Voice:
    return Voice(name=f"flite-{voice}", engine="flite", voice=voice)


def _espeak(variant: str, accent: str, rate: float = 1.0) -> Voice:
    name = variant.lower().replace(" ", "-")
    return Voice(name=f"espeak-{name}", engine="espeak", voice=accent, variant=variant, rate=rate)


_ACCENTS = ("en-us", "en-gb", "en-us", "en-gb-x-rp", "en-us", "en-gb-scotland", "en-029", "en-us-nyc")
_VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 adam Alex Alicia Andy Annie antonio aunty boris croak Denis ed "
    "edward Gene Henrique Hugo iven Jacky john klatt2 klatt4 Lee Mario marcelo max miguel Mike norbert pablo "
    "paul quincy rob sandro shelby Storm steph steph3 victor anika grandma"
)

ANSWER_VOICES = {"slt": _flite("slt"), "rms": _flite("rms")}
"""The two voices that the pocket model learns to speak with, by speaker name."""

FLITE_QUESTION_VOICES = (_flite("rms"), _flite("slt"), _flite("kal16"))
ESPEAK_QUESTION_VOICES = tuple(
    _espeak(variant, _ACCENTS[index % len(_ACCENTS)]) for index, variant in enumerate(_VARIANTS.split())
)
QUESTION_VOICES = FLITE_QUESTION_VOICES + ESPEAK_QUESTION_VOICES
"""Voices that ask questions in training: three of flite, 51 of espeak-ng in six accents."""

HELD_OUT_VOICES = (
    _flite("awb"),
    _espeak("Andrea", "en-us"),
    _espeak("Michael", "en-us"),
    _espeak("linda", "en-gb"),
    _espeak("Nguyen", "en-us"),
    _espeak("travis", "en-gb"),
)
"""Voices of the evaluation; neither they nor their near copies (belinda, gustave) are in training."""


def check_programs(voices: Sequence[Voice]) -> None:
    """Raise `ConfigError` unless the synthesisers that these voices need are installed."""
    needed = {_PROGRAMS[voice.engine] for voice in voices}
    missing = sorted(program for program in needed if shutil.which(program) is None)
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} not found; speech for training is made by flite and espeak-ng: "
            "`apt-get install flite espeak-ng` (talking and testing don't need them)"
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Utterance:
    """int16 samples at `sample_rate` hertz; `phones` with the second at which each ends, where known."""

    samples: Samples
    sample_rate: int
    phones: tuple[tuple[str, float], ...] = ()


def synthesise(text: str, voice: Voice, *, sample_rate: int = PACK_RATE) -> Utterance:
    """Speak a text, with moderate silence around it; flite tells its phones.

    Raises `ConfigError` where the program is missing, `DataError` where it makes no sound of the text.
    """
    check_programs([voice])
    spoken = _run_flite(text, voice) if voice.engine == "flite" else _run_espeak(text, voice)
    samples, rate = spoken.samples, spoken.sample_rate
    start, stop = find_sound(samples, sample_rate=rate)
    if start == stop:
        raise DataError(f"{voice.name} made no sound of {text!r}; leave the text out or spell it differently")
    samples = samples[start:stop]
    if rate != sample_rate:
        samples = soxr.resample(samples, rate, sample_rate)
    phones = tuple((phone, round(end - start / rate, 3)) for phone, end in spoken.phones)
    return Utterance(samples=samples.astype(np.int16), sample_rate=sample_rate, phones=phones)


def find_sound(samples: Samples, *, sample_rate: int, keep: float = _KEPT_SILENCE) -> tuple[int, int]:
    """Where sound starts and stops: all but silence (45 dB under the peak) at both ends, less `keep` seconds.

    Both are 0 where all is silence.
    """
    window = sample_rate // 100
    level = (
        np.abs(samples[: len(samples) // window * window].astype(np.int32)).reshape(-1, window).max(axis=1)
    )
    if not len(level) or level.max() < 64:
        return 0, 0
    loud = np.flatnonzero(level > level.max() * 10 ** (-45 / 20))
    margin = round(keep * sample_rate)
    stop = min(len(samples), int(loud[-1] + 1) * window + margin)
    return max(0, int(loud[0]) * window - margin), stop


def _run_flite(text: str, voice: Voice) -> Utterance:
    stretch = ["--setf", f"duration_stretch={1 / voice.rate:.3f}"] if voice.rate != 1 else []
    # The diphone voices take a mean pitch, the statistical ones a factor.
    pitch = (
        f"int_f0_target_mean={95 * voice.pitch:.1f}"
        if voice.voice.startswith("kal")
        else f"f0_shift={voice.pitch}"
    )
    tone = ["--setf", pitch] if voice.pitch != 1 else []
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        told = _call(["flite", "-voice", voice.voice, *stretch, *tone, "-psdur", "-t", text, "-o", file.name])
        data = Path(file.name).read_bytes()
    pairs = (entry.split(":") for entry in told.decode().split())
    phones = tuple((phone, float(end)) for phone, end in pairs)
    return Utterance(samples=np.frombuffer(data[44:], dtype="<i2"), sample_rate=_FLITE_RATE, phones=phones)


def _run_espeak(text: str, voice: Voice) -> Utterance:
    name = f"{voice.voice}+{voice.variant}" if voice.variant else voice.voice
    speed = str(int(np.clip(round(_ESPEAK_WORDS_PER_MINUTE * voice.rate), 110, 230)))
    pitch = str(int(np.clip(round(50 + 100 * np.log2(voice.pitch)), 0, 99)))
    data = _call(["espeak-ng", "-v", name, "-s", speed, "-p", pitch, "--stdin", "--stdout"], text)
    samples = np.frombuffer(data[44 : len(data) // 2 * 2], dtype="<i2")
    return Utterance(samples=samples, sample_rate=_ESPEAK_RATE)


def _call(command: list[str], text: str = "") -> bytes:
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, check=True, timeout=_SECONDS_PER_CLIP
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise DataError(
            f"`{' '.join(command)}` failed: {error}; check that the voice is installed"
        ) from error
    return done.stdout


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechJob:
    """One clip to make: what is said, by whom, and fields that the manifest shall carry besides."""

    id: str
    text: str
    voice: Voice
    speaker: str = ""
    source: str = "synthetic"


Speak = Callable[[str, Voice], Utterance]


def synthesise_pack(
    jobs: Sequence[SpeechJob],
    manifest: Path,
    *,
    workers: int = 2,
    shard_size: int = 500,
    speak: Speak = synthesise,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Make all clips into one WAV pack beside `manifest` (same name, `.wav`) and return how many there are.

    Work is kept shard by shard in a `.parts` folder, so an interrupted run continues; the manifest is written
    last, and where it stands already nothing is done. Texts without sound are left out and logged.
    `progress(done, total)` is called after each shard. The synthesisers run in `workers` processes at a time.
    """
    parts = manifest.with_suffix(".parts")
    if manifest.is_file():
        shutil.rmtree(parts, ignore_errors=True)
        return len(manifest.read_text(encoding="utf-8").splitlines())
    _forget_other_jobs(parts, jobs)
    done = 0
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for index, shard in enumerate(_shards(jobs, shard_size)):
            if not (parts / f"{index:05d}.jsonl").is_file():
                _make_shard(shard, parts / f"{index:05d}.jsonl", pool, speak)
            done += len(shard)
            if progress is not None:
                progress(done, len(jobs))
    return _merge(parts, manifest)


def is_made(manifest: Path) -> bool:
    """Whether `synthesise_pack` has nothing left to do for this manifest, not even to tidy up."""
    return manifest.is_file() and not manifest.with_suffix(".parts").is_dir()


def _shards(jobs: Sequence[SpeechJob], size: int) -> Iterator[list[SpeechJob]]:
    rest = iter(jobs)
    while shard := list(islice(rest, size)):
        yield shard


def _forget_other_jobs(parts: Path, jobs: Sequence[SpeechJob]) -> None:
    """Drop shards that were made for another list of jobs."""
    fingerprint = sha256(repr(list(jobs)).encode()).hexdigest()
    note = parts / "jobs.sha256"
    if note.is_file() and note.read_text() != fingerprint:
        shutil.rmtree(parts)
    parts.mkdir(parents=True, exist_ok=True)
    note.write_text(fingerprint)


def _make_shard(shard: Sequence[SpeechJob], manifest: Path, pool: ThreadPoolExecutor, speak: Speak) -> None:
    def clip_of(job: SpeechJob) -> Utterance | None:
        try:
            return speak(job.text, job.voice)
        except DataError as error:
            logger.warning("left out %s: %s", job.id, error)
            return None

    records = []
    with AudioPackWriter(manifest.with_suffix(".wav"), sample_rate=PACK_RATE) as pack:
        for job, spoken in zip(shard, pool.map(clip_of, shard), strict=True):
            if spoken is not None:
                offset, duration = pack.append(spoken.samples)
                record = _record(job, manifest.with_suffix(".wav").name, offset, duration)
                records.append(record | ({"phones": spoken.phones} if job.speaker else {}))
    write_lines(manifest, records)


def _record(job: SpeechJob, audio: str, offset: float, duration: float) -> dict[str, object]:
    record: dict[str, object] = {"id": job.id, "audio": audio, "offset": offset, "duration": duration}
    record |= {"text": job.text, "voice": job.voice.name, "lang": "en", "source": job.source}
    return record | ({"speaker": job.speaker} if job.speaker else {})


def _merge(parts: Path, manifest: Path) -> int:
    """One pack and one manifest from all shards; the shards are removed when both stand."""
    records: list[dict[str, object]] = []
    audio = manifest.with_suffix(".wav")
    with AudioPackWriter(audio, sample_rate=PACK_RATE) as pack:
        for shard in sorted(parts.glob("*.jsonl")):
            content = read_manifest(shard, kind="recording").records
            source = AudioPack(shard.with_suffix(".wav")) if content else None
            for record in content:
                assert source is not None
                clip = source.read(record["offset"], record["duration"]) * 32768.0
                offset, duration = pack.append(clip.astype(np.int16))
                records.append({**record, "audio": audio.name, "offset": offset, "duration": duration})
    number = write_manifest(manifest, records, kind="recording")
    shutil.rmtree(parts)
    return number
