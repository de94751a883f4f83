"""Reverberation of rooms, with the direct sound where it was: labels keep their times."""

import numpy as np
from jaxtyping import Float32

from otoscope.speech.utterance import RATE

_GAP = 0.002
"""Seconds from the direct sound to the first reflections: a wall a third of a metre away."""


def impulse_response(rt60: float, ratio: float, draw: np.random.Generator) -> Float32[np.ndarray, " n"]:
    """A room by Polack's model: the direct sound, then Gaussian noise that decays exponentially.

    Polack, J.-D. (1988). La transmission de l'energie sonore dans les salles. The power at time t after the direct
    sound is 10 ** (-6 t / rt60), so that it has fallen by 60 dB after `rt60` seconds.

    Args:
        rt60: reverberation time, seconds.
        ratio: direct-to-reverberant energy ratio, dB.
        draw: where the noise comes from.

    Returns:
        At 16 kHz, shape (n,), n / 16000 = rt60. The first sample is the direct sound and is 1.
    """
    n, gap = round(rt60 * RATE), round(_GAP * RATE)
    tail = draw.standard_normal(n) * 10 ** (-3 * np.arange(n) / (rt60 * RATE))
    tail[:gap] = 0
    tail *= np.sqrt(10 ** (-ratio / 10) / np.sum(np.square(tail)))
    tail[0] = 1
    return tail.astype(np.float32)


def reverberate(speech: Float32[np.ndarray, " n"], response: Float32[np.ndarray, " m"]) -> Float32[np.ndarray, " n"]:
    """Speech as it sounds in a room, as loud as it was and as long as it was: what rings on after the end is cut.

    Args:
        speech: samples, shape (n,).
        response: of the room, shape (m,), the direct sound first.

    Returns:
        Samples within [-1, 1], shape (n,).
    """
    size = 1 << (len(speech) + len(response) - 1).bit_length()  # no shorter than the convolution, and quick
    heard = np.fft.irfft(np.fft.rfft(speech, size) * np.fft.rfft(response, size), size)[: len(speech)]
    power, before = (float(np.mean(np.square(one, dtype=np.float64))) for one in (heard, speech))
    gain = np.sqrt(before / power) if power else 1.0
    return (heard * min(gain, 0.99 / max(float(np.abs(heard).max()), 1e-9))).astype(np.float32)
