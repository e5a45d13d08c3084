"""Texts as targets: tokens, phones, and a guess at what stands in which frame."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from deeptalk.audio import MelSpec
from deeptalk.data.augment import Augmentation
from deeptalk.data.manifest import write_lines, write_manifest
from deeptalk.data.packs import AudioPackWriter
from deeptalk.data.transcription import CtcBatch, TranscriptionBatches, Transcripts
from deeptalk.data.vocabulary import train_tokenizer, words_to_time, write_lexicon
from deeptalk.errors import DataError
from deeptalk.streams.text import TextTokenizer

LEXICON = {"red": ("r", "eh", "d"), "bus": ("b", "ah", "s"), "rome": ("r", "ow", "m")}
SAID = ("Red bus, Rome.", "Bus.", "Red, red!", "Rome bus")


@pytest.fixture
def transcripts(tmp_path: Path) -> Transcripts:
    write_lexicon(tmp_path / "lexicon.json", LEXICON)
    write_lines(tmp_path / "names.json", [{"names": ["Rome"]}])
    durations = {phone: 0.1 for phones in LEXICON.values() for phone in phones}
    write_lines(tmp_path / "durations.json", [durations])
    words = ("red bus Rome", "red bus Rome")
    train_tokenizer(words, vocab_size=262).save(str(tmp_path / "tokenizer.json"))
    return Transcripts(tmp_path, TextTokenizer(tmp_path / "tokenizer.json"))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Tones of 0.6 to 0.9 s between silences of 0.1 s; the last is too short for what it says."""
    records = []
    with AudioPackWriter(tmp_path / "clips.wav") as pack:
        for i, text in enumerate((*SAID, *SAID, 6 * "Red bus, Rome, ")):
            seconds = 0.6 + 0.1 * (i % 4)
            tone = 8_000 * np.sin(2 * np.pi * 500 * np.arange(round(16_000 * seconds)) / 16_000)
            offset, duration = pack.append(np.pad(tone, 1_600).astype(np.int16))
            record = {"id": f"clip-{i}", "audio": "clips.wav", "offset": offset, "duration": duration}
            records.append(record | {"text": text})
    write_manifest(tmp_path / "clips.jsonl", records, kind="recording")
    return tmp_path / "clips.jsonl"


@pytest.fixture
def stream(manifest: Path, transcripts: Transcripts) -> Callable[..., TranscriptionBatches]:
    """Makes one and the same stream, as often as it is called."""

    def make(**changes: object) -> TranscriptionBatches:
        settings = {"augmentation": Augmentation(), "labels_frames": True, "batch_size": 400, "seed": 5}
        return TranscriptionBatches([manifest], [1.0], transcripts, mel=MelSpec.tiny(), **settings | changes)

    return make


def loud_between(start: int, stop: int, size: int) -> torch.Tensor:
    mel = torch.zeros(8, size)
    mel[:, start:stop] = 1.0
    return mel


def test_targets_are_the_spoken_form_and_its_phones(transcripts: Transcripts):
    assert transcripts.tokenizer.decode(transcripts.tokens("Red bus, Rome.")) == " red bus Rome"
    assert len(transcripts.tokens("Red bus, Rome.")) == 3
    names = {number: phone for phone, number in transcripts.phone_ids.items()}
    phones = [names[number] for number in transcripts.phones("Red bus, Rome.")]
    assert phones == ["r", "eh", "d", "b", "ah", "s", "r", "ow", "m"]


def test_a_word_without_pronunciation_is_an_error(transcripts: Transcripts):
    with pytest.raises(DataError, match="pronunciation"):
        transcripts.phones("red tram")


def test_phones_take_the_loud_part_in_order(transcripts: Transcripts):
    phones, tokens = transcripts.spread("Red bus.", loud_between(20, 80, 100))
    silence, blank = len(transcripts.phone_ids), transcripts.tokenizer.vocab_size
    expected = [silence] * 10
    for phone in transcripts.phones("red bus"):
        expected += [phone] * 5
    assert phones.tolist() == expected + [silence] * 10
    red, bus = transcripts.tokens("red bus")
    assert torch.unique_consecutive(tokens).tolist() == [blank, red, blank, bus, blank]
    # a token stands in about the last two fifths of its word, which is fifteen frames long here
    assert (tokens == red).nonzero().flatten().tolist() == list(range(18, 25))
    assert (tokens == bus).nonzero().flatten().tolist() == list(range(32, 40))


