"""A random model of wav2vec 2.0 Base's size, and noise with labels."""

from pathlib import Path

import numpy as np
import torch
import transformers

from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Interval

PHONES = "aa ae ah ao aw ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh".split()


def peak_memory() -> float:
    """Peak resident memory of this process in MB.

    Not getrusage's: that counts what the process that started this one had in memory.
    """
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(told["VmHWM"].split()[0]) / 1024


def base_model() -> torch.nn.Module:
    """12 layers, 12 heads, width 768, group norm; random weights."""
    torch.manual_seed(0)
    return transformers.Wav2Vec2Model(transformers.Wav2Vec2Config()).eval()


def labelled_noise(utterances: int, seconds: float, speakers: int = 5) -> Corpus:
    """White noise with a phone every 80 ms and a word every 320 ms."""
    draw = np.random.default_rng(0)
    n = int(16000 * seconds)
    tiers = []
    for _ in range(utterances):
        phones = [Interval(a, min(a + 1280, n), str(draw.choice(PHONES))) for a in range(0, n - 1280, 1280)]
        words = [Interval(a, min(a + 5120, n), f"w{draw.integers(10)}") for a in range(0, n - 5120, 5120)]
        tiers.append({"phone": tuple(phones), "word": tuple(words)})
    arrays = [(0.1 * draw.standard_normal(n)).astype(np.float32) for _ in range(utterances)]
    return Corpus.from_arrays(
        arrays, speakers=[f"s{k % speakers}" for k in range(utterances)], tiers=tiers, name="noise"
    )
