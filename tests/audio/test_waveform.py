"""Recordings of any usual kind are read; what can't be answered earns one clear line."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeptalk.audio import (
    check_waveform,
    decode_waveform,
    load_waveform,
    resample,
    save_waveform,
    sound_format,
)
from deeptalk.errors import AudioError


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    wave = 0.4 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("suffix", "rate"),
    [("wav", 8_000), ("wav", 96_000), ("wav", 192_000), ("flac", 44_100), ("mp3", 44_100), ("ogg", 22_050)],
)
def test_usual_recordings_are_read(tmp_path, suffix, rate, channels):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(1.0, rate, channels), rate)
    samples = load_waveform(path)
    assert samples.dtype == torch.float32
    assert abs(len(samples) - 16_000) <= 16_000 * 0.1
    middle = samples[4_000:12_000]
    assert middle.abs().max() == pytest.approx(0.4, abs=0.03)
    spectrum = torch.fft.rfft(middle).abs()
    assert int(spectrum.argmax()) * 2 == pytest.approx(440, abs=2)


def test_opposite_channels_do_not_cancel(tmp_path):
    wave = tone(0.5, 16_000, 2) * np.array([1, -1], dtype=np.float32)
    soundfile.write(tmp_path / "opposite.wav", wave, 16_000)
    assert load_waveform(tmp_path / "opposite.wav").abs().max() > 0.3


def damaged(folder):
    """Each bad recording of the tests with the words its error must hold."""

    def write(name, data, rate=16_000, **kwargs):
        soundfile.write(folder / name, data, rate, **kwargs)
        return folder / name

    nan = tone(1.0, 16_000)
    nan[100] = np.nan
    (folder / "text.wav").write_text("this is not audio")
    (folder / "noise.raw").write_bytes(bytes(range(256)) * 40)
    (folder / "nothing.wav").write_bytes(b"")
    (folder / "folder").mkdir()
    long = np.tile(tone(1.0, 8_000), (600, 1))
    return {
        "text": (folder / "text.wav", "not audio"),
        "raw": (folder / "noise.raw", "not audio"),
        "empty file": (folder / "nothing.wav", "empty"),
        "no samples": (write("zero.wav", np.zeros((0, 1))), "no samples"),
        "silence": (write("silence.wav", np.zeros(16_000)), "silent"),
        "constant": (write("constant.wav", np.full(16_000, 0.5)), "silent"),
        "nan": (write("nan.wav", nan, subtype="FLOAT"), "NaN"),
        "channels": (write("seven.wav", tone(1.0, 16_000, 7)), "7 channels"),
        "short": (write("short.wav", tone(0.05, 16_000)), "too short, 0.050 s"),
        "long": (write("long.wav", long, 8_000), "too long, 600 s"),
        "slow": (write("slow.wav", tone(1.0, 4_000), 4_000), "4000 Hz"),
        "missing": (folder / "missing.wav", "no such file"),
        "folder": (folder / "folder", "folder"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "text",
        "raw",
        "empty file",
        "no samples",
        "silence",
        "constant",
        "nan",
        "channels",
        "short",
        "long",
        "slow",
        "missing",
        "folder",
    ],
)
def test_bad_recordings_earn_one_clear_line(tmp_path, case):
    path, words = damaged(tmp_path)[case]
    with pytest.raises(AudioError, match=re.escape(words)) as caught:
        load_waveform(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    if path.is_file():
        with pytest.raises(AudioError) as in_memory:
            decode_waveform(path.read_bytes(), name=str(path))
        assert str(in_memory.value).startswith(f"{path}: ")
        assert words in str(in_memory.value)


def test_truncated_header_is_refused(tmp_path):
    soundfile.write(tmp_path / "whole.flac", tone(1.0, 16_000), 16_000)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "whole.flac").read_bytes()[:20])
    with pytest.raises(AudioError, match=r"cut\.flac: "):
        load_waveform(tmp_path / "cut.flac")


def test_samples_in_memory_are_checked_too():
    with pytest.raises(AudioError, match="microphone: the recording is silent"):
        check_waveform(torch.zeros(16_000), name="microphone")
    check_waveform(torch.from_numpy(tone(1.0, 16_000)[:, 0]), name="microphone")


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_save_and_load_are_a_pair(tmp_path, suffix):
    samples = torch.from_numpy(tone(0.5, 24_000)[:, 0])
    path = tmp_path / "deep" / f"a.{suffix}"
    save_waveform(path, samples, sample_rate=24_000)
    assert torch.allclose(load_waveform(path, sample_rate=24_000), samples, atol=1e-4)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_save_refuses_what_it_cannot_write(tmp_path):
    with pytest.raises(AudioError, match=r"'\.xyz'"):
        save_waveform(tmp_path / "a.xyz", torch.zeros(100), sample_rate=24_000)
    (tmp_path / "file").write_text("")
    with pytest.raises(AudioError, match="can't be written"):
        save_waveform(tmp_path / "file" / "a.wav", torch.zeros(100), sample_rate=24_000)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1_000, 20_000), rate=st.sampled_from([8_000, 11_025, 24_000, 44_100, 96_000]))
def test_resampling_keeps_the_duration(length, rate):
    out = resample(torch.from_numpy(tone(1.3, rate)[:length, 0]), source_rate=rate, target_rate=16_000)
    assert abs(len(out) / 16_000 - min(length, int(1.3 * rate)) / rate) < 2 / 16_000


def test_the_room_does_not_import_transformers():
    code = "import sys, deeptalk.audio; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "samples", [np.zeros(8_000, np.float32), torch.ones(8_000, dtype=torch.int16), [0.0]]
)
def test_what_is_no_float_tensor_is_refused(samples: Any) -> None:
    with pytest.raises(AudioError, match="samples are a float tensor from -1 to 1, got "):
        check_waveform(samples, name="here")


def test_a_file_to_be_written_is_checked_by_its_name(tmp_path: Path) -> None:
    assert sound_format(tmp_path / "a.FLAC") == "FLAC"
    for name, told in (
        ("a.xyz", "'.xyz' files"),
        ("a", "a file without a suffix"),
        (".", "this is a folder"),
    ):
        with pytest.raises(AudioError, match=told):
            sound_format(tmp_path / name)
