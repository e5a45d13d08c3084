"""The rules of an answer, with ids made up in place of a model's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeptalk.decoding.answer import Answer, Limits
from deeptalk.errors import ConfigError
from deeptalk.streams import StreamLayout, Turn, encode_dialogue
from deeptalk.streams.text import ByteTokenizer

LAYOUT = StreamLayout.tiny()
EOS, EOA, PAD = LAYOUT.eos_id, LAYOUT.eoa, LAYOUT.pad_audio


def answer_of(*, speaks: bool = True, **limits: int) -> Answer:
    mode = [65, *[LAYOUT.ans if speaks else PAD] * 7]
    return Answer(LAYOUT, Limits(**limits), mode_column=mode, speaks=speaks)


@settings(max_examples=40, deadline=None)
@given(num_frames=st.integers(1, 12), text=st.text(alphabet="ab c", max_size=30), seed=st.integers(0, 9))
def test_the_grid_is_what_training_shows(num_frames: int, text: str, seed: int):
    """An answer sampled as it was trained stands in the same columns, in both rows."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, LAYOUT.codebook_size, (num_frames, 7), generator=generator)
    turns = [Turn(role="user", text="q"), Turn(role="assistant", text=text, codes=codes)]
    example = encode_dialogue(turns, tokenizer=ByteTokenizer(), layout=LAYOUT, mode="answer")
    p0 = len("User: q\nAssistant:")
    answer = answer_of()
    columns, frames, tokens = [], [], []
    for item in range(p0 + 1, example.grid.shape[1]):
        if answer.is_finished:
            break
        sampled = example.grid[:, item].tolist()
        frame = answer.advance(sampled[0], sampled[1:])
        columns.append(answer.speech_column)
        assert answer.text_column == [sampled[0], *[PAD] * 7]
        if frame.codes is not None:
            assert frame.codes.tolist() == codes[len(frames)].tolist()
            assert len(columns) == len(frames) + 8
            frames.append(frame.codes)
        tokens += [] if frame.text_id is None else [frame.text_id]
        assert frame.is_last == answer.is_finished
    assert answer.is_finished
    assert answer.finish_reason == "stop"
    assert len(frames) == num_frames
    assert tokens == answer.text_ids == ByteTokenizer().encode(" " + text)
    assert len(columns) == max(num_frames + 7, len(tokens) + 1)
    spoken = num_frames + 7
    expected = example.grid[:, p0 + 1 : p0 + 1 + len(columns)]
    assert torch.equal(torch.tensor(columns).T[:, :spoken], expected[:, :spoken])
    assert torch.equal(torch.tensor(columns).T[0], expected[0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), min_frames=st.integers(0, 5), more=st.integers(0, 10))
def test_frames_are_always_whole(seed: int, min_frames: int, more: int):
    """Whatever is sampled, frames hold codes only, and codebook 0 decides their number within the limits."""
    generator = torch.Generator().manual_seed(seed)
    sampled = torch.randint(EOA - 10, EOA + 1, (60, 8), generator=generator).tolist()
    limits = Limits(min_frames=min_frames, max_frames=min_frames + more, max_text_tokens=20)
    answer = Answer(LAYOUT, limits, mode_column=[65, *[LAYOUT.ans] * 7], speaks=True)
    ended_at = None
    for text, *codes in sampled:
        item = answer.item
        legal = [code % EOA for code in codes]
        if codes[0] == EOA and answer.may_end():
            legal[0] = EOA
        if ended_at is None and item >= 1 and legal[0] == EOA:
            ended_at = item - 1
        answer.advance(EOS if text == EOA else text, None if answer.is_audio_done else legal)
        if answer.is_finished:
            break
    assert answer.is_finished
    expected = limits.max_frames if ended_at is None else min(ended_at, limits.max_frames)
    assert len(answer.frames) == expected
    assert all(0 <= code < EOA for frame in answer.frames for code in frame)
    assert len(answer.text_ids) <= 20


