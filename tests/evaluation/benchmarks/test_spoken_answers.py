"""What sound costs beside text, against the same by hand."""

import pytest

from deeptalk.evaluation.benchmarks.normalizers import normalizer
from deeptalk.evaluation.benchmarks.question_sets import QaItem
from deeptalk.evaluation.benchmarks.spoken_answers import (
    SpokenLine,
    own_text_errors,
    read_spoken,
    speech_costs,
)

ITEMS = [QaItem(id=str(n), question="?", answers=("word",), audio=None) for n in range(10)]
WORDS = normalizer("seedtts-en")


def line(text: str | None, transcript: str | None, seconds: float | None = 2.0) -> SpokenLine:
    return SpokenLine(text=text, transcript=transcript, seconds=seconds)


def test_gap_own_text_sound_and_length() -> None:
    lines = {str(n): line("a word", "a word") for n in range(6)}
    lines |= {"6": line("a word", "a world", 4.0), "7": line("a word", None, None), "8": line("no", "no")}
    found = speech_costs(ITEMS, lines, rule_name="has-answer", normalizer=WORDS)  # 9 is missing
    assert found["gap"]["value"] == pytest.approx(-20.0)
    assert found["gap"]["low"] < -20 < found["gap"]["high"] <= 0
    assert (found["own_text"]["count"], found["own_text"]["total"]) == (3, 17)  # a word wrong, two lost
    assert found["own_text"]["name"] == "seedtts-en/corpus"
    assert (found["with_sound"]["count"], found["with_sound"]["total"]) == (8, 10)
    assert found["seconds_per_answer"] == pytest.approx((2.0 * 7 + 4.0) / 8)


def test_nothing_said_and_nothing_written(tmp_path) -> None:
    assert own_text_errors({"a": line("...", "x"), "b": line(None, None)}, WORDS) is None
    found = speech_costs(ITEMS[:2], {}, rule_name="has-answer", normalizer=WORDS)
    assert (found["own_text"], found["seconds_per_answer"], found["gap"]["value"]) == (None, None, 0.0)
    (tmp_path / "a.jsonl").write_text(
        '{"id": "a", "text": "x", "transcript": null}\n{"id": "b", "text": "y"}\n'
    )
    assert read_spoken(tmp_path / "a.jsonl") == {"a": line("x", None, None), "b": line("y", None, None)}
