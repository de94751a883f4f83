"""A question to a stream: its rows, its answers, and how well probes that were fitted on other rows give them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from otoscope.errors import MeasureError
from otoscope.evaluation.scores import Scores
from otoscope.statistics import uniform
from otoscope.training.probes.readouts import Readouts, constant, fit_readouts
from otoscope.training.probes.speech import ProbedSpeech


@dataclass(frozen=True)
class Task:
    """One question to a stream, with rows, answers and folds; every row is held out once.

    Attributes:
        name: "phone", "speaker", "speaker-utterance" or "mel".
        unit: of the score.
        speech: the utterances.
        frames: the frame of each row among all frames of the speech, shape (N,); None where the mean over an utterance
            is a row.
        utterances: number of the utterance of each row, shape (N,).
        targets: class of each row, shape (N,), or values, shape (N, m).
        labels: names of the classes; none for values.
        folds: fold of each row, shape (N,).
        notes: what was left out, and how folds are dealt.
        fitting: settings of `fit_readouts`, such as units of the hidden layer; 0 of them are a linear probe.
        learnt: targets that probes are fitted on, where they are others than those they are scored on.
    """

    name: str
    unit: str
    speech: ProbedSpeech
    frames: torch.Tensor | None
    utterances: torch.Tensor
    targets: torch.Tensor
    labels: tuple[str, ...]
    folds: torch.Tensor
    notes: Mapping[str, Any] = field(default_factory=dict)
    fitting: Mapping[str, Any] = field(default_factory=dict)
    learnt: torch.Tensor | None = None

    @property
    def classes(self) -> int | None:
        """How many classes there are; None for values."""
        return len(self.labels) or None

    @property
    def higher_is_better(self) -> bool:
        """Whether the score is an accuracy, rather than an error."""
        return bool(self.labels)

    def inputs(self, features: torch.Tensor) -> torch.Tensor:
        """The rows of this task.

        Args:
            features: all frames of the speech, shape (frames, d).

        Returns:
            Frames, or means over utterances, shape (N, d).
        """
        if len(features) != len(self.speech):
            raise MeasureError(
                f"{len(features)} frames for speech of {len(self.speech)}",
                "Give the stream of exactly these utterances, in their order and without padding.",
            )
        if self.frames is not None:
            return features[self.frames]
        sizes = [self.speech.frames[u.id] for u in self.speech.corpus]
        means = torch.stack([part.double().mean(0) for part in features.split(sizes)])
        return means.float()[self.utterances]

    def fit(self, features: torch.Tensor, seed: int = 0) -> Readouts:
        """Trains a probe for each fold on the rows of the others.

        Args:
            features: all frames of the speech, shape (frames, d).
            seed: of first weights and batches; the same ones are drawn whatever the features.

        Raises:
            MeasureError: values are not finite.
        """
        rows = [torch.nonzero(self.folds != fold).flatten() for fold in range(self.count)]
        targets = self.targets if self.learnt is None else self.learnt
        return fit_readouts(self.inputs(features), targets, rows, self.classes, seed=seed, **self.fitting)

    @property
    def count(self) -> int:
        """Number of folds."""
        return int(self.folds.max()) + 1

    def scores(self, readouts: Readouts, features: torch.Tensor) -> Scores:
        """How well probes answer for the rows that they have not seen.

        Args:
            readouts: what `fit` gave, for these features or for those of another variant of the model.
            features: all frames of the speech, shape (frames, d).

        Raises:
            MeasureError: values are not finite, or of another width.
        """
        x = self.inputs(features)
        if not bool(torch.isfinite(x).all()):
            raise MeasureError(
                f"Stream {self.speech.stream} holds values that are not finite",
                "Check the model's weights, and the edits made to it.",
            )
        return self._scores(lambda fold, held: readouts(x[held], fold))

    def floor(self) -> Scores:
        """The score of the best constant answer: the most frequent class, or the median, of the rows fitted on."""

        def say(fold: int, held: torch.Tensor) -> torch.Tensor:
            return constant(self.targets[self.folds != fold], self.classes).expand(len(held), -1)

        return self._scores(say)

    def part(self, ids: Collection[str]) -> Task:
        """The rows of some of the utterances, in the folds that they were in: to be scored, and not to be fitted on.

        Args:
            ids: utterances of the speech.
        """
        kept = [k for k, u in enumerate(self.speech.corpus) if u.id in ids]
        speech = replace(
            self.speech, corpus=self.speech.corpus.subset(ids), frames={name: self.speech.frames[name] for name in ids}
        )
        rows = torch.isin(self.utterances, torch.tensor(kept))
        number = torch.full((len(self.speech.corpus),), -1)
        number[kept] = torch.arange(len(kept))
        utterances = number[self.utterances[rows]]
        frames = self.frames
        if frames is not None:
            moved = [speech.begins[u.id] - self.speech.begins[u.id] for u in speech.corpus]
            frames = frames[rows] + torch.tensor(moved)[utterances]
        return replace(
            self,
            speech=speech,
            frames=frames,
            utterances=utterances,
            targets=self.targets[rows],
            folds=self.folds[rows],
        )

    def permuted(self) -> Task:
        """The same task with targets for training that are shuffled over all rows by a seeded hash: the control.

        A probe that is fitted on them and scored on the true ones knows no more than the floor; a higher score would
        mean that held-out rows leak into training.
        """
        names = [u.id for u in self.speech.corpus]
        drawn = [
            uniform(self.speech.seed, names[int(u)], row, f"permuted {self.name}")
            for row, u in enumerate(self.utterances)
        ]
        return replace(self, learnt=self.targets[torch.from_numpy(np.argsort(drawn, kind="stable"))])

    def _scores(self, say: Callable[[int, torch.Tensor], torch.Tensor]) -> Scores:
        right = torch.zeros(len(self.targets), dtype=torch.float64)
        for fold in range(self.count):
            held = torch.nonzero(self.folds == fold).flatten()
            said = say(fold, held)
            if self.classes is None:
                right[held] = (said - self.targets[held]).abs().double().mean(1)
            else:
                right[held] = (said.argmax(1) == self.targets[held]).double()
        corpus = self.speech.corpus
        where = self.utterances.numpy()
        return Scores(
            f"probe-{self.name}", self.unit, self.higher_is_better, tuple(u.id for u in corpus),
            tuple(u.speaker for u in corpus), np.bincount(where, right.numpy(), len(corpus)),
            np.bincount(where, minlength=len(corpus)).astype(np.float64),
        )  # fmt: skip
