from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeptalk.errors import DataError
from deeptalk.streams import (
    IGNORE,
    TEXT,
    DelayPattern,
    Kind,
    StreamLayout,
    Turn,
    encode_dialogue,
    encode_prompt,
)
from deeptalk.streams.modality import Row
from deeptalk.streams.prompt import count_positions
from deeptalk.streams.text import ByteTokenizer

LAYOUT = StreamLayout.tiny()
BYTES = ByteTokenizer()
MODES = ("text", "asr", "answer", "speaker:slt")
P, EOA, EOS, PAD = LAYOUT.pad_audio, LAYOUT.eoa, LAYOUT.eos_id, LAYOUT.text_pad


def dialogue(*turns: Turn, mode: str, **options):
    return encode_dialogue(turns, tokenizer=BYTES, layout=LAYOUT, mode=mode, **options)


def codes_of(length: int) -> torch.Tensor:
    return torch.arange(length * 7).view(length, 7) % LAYOUT.codebook_size


words = st.text(alphabet="abc é?", max_size=12)
user_turns = st.one_of(
    words.map(lambda text: Turn(role="user", text=text)),
    st.integers(1, 6).map(lambda frames: Turn(role="user", num_speech_frames=frames)),
)


@st.composite
def dialogues(draw: st.DrawFn) -> list[Turn]:
    turns = [Turn(role="system", text=draw(words))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        answer = Turn(role="assistant", text=draw(words), codes=codes_of(draw(st.integers(1, 20))))
        turns += [draw(user_turns), answer]
    return turns


def test_the_table_of_the_method():
    """Method.md, section 4: L = 2, answer "a b" of two tokens."""
    codes = torch.tensor([[10, 11, 12, 13, 14, 15, 16], [20, 21, 22, 23, 24, 25, 26]])
    turns = (Turn(role="user", text="q"), Turn(role="assistant", text="a", codes=codes))
    example = dialogue(*turns, mode="speaker:slt")
    text = [LAYOUT.bos_id, *b"User: q\nAssistant:", *b" a", EOS, *[PAD] * 7]
    assert example.grid[TEXT].tolist() == text
    p0 = len(text) - 11
    mode = LAYOUT.speaker("slt")
    answer = example.grid[1:, p0:].tolist()
    assert answer[0] == [mode, P, 10, 20, EOA, P, P, P, P, P, P]
    assert answer[1] == [mode, P, P, 11, 21, EOA, P, P, P, P, P]
    assert answer[2] == [mode, P, P, P, 12, 22, EOA, P, P, P, P]
    assert answer[6] == [mode, P, P, P, P, P, P, P, 16, 26, EOA]
    assert bool((example.grid[1:, :p0] == P).all())
    x = IGNORE
    assert example.labels[TEXT, p0:].tolist() == [*b" a", EOS, x, x, x, x, x, x, x, x]
    assert example.labels[1, p0:].tolist() == [x, 10, 20, EOA, x, x, x, x, x, x, x]
    assert example.labels[7, p0:].tolist() == [x, x, x, x, x, x, x, 16, 26, EOA, x]
    assert bool((example.labels[:, :p0] == x).all())
    assert example.row is Row.SPEECH


def test_speech_columns():
    turns = (Turn(role="user", num_speech_frames=2), Turn(role="assistant", text="hi"))
    example = dialogue(*turns, mode="asr")
    start = 1 + len("User:")
    assert example.grid[TEXT, start : start + 4].tolist() == [LAYOUT.text_aud] * 4
    assert example.grid[3, start : start + 4].tolist() == [LAYOUT.boa, P, P, EOA]
    assert example.speech_at[start : start + 4].tolist() == [-1, 0, 1, -1]
    assert example.kind[start : start + 4].tolist() == [Kind.SPEECH] * 4
    assert example.grid[TEXT, start + 4] == ord("\n")
    p0 = start + 4 + len("\nAssistant:") - 1
    assert example.grid[1:, p0].tolist() == [LAYOUT.asr] * 7
    assert example.kind[p0 - 1 :].tolist() == [Kind.TEMPLATE, *[Kind.ANSWER] * 5]
    assert example.labels[TEXT, p0:].tolist() == [*b" hi", EOS, IGNORE]
    assert bool((example.labels[1:] == IGNORE).all())
    assert example.row is Row.TEXT


def test_text_longer_than_the_speech():
    turns = (Turn(role="user", text="q"), Turn(role="assistant", text="x" * 40, codes=codes_of(2)))
    example = dialogue(*turns, mode="answer")
    p0 = len("User: q\nAssistant:")
    assert example.grid.shape[1] == p0 + 1 + 42
    assert example.grid[TEXT, p0 + 1 :].tolist() == [*(" " + "x" * 40).encode(), EOS]
    assert example.grid[1, p0 : p0 + 5].tolist() == [LAYOUT.ans, P, 0, 7, EOA]
    assert example.grid[7, p0 + 8 : p0 + 11].tolist() == [6, 13, EOA]
    assert bool((example.grid[1:, p0 + 11 :] == P).all())
    assert bool((example.labels[1:, p0 + 10 :] == IGNORE).all())


@settings(max_examples=50, deadline=None)
@given(turns=dialogues(), mode=st.sampled_from(MODES))
def test_positions_are_counted_without_the_grid(turns: list[Turn], mode: str):
    counted = count_positions(turns, tokenizer=BYTES, layout=LAYOUT, mode=mode)
    assert counted == dialogue(*turns, mode=mode).grid.shape[1]


@settings(max_examples=50, deadline=None)
@given(turns=dialogues(), mode=st.sampled_from(MODES))
def test_labels_are_the_grid_one_position_later(turns: list[Turn], mode: str):
    example = dialogue(*turns, mode=mode)
    learnt = example.labels[:, :-1]
    assert bool((example.labels[:, -1] == IGNORE).all())
    assert torch.equal(learnt[learnt != IGNORE], example.grid[:, 1:][learnt != IGNORE])
    assert bool((example.labels[TEXT] < LAYOUT.vocab_size).all())
    assert bool((example.labels[1:] <= EOA).all())
    last, answers = turns[-1], [turn for turn in turns if turn.role == "assistant"]
    targets = answers if mode == "text" else [last]
    num_text = sum(len(BYTES.encode(" " + (turn.text or ""))) + 1 for turn in targets)
    assert int((learnt[TEXT] != IGNORE).sum()) == num_text
    num_codes = 0 if mode in ("text", "asr") else 7 * (len(last.codes) + 1)
    assert int((learnt[1:] != IGNORE).sum()) == num_codes


@settings(max_examples=50, deadline=None)
@given(turns=dialogues(), mode=st.sampled_from(MODES))
def test_the_prompt_is_the_beginning_of_the_dialogue(turns: list[Turn], mode: str):
    example = dialogue(*turns, mode=mode)
    prompt = encode_prompt(turns[:-1], tokenizer=BYTES, layout=LAYOUT, mode=mode)
    size = prompt.grid.shape[1]
    assert torch.equal(example.grid[:, :size], prompt.grid)
    assert torch.equal(example.kind[:size], prompt.kind)
    assert torch.equal(example.speech_at[:size], prompt.speech_at)
    assert example.row is prompt.row
    assert int(example.speech_at.max()) < size
    assert bool((example.kind[size - 1 :] == Kind.ANSWER).all())
    assert prompt.grid[1:, -1].tolist() == [LAYOUT.mode_id(mode)] * 7
    assert example.labels[TEXT, size - 1] != IGNORE


@settings(max_examples=50, deadline=None)
@given(turns=dialogues(), more=user_turns)
def test_a_continuation_continues_a_text_dialogue(turns: list[Turn], more: Turn):
    """What row T leaves in the cache, then the continuation, is the prompt of the longer dialogue."""
    done = dialogue(*turns, mode="text")
    rest = encode_prompt([more], tokenizer=BYTES, layout=LAYOUT, mode="text", is_continuation=True)
    whole = encode_prompt([*turns, more], tokenizer=BYTES, layout=LAYOUT, mode="text")
    assert torch.equal(torch.cat([done.grid, rest.grid], dim=1), whole.grid)
    assert torch.equal(torch.cat([done.kind, rest.kind]), whole.kind)


@settings(max_examples=50, deadline=None)
@given(turns=dialogues())
def test_speech_frames_are_counted_through(turns: list[Turn]):
    example = dialogue(*turns, mode="answer")
    total = sum(turn.num_speech_frames or 0 for turn in turns)
    assert example.speech_at[example.speech_at >= 0].tolist() == list(range(total))
    items = example.grid[1:, -int((example.kind == Kind.ANSWER).sum()) + 1 :]
    codes = DelayPattern(tuple(range(1, 8))).undo(items[None])[0]
    length = len(turns[-1].codes)
    assert torch.equal(codes[:, :length], turns[-1].codes.T)
    assert codes[:, length].tolist() == [EOA] * 7


def test_earlier_answers_are_text_in_speech_tasks():
    turns = [
        Turn(role="user", text="a"),
        Turn(role="assistant", text="b", codes=codes_of(3)),
        Turn(role="user", text="c"),
        Turn(role="assistant", text="d", codes=codes_of(1)),
    ]
    example = dialogue(*turns, mode="answer")
    second = int((example.kind == Kind.ANSWER).nonzero()[0])
    assert bool((example.grid[1:, :second] == P).all())
    assert int((example.kind[:second] == Kind.TEXT).sum()) == 7
    assert bool((example.labels[:, :second] == IGNORE).all())


def test_long_dialogues_are_refused_whole():
    turns = (Turn(role="user", text="q"), Turn(role="assistant", text="a", codes=codes_of(9)))
    size = dialogue(*turns, mode="answer").grid.shape[1]
    assert dialogue(*turns, mode="answer", max_positions=size).grid.shape[1] == size
    with pytest.raises(DataError, match=str(size)):
        dialogue(*turns, mode="answer", max_positions=size - 1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Turn(role="assistant", text="a"), "codes"),
        (Turn(role="assistant", text="a", codes=torch.zeros(2, 6, dtype=torch.long)), "shape"),
        (Turn(role="assistant", text="a", codes=torch.zeros(0, 7, dtype=torch.long)), "shape"),
        (Turn(role="assistant", text="a", codes=torch.full((2, 7), LAYOUT.eoa)), "from 0 to 31"),
    ],
)
def test_bad_answers(answer: Turn, message: str):
    with pytest.raises(DataError, match=message):
        dialogue(Turn(role="user", text="q"), answer, mode="answer")


