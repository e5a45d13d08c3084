import shutil
from pathlib import Path

import numpy as np
import pytest

from deeptalk.data import synthesis
from deeptalk.data.manifest import read_manifest
from deeptalk.data.packs import AudioPack
from deeptalk.data.synthesis import (
    ANSWER_VOICES,
    HELD_OUT_VOICES,
    QUESTION_VOICES,
    SpeechJob,
    Utterance,
    Voice,
    check_programs,
    find_sound,
    synthesise,
    synthesise_pack,
)
from deeptalk.errors import ConfigError, DataError

HAS_PROGRAMS = all(shutil.which(program) for program in ("flite", "espeak-ng"))
VOICE = ANSWER_VOICES["slt"]


def _jobs(number: int = 7) -> list[SpeechJob]:
    return [SpeechJob(id=f"j{i}", text=f"text {i}", voice=VOICE, speaker="slt") for i in range(number)]


def _tone(text: str, voice: Voice) -> Utterance:
    length = 800 + 100 * int(text.split()[1])
    samples = np.full(length, 1_000 + length, dtype=np.int16)
    return Utterance(samples=samples, sample_rate=16_000, phones=(("aa", 0.02), ("pau", 0.05)))


def test_a_pack_holds_every_clip_in_order_and_leaves_no_parts(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    number = synthesise_pack(
        _jobs(), tmp_path / "a.jsonl", shard_size=3, speak=_tone, progress=lambda *at: told.append(at)
    )
    assert (number, told) == (7, [(3, 7), (6, 7), (7, 7)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.wav"]
    records = read_manifest(tmp_path / "a.jsonl", kind="recording").records
    pack = AudioPack(tmp_path / "a.wav")
    for i, record in enumerate(records):
        clip = pack.read(record["offset"], record["duration"]) * 32_768
        assert (record["id"], record["text"], record["speaker"]) == (f"j{i}", f"text {i}", "slt")
        np.testing.assert_array_equal(clip, _tone(record["text"], VOICE).samples)
        assert record["phones"] == [["aa", 0.02], ["pau", 0.05]]


def test_an_interrupted_run_goes_on_and_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    spoken: list[str] = []

    def breaks(text: str, voice: Voice) -> Utterance:
        spoken.append(text)
        if len(spoken) == 5:
            raise KeyboardInterrupt
        return _tone(text, voice)

    with pytest.raises(KeyboardInterrupt):
        synthesise_pack(_jobs(), tmp_path / "a.jsonl", shard_size=3, speak=breaks, workers=1)
    assert not (tmp_path / "a.jsonl").exists()
    spoken.clear()
    synthesise_pack(_jobs(), tmp_path / "a.jsonl", shard_size=3, speak=breaks, workers=1)
    assert spoken == [f"text {i}" for i in range(3, 7)]
    synthesise_pack(_jobs(), tmp_path / "b.jsonl", shard_size=3, speak=_tone)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_parts_of_another_list_of_jobs_are_not_used(tmp_path: Path) -> None:
    stale = tmp_path / "a.parts"
    stale.mkdir()
    (stale / "jobs.sha256").write_text("another list")
    (stale / "00000.jsonl").write_text("")
    assert synthesise_pack(_jobs(), tmp_path / "a.jsonl", speak=_tone) == 7


def test_texts_without_sound_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def silent(text: str, voice: Voice) -> Utterance:
        if text == "text 2":
            raise DataError("no sound")
        return _tone(text, voice)

    assert synthesise_pack(_jobs(), tmp_path / "a.jsonl", speak=silent) == 6
    assert "j2" in caplog.text


def test_silence_is_cut_moderately() -> None:
    speech = np.full(1_600, 8_000, dtype=np.int16)
    padded = np.concatenate([np.zeros(8_000, np.int16), speech, np.zeros(8_000, np.int16)])
    start, stop = find_sound(padded, sample_rate=16_000)
    assert (start, stop - start) == (8_000 - 1_280, pytest.approx(1_600 + 2 * 1_280, abs=160))
    assert find_sound(speech, sample_rate=16_000) == (0, len(speech))
    assert find_sound(np.zeros(8_000, np.int16), sample_rate=16_000) == (0, 0)


def test_held_out_voices_are_never_in_training_nor_their_near_copies() -> None:
    held_out = {(voice.engine, voice.variant.lower() or voice.voice) for voice in HELD_OUT_VOICES}
    training = {(v.engine, v.variant.lower() or v.voice) for v in (*QUESTION_VOICES, *ANSWER_VOICES.values())}
    assert not held_out & training
    assert not {("espeak", "belinda"), ("espeak", "gustave"), ("flite", "awb")} & training
    assert ("flite", "awb") in held_out
    assert len(held_out) >= 5
    assert len([voice for voice in training if voice[0] == "espeak"]) >= 30


def test_moods_keep_the_voice_and_stay_in_range() -> None:
    generator = np.random.default_rng(0)
    moods = [VOICE.varied(generator) for _ in range(50)]
    assert {(mood.name, mood.voice) for mood in moods} == {(VOICE.name, VOICE.voice)}
    assert all(0.79 <= mood.rate <= 1.26 and 0.84 <= mood.pitch <= 1.19 for mood in moods)
    assert len({mood.rate for mood in moods}) > 10


def test_a_missing_program_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis.shutil, "which", lambda program: None)
    with pytest.raises(ConfigError, match="apt-get install flite espeak-ng"):
        check_programs(QUESTION_VOICES)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PROGRAMS, reason="needs flite and espeak-ng")
def test_every_voice_speaks() -> None:
    for voice in (*QUESTION_VOICES, *HELD_OUT_VOICES):
        spoken = synthesise("What is the capital of Spain?", voice)
        assert spoken.sample_rate == 16_000
        seconds = len(spoken.samples) / spoken.sample_rate
        assert 0.8 < seconds < 5.0
        assert np.abs(spoken.samples).max() > 1_000
        ends = [end for _, end in spoken.phones]
        assert ends == sorted(ends)
        assert bool(ends) == (voice.engine == "flite")
        if voice in ANSWER_VOICES.values():  # the first phone is silence, of which 0.08 s are left
            assert spoken.phones[0][0] == "pau"
            assert ends[0] == pytest.approx(0.08, abs=0.04)
            assert seconds - 0.3 < ends[-1]
