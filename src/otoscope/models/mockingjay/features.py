"""Mel features with their deltas, as Mockingjay was pre-trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from otoscope.errors import AudioError
from otoscope.speech.audio import RATE
from otoscope.speech.mel import HOP, WINDOW, hann_window

DELTA_WIDTH = 9
"""Mel frames that a slope is fitted to."""

_SMALLEST = 1e-6
_NARROWEST = 1e-8  # of a standard deviation: a band that never changes becomes zeros


class MockingjayFeatureExtractor(SequenceFeatureExtractor):
    """Log-mel features and their deltas, normalised over the utterance.

    Power spectra of 25 ms under a periodic Hann window, every 10 ms, centred on samples 0, 160, ... with the signal
    reflected at its borders, summed by Slaney-style mel filters from 0 to 8 kHz; log(x + 1e-6); deltas are slopes of
    straight lines fitted to nine frames, at the borders that of the outermost nine; every feature is brought to zero
    mean and unit variance over the utterance.

    Source: s3prl's feature extraction ("fbank" with delta and cmvn, 160 features), which takes these steps from librosa.

    Args:
        feature_size: 80 times one more than the order of the deltas: 80, 160 or 240.
        sampling_rate: 16000.
        padding_value: of frames beyond an utterance's end.
        normalise: whether features are normalised over the utterance.
        **other: of the base class.

    Raises:
        AudioError: another number of features or of samples a second.
    """

    model_input_names = ["input_features", "attention_mask"]  # noqa: RUF012 - the name and type that the library wants

    def __init__(
        self,
        feature_size: int = 160,
        sampling_rate: int = RATE,
        padding_value: float = 0.0,
        normalise: bool = True,
        **other: Any,
    ) -> None:
        if feature_size not in (80, 160, 240) or sampling_rate != RATE:
            raise AudioError(
                f"Mockingjay features of {feature_size} numbers a frame at {sampling_rate} samples a second",
                f"Ask for 80 mel bands, 160 with deltas or 240 with deltas of these, at {RATE}.",
            )
        self.normalise = normalise
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **other)

    def features(self, samples: np.ndarray) -> Float[np.ndarray, "frames features"]:
        """Features of one utterance.

        Args:
            samples: 16 kHz mono, shape (n,).

        Returns:
            float32, shape (1 + n // 160, feature_size).

        Raises:
            AudioError: it is shorter than the nine frames that deltas are fitted to.
        """
        found = [log_mel_power(samples)]
        while len(found) < self.feature_size // 80:
            found.append(deltas(found[-1]))
        values = np.concatenate(found, 1)
        if self.normalise:
            values = (values - values.mean(0)) / np.maximum(values.std(0), _NARROWEST)
        return values.astype(np.float32)

    def __call__(
        self,
        raw_speech: np.ndarray | Sequence[np.ndarray],
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
        **other: Any,
    ) -> BatchFeature:
        """Features of a batch, padded.

        Args:
            raw_speech: samples of one utterance, shape (n,), or of several.
            sampling_rate: that of the samples.
            padding: see transformers' `SequenceFeatureExtractor.pad`.
            return_tensors: "pt", "np" or None.
            **other: of `SequenceFeatureExtractor.pad`.

        Returns:
            "input_features", (B, T, feature_size), and "attention_mask", (B, T).

        Raises:
            AudioError: the samples are at another rate, or an utterance is too short.
        """
        if sampling_rate not in (None, RATE):
            raise AudioError(f"Samples at {sampling_rate} a second", f"Resample them to {RATE}.")
        alone = isinstance(raw_speech, np.ndarray) and raw_speech.ndim == 1
        utterances: Any = [raw_speech] if alone else raw_speech
        rows = [self.features(np.asarray(one)) for one in utterances]
        return self.pad(BatchFeature({"input_features": rows}), padding=padding, return_tensors=return_tensors, **other)


def log_mel_power(samples: np.ndarray) -> Float[np.ndarray, "frames 80"]:
    """log(mel power + 1e-6) of an utterance of n samples, float64, shape (1 + n // 160, 80)."""
    if samples.ndim != 1 or len(samples) < 2:
        raise AudioError(
            f"Mel features of an array of shape {samples.shape}", "Give the samples of one channel, at least two."
        )
    padded = np.pad(samples.astype(np.float64), WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * hann_window().astype(np.float64))) ** 2
    return np.log(power @ _filters() + _SMALLEST)


def deltas(features: Float[np.ndarray, "frames bands"]) -> Float[np.ndarray, "frames bands"]:
    """Slope over time, in units a frame, of the straight line that fits the nine frames around each best.

    The four frames at either end have the slope of the outermost nine. Source: librosa's `feature.delta`, a
    Savitzky-Golay filter of order one.

    Raises:
        AudioError: there are fewer than nine frames.
    """
    if len(features) < DELTA_WIDTH:
        raise AudioError(
            f"Deltas of {len(features)} mel frames", f"Give {DELTA_WIDTH} frames of 10 ms or more, or leave deltas out."
        )
    half = DELTA_WIDTH // 2
    offsets = np.arange(-half, half + 1)
    windows = np.lib.stride_tricks.sliding_window_view(features, DELTA_WIDTH, 0)  # (frames - 8, bands, 9)
    slopes = windows @ (offsets / (offsets**2).sum())
    return np.pad(slopes, ((half, half), (0, 0)), mode="edge")


@cache
def _filters() -> Float[np.ndarray, "bins 80"]:
    return mel_filter_bank(
        num_frequency_bins=WINDOW // 2 + 1, num_mel_filters=80, min_frequency=0.0, max_frequency=RATE / 2,
        sampling_rate=RATE, norm="slaney", mel_scale="slaney",
    )  # fmt: skip
