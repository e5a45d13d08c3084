import contextlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deeptalk.data.codes import read_codes
from deeptalk.data.packs import (
    AudioFile,
    AudioPack,
    AudioPackWriter,
    CodePack,
    CodeSpan,
    open_clips,
    write_code_pack,
)
from deeptalk.errors import DataError


def _clips() -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return [generator.integers(-20_000, 20_000, n).astype(np.int16) for n in (1_601, 7, 33_333)]


def test_every_clip_comes_back_to_the_sample(tmp_path: Path) -> None:
    with AudioPackWriter(tmp_path / "p.wav") as writer:
        places = [writer.append(clip) for clip in _clips()]
    pack = AudioPack(tmp_path / "p.wav")
    for (offset, duration), clip in zip(places, _clips(), strict=True):
        np.testing.assert_array_equal(pack.read(offset, duration) * 32_768, clip)


def test_a_pack_is_a_wav_file_like_any_other(tmp_path: Path) -> None:
    with AudioPackWriter(tmp_path / "p.wav", sample_rate=8_000) as writer:
        writer.append(_clips()[0])
    samples, rate = soundfile.read(tmp_path / "p.wav", dtype="int16")
    assert rate == 8_000
    np.testing.assert_array_equal(samples, _clips()[0])


def test_nothing_is_left_of_a_pack_that_failed(tmp_path: Path) -> None:
    with contextlib.suppress(RuntimeError), AudioPackWriter(tmp_path / "p.wav") as writer:
        writer.append(_clips()[0])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_clips_beyond_the_end_and_other_files_are_refused(tmp_path: Path) -> None:
    with AudioPackWriter(tmp_path / "p.wav") as writer:
        writer.append(_clips()[0])
    with pytest.raises(DataError, match="outside the pack"):
        AudioPack(tmp_path / "p.wav").read(0.09, 0.1)
    soundfile.write(tmp_path / "float.wav", np.zeros(100, np.float32), 16_000, subtype="FLOAT")
    with pytest.raises(DataError, match="not a pack"):
        AudioPack(tmp_path / "float.wav")
    with pytest.raises(DataError, match="no such pack"):
        AudioPack(tmp_path / "none.wav")


def test_codes_come_back_by_their_spans(tmp_path: Path) -> None:
    codes = [np.arange(7 * n).reshape(n, 7) for n in (3, 1, 5)]
    spans = write_code_pack(tmp_path / "c.npy", codes)
    pack = CodePack(tmp_path / "c.npy")
    for span, part in zip(spans, codes, strict=True):
        np.testing.assert_array_equal(pack.read(span), part)
    with pytest.raises(DataError, match="don't exist"):
        pack.read(CodeSpan(offset=8, length=2))


def test_codes_in_every_form_and_order_are_the_same(tmp_path: Path) -> None:
    breadth = np.arange(14).reshape(2, 7)
    depth = np.empty_like(breadth)
    depth[:, [0, 1, 4, 2, 3, 5, 6]] = breadth
    np.save(tmp_path / "a.npy", breadth)
    np.savez(tmp_path / "a.npz", codes=breadth)
    (tmp_path / "a.txt").write_text(" ".join(map(str, breadth.ravel())))
    forms = [
        breadth.tolist(),
        breadth.ravel().tolist(),
        *(str(tmp_path / f"a.{e}") for e in ("npy", "npz", "txt")),
    ]
    for form in forms:
        read = read_codes({"codes": form, "order": "breadth"}, codebook_size=14)
        np.testing.assert_array_equal(read, breadth)
    np.testing.assert_array_equal(
        read_codes({"codes": depth.tolist(), "order": "depth"}, codebook_size=14), breadth
    )


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"codes": [[13] * 7], "order": "breadth"}, "out of range"),
        ({"codes": [1] * 8, "order": "breadth"}, "multiple of seven"),
        ({"codes": [[1] * 7]}, "unknown order"),
        ({"codes": "nowhere.npy", "order": "breadth"}, "unreadable"),
    ],
)
def test_codes_that_cannot_be_used_give_a_reason(message: dict, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_codes(message, codebook_size=13)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.wav"])
def test_other_recordings_are_read_clip_by_clip_at_the_rate_asked_for(tmp_path: Path, name: str) -> None:
    wave = np.sin(2 * np.pi * 200 * np.arange(24_000) / 24_000).astype(np.float32)
    soundfile.write(tmp_path / name, np.stack([0.5 * wave, 0.3 * wave], axis=1), 24_000)
    opened = open_clips(tmp_path / name, sample_rate=16_000)
    assert isinstance(opened, AudioFile)
    found = opened.read(0.25, 0.5)
    expected = 0.4 * np.sin(2 * np.pi * 200 * (0.25 + np.arange(8_000) / 16_000))
    np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=0.02)


def test_packs_of_the_right_rate_are_mapped(tmp_path: Path) -> None:
    with AudioPackWriter(tmp_path / "p.wav") as writer:
        writer.append(_clips()[0])
    assert isinstance(open_clips(tmp_path / "p.wav", sample_rate=16_000), AudioPack)
    assert isinstance(open_clips(tmp_path / "p.wav", sample_rate=24_000), AudioFile)


def test_what_cant_be_heard_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.flac").write_bytes(b"\xff" * 100)
    with pytest.raises(DataError, match="unreadable audio"):
        open_clips(tmp_path / "bad.flac", sample_rate=16_000).read(0.0, 1.0)
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 8_000)
    with pytest.raises(DataError, match="clip outside its recording"):
        open_clips(tmp_path / "short.wav", sample_rate=16_000).read(1.0, 1.0)
    soundfile.write(tmp_path / "nan.wav", np.full(800, np.nan), 8_000, subtype="FLOAT")
    soundfile.write(tmp_path / "slow.wav", np.zeros(800), 4_000)
    with pytest.raises(DataError, match="sample rate out of range"):
        open_clips(tmp_path / "slow.wav", sample_rate=16_000).read(0.0, 0.1)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000, subtype="FLOAT")
    with pytest.raises(DataError, match="speech empty"):
        open_clips(tmp_path / "empty.wav", sample_rate=16_000).read(0.0, 0.1)
    with pytest.raises(DataError, match="not finite"):
        open_clips(tmp_path / "nan.wav", sample_rate=16_000).read(0.0, 0.1)
    with pytest.raises(DataError, match="no such pack"):
        open_clips(tmp_path / "none.wav", sample_rate=16_000)


def test_codes_stand_in_a_file_of_many(tmp_path: Path) -> None:
    codes = np.arange(35, dtype=np.int16).reshape(5, 7)
    np.save(tmp_path / "c.npy", codes)
    message = {"codes": str(tmp_path / "c.npy"), "order": "breadth", "first_frame": 1, "num_frames": 3}
    assert read_codes(message, codebook_size=64).tolist() == codes[1:4].tolist()
    with pytest.raises(DataError, match="unreadable codes"):
        read_codes(message | {"num_frames": 9}, codebook_size=64)
    with pytest.raises(DataError, match="bad place of codes"):
        read_codes(message | {"num_frames": None}, codebook_size=64)
