"""A corpus of labelled noise and what a model might give for it: labels in layer.2, noise elsewhere."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import torch

from otoscope.measures.layers.spans import phone_spans, word_spans
from otoscope.models.anatomy import Anatomy, Grid
from otoscope.models.capture import Capture
from otoscope.speech import Corpus, Interval

PHONES = ("aa", "b", "iy", "sil", "t", "z")
WORDS = ("one", "three", "two", "yes")
STREAMS = ("input", "layer.1", "layer.2", "final_norm")
WIDTH = 12
GRID = Grid(320, 400)
ANATOMY = Anatomy("small", STREAMS, dict.fromkeys(STREAMS, WIDTH), dict.fromkeys(STREAMS, GRID), (2, 2))


@cache
def corpus(utterances: int = 12, speakers: int = 6) -> Corpus:
    rng = np.random.default_rng(0)
    arrays, tiers = [], []
    for _ in range(utterances):
        # Segments begin on frames and are long, so that their middle frames are their own.
        edges = np.cumsum(rng.integers(4, 8, size=30)) * 320
        phones = [Interval(int(a), int(b), str(rng.choice(PHONES))) for a, b in pairwise([0, *edges])]
        words = [Interval(int(a), int(b), str(rng.choice(WORDS))) for a, b in pairwise(edges[::2])]
        arrays.append(np.zeros(int(edges[-1]) + 800))
        tiers.append({"phone": tuple(phones), "word": tuple(words)})
    return Corpus.from_arrays(
        arrays, speakers=[f"s{i % speakers}" for i in range(utterances)], tiers=tiers, name="noise"
    )


@cache
def two_speakers() -> Corpus:
    """The same utterances, by two speakers in turn."""
    return Corpus("two", tuple(replace(u, speaker=f"s{i % 2}") for i, u in enumerate(corpus())))


def ids() -> tuple[str, ...]:
    return tuple(u.id for u in corpus())


@cache
def streams_of(name: str, held: str) -> dict[str, np.ndarray]:
    """Frames of one utterance; `held` is what layer.2 holds: "phone", "word" or "speaker" (of `two_speakers`)."""
    utterance = corpus()[name]
    n = (utterance.n_samples - GRID.field) // GRID.hop + 1
    rng, mixing = np.random.default_rng(int(name)), np.random.default_rng(99).standard_normal((10, WIDTH))
    found = {stream: (rng.standard_normal((n, WIDTH)) + 3).astype(np.float32) for stream in STREAMS}
    if held == "speaker":
        found["layer.2"] += 5 * mixing[int(name) % 2].astype(np.float32)
        return found
    classes, spans = (PHONES, phone_spans) if held == "phone" else (WORDS, word_spans)
    own = np.zeros((n, 10))
    for x in utterance.tiers[held]:
        first, last = (word_spans if held == "phone" else spans)(np.array([x.start]), np.array([x.end]), GRID.hop, n)
        own[first[0] : last[0]] = np.eye(10)[classes.index(x.label)]
    found["layer.2"] = (own @ mixing).astype(np.float32) + 5
    return found


def capture(names: tuple[str, ...], held: str = "phone") -> Capture:
    arrays = [streams_of(name, held) for name in names]
    streams, lengths = {}, {}
    for stream in STREAMS:
        lengths[stream] = tuple(len(a[stream]) for a in arrays)
        # Padding holds what must never be read.
        padded = torch.full((len(names), max(lengths[stream]), WIDTH), torch.nan)
        for b, a in enumerate(arrays):
            padded[b, : len(a[stream])] = torch.from_numpy(a[stream])
        streams[stream] = padded
    utterances = tuple(corpus()[name] for name in names)
    return Capture(
        utterances, tuple(u.read() for u in utterances), streams, lengths, dict.fromkeys(STREAMS, GRID), {}, {}
    )
