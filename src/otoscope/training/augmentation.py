"""Changes to training speech: speed, colour, noise, a telephone's band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr

from otoscope.errors import TrainingError
from otoscope.speech.utterance import RATE

_RIPPLES = 5


@dataclass(frozen=True)
class Augmentation:
    """How often and how strongly speech is changed before a model hears it.

    Attributes:
        noise: share of the utterances with noise, half of it white, half of it with more power below.
        snr: lowest and highest signal-to-noise ratio in dB.
        telephone: share of the utterances without anything above 4 kHz.
        speed: slowest and fastest speed; pitch and formants move along, as with another vocal tract.
        colour: standard deviation in dB of a smooth random gain over frequency, as of another microphone or voice.

    Raises:
        TrainingError: a share is not within 0 and 1, or a range is the wrong way round.
    """

    noise: float = 0.0
    snr: tuple[float, float] = (8.0, 35.0)
    telephone: float = 0.0
    speed: tuple[float, float] = (1.0, 1.0)
    colour: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.noise <= 1 and 0 <= self.telephone <= 1):
            raise TrainingError(
                f"noise {self.noise} and telephone {self.telephone} are shares of the utterances",
                "Give numbers from 0 to 1.",
            )
        if not 0 <= self.colour <= 40:
            raise TrainingError(f"colour is {self.colour} dB", "Give a number from 0 to 40.")
        if not self.snr[0] <= self.snr[1] or not 0.5 <= self.speed[0] <= self.speed[1] <= 2:
            raise TrainingError(
                f"snr {self.snr} or speed {self.speed} is no range", "Give the lower end first, speeds from 0.5 to 2."
            )

    def apply(self, samples: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, float]:
        """Changes one utterance.

        Args:
            samples: float32 at 16 kHz, shape (n,).
            draw: where the chances come from.

        Returns:
            The changed samples and the speed: what was at sample i now lies at i / speed.
        """
        speed = 1.0
        if self.speed[0] < self.speed[1] or self.speed[0] != 1:
            speed = float(draw.uniform(*self.speed))
            samples = soxr.resample(samples, RATE * speed, RATE)
        if self.colour:
            samples = _coloured(samples, self.colour, draw)
        if draw.random() < self.noise:
            samples = samples + _noise(samples, float(draw.uniform(*self.snr)), draw)
        if draw.random() < self.telephone:
            spectrum = np.fft.rfft(samples)
            spectrum[len(spectrum) // 2 :] = 0
            samples = np.fft.irfft(spectrum, len(samples))
        return np.asarray(samples, np.float32), speed


def _coloured(samples: np.ndarray, deviation: float, draw: np.random.Generator) -> np.ndarray:
    """A gain in dB that is a sum of cosines over the mel scale, all equally strong on average."""
    spectrum = np.fft.rfft(samples)
    mel = np.log1p(np.linspace(0, RATE / 2, len(spectrum)) / 700)
    orders = np.arange(1, _RIPPLES + 1)[:, None]
    weights = draw.normal(0, deviation * np.sqrt(2 / _RIPPLES), _RIPPLES)
    return np.fft.irfft(spectrum * 10 ** (weights @ np.cos(np.pi * orders * mel / mel[-1]) / 20), len(samples))


def _noise(samples: np.ndarray, snr: float, draw: np.random.Generator) -> np.ndarray:
    noise = draw.standard_normal(len(samples))
    if draw.random() < 0.5:
        noise = np.cumsum(noise)
        noise -= np.convolve(noise, np.full(400, 1 / 400), "same")
    return noise * ((samples.std() + 1e-4) / (noise.std() + 1e-6) * 10 ** (-snr / 20))
