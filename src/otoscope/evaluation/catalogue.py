"""The metrics by name."""

from collections.abc import Mapping
from pathlib import Path

from otoscope.errors import EvaluationError
from otoscope.evaluation.ctc_loss import CTCLoss
from otoscope.evaluation.error_rates import CharacterErrorRate, WordErrorRate
from otoscope.evaluation.metric import Metric, RecognitionMetric
from otoscope.evaluation.reconstruction import Reconstruction
from otoscope.evaluation.self_supervised import (
    ContrastiveAccuracy,
    ContrastiveLoss,
    MaskedPredictionAccuracy,
    MaskedPredictionLoss,
)
from otoscope.models.vocabulary import Vocabulary

RECOGNITION: Mapping[str, type[RecognitionMetric]] = {
    metric.name: metric for metric in (WordErrorRate, CharacterErrorRate, CTCLoss)
}
SELF_SUPERVISED: Mapping[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        ContrastiveLoss,
        ContrastiveAccuracy,
        MaskedPredictionLoss,
        MaskedPredictionAccuracy,
        Reconstruction,
    )
}


def metric_by_name(name: str, vocabulary: Vocabulary | Mapping[str, int] | str | Path | None = None) -> Metric:
    """A metric by name.

    Args:
        name: a name of `RECOGNITION` or `SELF_SUPERVISED`.
        vocabulary: see `recogniser_of`; of metrics of recognition.

    Raises:
        EvaluationError: there is no such metric.
    """
    if name in RECOGNITION:
        return RECOGNITION[name](vocabulary)
    if name in SELF_SUPERVISED:
        return SELF_SUPERVISED[name]()
    raise EvaluationError(
        f"There is no metric {name!r}", f"The metrics are {', '.join([*RECOGNITION, *SELF_SUPERVISED])}."
    )
