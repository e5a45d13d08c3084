"""Texts become speech, shard by shard, by any program; a killed worker costs nothing but time."""

import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deeptalk.data.manifest import read_manifest, write_manifest
from deeptalk.data.packs import AudioPack
from deeptalk.data.shards import Processes, Shard
from deeptalk.data.speaking import Speaker, read_speaker, speak_manifest, speak_shard
from deeptalk.errors import ConfigError, DataError

BEEPER = """
import sys, wave
from array import array
text = sys.argv[2] if len(sys.argv) > 2 else sys.stdin.read()
if "crash" in text:
    sys.exit("I can't say this")
level = 0 if "hush" in text else 9000
with wave.open(sys.argv[1], "wb") as file:
    file.setparams((1, 2, 8000, 0, "NONE", ""))
    file.writeframes(array("h", [level, -level] * (400 * len(text))).tobytes())
"""
"""Says a tenth of a second a letter."""


@pytest.fixture
def beeper(tmp_path: Path) -> Speaker:
    (tmp_path / "beeper.py").write_text(BEEPER)
    return read_speaker(f"bee={sys.executable} -I {tmp_path / 'beeper.py'} {{out}}")


@pytest.fixture
def dialogues(tmp_path: Path) -> Path:
    heard = {"role": "user", "text": "b", "audio": "b.wav", "duration": 1.0}
    coded = {"role": "assistant", "text": "yes", "codes": [[1] * 7], "order": "breadth"}
    said = {"role": "assistant", "text": "no"}
    talks = [
        [{"role": "system", "text": "be kind"}, {"role": "user", "text": "ab"}, said],
        [heard, coded, {"role": "user", "text": "abcd"}, said],
        [{"role": "user", "text": "hush"}, said],
    ]
    records = [{"id": str(n), "messages": messages, "license": "mine"} for n, messages in enumerate(talks)]
    write_manifest(tmp_path / "talks.jsonl", records, kind="dialogue")
    return tmp_path / "talks.jsonl"


def seconds(message: dict) -> float:
    pack = AudioPack(Path(message["audio"]))
    return round(len(pack.read(message["offset"], message["duration"])) / pack.sample_rate, 3)


def test_turns_are_said_and_the_rest_is_kept(dialogues: Path, beeper: Speaker, tmp_path: Path) -> None:
    out = tmp_path / "data" / "spoken.jsonl"
    told = speak_manifest(
        dialogues, out, speakers={"user": [beeper], "assistant": [beeper]}, texts_per_shard=2
    )
    assert (told.kind, told.num_records, told.num_spoken, told.num_shards) == ("dialogue", 3, 5, 4)
    assert told.rejects == {"no sound": 1}
    assert told.hours * 3600 == pytest.approx(0.2 + 0.4 + 3 * 0.2)
    given = read_manifest(dialogues, kind="dialogue").records
    records = read_manifest(out, kind="dialogue").records
    first, second, third = ([m for m in record["messages"]] for record in records)
    assert first[0] == {"role": "system", "text": "be kind"}
    assert (seconds(first[1]), first[1]["voice"], AudioPack(Path(first[1]["audio"])).sample_rate) == (
        0.2,
        "bee",
        16_000,
    )
    assert (seconds(first[2]), first[2]["speaker"]) == (0.2, "bee")
    assert AudioPack(Path(first[2]["audio"])).sample_rate == 24_000
    assert second[1] == given[1]["messages"][1]
    assert Path(second[0]["audio"]) == tmp_path / "b.wav"
    assert (seconds(second[2]), third[0]) == (0.4, {"role": "user", "text": "hush"})
    assert all(record["license"] == "mine" for record in records)


