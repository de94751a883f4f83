"""Speech whose phones can be heard: each phone is a tone of its own in noise."""

import numpy as np

from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Interval

PHONES = ("aa", "iy", "s", "m")
WORDS = ("one", "two", "three")


def small_speech(utterances: int = 12, speakers: int = 4, seed: int = 0, tiers: bool = True) -> Corpus:
    """Utterances of 0.8 to 1.4 s with phone and word tiers."""
    draw = np.random.default_rng(seed)
    arrays, labels = [], []
    for k in range(utterances):
        n = int(16000 * draw.uniform(0.8, 1.4))
        bounds = np.arange(0, n - 1600, 1600)
        wave = 0.02 * draw.normal(size=n)
        phones, words = [], []
        for j, start in enumerate(bounds):
            phone = int(draw.integers(len(PHONES)))
            t = np.arange(1600) / 16000
            wave[start : start + 1600] += 0.2 * np.sin(2 * np.pi * 400 * (phone + 1) * (1 + 0.02 * (k % speakers)) * t)
            phones.append(Interval(int(start), int(start) + 1600, PHONES[phone]))
            if j % 2 == 0:
                words.append(Interval(int(start), int(start) + 1600, WORDS[phone % 3]))
        arrays.append(wave.astype(np.float32))
        labels.append({"phone": tuple(phones), "word": tuple(words)} if tiers else {})
    return Corpus.from_arrays(
        arrays, speakers=[f"s{k % speakers}" for k in range(utterances)], tiers=labels, name="tones",
        ids=[f"u{k:02d}" for k in range(utterances)],
    )  # fmt: skip
