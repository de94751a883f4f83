"""Mel cepstra (MFCC) with their differences."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from scipy.fft import dct

from otoscope.speech.mel import log_mel

CEPSTRA = 13


def mel_cepstra(samples: np.ndarray) -> Float32[np.ndarray, "frames 39"]:
    """Mel cepstra with first and second differences, every 10 ms.

    Thirteen coefficients of the log-mel features (`otoscope.speech.mel`), less their mean over the utterance, so that
    a voice's timbre counts for less than what it says; differences over two mel frames to either side.

    Args:
        samples: 16 kHz mono, shape (n,).

    Returns:
        Shape (1 + n // 160, 39); frame t is centred on sample 160 t.

    Raises:
        AudioError: as `log_mel`.
    """
    own = dct(np.asarray(log_mel(samples)), type=2, norm="ortho", axis=1)[:, :CEPSTRA]
    own -= own.mean(0)
    parts = [own, _differences(own)]
    parts.append(_differences(parts[1]))
    return np.concatenate(parts, 1).astype(np.float32)


def _differences(x: np.ndarray) -> np.ndarray:
    """Regression over two frames to either side, edges repeated."""
    padded = np.pad(x, ((2, 2), (0, 0)), mode="edge")
    n = len(x)
    return sum(k * (padded[2 + k : 2 + k + n] - padded[2 - k : 2 - k + n]) for k in (1, 2)) / 10
