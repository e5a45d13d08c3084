"""Stretches of recordings for the codec."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from deeptalk.data.alignment import PHONES
from deeptalk.data.manifest import write_manifest
from deeptalk.data.packs import AudioPackWriter
from deeptalk.data.pretraining import WaveformBatches
from deeptalk.streams.layout import IGNORE

NUM_SAMPLES = 4_800
TONE = 1_000.0


@pytest.fixture
def stream(tmp_path: Path) -> Callable[..., WaveformBatches]:
    """Streams over ten clips at 16 kHz with one tone; the last is shorter than a stretch."""
    records = []
    with AudioPackWriter(tmp_path / "clips.wav") as pack:
        for i in range(10):
            seconds = 0.5 + 0.2 * i if i < 9 else 0.1
            tone = 8_000 * np.sin(2 * np.pi * TONE * np.arange(round(16_000 * seconds)) / 16_000)
            offset, duration = pack.append(tone.astype(np.int16))
            record = {"id": f"clip-{i}", "audio": "clips.wav", "offset": offset, "duration": duration}
            half = [["l", duration / 2], ["aa", duration]]
            records.append(record | {"text": "la"} | ({"phones": half} if i != 4 else {}))
    write_manifest(tmp_path / "clips.jsonl", records, kind="recording")

    def make(**changes: int) -> WaveformBatches:
        settings = {"sample_rate": 24_000, "num_samples": NUM_SAMPLES, "batch_size": 4 * NUM_SAMPLES}
        settings |= {"samples_per_phone": 600}
        return WaveformBatches([tmp_path / "clips.jsonl"], **settings | {"seed": 1} | changes)

    return make


def test_stretches_are_equal_and_a_batch_holds_what_was_asked_for(stream: Callable[..., WaveformBatches]):
    batches = stream()
    sizes = [next(batches).waveform.shape for _ in range(12)]
    assert {size[1] for size in sizes} == {NUM_SAMPLES}
    assert {size[0] for size in sizes} == {4}


def test_sound_comes_at_the_rate_that_was_asked_for(stream: Callable[..., WaveformBatches]):
    for rate in (24_000, 16_000, 8_000):
        wave = next(stream(sample_rate=rate)).waveform
        whole = wave[(wave[:, -100:].abs().amax(dim=1) > 0)]
        assert len(whole)
        spectrum = torch.fft.rfft(whole * torch.hann_window(NUM_SAMPLES)).abs()
        peaks = spectrum.argmax(dim=1) * rate / NUM_SAMPLES
        assert (peaks - TONE).abs().max() <= rate / NUM_SAMPLES


def test_silence_follows_a_clip_that_ends(stream: Callable[..., WaveformBatches]):
    batches = stream()
    waves = torch.cat([next(batches).waveform for _ in range(10)])
    ended = waves[waves[:, -1_000:].abs().amax(dim=1) == 0]
    assert 0 < len(ended) < len(waves)
    assert (ended[:, :100].abs().amax(dim=1) > 0).all()


def test_a_stream_goes_on_where_it_was(stream: Callable[..., WaveformBatches]):
    straight = stream()
    for _ in range(3):
        next(straight)
    resumed = stream()
    resumed.load_state_dict(straight.state_dict())
    for _ in range(4):
        assert torch.equal(next(straight).waveform, next(resumed).waveform)
    assert not torch.equal(next(stream(seed=2)).waveform, next(stream()).waveform)


def test_phones_are_told_where_the_manifest_has_them(stream: Callable[..., WaveformBatches]):
    batches = stream()
    phones = torch.cat([next(batches).phones for _ in range(20)])
    assert phones.shape[1] == NUM_SAMPLES // 600
    told = {tuple(dict.fromkeys(row.tolist())) for row in phones}
    first, then = PHONES.index("l"), PHONES.index("aa")
    assert told == {(first,), (then,), (first, then), (IGNORE,)}
