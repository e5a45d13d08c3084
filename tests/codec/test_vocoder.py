import math

import pytest
import torch

from deeptalk.codec.excitation import frames_of, noise, noise_table, overlap_add, pulse_train
from deeptalk.codec.losses import SpectralLoss, SpectralLossConfig, log_mel_error
from deeptalk.codec.pitch import PitchRange, track_pitch
from deeptalk.codec.spectrum import band_curves, mel_filters, minimum_phase
from deeptalk.codec.vocoder import VocoderConfig
from deeptalk.errors import ConfigError


def pulses(hz, *, hop=256, phase=0.0):
    return pulse_train(
        hz,
        last_hz=hz[:, 0],
        phase=torch.full((len(hz),), phase, dtype=torch.float64),
        hop=hop,
        sample_rate=24_000,
        max_hz=8000.0,
    )


@pytest.mark.parametrize("hz", [70.0, 123.4, 311.0])
def test_pulses_have_the_pitch_unit_power_and_no_energy_above_the_limit(hz):
    wave, _ = pulses(torch.full((1, 96), hz))
    assert float(wave.square().mean()) == pytest.approx(1.0, rel=0.05)
    power = torch.fft.rfft(wave[0] * torch.hann_window(wave.shape[1])).abs().square()
    bins = torch.arange(len(power)) * 24_000 / wave.shape[1]
    assert float(power[bins > 8200].sum() / power.sum()) < 1e-4
    assert float(bins[power.argmax()]) / hz == pytest.approx(
        round(float(bins[power.argmax()]) / hz), abs=0.05
    )


def test_pulses_are_the_plain_sum_of_cosines():
    hz = torch.tensor([[100.0, 140.0, 90.0]])
    wave, end = pulses(hz, hop=200, phase=0.3)
    steps = torch.arange(1, 201, dtype=torch.float64) / 200
    last = torch.tensor([100.0, 100.0, 140.0])[:, None]
    pitch = (last + (hz[0][:, None] - last) * steps).flatten()
    periods = 0.3 + (pitch / 24_000).cumsum(0)
    expected = torch.zeros_like(periods)
    for k in range(1, 100):
        weight = (8000.0 / pitch - k + 1).clamp(0, 1)
        expected += weight * (2 * math.pi * k * periods).cos()
    expected *= (2 * pitch / 8000.0).sqrt()
    torch.testing.assert_close(wave[0], expected.float(), atol=1e-4, rtol=1e-4)
    assert float(end[0]) == pytest.approx(float(periods[-1] % 1))


def test_noise_is_white_the_same_everywhere_and_endless():
    table = noise_table(24)
    assert float(table.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(table.square().mean()) == pytest.approx(1.0, abs=0.02)
    assert table[:3].tolist() == pytest.approx(PHILOX_24, abs=1e-6)
    wrapped = noise(seed=24, start=len(table) - 2, num_samples=4, like=table)
    assert torch.equal(wrapped, torch.cat([table[-2:], table[:2]]))


PHILOX_24 = [-1.6901360, 0.7443891, -0.4462747]


def test_overlap_add_returns_the_signal():
    wave = torch.randn(2, 256 * 12, generator=torch.Generator().manual_seed(0))
    spectra = frames_of(wave, n_fft=1024, hop=256)
    made, tail = overlap_add(spectra, tail=torch.zeros(2, 768), hop=256)
    assert tail.shape == (2, 768)
    torch.testing.assert_close(made[:, 768:], wave[:, 768 : made.shape[1]], atol=1e-5, rtol=1e-4)


def test_minimum_phase_of_a_known_filter():
    # 1 + 0.5 z^-1 has its zero inside the unit circle, so it is of minimum phase
    response = torch.fft.rfft(torch.tensor([1.0, 0.5]), n=512)
    phase = minimum_phase(response.abs().log()[None])[0]
    torch.testing.assert_close(phase, response.angle(), atol=1e-4, rtol=0)


def test_bands_interpolate_and_filters_sum_to_one():
    curves = band_curves(num_bands=20, n_fft=512, sample_rate=24_000, max_hz=8000.0)
    torch.testing.assert_close(curves.sum(dim=0), torch.ones(257))
    torch.testing.assert_close(curves[:, -1], torch.eye(20)[-1])
    filters = mel_filters(num_mels=80, n_fft=512, sample_rate=24_000, max_hz=8000.0)
    torch.testing.assert_close(filters.sum(dim=0), torch.ones(80))


@pytest.mark.parametrize("hz", [75.0, 110.0, 220.0, 330.0])
def test_pitch_is_found_and_silence_is_unvoiced(hz, voiced):
    wave = torch.cat([torch.zeros(6000), voiced(18_000, hz=hz)])[None]
    track = track_pitch(wave, sample_rate=24_000, hop=256, limits=PitchRange())
    assert not track.is_voiced[0, :18].any()
    assert track.is_voiced[0, 26:].all()
    torch.testing.assert_close(track.hz[0, 26:], torch.full_like(track.hz[0, 26:], hz), rtol=0.01, atol=0)
    # frames before the first voiced one hold its value
    assert torch.equal(track.hz[0, :18], track.hz[0, :1].expand(18))


def test_noise_is_mostly_unvoiced(voiced):
    wave = torch.randn(1, 24_000, generator=torch.Generator().manual_seed(0)) * 0.1
    track = track_pitch(wave, sample_rate=24_000, hop=256, limits=PitchRange())
    assert track.is_voiced.float().mean() < 0.2


def test_spectral_loss_is_zero_for_equals_and_grows(voiced):
    loss = SpectralLoss(SpectralLossConfig(windows=(512, 256), num_mels=(40, 20)), sample_rate=24_000)
    wave = voiced(12_000)[None]
    assert float(loss(wave, wave)["spectral"]) == 0
    quiet, other = loss(0.8 * wave, wave), loss(0.3 * wave, wave)
    assert 0 < float(quiet["spectral"]) < float(other["spectral"])
    assert float(quiet["bin"]) == pytest.approx(0.2, abs=0.01)
    assert float(log_mel_error(wave, wave, sample_rate=24_000)) == 0
    noise = torch.randn(1, 12_000, generator=torch.Generator().manual_seed(0))
    assert float(log_mel_error(10 * noise, noise, sample_rate=24_000)) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (VocoderConfig, {"hop": 300}),
        (VocoderConfig, {"max_hz": 13_000.0}),
        (VocoderConfig, {"num_bands": 1}),
        (PitchRange, {"min_hz": 500.0}),
        (SpectralLossConfig, {"windows": (512,)}),
    ],
)
def test_wrong_settings_are_refused(kind, wrong):
    with pytest.raises(ConfigError):
        kind(**wrong)
