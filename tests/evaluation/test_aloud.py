from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deeptalk.cli.evaluation import QUESTIONS
from deeptalk.decoding import load
from deeptalk.evaluation.aloud import answer_texts, hard_texts, read_aloud
from deeptalk.evaluation.pocket import Judges
from deeptalk.evaluation.questions import EvalSet


def test_the_hard_list_is_numbers_in_rows_and_statements_with_a_repeated_word():
    texts = hard_texts()
    assert texts == hard_texts(seed=0) != hard_texts(seed=1)
    assert len(texts) == len(set(texts)) == 60
    for row, statement in zip(texts[::2], texts[1::2], strict=True):
        assert 3 <= row.count(",") + 1 <= 5
        words = statement.rstrip(".").split()
        assert any(a == b for a, b in pairwise(words)), statement


def test_answers_are_asked_once_each():
    questions = EvalSet(QUESTIONS)
    texts = answer_texts(questions)
    assert len(texts) == len(set(texts)) > 300
    assert answer_texts(questions, every=3) == texts[::3]


@pytest.mark.weights
def test_what_is_read_aloud_is_scored_against_what_was_asked_for_and_what_was_written():
    heard: list[torch.Tensor] = []

    def transcribe(sound: torch.Tensor, *, sample_rate: int) -> str:
        heard.append(sound)
        return "the capital of spain is madrid"

    judges: Any = Judges(bigram=SimpleNamespace(transcribe=transcribe))  # type: ignore[arg-type]
    texts = ["The capital of Spain is Madrid."]
    one = read_aloud(load("pocket"), texts, judges, top_k=1, voice="rms")
    assert [score.name for score in one.scores] == ["target_wer/bigram", "own_wer/bigram"]
    assert one.scores[0].value == 0.0
    assert one.num_runaway == 0
    assert len(heard) == 1
    assert len(heard[0]) == one.mean_frames * 2_048
    drawn = read_aloud(load("pocket"), texts, judges, top_k=10, voice="rms", seed=5)
    assert len(heard[1]) == drawn.mean_frames * 2_048
    assert heard[0].shape != heard[1].shape or not torch.equal(heard[0], heard[1])


def test_no_prompt_of_the_preference_training_is_on_a_list_of_table_1():
    from deeptalk.cli.preferred import NUM_HELD_OUT, NUM_PROMPTS, prompts

    texts = [record["text"] for record in prompts()]
    assert len(texts) == len(set(texts)) >= NUM_PROMPTS + NUM_HELD_OUT
    assert not {*hard_texts(), *answer_texts(EvalSet(QUESTIONS))} & set(texts)
