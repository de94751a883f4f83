"""A model of three layers of which one was never trained, one hardly and one much, and a loss that sees it."""

import copy

import numpy as np
import torch

from otoscope.evaluation.metric import Metric
from otoscope.evaluation.scores import Scores
from otoscope.models import load
from otoscope.models.recogniser import Recogniser
from otoscope.speech.batching import batches
from otoscope.speech.corpus import Corpus
from tests.models.small import CASES

UNTRAINED, MUCH, HARDLY = "layer.1", "layer.2", "layer.3"


def case(name):
    return next(one for one in CASES if one.name == name)


def noise(n=6, seconds=0.3, speakers=3):
    draw = np.random.default_rng(0)
    arrays = [(0.1 * draw.standard_normal(int(16000 * seconds))).astype(np.float32) for _ in range(n)]
    return Corpus.from_arrays(arrays, speakers=[f"s{k % speakers}" for k in range(n)], name="noise")


def planted(name="wav2vec2-group"):
    """The model as trained, and as it was at initialisation."""
    initial = case(name).build(1).eval()
    trained = copy.deepcopy(initial)
    other = case(name).build(2)
    torch.manual_seed(3)
    with torch.no_grad():
        trained.encoder.layers[1].load_state_dict(other.encoder.layers[1].state_dict())
        for parameter in trained.encoder.layers[2].parameters():
            parameter.add_(1e-4 * torch.randn_like(parameter))
    return load(trained, name="trained"), load(initial, name="initial")


class FromTeacher(Metric):
    """Mean squared distance of the last layer's frames from those of a teacher; or less it, where higher is better."""

    name, unit = "distance", "squared distance per frame"

    def __init__(self, teacher, corpus, sign=1.0):
        self.wanted = _frames(teacher, corpus)
        self.sign, self.higher_is_better = sign, sign < 0

    def values(self, model, corpus, *, batch_seconds=30.0, progress=None):
        ready = model.model if isinstance(model, Recogniser) else model
        found = _frames(ready, corpus, batch_seconds)
        sums = [float(((found[u.id] - self.wanted[u.id]) ** 2).sum()) for u in corpus]
        return Scores(
            self.name, self.unit, self.higher_is_better, tuple(u.id for u in corpus), tuple(u.speaker for u in corpus),
            self.sign * np.array(sums), np.array([float(len(found[u.id])) for u in corpus]),
        )  # fmt: skip


def _frames(model, corpus, batch_seconds=30.0):
    last = f"layer.{model.anatomy.n_layers}"
    found = {}
    for batch in batches(corpus, batch_seconds):
        capture = model.capture(batch, [one.read() for one in batch], [last])
        found |= {one.id: capture.frames(last, k).double().numpy() for k, one in enumerate(batch)}
    return found
