import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_samples import ANSWERS, QUESTIONS, SPEAKERS, dialogue

from deeptalk.data.dataset import Source, load_source
from deeptalk.data.library import AnswerLibrary, Clip, MelReader
from deeptalk.data.manifest import write_manifest
from deeptalk.data.tasks import (
    READ_ALOUD,
    TASKS,
    TaskContext,
    make_example,
    manifest_kind,
    plan_example,
    usable,
)
from deeptalk.errors import ConfigError, DataError
from deeptalk.streams import IGNORE, TEXT, Kind, Row
from deeptalk.streams.layout import num_encoder_frames, num_speech_frames
from deeptalk.streams.prompt import NO_SPEECH

TALK = dialogue("t", (QUESTIONS[0], ANSWERS[0]), (QUESTIONS[1], ANSWERS[1]))


def _make(record, task, context, seed=0):
    return make_example(record, task, context, np.random.default_rng(seed))


def _text(example, context) -> str:
    ids = [i for i in example.labels[TEXT].tolist() if i != IGNORE and i != context.layout.eos_id]
    return context.tokenizer.decode(ids)


def test_a_spoken_question_becomes_frames_and_a_spoken_answer_codes(context: TaskContext) -> None:
    made = _make(dialogue("t", (QUESTIONS[0], ANSWERS[0])), "speech_to_speech", context)
    example = made.example
    (clip,) = made.speech
    assert example.row is Row.SPEECH
    assert int((example.speech_at >= 0).sum()) == num_speech_frames(
        num_encoder_frames(clip.shape[1]), stride=4
    )
    assert not (example.kind == Kind.TEXT).any()
    assert _text(example, context) == f" {ANSWERS[0]}"
    mode = example.grid[1, int((example.kind == Kind.ANSWER).nonzero()[0])]
    (speaker,) = [name for name in SPEAKERS if context.layout.speaker(name) == mode] or [None]
    expected = context.answers.read(ANSWERS[0], speaker)
    labels = example.labels[1]
    assert labels[labels != IGNORE].tolist() == [*expected[:, 0].tolist(), context.layout.eoa]


def test_both_voices_are_drawn(context: TaskContext) -> None:
    grids = [_make(TALK, "text_to_speech", context, seed).example.grid for seed in range(20)]
    voices = {context.layout.speaker(name) for name in SPEAKERS}
    assert {int(i) for grid in grids for i in grid[1] if int(i) in voices} == voices


def test_all_answers_of_a_dialogue_are_learnt_as_text_one_as_speech(context: TaskContext) -> None:
    assert _text(_make(TALK, "text_to_text", context).example, context) == f" {ANSWERS[0]} {ANSWERS[1]}"
    spoken = {_text(_make(TALK, "speech_to_speech", context, seed).example, context) for seed in range(12)}
    assert spoken == {f" {ANSWERS[0]}", f" {ANSWERS[1]}"}


def test_history_is_speech_or_text_by_lot_and_the_last_question_always_speech(context: TaskContext) -> None:
    made = [_make(TALK, "speech_to_text", context, seed) for seed in range(30)]
    both = [m for m in made if _text(m.example, context) == f" {ANSWERS[0]} {ANSWERS[1]}"]
    assert {len(m.speech) for m in both} == {1, 2}
    assert all(m.example.row is Row.TEXT for m in made)
    never = replace(context, speech_history=0.0)
    assert {len(_make(TALK, "speech_to_text", never, seed).speech) for seed in range(10)} == {1}


def test_transcription_and_reading_aloud_and_repeating(context: TaskContext, data_folder: Path) -> None:
    source = load_source(Source(manifest="questions", task="asr"), data_folder, context)
    heard = _make(source.records[0], "asr", context)
    assert len(heard.speech) == 1
    assert (heard.example.grid[1] == context.layout.asr).sum() == 1
    assert _text(heard.example, context) == f" {QUESTIONS[0]}"
    record = {"id": "r", "text": ANSWERS[2]}
    for task, row in (("read_aloud", Row.SPEECH), ("repeat", Row.TEXT)):
        example = _make(record, task, context).example
        asked = context.tokenizer.decode([i for i in example.grid[TEXT].tolist() if i < 256])
        assert READ_ALOUD.format(text=ANSWERS[2]) in asked
        assert example.row is row
        assert _text(example, context) == f" {ANSWERS[2]}"