def test_limits_give_their_reason():
    answer = answer_of(max_frames=3, max_text_tokens=2)
    while not answer.is_finished:
        answer.advance(70, [1] * 7)
    assert answer.text_ids == [70, 70]
    assert len(answer.frames) == 3
    assert answer.finish_reason == "length"
    assert answer.item == 3 + 7


def test_an_end_at_the_limit_is_its_own():
    answer = answer_of(max_frames=2, max_text_tokens=1)
    for text, code in ((70, 1), (EOS, 1), (0, 1), (0, EOA), *[(0, 1)] * 5):
        answer.advance(text, [code] + [1] * 6)
    assert answer.is_finished
    assert answer.finish_reason == "stop"


def test_speech_may_not_end_too_early():
    answer = answer_of(min_frames=2)
    may_end = []
    for _ in range(4):
        may_end.append(answer.may_end())
        answer.advance(70, [1] * 7)
    assert may_end == [False, False, False, True]


def test_speech_first_then_text_alone():
    answer = answer_of()
    answer.advance(70, [1] * 7)
    answer.advance(70, [1] * 7)
    answer.advance(70, [EOA] + [1] * 6)
    for _ in range(5):
        assert not answer.is_audio_done
        answer.advance(70, [1] * 7)
    assert answer.is_audio_done
    assert not answer.is_finished
    answer.advance(71, None)
    assert answer.finish_reason == "interrupted"
    assert answer.speech_column == [71, *[PAD] * 7]
    assert answer.advance(EOS, None).is_last
    assert answer.text_ids == [70] * 8 + [71]
    assert len(answer.frames) == 1


def test_text_alone():
    answer = answer_of(speaks=False)
    assert answer.advance(70, None).text_id == 70
    last = answer.advance(EOS, None)
    assert last.is_last
    assert last.text_id is None
    assert last.codes is None


def test_bad_limits():
    with pytest.raises(ConfigError, match="min_frames"):
        Limits(min_frames=5, max_frames=4)
    with pytest.raises(ConfigError, match="max_text_tokens"):
        Limits(max_text_tokens=0)


def released(**limits: int) -> Answer:
    mode = [65, *[LAYOUT.ans] * 7]
    return Answer(LAYOUT, Limits(**limits), mode_column=mode, speaks=True, released=True)


@settings(max_examples=40, deadline=None)
@given(ender=st.integers(0, 6), frame=st.integers(1, 6), later=st.integers(0, 6))
def test_a_released_answer_keeps_the_frames_before_the_first_end(ender: int, frame: int, later: int):
    """Codebook `ender` ends in place of its code of `frame`, and `later` would have ended one frame later."""
    answer, item = released(), 0
    while not answer.is_finished:
        codes = [1] * 7
        if item == frame + ender + 1:
            codes[ender] = EOA
        if item == frame + later + 2:
            codes[later] = EOA
        answer.advance(70, codes)
        item += 1
    assert len(answer.frames) == frame if later >= ender else frame + 1
    assert all(code == 1 for whole in answer.frames for code in whole)
    assert len(answer.text_ids) == item  # the text was not over, and is cut off
    assert answer.finish_reason == "stop"


def test_eot_follows_the_text_of_a_released_answer():
    answer = released()
    columns = []
    for text, code in ((70, 1), (EOS, 1), (0, EOA), *[(0, 1)] * 6):
        if not answer.is_finished:
            answer.advance(text, [code] + [1] * 6)
            columns.append(answer.speech_column[0])
    assert columns[:4] == [70, EOS, LAYOUT.text_eot, LAYOUT.text_pad]
    assert set(columns[3:]) == {LAYOUT.text_pad}
    assert answer.text_ids == [70]


def test_no_codebook_of_a_released_answer_may_end_before_its_least_frames():
    answer = released(min_frames=2)
    may_end = []
    for _ in range(6):
        may_end.append([answer.may_end(i) for i in range(7)].count(True))
        answer.advance(70, [1] * 7)
    assert may_end == [0, 0, 0, 1, 2, 3]
    assert not answer_of().may_end(1)