def test_sentences_become_recordings(tmp_path: Path, beeper: Speaker) -> None:
    texts = tmp_path / "texts.jsonl"
    write_manifest(texts, [{"id": t, "text": t} for t in ("abc", "hush", "a")], kind="sentence")
    told = speak_manifest(texts, tmp_path / "said.jsonl", speakers={"user": [beeper]})
    assert (told.kind, told.num_records, told.rejects) == ("recording", 2, {"no sound": 1})
    records = read_manifest(tmp_path / "said.jsonl", kind="recording").records
    assert [(r["id"], seconds(dict(r)), r["voice"]) for r in records] == [
        ("abc", 0.3, "bee"),
        ("a", 0.1, "bee"),
    ]
    speak_manifest(texts, tmp_path / "said.jsonl", speakers={"assistant": [beeper]})
    record = read_manifest(tmp_path / "said.jsonl", kind="recording").records[0]
    assert (record["speaker"], AudioPack(Path(record["audio"])).sample_rate) == ("bee", 24_000)


def test_who_says_what_depends_on_the_seed_and_the_record_alone(tmp_path: Path, beeper: Speaker) -> None:
    voices = [Speaker(name=name, command=beeper.command) for name in "xyz"]
    given = [{"id": str(n), "text": "a"} for n in range(30)]

    def voices_of(records: list[dict], *, seed: int, size: int) -> dict[str, str]:
        write_manifest(tmp_path / "t.jsonl", records, kind="sentence")
        speak_manifest(
            tmp_path / "t.jsonl",
            tmp_path / "said.jsonl",
            speakers={"user": voices},
            seed=seed,
            texts_per_shard=size,
            make=silent,
        )
        return {r["id"]: r["voice"] for r in read_manifest(tmp_path / "said.jsonl", kind="recording").records}

    first = voices_of(given, seed=0, size=7)
    assert set(first.values()) == {"x", "y", "z"}
    assert voices_of(given[10:], seed=0, size=3) == {key: first[key] for key in map(str, range(10, 30))}
    assert voices_of(given, seed=1, size=7) != first


def silent(shard: Shard) -> None:
    """Names sounds that nobody made."""
    shard.path.touch()
    shard.index.write_text(json.dumps([{"offset": 0.0, "duration": 1.0}] * len(shard.items)))


def dies_once(shard: Shard, sample_rate: int) -> None:
    note = shard.path.parent / "died"
    if shard.path.stem.startswith("00001") and not note.exists():
        note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with (shard.path.parent / f"made-{shard.path.stem}").open("a") as file:
        file.write("x")
    speak_shard(shard, sample_rate)


def test_the_shard_of_a_lost_worker_is_made_again_and_none_twice(tmp_path: Path, beeper: Speaker) -> None:
    texts, out = tmp_path / "texts.jsonl", tmp_path / "said.jsonl"
    write_manifest(texts, [{"id": t, "text": t} for t in ("abc", "ab", "a", "abcd", "b")], kind="sentence")
    told = speak_manifest(
        texts,
        out,
        speakers={"user": [beeper]},
        workers=Processes(2),
        texts_per_shard=2,
        make=partial(dies_once, sample_rate=16_000),
    )
    assert (told.num_made, told.num_records, told.rejects) == (3, 5, {})
    assert (tmp_path / "speech" / "said" / "user" / "died").exists()
    heard = [seconds(dict(r)) for r in read_manifest(out, kind="recording").records]
    assert heard == [0.3, 0.2, 0.1, 0.4, 0.1]
    again = speak_manifest(texts, out, speakers={"user": [beeper]}, texts_per_shard=2)
    assert again.num_made == 0
    speak_manifest(texts, out, speakers={"user": [beeper]}, texts_per_shard=5)
    packs = list((tmp_path / "speech" / "said" / "user").glob("*.wav"))
    assert len(packs) == 1  # nothing of the first division is left


