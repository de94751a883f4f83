"""Self-supervised losses as metrics: what was masked is told from alternatives, or sorted into its cluster."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import nn

from otoscope.errors import EvaluationError, HeadError
from otoscope.evaluation.clusters import Clusters, mfcc_features, stream_features
from otoscope.evaluation.masked_prediction import read_prediction_head
from otoscope.evaluation.masking import SHARE, SPAN, check_mask
from otoscope.evaluation.metric import Metric, Progress
from otoscope.evaluation.pretext import check_masking, contrastive_values, prediction_values
from otoscope.evaluation.scores import Scores
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.speech.corpus import Corpus


class _Pretext(Metric):
    """Masks of each utterance come from a hash of its name and the seed: the same for every model.

    Args:
        share: share of frames under masks if these did not overlap.
        span: frames a mask.
        seed: of masks and negatives.

    Raises:
        EvaluationError: share or span cannot be drawn.
    """

    def __init__(self, share: float = SHARE, span: int = SPAN, seed: int = 0) -> None:
        check_mask(share, span)
        self.share, self.span, self.seed = share, span, seed

    def values(
        self,
        model: SpeechModel | Recogniser,
        corpus: Corpus,
        *,
        batch_seconds: float = 30.0,
        progress: Progress | None = None,
    ) -> Scores:
        """See `Metric`; utterances run one at a time.

        Raises:
            HeadError: the model has not the head that it was pre-trained with, or masks nothing.
            EvaluationError: the corpus is empty.
        """
        values = self._values(_checked(model, corpus), corpus, progress)
        counted = values["hits"] if self.higher_is_better else values["loss"]
        return Scores(
            self.name, self.unit, self.higher_is_better, tuple(u.id for u in corpus), tuple(u.speaker for u in corpus),
            counted, values["frames"],
        )  # fmt: skip

    @abstractmethod
    def _values(self, model: SpeechModel, corpus: Corpus, progress: Progress | None) -> Mapping[str, np.ndarray]:
        """Loss, hits and frames of each utterance."""


class ContrastiveLoss(_Pretext):
    """The loss of wav2vec 2.0 without its diversity term (Baevski et al. 2020, equation 3), codes taken at their likeliest.

    Chance is ln(1 + negatives), 4.62 nats with 100 of them.
    """

    name = "contrastive-loss"
    unit = "nats per masked frame"

    def _values(self, model: SpeechModel, corpus: Corpus, progress: Progress | None) -> Mapping[str, np.ndarray]:
        """See `contrastive_values`.

        Raises:
            HeadError: the model has no quantiser, or masks nothing.
        """
        if not all(hasattr(model.source, part) for part in ("quantizer", "project_hid", "project_q")):
            raise HeadError(
                f"{model.name} ({type(model.source).__name__}) has no quantiser for a contrastive loss",
                "Name a model as it came out of pre-training.",
            )
        check_masking(model.source)
        return contrastive_values(
            model.source, model.frontend, corpus.utterances, self.seed, self.share, self.span, progress
        )


class ContrastiveAccuracy(ContrastiveLoss):
    """How often the true frame scores highest; chance is 1 / (1 + negatives), 1 % with 100 of them."""

    name = "contrastive-accuracy"
    unit = "hits per masked frame"
    higher_is_better = True


class MaskedPredictionLoss(_Pretext):
    """Cross-entropy of the clusters of masked frames (Hsu et al. 2021, equation 1, masked frames alone).

    Args:
        head: folder with the head and the clusters; by default the one that the model was read from.
        share: see `ContrastiveLoss`.
        span: see `ContrastiveLoss`.
        seed: see `ContrastiveLoss`.
    """

    name = "masked-prediction-loss"
    unit = "nats per masked frame"

    def __init__(self, head: str | Path | None = None, share: float = SHARE, span: int = SPAN, seed: int = 0) -> None:
        super().__init__(share, span, seed)
        self.head = head
        self.labels: dict[str, np.ndarray] | None = None

    def labelled(self, model: SpeechModel, corpus: Corpus) -> MaskedPredictionLoss:
        """The same metric with the clusters of a corpus found beforehand: for many edited variants of one model.

        Args:
            model: the model, unedited.
            corpus: every utterance that the metric will be taken on.

        Raises:
            CheckpointError: there is no head for masked prediction.
        """
        made = copy.copy(self)
        made.labels = labels_of(self._stored(model)[1], model, corpus)
        return made

    def _stored(self, model: SpeechModel) -> tuple[nn.Linear, Clusters]:
        return read_prediction_head(Path(self.head or str(getattr(model.source, "name_or_path", ""))))

    def _values(self, model: SpeechModel, corpus: Corpus, progress: Progress | None) -> Mapping[str, np.ndarray]:
        """See `prediction_values`.

        Raises:
            CheckpointError: there is no head for masked prediction.
            HeadError: the head does not fit the model, or the model masks nothing.
        """
        head, clusters = self._stored(model)
        encoder, width = model.family.encoder(model.source), model.anatomy.widths["input"]
        check_masking(encoder)
        if head.in_features != width:
            raise HeadError(
                f"The head of masked prediction takes vectors of {head.in_features}, and {model.name} gives {width}",
                "Name the folder with the head that was trained with this model.",
            )
        return prediction_values(
            encoder, head.to(model.device), model.frontend, corpus.utterances,
            labels_of(clusters, model, corpus) if self.labels is None else self.labels,
            self.seed, self.share, self.span, progress,
        )  # fmt: skip


class MaskedPredictionAccuracy(MaskedPredictionLoss):
    """How often the cluster of a masked frame is the likeliest."""

    name = "masked-prediction-accuracy"
    unit = "hits per masked frame"
    higher_is_better = True


def labels_of(clusters: Clusters, model: SpeechModel, corpus: Corpus) -> dict[str, np.ndarray]:
    """The cluster of each frame of a model, by utterance id.

    Raises:
        ModelError: the clusters are of a model's stream, and that model cannot be loaded or has other frames.
    """
    if clusters.source == "mfcc":
        features = mfcc_features(corpus.utterances, model)
    else:
        place, _, stream = clusters.source.rpartition(":")
        features = stream_features(corpus.utterances, load(place), stream, model.anatomy.grid)
    return {name: clusters.assign(values) for name, values in features.items()}


def _checked(model: SpeechModel | Recogniser, corpus: Corpus) -> SpeechModel:
    if not len(corpus):
        raise EvaluationError(f"Corpus {corpus.name} holds no utterance", "Choose a corpus with speech.")
    ready = model.model if isinstance(model, Recogniser) else model
    for utterance in corpus:
        ready.frontend.check(utterance.n_samples, f"Utterance {utterance.id!r}")
    return ready
