"""The evaluation set on disk."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_set import ITEMS, SECONDS, pitch_of

from deeptalk.errors import DataError
from deeptalk.evaluation.questions import FIVE_CATEGORIES, EvalSet


def test_items_are_those_of_the_file(questions: EvalSet):
    assert [item.category for item in questions.items] == [category for category, *_ in ITEMS]
    assert [item.id for item in questions.of("refusal", "dialogue")] == ["6", "7", "8", "9"]
    assert len(questions.of(*FIVE_CATEGORIES)) == 6
    first, long = questions.items[0], questions.items[9]
    assert (first.turns[0].text, first.answers, first.text_only) == (
        "capital of France",
        ("It is Paris.",),
        True,
    )
    assert [turn.text for turn in long.turns] == ["one and one", "and one more", "and one more"]
    assert long.answers == ("Two.", "Three.", "Four.")


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_every_turn_is_its_own_part_of_the_recording(questions: EvalSet, rate: int):
    turns = [turn for item in questions.items for turn in item.turns]
    for number, turn in enumerate(turns):
        samples = questions.speech(turn, sample_rate=rate)
        assert len(samples) == pytest.approx(SECONDS * rate, abs=1)
        peak = int(torch.fft.rfft(samples).abs().argmax()) * rate / len(samples)
        assert peak == pytest.approx(pitch_of(number), abs=10)


def test_a_folder_without_questions_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"questions\.jsonl"):
        EvalSet(tmp_path)
    (tmp_path / "questions.jsonl").write_text(json.dumps({"id": "1", "category": "facts"}))
    with pytest.raises(DataError, match="messages"):
        EvalSet(tmp_path)
    (tmp_path / "questions.jsonl").write_text("[]")
    with pytest.raises(DataError, match=r"no readable questions\.jsonl"):
        EvalSet(tmp_path)


def test_a_recording_that_is_missing_or_too_short_is_named(questions_folder: Path, tmp_path: Path):
    lines = (questions_folder / "questions.jsonl").read_text().replace('"offset": 0.0', '"offset": 900.0')
    (tmp_path / "questions.jsonl").write_text(lines)
    questions = EvalSet(tmp_path)
    with pytest.raises(DataError, match=r"questions\.opus"):
        questions.speech(questions.items[1].turns[0])
    shutil.copyfile(questions_folder / "questions.opus", tmp_path / "questions.opus")
    with pytest.raises(DataError, match="capital of France"):
        questions.speech(questions.items[0].turns[0])
    assert len(questions.speech(questions.items[1].turns[0]))