def test_longer_phones_take_more_frames(transcripts: Transcripts):
    transcripts.durations["eh"] = 0.4
    phones, _ = transcripts.spread("red", loud_between(0, 60, 60))
    counts = [int((phones == number).sum()) for number in transcripts.phones("red")]
    assert counts == [5, 20, 5]


def test_a_comma_is_a_pause_and_a_full_stop_none(transcripts: Transcripts):
    mel, silence = loud_between(20, 80, 100), len(transcripts.phone_ids)
    with_comma, _ = transcripts.spread("red, bus", mel)
    kinds = torch.unique_consecutive(with_comma).tolist()
    red, bus = transcripts.phones("red"), transcripts.phones("bus")
    assert kinds == [silence, *red, silence, *bus, silence]
    assert int((with_comma == silence).sum()) in (27, 28)  # ten frames at each end, 0.2 s of 0.8 s inside
    assert torch.equal(transcripts.spread("red.", mel)[0], transcripts.spread("red", mel)[0])
    with pytest.raises(DataError, match="no words"):
        transcripts.spread("?", mel)


def test_a_clip_without_silence_is_loud_throughout(transcripts: Transcripts):
    phones, _ = transcripts.spread("red", torch.ones(8, 30))
    assert torch.unique_consecutive(phones).tolist() == transcripts.phones("red")


def test_labels_line_up_with_the_frames_of_each_clip(stream: Callable[..., TranscriptionBatches]):
    batches = stream()
    seen = 0
    for _ in range(6):
        batch = next(batches)
        assert batch.frames is not None
        lengths = (batch.mel_lengths + 1) // 2
        for labels in (batch.frames.phones, batch.frames.tokens):
            assert labels.shape == (len(lengths), int(lengths.max()))
            assert ((labels != -100).sum(dim=1) == lengths).all()
        seen += len(lengths)
        assert batch.mel.shape[0] * batch.mel.shape[2] <= 400
    assert seen > 8


def test_labels_are_of_what_is_said(stream: Callable[..., TranscriptionBatches]):
    batch = next(stream())
    assert batch.frames is not None
    for i, labels in enumerate(batch.frames.phones):
        silence = 8  # phones of the lexicon
        heard = torch.unique_consecutive(labels[(labels != silence) & (labels >= 0)])
        said = torch.unique_consecutive(batch.phones[i, : batch.phone_lengths[i]])
        assert heard.tolist() == said.tolist()


def test_a_clip_too_short_for_its_text_is_counted_and_left_out(stream: Callable[..., TranscriptionBatches]):
    batches = stream(augmentation=None, labels_frames=False)
    for _ in range(30):
        batch = next(batches)
        assert batch.frames is None
        assert int(batch.phone_lengths.max()) <= 9
    assert batches.rejects["too short for its text"] > 0


def test_a_stream_goes_on_where_it_was(stream: Callable[..., TranscriptionBatches]):
    straight = stream()
    for _ in range(3):
        next(straight)
    resumed = stream()
    resumed.load_state_dict(straight.state_dict())
    for _ in range(4):
        assert_equal(next(straight), next(resumed))
    assert not torch.equal(next(stream(seed=6)).mel, next(stream()).mel)


def assert_equal(one: CtcBatch, other: CtcBatch) -> None:
    assert one.frames is not None
    assert other.frames is not None
    for field in dataclasses.fields(CtcBatch):
        if field.name != "frames":
            assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name
    assert torch.equal(one.frames.phones, other.frames.phones)
    assert torch.equal(one.frames.tokens, other.frames.tokens)


def test_words_to_time_have_every_phone():
    lexicon = {f"w{i:03}": ("a",) for i in range(10)} | {"x": ("b",), "y": ("b", "a"), "z": ("c", "b")}
    assert words_to_time(lexicon, number=2) == ["w000", "w001", "x", "z"]
    assert words_to_time(lexicon, number=99) == sorted(lexicon)
