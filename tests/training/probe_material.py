"""Speech for probes without a model: a few utterances of known labels, and features that are made from them."""

from dataclasses import replace

import numpy as np
import torch

from otoscope.models.anatomy import Grid
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Interval
from otoscope.training.probes import ProbedSpeech, Task

HOP = 320
PHONES = ("aa", "iy", "s", "t")
LOUDNESS = {"aa": 1.0, "iy": 0.3, "s": 0.1, "t": 0.03}


def corpus_of(speakers=4, each=4, frames=40, seed=0, silence=False) -> Corpus:
    """Utterances of random phones, noise of their own loudness, four frames each; the first three of one are "aa"."""
    rng = np.random.default_rng(seed)
    arrays, tiers, names = [], [], []
    for k in range(speakers * each):
        labels = [PHONES[i] for i in rng.integers(0, len(PHONES), frames // 4)]
        labels[:3] = ["aa"] * 3
        if silence:
            labels[0] = "sil"
        loudness = np.repeat([LOUDNESS.get(x, 0.01) for x in labels], 4 * HOP)
        noise = rng.standard_normal(frames * HOP + 80).astype(np.float32)
        noise[: len(loudness)] *= loudness.astype(np.float32)
        arrays.append(0.1 * noise)
        tiers.append({"phone": [Interval(4 * HOP * i, 4 * HOP * (i + 1), x) for i, x in enumerate(labels)]})
        names.append(f"s{k % speakers}")
    return Corpus.from_arrays(arrays, speakers=names, tiers=tiers, ids=[f"u{k:02d}" for k in range(len(arrays))])


def speech_of(corpus: Corpus, seed=0) -> ProbedSpeech:
    """All of a corpus on wav2vec 2.0's grid."""
    frames = {u.id: (u.n_samples - 400) // HOP + 1 for u in corpus}
    return ProbedSpeech(corpus, frames, Grid(HOP, 400), "layer.1", 0, seed)


def one_hot(task, of_rows, classes=None) -> torch.Tensor:
    """Features of all frames that hold a class of each row, one dimension a class; noise elsewhere is none."""
    found = torch.zeros(len(task.speech), classes or int(of_rows.max()) + 1)
    found[task.frames] = torch.nn.functional.one_hot(of_rows, found.shape[1]).float()
    return found


def noise_of(speech: ProbedSpeech, width=8, seed=0) -> torch.Tensor:
    return torch.randn(len(speech), width, generator=torch.Generator().manual_seed(seed))


def quick(task: Task) -> Task:
    """The same task with a small probe that learns for a moment."""
    return replace(task, fitting={"hidden": 24 if task.frames is not None else 0, "steps": 80, "batch": 64})
