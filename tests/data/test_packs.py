import contextlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deeptalk.data.codes import read_codes
from deeptalk.data.packs import AudioPack, AudioPackWriter, CodePack, CodeSpan, write_code_pack
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
