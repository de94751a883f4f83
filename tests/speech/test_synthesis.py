"""Synthesised speech: its labels are where its sounds are."""

import ctypes.util
import shutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from otoscope.errors import MissingPackageError, SpeechError
from otoscope.speech.phones import ARPABET_39
from otoscope.speech.synthesis import Espeak, Flite
from otoscope.speech.synthesis import espeak as espeak_module
from otoscope.speech.synthesis.espeak_phones import to_arpabet
from otoscope.speech.synthesis.spoken import share_phones, spoken_from_seconds

espeak = pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="needs the Debian package espeak-ng")
flite = pytest.mark.skipif(shutil.which("flite") is None, reason="needs the Debian package flite")
SENTENCE = "john turned on the light in the kitchen at nine"
ACCENTS = ["gmw/en-US", "gmw/en", "gmw/en-GB-x-rp", "gmw/en-GB-scotland", "gmw/en-US-nyc"]


def check(spoken, words):
    assert spoken.samples.dtype == np.float32
    assert np.abs(spoken.samples).max() <= 1
    assert [one.label for one in spoken.words] == words
    assert spoken.phones[0].start == 0
    assert spoken.phones[-1].end <= len(spoken.samples)
    for tier in (spoken.phones, spoken.words):
        assert all(a.end <= b.start for a, b in pairwise(tier))
    assert {one.label for one in spoken.phones} <= {*ARPABET_39, "sil"}
    inside = [p for p in spoken.phones if p.label != "sil"]
    for word in spoken.words:
        assert any(p.start == word.start for p in inside)
        assert any(p.end == word.end for p in inside)


@espeak
@pytest.mark.parametrize("accent", ACCENTS)
def test_espeak_says_all_words_with_their_phones(accent):
    check(Espeak().say(SENTENCE, f"{accent}+f2", 160), SENTENCE.split())


