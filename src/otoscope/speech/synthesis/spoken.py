"""What a synthesiser returns: samples with the times of their phones and words."""

from dataclasses import dataclass

import numpy as np
import soxr

from otoscope.speech.utterance import RATE, Interval

_PEAK = 0.99

# A timed label in seconds: (start, end, label).
Timed = tuple[float, float, str]


@dataclass(frozen=True)
class Spoken:
    """One synthesised sentence.

    Attributes:
        samples: float32, mono, 16 kHz, shape (n,), within [-1, 1].
        phones: ARPAbet phones and "sil", back to back, in samples.
        words: the words, without silences, in samples.
    """

    samples: np.ndarray
    phones: tuple[Interval, ...]
    words: tuple[Interval, ...]


def spoken_from_seconds(samples: np.ndarray, rate: float, phones: list[Timed], words: list[Timed]) -> Spoken:
    """Resamples to 16 kHz and turns times in seconds into samples within the recording.

    Args:
        samples: float32, mono, shape (n,), at `rate`.
        rate: samples per second.
        phones: timed ARPAbet labels in seconds.
        words: timed words in seconds.
    """
    wave = soxr.resample(samples, rate, RATE).astype(np.float32)
    wave *= min(1.0, _PEAK / max(float(np.abs(wave).max()), _PEAK))  # resampling can overshoot full scale
    return Spoken(wave, _intervals(phones, len(wave)), _intervals(words, len(wave)))


def _intervals(timed: list[Timed], n: int) -> tuple[Interval, ...]:
    rows = ((min(round(a * RATE), n), min(round(b * RATE), n), label) for a, b, label in timed)
    return tuple(Interval(a, b, label) for a, b, label in rows if b > a)


def share_phones(words: list[str], n_phones: int, alone: list[int]) -> list[int]:
    """How many of a group's phones belong to each of its words.

    Synthesisers run short words together ("in the"); the words' lengths when spoken alone say where to cut. Where
    the sum differs from what was heard, the first word takes the difference, since it is the end of such a group
    ("the", "a") that hardly varies.

    Args:
        words: the words of the group, in order.
        n_phones: the phones of the whole group.
        alone: for each word the number of phones it has when spoken alone.

    Returns:
        One count a word, each at least 1, with sum `n_phones`; empty if there are fewer phones than words.
    """
    if n_phones < len(words):
        return []
    counts, left = [], n_phones
    for k in range(len(words) - 1, 0, -1):
        take = max(1, min(alone[k], left - k))
        counts.append(take)
        left -= take
    counts.append(left)
    return counts[::-1]
