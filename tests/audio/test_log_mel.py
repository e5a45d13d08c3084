"""Log-mel spectrograms equal Whisper's, and the stream equals the whole."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deeptalk.audio import LogMelStream, MelSpec, log_mel
from deeptalk.audio.log_mel import mel_filters
from deeptalk.errors import ConfigError

FIXED = MelSpec(reference="fixed")


def speech_like(num_samples: int, seed: int = 0) -> torch.Tensor:
    """A harmonic tone with a moving level over faint noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(num_samples) / 16_000
    tone = sum(torch.sin(2 * torch.pi * 140 * k * time) / k for k in range(1, 12))
    level = 0.2 * (1 + torch.sin(2 * torch.pi * 3 * time)) * (time > 0.2)
    return level * tone + 1e-4 * torch.randn(num_samples, generator=generator)


def streamed(samples: torch.Tensor, cuts: list[int], spec: MelSpec) -> torch.Tensor:
    stream = LogMelStream(spec)
    edges = [0, *sorted(cut % (len(samples) + 1) for cut in cuts), len(samples)]
    frames = [stream.push(samples[a:b]) for a, b in pairwise(edges)]
    return torch.cat([*frames, stream.finish()], dim=1)


@pytest.fixture(scope="module")
def extractor():
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=80)


@pytest.mark.parametrize("num_samples", [401, 16_000, 16_159, 48_123])
def test_clip_reference_equals_whisper(extractor, num_samples):
    samples = speech_like(num_samples)
    theirs = extractor(samples.numpy(), sampling_rate=16_000, padding="do_not_pad", return_tensors="np")
    ours = log_mel(samples[None], spec=MelSpec())
    assert ours.shape == (1, 80, num_samples // 160)
    np.testing.assert_allclose(ours[0].numpy(), theirs["input_features"][0], atol=1e-4)


def test_thirty_padded_seconds_equal_whisper(extractor):
    samples = speech_like(30_000)
    theirs = extractor(samples.numpy(), sampling_rate=16_000, return_tensors="np")["input_features"][0]
    padded = torch.nn.functional.pad(samples, (0, 480_000 - len(samples)))
    np.testing.assert_allclose(log_mel(padded[None], spec=MelSpec())[0].numpy(), theirs, atol=1e-4)


def test_filters_equal_the_slaney_bank():
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(201, 80, 0.0, 8_000.0, 16_000, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(mel_filters(MelSpec()).numpy(), bank.T, atol=1e-7)


def test_clips_of_a_batch_do_not_touch_each_other():
    loud, faint = speech_like(8_000), 0.001 * speech_like(8_000, seed=1)
    both = log_mel(torch.stack([loud, faint]), spec=MelSpec())
    assert torch.allclose(both[0], log_mel(loud[None], spec=MelSpec())[0], atol=1e-6)
    assert torch.allclose(both[1], log_mel(faint[None], spec=MelSpec())[0], atol=1e-6)


def test_fixed_reference_ignores_what_comes_later():
    samples = speech_like(16_000)
    louder_end = torch.cat([samples, 3 * samples])
    assert torch.allclose(
        log_mel(samples[None], spec=FIXED)[0, :, :95],
        log_mel(louder_end[None], spec=FIXED)[0, :, :95],
        atol=1e-6,
    )
    assert not torch.allclose(
        log_mel(samples[None], spec=MelSpec())[0, :, :95],
        log_mel(louder_end[None], spec=MelSpec())[0, :, :95],
        atol=1e-2,
    )


def test_fixed_reference_has_the_stated_floor():
    frames = log_mel(torch.zeros(1, 16_000), spec=FIXED)
    assert torch.allclose(frames, torch.full_like(frames, (1.5 - 8 + 4) / 4))


@settings(max_examples=80, deadline=None)
@given(
    num_samples=st.integers(0, 3_000),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
    reference=st.sampled_from(["fixed", "clip"]),
)
def test_stream_equals_whole_for_any_chunking(num_samples, cuts, reference):
    spec = MelSpec(reference=reference)
    samples = speech_like(num_samples) + 0.1
    whole = log_mel(samples[None], spec=spec)[0]
    parts = streamed(samples, cuts, spec)
    assert parts.shape == whole.shape == (80, num_samples // 160)
    assert torch.allclose(parts, whole, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    num_samples=st.integers(0, 1_500),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
    n_fft=st.sampled_from([64, 200, 400]),
    hop_share=st.integers(2, 9),
)
def test_stream_equals_whole_for_other_clocks(num_samples, cuts, n_fft, hop_share):
    spec = MelSpec(n_fft=n_fft, hop_length=n_fft // hop_share, num_mels=8, reference="fixed")
    samples = speech_like(num_samples) + 0.1
    whole = log_mel(samples[None], spec=spec)[0]
    parts = streamed(samples, cuts, spec)
    assert parts.shape == whole.shape
    assert torch.allclose(parts, whole, atol=1e-5)


def test_stream_gives_frames_before_the_end():
    stream = LogMelStream(FIXED)
    assert stream.push(speech_like(16_000)).shape == (80, 99)


@pytest.mark.parametrize(
    ("setting", "word"),
    [({"reference": "max"}, "reference"), ({"n_fft": 401}, "n_fft"), ({"hop_length": 300}, "hop_length")],
)
def test_impossible_specs_are_refused(setting, word):
    # where annotations are executed, a reference of no known kind is refused as a type
    with pytest.raises((ConfigError, TypeError), match=word):
        MelSpec(**setting)
