"""Noise at the ratio that is asked for, a telephone's band, speed, and nothing where nothing is asked."""

import numpy as np
import pytest

from otoscope.errors import TrainingError
from otoscope.training.augmentation import Augmentation

RATE = 16000


def _speech(n=32000, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def test_nothing_asked_for_leaves_the_samples_bit_for_bit():
    samples = _speech()
    changed, speed = Augmentation().apply(samples, np.random.default_rng(0))
    assert speed == 1
    assert changed.dtype == np.float32
    np.testing.assert_array_equal(changed, samples)


@pytest.mark.parametrize("snr", [0.0, 10.0, 25.0])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])  # white and low noise are drawn
def test_noise_has_the_ratio_that_is_asked_for(snr, seed):
    samples = _speech()
    changed, _ = Augmentation(noise=1.0, snr=(snr, snr)).apply(samples, np.random.default_rng(seed))
    noise = changed.astype(np.float64) - samples
    assert 20 * np.log10(samples.std() / noise.std()) == pytest.approx(snr, abs=0.05)


def test_half_of_the_noise_is_white_and_half_has_more_power_below():
    below = []
    for seed in range(60):
        changed, _ = Augmentation(noise=1.0, snr=(0, 0)).apply(_speech(), np.random.default_rng(seed))
        power = np.abs(np.fft.rfft(changed - _speech())) ** 2
        below.append(power[: len(power) // 8].sum() / power.sum())
    white = sum(share < 0.2 for share in below)
    assert white + sum(share > 0.7 for share in below) == 60
    assert 20 <= white <= 40


def test_a_share_of_the_utterances_is_changed():
    draw, changed = np.random.default_rng(0), 0
    for _ in range(200):
        samples = _speech(800)
        changed += not np.array_equal(Augmentation(noise=0.3).apply(samples, draw)[0], samples)
    assert 40 <= changed <= 80


def test_a_telephone_passes_what_lies_below_four_kilohertz():
    t = np.arange(RATE) / RATE
    low, high = np.sin(2 * np.pi * 1000 * t), np.sin(2 * np.pi * 5000 * t)
    changed, _ = Augmentation(telephone=1.0).apply((0.3 * (low + high)).astype(np.float32), np.random.default_rng(0))
    np.testing.assert_allclose(changed, 0.3 * low, atol=1e-5)


@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_speed_changes_length_and_pitch_and_moves_what_was_at_sample_i_to_i_over_speed(speed):
    t = np.arange(RATE) / RATE
    samples = (0.3 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)
    click = np.zeros(RATE, np.float32)
    click[10000] = 1
    same = Augmentation(speed=(speed, speed))
    changed, told = same.apply(samples, np.random.default_rng(0))
    assert told == speed
    assert len(changed) == pytest.approx(RATE / speed, abs=1)
    peak = np.abs(np.fft.rfft(changed)).argmax() * RATE / len(changed)
    assert peak == pytest.approx(1000 * speed, abs=2)
    moved, _ = same.apply(click, np.random.default_rng(0))
    assert np.abs(moved).argmax() == pytest.approx(10000 / speed, abs=1)


def test_colour_is_a_smooth_gain_as_strong_as_was_asked():
    click = np.zeros(4096, np.float32)
    click[2000] = 1
    gains = []
    for seed in range(300):
        changed, speed = Augmentation(colour=6.0).apply(click, np.random.default_rng(seed))
        assert speed == 1
        assert len(changed) == len(click)
        gains.append(20 * np.log10(np.abs(np.fft.rfft(changed))))
    gains = np.array(gains)
    assert np.std(gains) == pytest.approx(6, rel=0.15)
    assert np.abs(np.diff(gains, axis=1)).max() < 1.0, "neighbouring frequencies are changed alike"
    assert np.abs(gains.mean(axis=0)).max() < 3
    plain, _ = Augmentation().apply(click, np.random.default_rng(0))
    np.testing.assert_array_equal(plain, click)


def test_the_same_chances_give_the_same_samples():
    strong = Augmentation(noise=0.5, telephone=0.5, speed=(0.9, 1.1))
    one, other = (strong.apply(_speech(), np.random.default_rng(7))[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise": 1.5}, {"noise": -0.1}, {"noise": float("nan")}, {"telephone": 2.0}, {"snr": (10.0, 5.0)},
        {"colour": -1.0}, {"colour": 41.0},
        {"snr": (float("nan"), 5.0)}, {"speed": (1.2, 0.9)}, {"speed": (0.1, 1.0)}, {"speed": (1.0, 3.0)},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(TrainingError):
        Augmentation(**wrong)
