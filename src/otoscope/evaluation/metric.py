"""What every metric is: per-utterance values for a model and a corpus."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from otoscope.errors import EvaluationError
from otoscope.evaluation.decoding import Decoder, Greedy
from otoscope.evaluation.references import Reference, check_lengths, references_of
from otoscope.evaluation.scores import Scores
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser, recogniser_of
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.batching import read_batches
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance

Progress = Callable[[float, float], None]


class Metric(ABC):
    """A metric of a model on a corpus.

    Attributes:
        name: canonical name, such as "wer".
        unit: of its value.
        higher_is_better: which way is better.
    """

    name: str
    unit: str
    higher_is_better: bool = False

    @abstractmethod
    def values(
        self,
        model: SpeechModel | Recogniser,
        corpus: Corpus,
        *,
        batch_seconds: float = 30.0,
        progress: Progress | None = None,
    ) -> Scores:
        """Takes the metric on every utterance.

        Args:
            model: the model; it is not changed.
            corpus: the speech.
            batch_seconds: budget of a batch, in seconds of padded speech; results do not depend on it.
            progress: called after each batch with the seconds done and in all.

        Raises:
            ModelError: the model has not what the metric needs.
            SpeechError: an utterance cannot be read or used.
            EvaluationError: the metric cannot be taken on this corpus.
        """


@dataclass(frozen=True)
class Recognised:
    """What a recogniser gave for an utterance.

    Attributes:
        utterance: the utterance.
        reference: its transcript.
        hypothesis: the text that the decoder gave.
        log_probabilities: (T, V), on the CPU.
    """

    utterance: Utterance
    reference: Reference
    hypothesis: str
    log_probabilities: torch.Tensor


@dataclass(frozen=True)
class Counts:
    """A metric's numbers for one utterance; see `Scores`."""

    numerator: float
    denominator: float
    parts: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


class RecognitionMetric(Metric):
    """A metric of a recogniser's log probabilities; several are taken in one pass by `recognise`.

    Args:
        vocabulary: of models that do not come with theirs; see `recogniser_of`.
    """

    def __init__(self, vocabulary: Vocabulary | Mapping[str, int] | str | Path | None = None) -> None:
        self.vocabulary = vocabulary

    def check(self, recogniser: Recogniser, utterance: Utterance, reference: Reference) -> None:
        """Refuses an utterance that it cannot be taken on; called for all of them before the first is run.

        Raises:
            EvaluationError: see the metric.
        """

    @abstractmethod
    def count(self, recogniser: Recogniser, one: Recognised) -> Counts:
        """The numbers of one utterance."""

    def values(
        self,
        model: SpeechModel | Recogniser,
        corpus: Corpus,
        *,
        batch_seconds: float = 30.0,
        progress: Progress | None = None,
    ) -> Scores:
        """See `Metric`."""
        ready = recogniser_of(model, self.vocabulary)
        return recognise([self], ready, corpus, batch_seconds=batch_seconds, progress=progress)[self.name]


def recognise(
    metrics: Sequence[RecognitionMetric],
    recogniser: Recogniser,
    corpus: Corpus,
    *,
    decoder: Decoder | None = None,
    batch_seconds: float = 30.0,
    progress: Progress | None = None,
) -> dict[str, Scores]:
    """Takes several metrics in one pass over the audio.

    Args:
        metrics: each of another name.
        recogniser: the model with its vocabulary.
        corpus: the speech, with transcripts.
        decoder: gives the hypotheses; greedy where None.
        batch_seconds: see `Metric.values`.
        progress: see `Metric.values`.

    Returns:
        Scores by name of the metric, utterances in the corpus' order.

    Raises:
        SpeechError: an utterance cannot be read, is too short or too long, or has no transcript.
        VocabularyError: a character of a transcript has no token, or the decoder is of another vocabulary.
        EvaluationError: the corpus is empty, a metric cannot be taken on an utterance, or is asked for twice.
    """
    decoders = {"": decoder if decoder is not None else Greedy(recogniser.vocabulary)}
    return recognise_by(decoders, metrics, recogniser, corpus, batch_seconds=batch_seconds, progress=progress)[""]


def recognise_by(
    decoders: Mapping[str, Decoder],
    metrics: Sequence[RecognitionMetric],
    recogniser: Recogniser,
    corpus: Corpus,
    *,
    batch_seconds: float = 30.0,
    progress: Progress | None = None,
) -> dict[str, dict[str, Scores]]:
    """Takes several metrics by several decoders in one pass over the audio.

    Args:
        decoders: what gives the hypotheses, under names of one's own.
        metrics: see `recognise`.
        recogniser: see `recognise`.
        corpus: see `recognise`.
        batch_seconds: see `Metric.values`.
        progress: see `Metric.values`.

    Returns:
        For each name of a decoder what `recognise` returns.

    Raises:
        OtoscopeError: see `recognise`.
    """
    names = [metric.name for metric in metrics]
    if len(set(names)) < len(names):
        raise EvaluationError(f"A metric is asked for twice among {', '.join(names)}", "Name every metric once.")
    references = references_of(recogniser, corpus)
    check_lengths(recogniser, corpus)
    for utterance in corpus:
        for metric in metrics:
            metric.check(recogniser, utterance, references[utterance.id])
    for decoder in decoders.values():
        decoder.check([reference.text for reference in references.values()], f"corpus {corpus.name}")
    reader = read_batches(corpus, batch_seconds)
    counts: dict[tuple[str, str], dict[str, Counts]] = {(by, name): {} for by in decoders for name in names}
    done = 0.0
    for batch in reader:
        found = recogniser.log_probabilities(batch.samples, [utterance.id for utterance in batch.utterances])
        for utterance, scores in zip(batch.utterances, found, strict=True):
            scores = scores.cpu()
            for by, decoder in decoders.items():
                one = Recognised(utterance, references[utterance.id], decoder.decode(scores), scores)
                for metric in metrics:
                    counts[by, metric.name][utterance.id] = metric.count(recogniser, one)
        done += batch.seconds
        if progress is not None:
            progress(done, reader.seconds)
    return {by: {one.name: _scores(one, corpus, counts[by, one.name]) for one in metrics} for by in decoders}


def _scores(metric: Metric, corpus: Corpus, counts: Mapping[str, Counts]) -> Scores:
    rows = [counts[utterance.id] for utterance in corpus]
    return Scores(
        metric.name, metric.unit, metric.higher_is_better, tuple(u.id for u in corpus),
        tuple(u.speaker for u in corpus), np.array([row.numerator for row in rows], np.float64),
        np.array([row.denominator for row in rows], np.float64),
        {name: np.array([row.parts[name] for row in rows], np.float64) for name in rows[0].parts},
        {name: tuple(row.texts[name] for row in rows) for name in rows[0].texts},
    )  # fmt: skip