def test_bad_turns():
    with pytest.raises(DataError, match="text or speech"):
        Turn(role="user")
    with pytest.raises(DataError, match="user"):
        Turn(role="assistant", num_speech_frames=3)
    with pytest.raises((DataError, TypeError), match="role"):  # shape checks come first where they run
        Turn(role="nobody", text="x")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="end with a turn of the user"):
        encode_prompt([Turn(role="assistant", text="x")], tokenizer=BYTES, layout=LAYOUT, mode="text")
    with pytest.raises(DataError, match="assistant"):
        dialogue(Turn(role="user", text="x"), mode="text")


def test_what_is_said_stands_where_the_first_code_is_predicted():
    said = torch.tensor([[0, 5, 6], [1, 7, 8], [IGNORE, 9, 9]])
    answer = Turn(role="assistant", text="ab, cd!", codes=codes_of(3), said=said)
    example = dialogue(Turn(role="user", text="q"), answer, mode="answer")
    assert example.said is not None
    at = (example.labels[1] != IGNORE) & (example.labels[1] != EOA)
    assert example.said[at].tolist() == [[ord("a"), 5, 6], [ord("c"), 7, 8], [IGNORE, 9, 9]]
    assert bool((example.said[~at] == IGNORE).all())
    as_text = dialogue(Turn(role="user", text="q"), answer, mode="text")
    assert as_text.said is None