def test_what_is_interrupted_goes_on(tmp_path: Path, beeper: Speaker) -> None:
    texts, out = tmp_path / "texts.jsonl", tmp_path / "said.jsonl"
    write_manifest(texts, [{"id": t, "text": t} for t in "abcd"], kind="sentence")

    def stops(shard: Shard) -> None:
        if shard.path.stem.startswith("00002"):
            raise KeyboardInterrupt
        speak_shard(shard, 16_000)

    with pytest.raises(KeyboardInterrupt):
        speak_manifest(texts, out, speakers={"user": [beeper]}, texts_per_shard=1, make=stops)
    assert not out.exists()
    assert speak_manifest(texts, out, speakers={"user": [beeper]}, texts_per_shard=1).num_made == 2


def test_a_program_that_writes_to_standard_output_is_heard(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full((8_000, 2), 0.5), 8_000)
    speaker = read_speaker(f"cat=cat {tmp_path / 'a.wav'}")
    assert len(speaker.say("x", sample_rate=16_000)) == 16_000


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_voices_of_flite_are_checked_before_they_speak() -> None:
    with pytest.raises(ConfigError, match="flite has no voice 'nobody'; it has kal"):
        read_speaker("flite:nobody")
    speaker = read_speaker("M29=flite:slt")
    assert speaker.name == "M29"
    assert len(speaker.say("hello", sample_rate=24_000)) > 6_000


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_voices_of_espeak_are_checked_before_they_speak() -> None:
    for voice, words in (("xx", "no voice 'xx'"), ("en-us+nobody", "no voice 'nobody'")):
        with pytest.raises(ConfigError, match=words):
            read_speaker(f"espeak-ng:{voice}")
    assert len(read_speaker("espeak-ng:en-us+m3").say("hello", sample_rate=16_000)) > 4_000


@pytest.mark.parametrize("given", ["slt", "=flite:slt", "a=", "a='x"])
def test_what_is_no_voice_is_told(given: str) -> None:
    with pytest.raises(ConfigError, match="voice"):
        read_speaker(given)
    with pytest.raises(ConfigError, match="nowhere is no program"):
        read_speaker("a=nowhere --fast")


def test_mistakes_are_told_before_hours_are_spent(tmp_path: Path, dialogues: Path, beeper: Speaker) -> None:
    out = tmp_path / "out.jsonl"

    def refused(path: Path, **speakers: list[Speaker]) -> str:
        with pytest.raises((DataError, ConfigError)) as raised:
            speak_manifest(path, out, speakers=speakers)  # type: ignore[arg-type]
        assert not out.exists()
        assert not (tmp_path / "speech").exists()
        (line,) = str(raised.value).splitlines()
        return line

    assert "nobody speaks" in refused(dialogues)
    assert "no such manifest" in refused(tmp_path / "x.jsonl", user=[beeper])
    with pytest.raises(ConfigError, match="is the manifest of the texts"):
        speak_manifest(dialogues, dialogues, speakers={"user": [beeper]})
    path = tmp_path / "odd.jsonl"
    path.write_text('{"id": "1", "text": "crash"}\n')
    assert "makes no sound file of 'crash': I can't say this" in refused(path, user=[beeper])
    path.write_text('{"id": "1", "text": "a"}\n{}\nbroken\n')
    assert "records that can't be used (1 no id, 1 not a JSON object)" in refused(path, user=[beeper])
    path.write_text('{"id": "1", "audio": "a.wav", "text": "a"}\n')
    assert "its first line is none of these" in refused(path, user=[beeper])
    write_manifest(path, [{"id": "1", "messages": [{"role": "assistant", "text": "a"}]}], kind="text")
    assert "no turn of user" in refused(path, user=[beeper])


def test_texts_that_give_no_sound_at_all_leave_no_manifest(tmp_path: Path, beeper: Speaker) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"id": "1", "text": "hush"}\n')
    with pytest.raises(DataError, match=r"none of 1 texts gave a sound \(1 no sound\)"):
        speak_manifest(path, tmp_path / "out.jsonl", speakers={"user": [beeper]})
    assert not (tmp_path / "out.jsonl").exists()
