"""Finetune: a model and speech with transcripts in, a CTC recogniser out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from otoscope.errors import HeadError, TrainingError, VocabularyError
from otoscope.models.families import submodule
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser, recogniser_of
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance
from otoscope.training.augmentation import Augmentation
from otoscope.training.ctc import Ctc, CtcSettings, refuse_edited, with_ctc_head
from otoscope.training.folders import check_folder, without_bars
from otoscope.training.loop import Report
from otoscope.training.outcome import TrainingOutcome
from otoscope.training.settings import TrainingSettings
from otoscope.training.vocabulary import vocabulary_of
from otoscope.workflow.training_speech import run_training, training_speech


@without_bars()
def finetune(
    model: SpeechModel | nn.Module | str | Path,
    corpus: Corpus | str | Path,
    output: str | Path,
    *,
    settings: TrainingSettings | None = None,
    ctc: CtcSettings | None = None,
    augmentation: Augmentation | None = None,
    dev: Corpus | str | Path | None = None,
    hold_out: float = 0.05,
    skip_bad: bool = False,
    resume: bool = False,
    report: Report | None = None,
) -> TrainingOutcome:
    """Trains a copy of a model with CTC over characters.

    A model that has a CTC head already keeps it and its vocabulary; any other gets a fresh head for the characters of
    the transcripts, in lower case.

    Args:
        model: what `otoscope.load` takes, or what it gave.
        corpus: speech with transcripts: a corpus, a path, or "embedded:train".
        output: folder for the result, see `otoscope.training.loop.train`.
        settings: steps, rates, seed and the like.
        ctc: masks, frozen convolutions, the phone loss.
        augmentation: what is done to the speech that the model hears.
        dev: speech to watch the training with; by default speakers of the corpus are held out.
        hold_out: share of the speakers to hold out.
        skip_bad: leave out utterances that cannot be used, and list them in the outcome.
        resume: go on with an interrupted run.
        report: called with each line of the log.

    Returns:
        The folder, WER and CER on held-out speech and what was left out.

    Raises:
        TrainingError: the settings or the folder cannot be used, or there is no transcript at all.
        TranscriptError: an utterance has no transcript, or an empty one.
        EvaluationError: a transcript is longer than its recording allows.
        VocabularyError: a transcript holds a character that the model's vocabulary lacks.
        ModelError: the model cannot be loaded, was edited, or its family has no CTC head.
    """
    settings, augmentation, folder = settings or TrainingSettings(), augmentation or Augmentation(), Path(output)
    ctc = ctc or CtcSettings()
    check_folder(folder, resume)
    ready = model if isinstance(model, SpeechModel) else load(model)
    speech = training_speech(corpus, dev, hold_out, settings.seed, skip_bad, ready.frontend, augmentation.speed[1])
    if not any(u.transcript for u in speech.corpus):
        raise TrainingError(
            f"Corpus {speech.corpus.name} has no transcripts", "CTC needs them: add them, or pre-train instead."
        )
    source, vocabulary = _with_head(ready, [*speech.train, *speech.held], settings.seed)
    phones = sorted({x.label for u in speech.train for x in u.tiers.get("phone", ())}) if ctc.phone_layer else []
    recogniser = Recogniser(SpeechModel(source, ready.family, ready.frontend, ready.name), vocabulary)
    made = Ctc(recogniser, ctc, augmentation, phones, settings.seed)
    speech.keep(made.check)
    return run_training(made, speech, settings, folder, resume, report)


def _with_head(ready: SpeechModel, utterances: Sequence[Utterance], seed: int) -> tuple[nn.Module, Vocabulary]:
    """A copy of the model with a CTC head, and the head's vocabulary."""
    path = ready.family.ctc_head
    if path is None:
        raise HeadError(f"The family {ready.family.name} has no CTC head", "Fine-tune a model of another family.")
    if submodule(ready.source, path) is None:
        vocabulary = vocabulary_of(utterances)
        return with_ctc_head(ready, vocabulary, seed), vocabulary
    refuse_edited(ready)
    vocabulary = recogniser_of(ready).vocabulary
    if vocabulary.pieces is not None:
        raise VocabularyError(
            f"{ready.name} spells in pieces of words, and fine-tuning is over characters",
            "Fine-tune its encoder: pass the model without its head.",
        )
    return copy.deepcopy(ready.source).float(), vocabulary
