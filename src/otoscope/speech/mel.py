"""Log-mel features as layer-wise analysis correlates layers with them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from jaxtyping import Float, Float32

from otoscope.errors import AudioError
from otoscope.speech.audio import RATE

HOP = 160
"""Samples from one mel frame to the next (10 ms)."""

WINDOW = 400
N_FFT = 2048
N_MELS = 80
F_MIN = 50.0
PEAK = 0.999
PRE_EMPHASIS = 0.97
TOP_DB = 80.0
SMALLEST = 1e-5


def log_mel(samples: Any) -> Any:
    """Log-mel features with a hop of 10 ms.

    The signal is scaled to a peak of 0.999 and pre-emphasised, x[t] - 0.97 x[t-1]. Magnitudes (power 1) of a
    2048-point transform under a periodic Hann window of 400 samples, centred on every 160th sample (zeros
    beyond the borders), are summed by 80 Slaney-style mel filters from 50 Hz to 8 kHz. Then
    20 log10(max(m, 1e-5)), nothing lower than 80 dB below the utterance's maximum, divided by 80, plus 1.
    This is what librosa's `melspectrogram` and `amplitude_to_db` give with these settings.

    Source: the released code of Pasad, Chou and Livescu, 2021 (arXiv 2107.04734), experiment `cca_mel`.

    Args:
        samples: 16 kHz mono, a numpy array or torch tensor of real numbers, shape (n,), n at least 1.

    Returns:
        float32, shape (1 + n // 160, 80); frame t is centred on sample 160 t. A silent signal gives -0.25
        throughout. For a tensor, a tensor on its device; it is computed by numpy, without gradients.

    Raises:
        AudioError: the array is not one-dimensional, is empty, is not of real numbers, or holds NaN or infinity.
    """
    if is_torch_array(samples):
        import torch

        # numpy has no bfloat16; complex numbers are left for `_signal` to refuse.
        held = samples.detach().cpu()
        held = held.float() if held.is_floating_point() else held
        return torch.from_numpy(_features(_signal(held.numpy()))).to(samples.device)
    return _features(_signal(np.asarray(samples)))


def _signal(samples: np.ndarray) -> Float32[np.ndarray, " n"]:
    """A copy of the samples, checked."""
    if samples.ndim != 1 or len(samples) == 0:
        raise AudioError(
            f"Mel features of an array of shape {samples.shape}",
            "Give the samples of one channel of one utterance, shape (n,), at least one.",
        )
    if samples.dtype.kind not in "fiu":
        raise AudioError(f"Mel features of an array of {samples.dtype}", "Give samples that are real numbers.")
    with np.errstate(over="ignore"):
        signal = samples.astype(np.float32)
    finite = np.isfinite(signal)
    if not finite.all():
        raise AudioError(
            f"Mel features of {int(len(signal) - finite.sum())} sample(s) that are NaN or infinite, the first"
            f" at {int(np.argmin(finite)) / RATE:.3f} s",
            "Repair the recording, or cut that part out.",
        )
    return signal


def _features(signal: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, "frames 80"]:
    peak = np.abs(signal).max()
    if peak > 0:
        signal *= PEAK / peak
    padded = np.zeros(len(signal) + WINDOW, np.float32)
    inner = padded[WINDOW // 2 : -WINDOW // 2]
    inner[:] = signal
    inner[1:] -= np.float32(PRE_EMPHASIS) * signal[:-1]
    # A window in the middle of the transform's 2048 points and one at its start differ in phase only.
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    magnitude = np.abs(np.fft.rfft(frames * hann_window(), n=N_FFT))
    decibels = 20 * np.log10(np.maximum(magnitude @ mel_filters().T, np.float32(SMALLEST)))
    decibels = np.maximum(decibels, decibels.max() - np.float32(TOP_DB))
    return (decibels / np.float32(TOP_DB) + 1).astype(np.float32)


@cache
def hann_window() -> Float32[np.ndarray, " window"]:
    """The periodic Hann window, shape (400,)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


@cache
def mel_filters() -> Float32[np.ndarray, "80 bins"]:
    """Triangular filters, equally spaced on Slaney's mel scale and scaled to equal area, shape (80, 1025).

    Source: Slaney, Auditory Toolbox (1998), as librosa's `filters.mel(norm="slaney", htk=False)`.
    """
    lowest, highest = hertz_to_mel(np.array([F_MIN, RATE / 2]))
    edges = mel_to_hertz(np.linspace(lowest, highest, N_MELS + 2))
    bins = np.linspace(0, RATE / 2, N_FFT // 2 + 1)
    ramps = edges[:, None] - bins
    width = np.diff(edges)[:, None]
    rising = -ramps[:-2] / width[:-1]
    falling = ramps[2:] / width[1:]
    filters = np.maximum(0, np.minimum(rising, falling))
    filters *= (2 / (edges[2:] - edges[:-2]))[:, None]
    return filters.astype(np.float32)


# Slaney's scale: linear, 200/3 Hz a mel, up to 1 kHz (15 mel); above, 27 mel for a factor of 6.4.
_LINEAR = 200 / 3
_KNEE_HERTZ = 1000.0
_KNEE_MEL = _KNEE_HERTZ / _LINEAR
_LOG_STEP = np.log(6.4) / 27


def hertz_to_mel(hertz: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Frequencies in Hz on Slaney's mel scale."""
    log_part = _KNEE_MEL + np.log(np.maximum(hertz, _KNEE_HERTZ) / _KNEE_HERTZ) / _LOG_STEP
    return np.where(hertz < _KNEE_HERTZ, hertz / _LINEAR, log_part)


def mel_to_hertz(mel: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Slaney's mel scale to frequencies in Hz."""
    log_part = _KNEE_HERTZ * np.exp(_LOG_STEP * (np.maximum(mel, _KNEE_MEL) - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, mel * _LINEAR, log_part)