@espeak
def test_espeak_silences_are_silent_and_hisses_hiss():
    """The label of s lies on the noise above 4 kHz, to within a few milliseconds."""
    spoken = Espeak().say("a seesaw", "gmw/en-US+m3", 120)
    hiss = [p for p in spoken.phones if p.label == "s"]
    assert len(hiss) == 2
    step = 80
    energy = np.array(
        [
            np.square(
                np.abs(np.fft.rfft(spoken.samples[a : a + 2 * step] * np.hanning(2 * step)))[80 * 2 * step // 320 :]
            ).sum()
            for a in range(0, len(spoken.samples) - 2 * step, step)
        ]
    )
    loud = energy > energy.max() * 0.05
    for phone in hiss:
        inside = loud[phone.start // step + 2 : phone.end // step - 2]
        assert inside.mean() > 0.8


@espeak
def test_espeak_is_the_same_in_every_process():
    """Within a process espeak-ng goes on from where it was, so a corpus is the same only if its order is."""
    code = (
        "import hashlib; from otoscope.speech.synthesis import Espeak; "
        f"print(hashlib.sha256(Espeak().say({SENTENCE!r}, 'gmw/en+m1').samples.tobytes()).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout


@espeak
def test_espeak_refuses_a_voice_it_does_not_know():
    with pytest.raises(SpeechError, match="knows no voice 'martian'"):
        Espeak().say("hello", "martian")


@flite
@pytest.mark.parametrize("voice", ["slt", "awb"])
def test_flite_says_all_words_with_their_phones(voice):
    check(Flite().say(SENTENCE, voice, 1.1), SENTENCE.split())


def fundamental(samples):
    """The median of the fundamental frequency, Hz, where one is plain, by autocorrelation."""
    found = []
    for start in range(0, len(samples) - 640, 160):
        frame = samples[start : start + 640] - samples[start : start + 640].mean()
        if np.sqrt(np.mean(np.square(frame))) > 0.02:
            correlation = np.correlate(frame, frame, "full")[639:]
            lag = 46 + int(np.argmax(correlation[46:267]))  # 60 to 350 Hz
            if correlation[lag] > 0.6 * correlation[0]:
                found.append(16000 / lag)
    return np.median(found)


@flite
@pytest.mark.parametrize("voice", ["slt", "awb"])
def test_flite_shifts_the_pitch_and_keeps_the_times(voice):
    usual, high = Flite().say(SENTENCE, voice), Flite().say(SENTENCE, voice, shift=1.25)
    assert fundamental(high.samples) / fundamental(usual.samples) == pytest.approx(1.25, abs=0.07)
    assert high.words == usual.words


def envelope_shift(one: np.ndarray, other: np.ndarray) -> float:
    """The factor on frequency under which the long-term spectra of two recordings agree best."""
    bins = np.arange(4, 200)
    spectra = []
    for wave in (one, other):
        frames = np.lib.stride_tricks.sliding_window_view(wave, 512)[::160] * np.hanning(512)
        spectra.append(np.log(np.mean(np.abs(np.fft.rfft(frames)) ** 2, axis=0) + 1e-8))
    factors = np.linspace(0.8, 1.25, 46)
    fits = [np.corrcoef(spectra[1][bins], np.interp(bins / f, np.arange(257), spectra[0]))[0, 1] for f in factors]
    return float(factors[int(np.argmax(fits))])


@flite
def test_flite_moves_the_formants_and_keeps_pitch_and_times():
    usual, small = Flite().say(SENTENCE, "slt"), Flite().say(SENTENCE, "slt", formants=1.15)
    assert fundamental(small.samples) / fundamental(usual.samples) == pytest.approx(1, abs=0.06)
    assert len(small.samples) / len(usual.samples) == pytest.approx(1, abs=0.03)
    for one, other in zip(small.words, usual.words, strict=True):
        assert one.label == other.label
        assert one.start == pytest.approx(other.start, abs=1600)
    assert envelope_shift(usual.samples, small.samples) == pytest.approx(1.15, abs=0.06)


@flite
@pytest.mark.parametrize("asked", [{"shift": 1.1}, {"formants": 1.1}])
def test_a_voice_without_a_pitch_to_shift_says_so(asked):
    with pytest.raises(SpeechError, match="'rms' cannot change its pitch"):
        Flite().say(SENTENCE, "rms", **asked)


def test_absent_synthesisers_name_their_package(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingPackageError, match="apt-get install flite"):
        Flite()
    espeak_module._library.cache_clear()
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "libnothing.so.9")
    with pytest.raises(MissingPackageError, match="apt-get install espeak-ng"):
        Espeak()
    espeak_module._library.cache_clear()


def test_phones_of_accents():
    assert to_arpabet("A@") == ("aa", "r")
    assert to_arpabet("A@", rhotic=False) == ("aa",)
    assert to_arpabet("n-") == ("ah", "n")
    assert to_arpabet("t2") == ("t",)
    with pytest.raises(SpeechError, match="no ARPAbet name"):
        to_arpabet("#!")


@pytest.mark.parametrize(
    ("words", "phones", "alone", "expected"),
    [(["in", "the"], 4, [2, 2], [2, 2]), (["of", "the"], 5, [2, 2], [3, 2]), (["a", "b", "c"], 3, [5, 5, 5], [1, 1, 1]),
     (["in", "the"], 1, [2, 2], []), (["house"], 3, [0], [3])],
)  # fmt: skip
def test_phones_are_shared_out_among_words_run_together(words, phones, alone, expected):
    assert share_phones(words, phones, alone) == expected


def test_times_in_seconds_become_samples_at_16_khz():
    spoken = spoken_from_seconds(
        np.zeros(22050, np.float32), 22050, [(0.0, 0.5, "aa"), (0.5, 0.5, "b"), (0.5, 1.2, "s")], []
    )
    assert len(spoken.samples) == 16000
    assert [(p.start, p.end, p.label) for p in spoken.phones] == [(0, 8000, "aa"), (8000, 16000, "s")]
