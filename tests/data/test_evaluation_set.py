from pathlib import Path

import numpy as np
import pytest
import soundfile

from deeptalk.data import evaluation_set
from deeptalk.data.domain import eval_questions
from deeptalk.data.evaluation_set import EXAMPLE_CATEGORIES, build_eval_set, build_examples, example_items
from deeptalk.data.manifest import read_manifest
from deeptalk.data.synthesis import HELD_OUT_VOICES, Utterance, Voice
from deeptalk.errors import DataError


def _tone(text: str, voice: Voice) -> Utterance:
    time = np.arange(200 * len(text)) / 16_000
    samples = (9_000 * np.sin(2 * np.pi * 300 * time)).astype(np.int16)
    return Utterance(samples=samples, sample_rate=16_000)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch):
    """Some questions and dialogues instead of all."""
    items = eval_questions(seed=0)
    chosen = [*items[:8], *(item for item in items if item.category == "dialogue")][:14]
    monkeypatch.setattr(evaluation_set, "eval_questions", lambda *, seed: chosen)
    return chosen


def test_every_user_turn_stands_where_the_manifest_says(tmp_path: Path, few) -> None:
    figures = build_eval_set(tmp_path, speak=_tone)
    records = read_manifest(tmp_path / "questions.jsonl", kind="dialogue").records
    samples, rate = soundfile.read(tmp_path / "questions.opus", dtype="float32")
    assert len(records) == figures["items"] == len(few)
    for record, item in zip(records, few, strict=True):
        assert [m["text"] for m in record["messages"]] == [m.text for m in item.messages]
        heard = [m for m in record["messages"] if m["role"] == "user"]
        assert len({m["voice"] for m in heard}) == 1
        for message in heard:
            start, length = (round(message[key] * rate) for key in ("offset", "duration"))
            clip = samples[start : start + length]
            assert length == 200 * len(message["text"])
            assert np.sqrt((clip**2).mean()) > 0.1
            after = samples[start + length + rate // 50 : start + length + rate // 20]
            assert np.abs(after).max() < 0.05


def test_all_held_out_voices_take_part_and_no_other(tmp_path: Path, few) -> None:
    build_eval_set(tmp_path, speak=_tone)
    records = read_manifest(tmp_path / "questions.jsonl", kind="dialogue").records
    voices = {m["voice"] for record in records for m in record["messages"] if m["role"] == "user"}
    assert voices == {voice.name for voice in HELD_OUT_VOICES}


def test_too_large_a_recording_is_refused_and_not_left_behind(tmp_path: Path, few, monkeypatch) -> None:
    monkeypatch.setattr(evaluation_set, "MAX_BYTES", 1_000)
    with pytest.raises(DataError, match="raise compression"):
        build_eval_set(tmp_path, speak=_tone)
    assert list(tmp_path.iterdir()) == []


def test_examples_are_small_files_named_by_their_words(tmp_path: Path, few) -> None:
    paths = build_examples(tmp_path, few[:3], speak=_tone)
    assert [path.name[0] for path in paths] == ["1", "2", "3"]
    assert all(path.suffix == ".wav" and " " not in path.name for path in paths)
    assert all(soundfile.info(path).samplerate == 16_000 for path in paths)


def test_the_examples_are_short_held_out_questions_of_many_kinds() -> None:
    items = example_items()
    assert [item.category for item in items] == list(EXAMPLE_CATEGORIES)
    assert len({item.messages[0].text for item in items}) == len(items) >= 6
    assert [item.text_only for item in items].count(True) == 1
    assert all(len(item.messages) == 2 and len(item.messages[0].text) < 50 for item in items)