def test_a_word_that_the_text_lacks_is_not_said():
    said = torch.tensor([[0, 5], [3, 6]])
    answer = Turn(role="assistant", text="ab", codes=codes_of(2), said=said)
    example = dialogue(Turn(role="user", text="q"), answer, mode="answer")
    assert example.said is not None
    assert example.said[example.said[:, 1] != IGNORE].tolist() == [[ord("a"), 5], [IGNORE, 6]]
    mute = replace(answer, text="?!")
    example = dialogue(Turn(role="user", text="q"), mute, mode="answer")
    assert example.said is not None
    assert example.said[example.said[:, 1] != IGNORE].tolist() == [[IGNORE, 5], [IGNORE, 6]]


def test_what_is_heard_stands_beside_the_grid_alone():
    told = Turn(role="user", text="one two", num_speech_frames=3)
    untold = Turn(role="user", num_speech_frames=3)
    answer = Turn(role="assistant", text="three")
    example = dialogue(told, answer, untold, answer, mode="text")
    without = dialogue(untold, answer, untold, answer, mode="text")
    assert [ids.tolist() for ids in example.heard] == [[*b" one two"], []]
    assert torch.equal(example.grid, without.grid)
    assert torch.equal(example.labels, without.labels)
    size = count_positions([told, answer], tokenizer=BYTES, layout=LAYOUT, mode="text")
    assert size == dialogue(told, answer, mode="text").grid.shape[1]
