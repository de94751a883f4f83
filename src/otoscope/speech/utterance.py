"""One stretch of speech: where its samples are, who speaks, what is said, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from otoscope.errors import CorpusError, SpeechError
from otoscope.speech.audio import RATE, AudioSource, Recording, from_array, read_source

__all__ = ["NO_TIER_CURE", "RATE", "Interval", "Utterance"]

NO_TIER_CURE = "Give alignments (a folder of TextGrids or a CTM file), or choose measures without this tier."


@dataclass(frozen=True, slots=True)
class Interval:
    """A label with its time.

    Attributes:
        start: first sample at 16 kHz.
        end: one past the last sample.
        label: phone, word, or whatever the tier holds.

    Raises:
        SpeechError: the interval is empty or starts before the recording.

    >>> Interval(1600, 3200, "aa").duration
    1600
    """

    start: int
    end: int
    label: str

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise SpeechError(
                f"Interval {self.label!r} from {self.start} to {self.end} samples is empty or negative",
                "Give 0 <= start < end in whole samples at 16 kHz.",
            )

    @property
    def duration(self) -> int:
        """Length in samples."""
        return self.end - self.start


@dataclass(frozen=True)
class Utterance:
    """Speech that is read only when asked for.

    Two utterances are equal when all but their `source` is equal.

    Attributes:
        id: unique in its corpus.
        speaker: who speaks, or None where it is not known.
        transcript: what is said, or None where it is not known.
        n_samples: length at 16 kHz; exactly what `read` returns.
        tiers: intervals by tier, sorted and not overlapping. "word" holds words in lower case and no
            silences; "phone" holds phones, and silences as "sil".
        source: where the samples are: a stretch of a file, or float samples at 16 kHz, shape (n_samples,).
    """

    id: str
    speaker: str | None
    transcript: str | None
    n_samples: int
    tiers: Mapping[str, tuple[Interval, ...]] = field(hash=False)
    source: AudioSource | np.ndarray = field(compare=False, repr=False)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.n_samples / RATE

    def read(self) -> Float32[np.ndarray, " n"]:
        """Samples at 16 kHz, mono, float32, shape (n_samples,); the caller may write to them.

        Raises:
            AudioError: the recording cannot be decoded, is truncated, or holds NaN or infinity.
        """
        return self.recording().samples

    def recording(self) -> Recording:
        """Samples as `read` gives them, with the number that were clipped.

        Raises:
            AudioError: as `read`.
        """
        if isinstance(self.source, AudioSource):
            return read_source(self.source)
        # A copy, so that writing to what was read leaves the corpus as it is.
        return from_array(self.source.copy(), RATE, f"Utterance {self.id}")

    def tier(self, name: str) -> tuple[Interval, ...]:
        """Intervals of a tier.

        Raises:
            CorpusError: the utterance has no such tier.
        """
        if name in self.tiers:
            return self.tiers[name]
        there = ", ".join(sorted(self.tiers)) or "none at all"
        raise CorpusError(f"Utterance {self.id} has no tier {name!r}; its tiers: {there}", NO_TIER_CURE)
