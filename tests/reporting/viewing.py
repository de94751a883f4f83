"""A small viewing that the tests of page, server and browser share."""

from functools import cache

import numpy as np

from otoscope.models import load
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Interval
from otoscope.workflow.viewing import Viewing, view
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES

WAV2VEC2, WAVLM = (next(case for case in CASES if case.name == name) for name in ("wav2vec2-group", "wavlm-group"))


@cache
def small_viewing(two: bool = False) -> Viewing:
    """One utterance of about a second in a model of 3 x 4 heads, or in two."""
    other = load(WAVLM.build(), name="second") if two else None
    return view(load(WAV2VEC2.build(), name="first"), small_speech(1), against=other)


@cache
def long_viewing() -> Viewing:
    """Fourteen seconds, so that cells of the overviews span three frames and exact maps three tiles."""
    parts = [one.read() for one in small_speech(14)]
    samples = np.concatenate(parts)[: 14 * 16000]
    starts = range(0, len(samples) - 8000, 8000)
    tiers = {
        "phone": [Interval(k, k + 4000, "aa" if (k // 8000) % 2 else "s") for k in starts],
        "word": [Interval(k, k + 8000, f"word{k // 8000}") for k in starts],
    }
    return view(load(WAV2VEC2.build(), name="first"), Corpus.from_arrays([samples], ids=["long"], tiers=[tiers]))
