"""Captures of maps that a test makes up: utterances without sound, one list of maps an utterance."""

import numpy as np
import torch

from otoscope.models.anatomy import Anatomy, Grid
from otoscope.models.capture import Capture
from otoscope.models.tap import Observation, Tap, attend
from otoscope.speech.corpus import Corpus


def sums(maps, reductions):
    """What the tap finds in maps (heads, T, T): with one-hot keys the scores are the maps' logarithms."""
    maps = np.asarray(maps, np.float64)
    heads, t = maps.shape[:2]
    logits = torch.tensor(np.log(np.maximum(maps, 1e-30)), dtype=torch.float32)[None]
    keys = torch.eye(t).expand(1, heads, t, t)
    value = torch.randn(1, heads, t, 5, generator=torch.Generator().manual_seed(0))
    seen = Observation((t,), (t,), reductions)
    context = attend(Tap(1, seen), logits, keys, value, lambda b, first, last: None, 1.0)
    expected = torch.tensor(maps, dtype=torch.float32) @ value[0]
    assert torch.allclose(context[0].transpose(0, 1), expected, atol=1e-5)
    return seen.results[1][0]


def drawn_maps(seed, t, heads=3, sharpness=2.0):
    """Softmax of noise, (heads, T, T)."""
    logits = np.random.default_rng(seed).normal(size=(heads, t, t)) * sharpness
    maps = np.exp(logits - logits.max(-1, keepdims=True))
    return maps / maps.sum(-1, keepdims=True)


def anatomy_of(heads):
    """Layers of so many heads each."""
    streams = ("input", *(f"layer.{k}" for k in range(1, len(heads) + 1)))
    return Anatomy("made up", streams, dict.fromkeys(streams, 8), dict.fromkeys(streams, Grid(320, 400)), heads)


def silent_corpus(utterances):
    return Corpus.from_arrays([np.zeros(800, np.float32)] * utterances)


def capture_of(utterances, maps, reductions):
    """A batch: for each utterance a list of maps (heads, T, T), layer 1 first."""
    attention = {
        layer + 1: [sums(one[layer], reductions) if len(reductions) else {} for one in maps]
        for layer in range(len(maps[0]))
    }
    return Capture(tuple(utterances), (), {}, {}, {}, attention, {})