@pytest.mark.parametrize(
    "task", ["speech_to_speech", "speech_to_text", "text_to_text", "text_as_heard", "text_to_speech"]
)
def test_a_plan_tells_the_positions_of_the_example(context: TaskContext, task: str) -> None:
    still = replace(context, reader=MelReader(context.reader.spec))
    for seed in range(12):
        planned = plan_example(TALK, task, still, np.random.default_rng(seed))
        assert planned.size(still) == _make(TALK, task, still, seed).example.grid.shape[1]


def test_speech_and_codes_that_a_record_brings_itself_are_used(
    context: TaskContext, data_folder: Path
) -> None:
    clip = load_source(Source(manifest="questions", task="asr"), data_folder, context).records[3]
    record = dialogue("own", ("never heard before", "never said before"))
    record["messages"][0] |= {key: clip[key] for key in ("audio", "offset", "duration")}
    record["messages"][1] |= {"codes": [[3] * 7, [4] * 7], "order": "breadth", "speaker": "slt"}
    made = _make(record, "speech_to_speech", context)
    labels = made.example.labels[1]
    assert labels[labels != IGNORE].tolist() == [3, 4, context.layout.eoa]
    expected = context.reader.read(Clip.of(clip), np.random.default_rng(0))
    assert made.speech[0].shape == expected.shape


@pytest.mark.parametrize(
    ("record", "task", "reason"),
    [
        (dialogue("x", ("never asked", ANSWERS[0])), "speech_to_text", "question without speech"),
        (
            dialogue("x", (QUESTIONS[0], "never said")),
            "speech_to_speech",
            "no spoken question with a spoken answer",
        ),
        (dialogue("x", (QUESTIONS[0], "never said")), "text_to_speech", "answer without codes"),
        ({"id": "x", "text": "never said"}, "read_aloud", "answer without codes"),
        (dialogue("x", ("", ANSWERS[0])), "text_to_speech", "question without words"),
    ],
)
def test_records_that_can_never_serve_are_told_before(context: TaskContext, record, task, reason) -> None:
    assert usable(record, task, context) == reason


def test_an_answer_of_a_voice_that_the_model_does_not_have_is_a_countable_reason(
    context: TaskContext,
) -> None:
    record = dialogue("t", (QUESTIONS[0], "Yes."))
    record["messages"][1] |= {"codes": [[1] * 7] * 3, "order": "breadth", "speaker": "slt"}  # type: ignore[index]
    assert _make(record, "speech_to_speech", context).example.grid.shape[0] == 8
    assert usable(record, "speech_to_speech", context) is usable(record, "text_to_speech", context) is None
    record["messages"][1]["speaker"] = "nobody"  # type: ignore[index]
    assert usable(record, "speech_to_text", context) is None
    for task in ("speech_to_speech", "text_to_speech"):
        assert usable(record, task, context) == "unknown speaker"


def test_clips_longer_than_the_encoder_hears_are_a_countable_reason(context: TaskContext) -> None:
    record = dialogue("t", (QUESTIONS[0], ANSWERS[0]))
    frames = num_encoder_frames(_make(record, "speech_to_text", context).speech[0].shape[1])
    _make(record, "speech_to_text", replace(context, max_frames=frames))
    with pytest.raises(DataError, match=r"^speech longer than the encoder hears$"):
        _make(record, "speech_to_text", replace(context, max_frames=frames - 1))


def test_a_question_without_words_is_always_heard(context: TaskContext) -> None:
    heard = {"role": "user", "text": "", "audio": "questions.wav", "offset": 0.0, "duration": 0.3}
    talk = dialogue("x", (QUESTIONS[0], ANSWERS[0]), (QUESTIONS[1], ANSWERS[1]))
    talk["messages"][0] |= heard
    for seed in range(20):
        plan = plan_example(talk, "speech_to_text", context, np.random.default_rng(seed))
        assert all(clip is not None for turn, clip in plan.turns if turn.role == "user" and not turn.text)
    assert usable(talk, "text_to_speech", context) == "question without words"


def test_samples_too_long_are_a_countable_reason(context: TaskContext) -> None:
    with pytest.raises(DataError, match=r"^too long$"):
        _make(TALK, "text_to_text", replace(context, max_positions=30))


def test_a_source_without_anything_usable_is_refused(context: TaskContext, data_folder: Path) -> None:
    write_manifest(data_folder / "odd.jsonl", [dialogue("x", ("never asked", "never said"))], kind="dialogue")
    with pytest.raises(DataError, match="question without speech"):
        load_source(Source(manifest="odd", task="speech_to_text"), data_folder, context)
    with pytest.raises(DataError, match="no such manifest"):
        load_source(Source(manifest="none", task="asr"), data_folder, context)


