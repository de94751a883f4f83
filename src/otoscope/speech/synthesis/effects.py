"""What is done to clean speech after it is rendered: a room, then noise."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from otoscope.errors import SpeechError
from otoscope.speech.synthesis.noise import NOISES, babble, mix, pink, read_talker, white
from otoscope.speech.synthesis.rooms import impulse_response, reverberate

_RATIOS = (0.0, 12.0)
"""Direct-to-reverberant ratios, dB: across a room to near the microphone."""


@dataclass(frozen=True)
class Effects:
    """Which effects recordings get; each recording draws its own. By default none.

    Attributes:
        noise: kinds of noise, each as likely: "white", "pink", "babble"; none where empty.
        snr: the least and the greatest signal-to-noise ratio, dB.
        rt60: the least and the greatest reverberation time, seconds; None for no room.

    Raises:
        SpeechError: there is no such noise, or a range is turned round or beyond what makes sense.
    """

    noise: tuple[str, ...] = ()
    snr: tuple[float, float] = (5.0, 20.0)
    rt60: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for kind in self.noise:
            if kind not in NOISES:
                raise SpeechError(f"There is no noise {kind!r}", f"Choose from {', '.join(NOISES)}.")
        if not -30 <= self.snr[0] <= self.snr[1] <= 80:
            raise SpeechError(
                f"Signal-to-noise ratios from {self.snr[0]} to {self.snr[1]} dB are no range",
                "Give the least and the greatest, from -30 to 80.",
            )
        if self.rt60 is not None and not 0.05 <= self.rt60[0] <= self.rt60[1] <= 3:
            raise SpeechError(
                f"Reverberation times from {self.rt60[0]} to {self.rt60[1]} seconds are no range",
                "Give the least and the greatest, from 0.05 to 3.",
            )

    def __bool__(self) -> bool:
        return bool(self.noise) or self.rt60 is not None


class Applied:
    """Effects as they are applied to the recordings of one speaker.

    Args:
        effects: which.
        seed: of all that is drawn.
        talkers: folders of the babble's talkers; who speaks is not among them.
    """

    def __init__(self, effects: Effects, seed: int, talkers: list[str]) -> None:
        self.effects, self._seed = effects, seed
        self._talkers = [read_talker(sorted(map(str, Path(one).rglob("*.flac")))) for one in talkers]

    def to(self, samples: Float32[np.ndarray, " n"], name: str) -> tuple[Float32[np.ndarray, " n"], dict[str, Any]]:
        """A recording with its effects, as long as before, and what they were.

        Args:
            samples: clean speech.
            name: of the recording; with the seed it decides what is drawn.
        """
        draw = random.Random(f"effects {self._seed} {name}")
        generator = np.random.default_rng(draw.getrandbits(64))
        told: dict[str, Any] = {}
        if self.effects.rt60 is not None:
            rt60, ratio = round(draw.uniform(*self.effects.rt60), 3), round(draw.uniform(*_RATIOS), 2)
            samples = reverberate(samples, impulse_response(rt60, ratio, generator))
            told |= {"rt60": rt60, "direct_to_reverberant_db": ratio}
        if self.effects.noise:
            kind, snr = draw.choice(self.effects.noise), round(draw.uniform(*self.effects.snr), 2)
            n = len(samples)
            noise = (
                babble(n, self._talkers, generator) if kind == "babble" else
                white(n, generator) if kind == "white" else pink(n, generator)
            )  # fmt: skip
            samples = mix(samples, noise, snr)
            told |= {"noise": kind, "snr_db": snr}
        return samples, told
