from dataclasses import replace

import pytest
import torch

from deeptalk.errors import DataError
from deeptalk.streams import IGNORE, StreamLayout, Turn, collate, encode_dialogue
from deeptalk.streams.text import ByteTokenizer

LAYOUT = StreamLayout.tiny()


def example(*frames: int, answer: str = "a", mode: str = "text"):
    turns = []
    for count in frames:
        turns += [Turn(role="user", num_speech_frames=count), Turn(role="assistant", text=answer)]
    if not frames:
        turns = [Turn(role="user", text="q"), Turn(role="assistant", text=answer)]
    return encode_dialogue(turns, tokenizer=ByteTokenizer(), layout=LAYOUT, mode=mode)


def test_padding():
    short, long = example(), example(answer="a long answer")
    batch = collate([short, long], [[], []], layout=LAYOUT, is_encoded=False, stride=4)
    size = short.grid.shape[1]
    assert batch.grid.shape == (2, 8, long.grid.shape[1])
    assert torch.equal(batch.grid[0, :, :size], short.grid)
    assert torch.equal(batch.labels[1], long.labels)
    assert batch.grid[0, :, size].tolist() == list(LAYOUT.pad_ids)
    assert bool((batch.labels[0, :, size:] == IGNORE).all())
    assert bool((batch.kind[0, size:] == -1).all())
    assert batch.mask.sum(1).tolist() == [size, long.grid.shape[1]]
    assert batch.mel is None
    assert batch.encoded is None


@pytest.mark.parametrize("is_encoded", [True, False])
def test_every_frame_finds_its_place(is_encoded: bool):
    """Each adapter frame, gathered by ``speech_at``, is the one that its clip has at that point."""
    stride, lengths = 2, [[5, 3], [], [8]]
    frames = [[-(-n // stride) for n in own] for own in lengths]
    examples = [example(*own) for own in frames]

    def clip(number: int, length: int) -> torch.Tensor:
        times = torch.arange(length) + 100.0 * number
        return times[:, None].repeat(1, 3) if is_encoded else times.repeat_interleave(2)[None].repeat(4, 1)

    clips = [[clip(0, 5), clip(1, 3)], [], [clip(2, 8)]]
    batch = collate(examples, clips, layout=LAYOUT, is_encoded=is_encoded, stride=stride)
    given = batch.encoded if is_encoded else batch.mel
    assert given is not None
    assert batch.speech_lengths.tolist() == ([5, 3, 8] if is_encoded else [10, 6, 16])
    by_frame = given[:, ::stride, 0] if is_encoded else given[:, 0, :: 2 * stride]
    found = [by_frame.flatten()[at[at >= 0]].tolist() for at in batch.speech_at]
    assert found == [[0, 2, 4, 100, 102], [], [200, 202, 204, 206]]


def test_rows():
    codes = torch.zeros(1, 7, dtype=torch.long)
    turns = [Turn(role="user", text="q"), Turn(role="assistant", text="a", codes=codes)]
    spoken = encode_dialogue(turns, tokenizer=ByteTokenizer(), layout=LAYOUT, mode="answer")
    batch = collate([example(), spoken], [[], []], layout=LAYOUT, is_encoded=True, stride=1)
    assert batch.row.tolist() == [0, 1]


def test_wrong_clips():
    with pytest.raises(DataError, match="room for 3"):
        collate([example(3)], [[torch.zeros(4, 2)]], layout=LAYOUT, is_encoded=True, stride=1)
    with pytest.raises(DataError, match="room for 3"):
        collate([example(3)], [[]], layout=LAYOUT, is_encoded=True, stride=1)
    with pytest.raises(DataError, match="clips for each"):
        collate([example(3)], [], layout=LAYOUT, is_encoded=True, stride=1)


def test_to_moves_every_tensor():
    batch = collate([example(2)], [[torch.zeros(2, 3)]], layout=LAYOUT, is_encoded=True, stride=1)
    moved = batch.to("meta")
    assert moved.grid.is_meta
    assert moved.encoded is not None
    assert moved.encoded.is_meta
    assert moved.mel is None


def test_what_is_said_is_padded_and_unknown_where_an_example_does_not_know():
    codes = torch.zeros(2, 7, dtype=torch.long)
    turns = [Turn(role="user", text="q"), Turn(role="assistant", text="a", codes=codes)]
    told = [turns[0], replace(turns[1], said=torch.tensor([[0, 3], [0, 4]]))]
    silent, spoken = (
        encode_dialogue(those, tokenizer=ByteTokenizer(), layout=LAYOUT, mode="answer")
        for those in (turns, told)
    )
    long = example(answer="an answer that is longer than the others")
    batch = collate([silent, spoken, long], [[], [], []], layout=LAYOUT, is_encoded=True, stride=1)
    assert batch.said is not None
    assert batch.said.shape == (3, batch.grid.shape[2], 2)
    size = spoken.grid.shape[1]
    assert torch.equal(batch.said[1, :size], spoken.said)
    assert bool((batch.said[0] == IGNORE).all())
    assert bool((batch.said[1, size:] == IGNORE).all())
    assert batch.to("cpu").said is not None
    assert collate([silent], [[]], layout=LAYOUT, is_encoded=True, stride=1).said is None


def test_what_is_heard_is_padded_clip_by_clip():
    def told(text: str | None):
        turns = [
            Turn(role="user", text=text, num_speech_frames=2),
            Turn(role="assistant", text="a"),
        ]
        return encode_dialogue(turns, tokenizer=ByteTokenizer(), layout=LAYOUT, mode="text")

    clips = [[torch.zeros(4, 4)], [], [torch.zeros(4, 4)]]
    options = {"layout": LAYOUT, "is_encoded": False, "stride": 1}
    batch = collate([told("ab"), example(), told(None)], clips, **options)
    assert batch.heard is not None
    assert batch.heard.tolist() == [[*b" ab"], [IGNORE] * 3]
    assert collate([told(None)], clips[:1], **options).heard is None
    assert collate([example()], [[]], **options).heard is None