def test_a_source_may_keep_some_records_only(context: TaskContext, data_folder: Path) -> None:
    told = {"category": "facts", "fact": "currency/spain"}
    records = [TALK | {"id": "a"}, TALK | {"id": "b"} | told, TALK | {"id": "c", "source": "word"}]
    write_manifest(data_folder / "mix.jsonl", records, kind="dialogue")

    def kept(*only: str) -> list[str]:
        source = Source(manifest="mix", task="text_to_speech", only=only)
        return [record["id"] for record in load_source(source, data_folder, context).records]

    assert kept() == ["a", "b", "c"]
    assert kept("facts") == kept("currency") == kept("facts", "reasoning") == ["b"]
    assert kept("currency", "word") == ["b", "c"]
    with pytest.raises(DataError, match="no record among those of spain, digit can serve text_to_speech"):
        kept("spain", "digit")


def test_unknown_tasks_name_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="speech_to_text"):
        manifest_kind("sing")
    assert {manifest_kind(task) for task in TASKS} == {"recording", "sentence", "dialogue", "text"}


def test_answers_in_another_order_are_refused(data_folder: Path) -> None:
    index = data_folder / "codes" / "answers.jsonl"
    index.write_text(index.read_text().replace("breadth", "depth"))
    with pytest.raises(DataError, match="breadth"):
        AnswerLibrary([data_folder / "codes" / "answers.npy"])


def test_what_a_clip_says_is_known_but_not_shown(context: TaskContext) -> None:
    made = _make(dialogue("t", (QUESTIONS[0], ANSWERS[0])), "speech_to_text", context)
    (ids,) = made.example.heard
    assert context.tokenizer.decode(ids.tolist()) == f" {QUESTIONS[0]}"
    assert not (made.example.kind == Kind.TEXT).any()


def test_reciting_learns_codes_from_the_text_stream_alone(context: TaskContext) -> None:
    record = {"id": "r", "text": ANSWERS[0]}
    recited = _make(record, "recite", context).example
    read = _make(record, "read_aloud", context).example
    assert (recited.labels[TEXT] == IGNORE).all()
    assert not (recited.kind == Kind.TEXT).any()
    for stream in range(1, 8):
        given = [
            labels[labels != IGNORE].tolist() for labels in (recited.labels[stream], read.labels[stream])
        ]
        assert given[0] == given[1]
        assert len(given[0]) > 1
    answer = recited.grid[TEXT][recited.kind == Kind.ANSWER].tolist()
    spoken = [i for i in answer if i < context.layout.vocab_size and i != context.layout.eos_id]
    assert context.tokenizer.decode(spoken).endswith(f" {ANSWERS[0]}")
    assert usable({"id": "r", "text": "never spoken"}, "recite", context) == "answer without codes"


def test_text_as_heard_is_the_words_among_frames_that_say_nothing(context: TaskContext) -> None:
    layout = context.layout
    made = [_make(TALK, "text_as_heard", context, seed) for seed in range(40)]
    assert all(not m.speech and not m.example.heard for m in made)
    assert {_text(m.example, context) for m in made} == {f" {ANSWERS[0]} {ANSWERS[1]}"}
    num_heard, num_right = 0, 0
    for example in (m.example for m in made):
        assert (example.speech_at == NO_SPEECH).all()
        is_frame = (example.kind == Kind.SPEECH) & (example.grid[TEXT] != layout.text_aud)
        assert (example.grid[1:, is_frame] == layout.pad_audio).all()
        begins = (example.grid[1] == layout.boa).nonzero().flatten().tolist()
        ends = ((example.grid[1] == layout.eoa) & (example.kind == Kind.SPEECH)).nonzero().flatten().tolist()
        for begin, end in zip(begins, ends, strict=True):
            ids = [i for i, _ in itertools.groupby(example.grid[TEXT, begin + 1 : end].tolist())]
            words = [i for i in ids if i != layout.text_eot]
            truth = [context.tokenizer.encode(f" {question}") for question in QUESTIONS[:2]]
            pairs = [list(zip(words, t, strict=True)) for t in truth if len(t) == len(words)]
            assert pairs or any(len(t) - len(words) < 4 for t in truth)  # letters in a row may be alike
            if pairs:
                num_heard += len(words)
                num_right += max(sum(a == b for a, b in pair) for pair in pairs)
    assert 0.9 < num_right / num_heard < 1.0
    typed = sum(int((m.example.kind == Kind.TEXT).any()) for m in made)
    assert 0 < typed < 30
