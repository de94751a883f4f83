"""Noise at the ratio asked for, rooms with the reverberation time asked for, and labels that stay where they were."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import SpeechError
from otoscope.speech.synthesis.effects import Applied, Effects
from otoscope.speech.synthesis.noise import babble, mix, pink, white
from otoscope.speech.synthesis.rooms import impulse_response, reverberate

SPEECH = (0.1 * np.sin(np.arange(16000) ** 1.3 / 50)).astype(np.float32)


def decibels(one, other):
    return 10 * np.log10(np.mean(np.square(one, dtype=float)) / np.mean(np.square(other, dtype=float)))


@given(snr=st.floats(-20, 60), seed=st.integers(0, 99), level=st.floats(1e-4, 10))
def test_the_ratio_is_the_one_asked_for(snr, seed, level):
    noise = np.float32(level) * white(16000, np.random.default_rng(seed))
    mixed = mix(SPEECH, noise, snr)
    assert np.abs(mixed).max() <= 1
    # The gains of speech and noise in the mixture, by least squares.
    gains = np.linalg.lstsq(np.stack([SPEECH, noise], 1).astype(float), mixed.astype(float), rcond=None)[0]
    assert decibels(gains[0] * SPEECH, gains[1] * noise) == pytest.approx(snr, abs=0.01)


def test_a_loud_mixture_is_made_softer_not_clipped():
    mixed = mix(SPEECH * 9, white(16000, np.random.default_rng(0)), 0)
    assert np.abs(mixed).max() == pytest.approx(0.99, abs=1e-3)
    assert (np.abs(mixed) > 0.98).sum() < 5


def test_silence_has_no_ratio():
    with pytest.raises(SpeechError, match="Silence has no signal-to-noise ratio"):
        mix(np.zeros(100, np.float32), np.ones(100, np.float32), 10)
    with pytest.raises(SpeechError, match="Silence has no signal-to-noise ratio"):
        mix(np.ones(100, np.float32), np.full(100, np.nan, np.float32), 10)
    for silent in (np.zeros(100, np.float32), np.zeros(0, np.float32)):
        with pytest.raises(SpeechError, match="talker of the babble is silent"):
            babble(100, [SPEECH, silent], np.random.default_rng(0))


@pytest.mark.parametrize(("make", "slope"), [(white, 0), (pink, -3.01)])
def test_noises_have_their_slope(make, slope):
    power = np.square(np.abs(np.fft.rfft(make(2**18, np.random.default_rng(0)))))
    octaves = [10 * np.log10(power[2**k : 2 ** (k + 1)].mean()) for k in range(8, 16)]
    assert np.polyfit(range(8), octaves, 1)[0] == pytest.approx(slope, abs=0.15)
    assert abs(pink(2**10, np.random.default_rng(0)).mean()) < 1e-6  # no constant part


def test_talkers_of_the_babble_are_equally_loud():
    draw = np.random.default_rng(0)
    talkers = [level * draw.standard_normal(5000).astype(np.float32) for level in (0.01, 1)]
    alone = [babble(20000, [one], np.random.default_rng(1)) for one in talkers]
    assert decibels(*alone) == pytest.approx(0, abs=0.01)
    both = babble(20000, talkers, np.random.default_rng(1))
    assert np.mean(np.square(both)) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("rt60", [0.2, 0.5, 1.2])
def test_sound_has_fallen_by_60_db_after_the_reverberation_time(rt60):
    """By Schroeder's backward integration, from -5 to -25 dB."""
    response = impulse_response(rt60, 3.0, np.random.default_rng(0)).astype(float)
    assert not response[1:32].any()  # the first reflections come after 2 ms
    tail = response[40:]
    level = 10 * np.log10(np.cumsum(np.square(tail)[::-1])[::-1] / np.square(tail).sum())
    a, b = (int(np.argmax(level < limit)) for limit in (-5, -25))
    assert 3 * (b - a) / 16000 == pytest.approx(rt60, rel=0.08)
    assert decibels(response[:1], response[1:]) - 10 * np.log10(len(response) - 1) == pytest.approx(3.0, abs=0.01)


def test_the_direct_sound_stays_where_it_was():
    click = np.zeros(8000, np.float32)
    click[1234] = 0.5
    heard = reverberate(click, impulse_response(0.4, 6.0, np.random.default_rng(0)))
    assert len(heard) == 8000
    assert np.argmax(np.abs(heard)) == 1234
    assert np.abs(heard[:1234]).max() < 1e-6
    assert np.any(heard[1300:] != 0)
    late = reverberate(np.roll(click, 6700), impulse_response(0.4, 6.0, np.random.default_rng(0)))
    assert np.abs(late[:7934]).max() < 1e-6  # what rings on after the end does not come in again at the start


def test_a_room_leaves_loudness_alone():
    heard = reverberate(SPEECH, impulse_response(0.4, 6.0, np.random.default_rng(0)))
    assert decibels(heard, SPEECH) == pytest.approx(0, abs=0.01)


def test_each_recording_draws_its_own_within_the_ranges():
    effects = Applied(Effects(("white", "pink"), (3, 9), (0.2, 0.3)), 7, [])
    told = []
    for k in range(20):
        samples, what = effects.to(SPEECH, f"one-{k}")
        again, same = effects.to(SPEECH, f"one-{k}")
        assert np.array_equal(samples, again)
        assert what == same
        assert len(samples) == len(SPEECH)
        told.append(what)
    assert {one["noise"] for one in told} == {"white", "pink"}
    assert all(3 <= one["snr_db"] <= 9 and 0.2 <= one["rt60"] <= 0.3 for one in told)
    assert len({one["snr_db"] for one in told}) > 15
    assert Applied(effects.effects, 8, []).to(SPEECH, "one-0")[1] != told[0]
    same = Applied(Effects(("white",), (5, 5)), 7, [])
    noises = [same.to(SPEECH, name)[0] for name in ("one", "two")]
    assert not np.array_equal(*noises)  # and not only the ratio


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"noise": ("brown",)}, "no noise 'brown'"), ({"snr": (20, 5)}, "from 20 to 5 dB"),
     ({"rt60": (0.5, 0.2)}, "from 0.5 to 0.2 seconds"), ({"rt60": (0.0, 0.2)}, "from 0.0")],
)  # fmt: skip
def test_effects_that_make_no_sense_are_refused(settings, told):
    with pytest.raises(SpeechError, match=told):
        Effects(**settings)


def test_no_effects_by_default():
    assert not Effects()
    assert Effects(("pink",))
    assert Effects(rt60=(0.2, 0.4))
