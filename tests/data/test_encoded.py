from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deeptalk.audio import MelSpec
from deeptalk.codec import SineCodec
from deeptalk.data.augment import Augmentation
from deeptalk.data.encoded import encode_answers, encode_questions
from deeptalk.data.library import AnswerLibrary, Clip, ClipLibrary, EncodedReader, MelReader
from deeptalk.data.manifest import read_manifest, write_manifest
from deeptalk.data.packs import AudioPackWriter
from deeptalk.errors import DataError

SPEC = MelSpec.tiny()


class HalfRate(nn.Module):
    """An encoder that keeps every other frame of the log-mel; padding changes nothing."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.num_calls = 0

    def forward(self, mel: torch.Tensor, lengths: torch.Tensor) -> "HalfRate":
        self.num_calls += 1
        self.frames, self.lengths = self.gain * mel[:, :, ::2].transpose(1, 2), (lengths + 1) // 2
        return self


def _encode(folder: Path, encoder: nn.Module, **changes: object) -> int:
    settings = {"spec": SPEC, "passes": 2, "parts": ("questions",), "augmentation": Augmentation()} | changes
    return encode_questions(folder, encoder, **settings)


def test_encoded_speech_is_what_the_encoder_says_of_each_clip_in_each_room(data_folder: Path) -> None:
    quiet = Augmentation(clean=1, level=(-20, -20), margins=(0, 0), tight=0, clip=0)
    _encode(data_folder, HalfRate(), augmentation=quiet)
    reader = EncodedReader([data_folder / "encoded" / "questions"])
    plain = MelReader(SPEC, augmentation=quiet)
    for record in read_manifest(data_folder / "questions.jsonl", kind="recording").records:
        clip = Clip.of(record)
        expected = plain.read(clip, np.random.default_rng(0))[:, ::2].T
        torch.testing.assert_close(reader.read(clip, np.random.default_rng(0)), expected, atol=2e-3, rtol=0)


def test_rooms_differ_and_only_encoded_clips_are_known(data_folder: Path) -> None:
    _encode(data_folder, HalfRate())
    reader = EncodedReader([data_folder / "encoded" / "questions"])
    clips = ClipLibrary([data_folder / "questions.jsonl"], known=reader)
    clip = clips.draw("What is one?", np.random.default_rng(0))
    assert clip is not None
    placed = [reader.place(clip, np.random.default_rng(seed)) for seed in range(8)]
    shapes = {tuple(reader.read(each, np.random.default_rng(0)).shape) for each in placed}
    assert all(reader.read(c, np.random.default_rng(0)).shape[0] == reader.num_frames(c) for c in placed)
    assert len(shapes) == 2
    with pytest.raises(DataError, match="not encoded"):
        reader.read(Clip(id="other", audio="", offset=0, duration=1), np.random.default_rng(0))
    with pytest.raises(DataError, match="no encoded speech"):
        EncodedReader([data_folder / "encoded" / "nothing"])


def test_encoding_goes_on_where_it_was_and_begins_anew_for_another_encoder_or_other_clips(
    data_folder: Path,
) -> None:
    first = HalfRate()
    told: list[tuple[int, int]] = []
    assert _encode(data_folder, first, progress=lambda *at: told.append(at)) > 0
    assert told == [(1, 2), (2, 2)]
    again = HalfRate()
    assert _encode(data_folder, again, progress=lambda *at: told.append(at)) == 0
    assert len(told) == 2  # nothing was made
    assert again.num_calls == 0
    lost = data_folder / "encoded" / "questions" / "pass-1-000"
    before = np.load(lost.with_suffix(".npy"))
    lost.with_suffix(".jsonl").unlink()
    _encode(data_folder, again)
    np.testing.assert_array_equal(np.load(lost.with_suffix(".npy")), before)
    assert _encode(data_folder, HalfRate(2.0)) > 0
    manifest = data_folder / "questions.jsonl"
    manifest.write_text(manifest.read_text().replace("What is one?", "What is eleven?"))
    assert _encode(data_folder, HalfRate(2.0)) > 0


def test_answers_are_encoded_frame_by_frame_whatever_stands_beside_them(tmp_path: Path) -> None:
    codec = SineCodec()
    generator = np.random.default_rng(0)
    records = []
    with AudioPackWriter(tmp_path / "answers.wav") as pack:
        for i, length in enumerate((5_000, 16_000, 9_001)):
            offset, duration = pack.append((8_000 * generator.standard_normal(length)).astype(np.int16))
            records.append(
                {"id": f"a{i}", "audio": "answers.wav", "offset": offset, "duration": duration}
                | {"text": f"answer {i}", "speaker": "slt"}
            )
    write_manifest(tmp_path / "answers.jsonl", records, kind="recording")
    together = encode_answers(tmp_path, codec, parts=("answers",))
    library = AnswerLibrary([tmp_path / "codes" / "answers.npy"])
    beside = [library.read(record["text"], "slt") for record in records]
    lengths = [-(-int(record["duration"] * 24_000) // codec.samples_per_frame) for record in records]
    assert [len(codes) for codes in beside] == lengths
    assert together == {"answers": sum(lengths)}
    encode_answers(tmp_path, codec, parts=("answers",), seconds_per_batch=0.1)
    alone = AnswerLibrary([tmp_path / "codes" / "answers.npy"])
    for record, codes in zip(records, beside, strict=True):
        torch.testing.assert_close(alone.read(record["text"], "slt"), codes)
    assert library.speakers("answer 1") == ["slt"]
    with pytest.raises(DataError, match="without codes"):
        library.read("answer 1", "rms")
