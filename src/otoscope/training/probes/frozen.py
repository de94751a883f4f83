"""A frozen probe as a metric: what it still reads from a variant of the model that it was trained on."""

from __future__ import annotations

import hashlib

import torch

from otoscope.errors import EvaluationError
from otoscope.evaluation.metric import Metric, Progress
from otoscope.evaluation.scores import Scores
from otoscope.models.model import SpeechModel, take_weights
from otoscope.models.recogniser import Recogniser
from otoscope.speech.batching import read_batches
from otoscope.speech.corpus import Corpus
from otoscope.training.probes.readouts import Readouts
from otoscope.training.probes.task import Task


class FrozenProbe(Metric):
    """The held-out score of probes that stay as they are: each utterance is read by the probe that has not seen it.

    Args:
        task: what is asked.
        readouts: what `Task.fit` gave for the whole model.

    Attributes:
        digest: SHA-256 over the probes' weights, for those who keep what the metric gave.
    """

    def __init__(self, task: Task, readouts: Readouts) -> None:
        self.name, self.unit, self.higher_is_better = f"probe-{task.name}", task.unit, task.higher_is_better
        self.task, self.readouts = task, readouts
        digest = hashlib.sha256()
        take_weights(digest, {f"{k}.{i}": t for k, layer in enumerate(readouts.layers) for i, t in enumerate(layer)})
        self.digest = digest.hexdigest()

    def values(
        self,
        model: SpeechModel | Recogniser,
        corpus: Corpus,
        *,
        batch_seconds: float = 30.0,
        progress: Progress | None = None,
    ) -> Scores:
        """See `Metric`.

        Raises:
            EvaluationError: an utterance is none of those that the probes were trained and tested on.
        """
        ready = model.model if isinstance(model, Recogniser) else model
        known = {utterance.id for utterance in self.task.speech.corpus}
        strange = [utterance.id for utterance in corpus if utterance.id not in known]
        if strange or not len(corpus):
            raise EvaluationError(
                f"Utterance {strange[0]!r} is none that the probe {self.name} knows the fold of"
                if strange
                else f"Corpus {corpus.name} holds no utterance",
                "Score the speech that the probe was trained and tested on.",
            )
        part = self.task.part({utterance.id for utterance in corpus})
        reader = read_batches(corpus, batch_seconds)
        frames: dict[str, torch.Tensor] = {}
        done = 0.0
        for batch in reader:
            capture = ready.capture(batch.utterances, batch.samples, [part.speech.stream])
            for k, utterance in enumerate(batch.utterances):
                frames[utterance.id] = capture.frames(part.speech.stream, k).float().cpu().clone()
            done += batch.seconds
            if progress is not None:
                progress(done, reader.seconds)
        scores = part.scores(self.readouts, torch.cat([frames[u.id] for u in part.speech.corpus]))
        return scores.subset(tuple(utterance.id for utterance in corpus))
