"""Noise to be added to clean speech at a given ratio."""

import numpy as np
import soundfile
from jaxtyping import Float32

from otoscope.errors import SpeechError

NOISES = ("white", "pink", "babble")
_PEAK = 0.99


def white(n: int, draw: np.random.Generator) -> Float32[np.ndarray, " n"]:
    """Noise with the same power at all frequencies.

    Args:
        n: samples.
        draw: where it comes from.
    """
    return draw.standard_normal(n).astype(np.float32)


def pink(n: int, draw: np.random.Generator) -> Float32[np.ndarray, " n"]:
    """Noise whose power falls by 3 dB an octave (1/f), without a constant part.

    Args:
        n: samples.
        draw: where it comes from.
    """
    spectrum = np.fft.rfft(draw.standard_normal(n))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    return np.fft.irfft(spectrum, n).astype(np.float32)


def babble(n: int, talkers: list[np.ndarray], draw: np.random.Generator) -> Float32[np.ndarray, " n"]:
    """Several people at once, all equally loud, each from a place of their own in what they say.

    Args:
        n: samples.
        talkers: recordings at 16 kHz, taken round and round.
        draw: where the places come from.

    Raises:
        SpeechError: a talker is silent.
    """
    mixed = np.zeros(n, np.float32)
    for talker in talkers:
        if not np.any(talker):
            raise SpeechError("A talker of the babble is silent", "Give recordings of speech.")
        start = int(draw.integers(len(talker)))
        mixed += np.take(talker, np.arange(start, start + n), mode="wrap") / np.sqrt(np.mean(np.square(talker)))
    return mixed


def mix(speech: Float32[np.ndarray, " n"], noise: Float32[np.ndarray, " n"], snr: float) -> Float32[np.ndarray, " n"]:
    """Adds noise so that the powers of speech and noise, over the whole recording, have the given ratio.

    Where the sum would pass full scale both are made softer alike, which leaves their ratio as it is.

    Args:
        speech: samples, shape (n,).
        noise: samples, shape (n,), of any level.
        snr: signal-to-noise ratio, dB.

    Returns:
        Samples within [-1, 1], shape (n,).

    Raises:
        SpeechError: speech or noise is silent, so that there is no ratio.
    """
    powers = [float(np.mean(np.square(one, dtype=np.float64))) for one in (speech, noise)]
    if not all(power > 0 for power in powers):
        raise SpeechError("Silence has no signal-to-noise ratio", "Give speech and noise that sound.")
    mixed = speech + noise * np.float32(np.sqrt(powers[0] / powers[1] / 10 ** (snr / 10)))
    return mixed * np.float32(_PEAK / max(float(np.abs(mixed).max()), _PEAK))


def read_talker(recordings: list[str]) -> Float32[np.ndarray, " n"]:
    """A talker of the babble: recordings one after the other.

    Args:
        recordings: paths of mono files at 16 kHz.
    """
    return np.concatenate([soundfile.read(path, dtype="float32")[0] for path in recordings])
