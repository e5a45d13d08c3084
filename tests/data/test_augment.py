import numpy as np
import pytest

from deeptalk.data.augment import Augmentation, augment, change_speed, warp_formants
from deeptalk.errors import ConfigError


def _speech(seconds: float = 1.0) -> np.ndarray:
    time = np.arange(int(16_000 * seconds)) / 16_000
    return (0.4 * np.sin(2 * np.pi * 220 * time) * np.sin(2 * np.pi * 3 * time)).astype(np.float32)


@pytest.mark.parametrize("seed", range(40))
def test_augmented_speech_is_finite_bounded_and_depends_on_the_generator_alone(seed: int) -> None:
    first, second = (augment(_speech(), np.random.default_rng(seed), config=Augmentation()) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert 0.0 < np.abs(first).max() <= 1.0
    assert 0.8 < len(first) / 16_000 < 1.0 / 0.85 + 1.1


def test_different_seeds_give_different_rooms() -> None:
    first, second = (
        augment(_speech(), np.random.default_rng(seed), config=Augmentation()) for seed in (0, 1)
    )
    assert len(first) != len(second) or not np.allclose(first, second)


def test_silence_and_very_short_clips_pass() -> None:
    for samples in (np.zeros(4_000, np.float32), _speech(0.01)):
        assert np.isfinite(augment(samples, np.random.default_rng(0), config=Augmentation())).all()


def test_noise_has_the_ratio_that_was_asked_for() -> None:
    config = Augmentation(
        clean=0, speed=(1, 1), level=(-6, -6), margins=(0, 0), tight=0, noise=1, noise_ratio=(20, 20), room=0,
        tilt=0, telephone=0, low_pass=0, high_pass=0, clip=0,
    )  # fmt: skip
    clean = _speech()
    noisy = augment(clean, np.random.default_rng(0), config=config)
    scale = float(noisy @ clean) / float(clean @ clean)
    ratio = 20 * np.log10(np.linalg.norm(scale * clean) / np.linalg.norm(noisy - scale * clean))
    assert ratio == pytest.approx(20, abs=0.5)


def test_a_telephone_has_no_high_frequencies() -> None:
    config = Augmentation(
        clean=0, noise=0, room=0, tilt=0, telephone=1, low_pass=0, high_pass=0, clip=0, speed=(1, 1)
    )
    hiss = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(augment(hiss, np.random.default_rng(1), config=config)))
    frequencies = np.linspace(0, 8_000, len(spectrum))
    assert (
        spectrum[frequencies > 4_200].mean()
        < 0.01 * spectrum[(frequencies > 500) & (frequencies < 3_000)].mean()
    )


def test_speed_changes_length_and_pitch() -> None:
    time = np.arange(16_000) / 16_000
    faster = change_speed(np.sin(2 * np.pi * 400 * time).astype(np.float32), 1.1)
    assert len(faster) == pytest.approx(16_000 / 1.1, abs=2)
    peak = np.abs(np.fft.rfft(faster)).argmax() * 16_000 / len(faster)
    assert peak == pytest.approx(440, abs=3)


def test_formants_move_up_and_the_identity_changes_nothing() -> None:
    mel = np.zeros((80, 3), np.float32)
    mel[30] = 1.0
    np.testing.assert_allclose(warp_formants(mel, 1.0), mel, atol=1e-4)
    assert warp_formants(mel, 1.15)[:, 0].argmax() > 30 > warp_formants(mel, 0.85)[:, 0].argmax()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="noise"):
        Augmentation(noise=1.5)
    with pytest.raises(ConfigError, match="speed"):
        Augmentation(speed=(0.1, 1.0))
