import functools

import numpy as np
import pytest

from deeptalk.data.domain import REFUSAL, all_facts, build_domain, eval_questions
from deeptalk.data.pocket import (
    ENDLESS,
    PARTS,
    QUESTION_SHARES,
    SpeechSizes,
    more_items,
    reading_texts,
    record_of,
    speech_jobs,
    spoken_items,
)
from deeptalk.data.synthesis import ANSWER_VOICES, HELD_OUT_VOICES, SpeechJob
from deeptalk.errors import DataError

SIZES = SpeechSizes(
    questions=3_000,
    reading=800,
    words=800,
    digit_takes=100,
    aloud=500,
    answers=2_000,
    questions_more=2_000,
    mixed=1_000,
)


@functools.cache
def _items():
    return build_domain(seed=0)


@functools.cache
def _reading() -> list[str]:
    return reading_texts(_items(), seed=0)


@functools.cache
def _jobs(part: str) -> list[SpeechJob]:
    return speech_jobs(part, _items(), _reading(), seed=0, sizes=SIZES)


def _kept_from_speech() -> set[str]:
    facts = [item for item in _items() if item.text_only and len(item.messages) == 2]
    return {message.text for item in facts for message in item.messages} - {REFUSAL}


def test_shares_are_whole() -> None:
    assert sum(QUESTION_SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize("part", PARTS)
def test_facts_learnt_from_text_only_are_never_spoken(part: str) -> None:
    kept = _kept_from_speech()
    assert len(kept) > 1_000
    assert not kept & {job.text for job in _jobs(part)}
    assert not any(message.text in kept for item in spoken_items(_items()) for message in item.messages)


def test_words_of_facts_learnt_from_text_only_are_heard() -> None:
    kept = {item.messages[-1].text.rstrip(".").split()[-1] for item in _items() if item.text_only}
    everything = SpeechSizes(questions=0, reading=0, words=10_000, digit_takes=0, aloud=0, answers=0)
    heard = {
        job.text.lower() for job in speech_jobs("reading", _items(), _reading(), seed=0, sizes=everything)
    }
    assert {word.lower() for word in kept} <= heard


@pytest.mark.parametrize("part", PARTS)
def test_no_held_out_voice_and_no_evaluation_question_is_in_training(part: str) -> None:
    voices = {voice.name for voice in HELD_OUT_VOICES}
    assert not voices & {job.voice.name for job in _jobs(part)}
    # what opens a dialogue may be known; what is asked first of all in it may not
    asked = {item.messages[0].text for item in eval_questions(seed=0) if item.category not in ("dialogue",)}
    assert not asked & {job.text for job in _jobs(part)}


@pytest.mark.parametrize("part", PARTS)
def test_the_same_seed_gives_the_same_jobs_with_one_id_each(part: str) -> None:
    again = speech_jobs(part, _items(), _reading(), seed=0, sizes=SIZES)
    assert again == _jobs(part)
    assert len({job.id for job in again}) == len(again)


def test_answers_are_said_once_each_by_both_voices_and_questions_by_many() -> None:
    answers = _jobs("answers")
    assert len({job.text for job in answers}) == len(answers)
    assert {job.speaker for job in answers} == set(ANSWER_VOICES)
    assert 0.4 < np.mean([job.speaker == "slt" for job in answers]) < 0.6
    assert len({job.voice.name for job in _jobs("questions")}) > 40


def test_further_questions_are_new_and_nothing_held_out_is_among_them(monkeypatch) -> None:
    monkeypatch.setattr("deeptalk.data.pocket.NUM_MORE_SEEDS", 1)
    more = more_items(_items(), seed=0)
    assert len(more) > 10_000
    assert {item.category for item in more} == set(ENDLESS)
    texts = [item.messages for item in more]
    assert len(set(texts)) == len(texts)
    assert not set(texts) & {item.messages for item in _items()}
    held_out = {item.messages[-2].text for item in eval_questions(seed=0) if item.category != "dialogue"}
    assert not held_out & {messages[0].text for messages in texts}


def test_more_questions_are_those_that_nobody_has_asked_yet() -> None:
    asked = {job.text for job in _jobs("questions")}
    more = [job.text for job in _jobs("questions_more")]
    new = [text for text in more if text not in asked]
    assert len(new) > 0.8 * len(more)
    assert not {job.id for job in _jobs("questions")} & {job.id for job in _jobs("questions_more")}


def test_mixed_questions_ask_for_no_fact_but_hold_the_words_of_all() -> None:
    facts = {question for fact in all_facts() for question in fact.questions("colloquial")}
    mixed = {job.text for job in _jobs("mixed")}
    assert not mixed & facts
    kept = [fact.subject for fact in all_facts() if fact.text_only]
    assert sum(any(f" {subject}" in text for text in mixed) for subject in kept) > 0.3 * len(kept)


def test_all_digits_are_among_the_words() -> None:
    digits = [job for job in _jobs("reading") if job.source == "digit"]
    assert len({job.text for job in digits}) == 10


def test_an_unknown_part_names_the_parts() -> None:
    with pytest.raises(DataError, match="questions"):
        speech_jobs("songs", _items(), _reading(), seed=0, sizes=SIZES)


def test_records_keep_what_training_and_evaluation_ask_for() -> None:
    record = record_of(_items()[0])
    assert {"id", "messages", "category", "style", "text_only"} <= set(record)
