"""The metrics that suit a model: those of its own head, or a probe of phones where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from otoscope.errors import CorpusError, EvaluationError, HeadError, MeasureError
from otoscope.evaluation.ctc_loss import CTCLoss
from otoscope.evaluation.error_rates import WordErrorRate
from otoscope.evaluation.masked_prediction import FILE
from otoscope.evaluation.metric import Metric
from otoscope.evaluation.reconstruction import Reconstruction
from otoscope.evaluation.self_supervised import ContrastiveLoss, MaskedPredictionLoss
from otoscope.interventions.probed import features_of
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser, ctc_head, recogniser_of
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus
from otoscope.training.probes import FrozenProbe, make_task, probed_speech


def suited_metrics(
    model: SpeechModel | Recogniser,
    corpus: Corpus,
    *,
    vocabulary: Vocabulary | Mapping[str, int] | str | Path | None = None,
    seconds: float = 120.0,
    seed: int = 0,
) -> tuple[list[Metric], Corpus]:
    """The metrics by which a change of a model shows, and the speech that they can be taken on.

    - A CTC head and transcripts: word error rate and CTC loss.
    - A quantiser, as pre-training leaves it: the contrastive loss; clusters beside the model: masked prediction; a
      Mockingjay's head: reconstruction.
    - No head, and phones in the speech: a phone probe of the last stream that is trained on the whole model and left as
      it is, on at most so much speech.

    Args:
        model: the model.
        corpus: the speech.
        vocabulary: of a CTC head that does not come with one; see `recogniser_of`.
        seconds: of speech for a probe.
        seed: of a probe, and of the choice of its speech.

    Raises:
        HeadError: the model has no head that this speech gives ground for, and the speech no phones for a probe.
        VocabularyError: there is no vocabulary for a CTC head.
        EvaluationError: the corpus is empty.
    """
    if not len(corpus):
        raise EvaluationError(f"Corpus {corpus.name} holds no utterance", "Choose a corpus with speech.")
    ready = model.model if isinstance(model, Recogniser) else model
    if _has_ctc(ready) and any(utterance.transcript is not None for utterance in corpus):
        recogniser_of(model, vocabulary)
        return [WordErrorRate(vocabulary), CTCLoss(vocabulary)], corpus
    if hasattr(ready.source, "quantizer"):
        return [ContrastiveLoss()], corpus
    if hasattr(ready.source, "reconstruction_head"):
        return [Reconstruction()], corpus
    place = str(getattr(ready.source, "name_or_path", ""))
    if place and (Path(place) / FILE).exists():
        return [MaskedPredictionLoss()], corpus
    try:
        probe = phone_probe(ready, corpus, seconds, seed)
    except (MeasureError, CorpusError) as error:
        raise HeadError(
            f"{ready.name} ({type(ready.source).__name__}) has no head that corpus {corpus.name} gives ground for, and no "
            f"phone probe can be trained: {error}",
            "Give transcripts for a model with a CTC head, phones for any other, or a metric of your own.",
        ) from error
    known = {int(k) for k in probe.task.utterances.unique()}
    heard = probe.task.speech.corpus
    return [probe], heard.subset([utterance.id for k, utterance in enumerate(heard) if k in known])


def phone_probe(model: SpeechModel, corpus: Corpus, seconds: float = 120.0, seed: int = 0) -> FrozenProbe:
    """A phone probe of a model's last stream, as a metric of its variants.

    Args:
        model: the model.
        corpus: speech with phones.
        seconds: at most so much of it is used, chosen evenly over speakers.
        seed: of the choice and of the probe.

    Raises:
        MeasureError: there is too little speech, or there are too few phones.
        CorpusError: the corpus has no phones.
    """
    speech = probed_speech(model, corpus, seconds=seconds, seed=seed)
    task = make_task("phone", speech)
    return FrozenProbe(task, task.fit(next(features_of(model, speech)([()])), seed))


def _has_ctc(model: SpeechModel) -> bool:
    try:
        ctc_head(model)
    except HeadError:
        return False
    return True
