"""Finetune: a model and speech with transcripts in, a CTC recogniser out."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from otoscope.errors import HeadError, TrainingError
from otoscope.models.families import submodule
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser, load_recogniser, recogniser_of
from otoscope.models.vocabulary import Vocabulary
from otoscope.plans.plan import Plan
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance
from otoscope.training.augmentation import Augmentation
from otoscope.training.ctc import Ctc, CtcSettings, check_transcript
from otoscope.training.ctc_head import refuse_unrecorded, with_ctc_head
from otoscope.training.folders import check_folder, without_bars
from otoscope.training.loop import Report
from otoscope.training.outcome import TrainingOutcome
from otoscope.training.settings import TrainingSettings
from otoscope.training.subsets import split_by_length
from otoscope.training.teacher import Teacher, TeacherSettings
from otoscope.training.vocabulary import CHARACTERS, check_kind, make_vocabulary
from otoscope.treatments.treatment import Treatment
from otoscope.workflow.training_speech import run_training, training_speech
from otoscope.workflow.treating import PLAN, as_plan, carried_plan, treat


@without_bars()
def finetune(
    model: SpeechModel | nn.Module | str | Path,
    corpus: Corpus | str | Path,
    output: str | Path,
    *,
    settings: TrainingSettings | None = None,
    ctc: CtcSettings | None = None,
    augmentation: Augmentation | None = None,
    plan: Plan | str | Path | Sequence[Treatment] | None = None,
    any_weights: bool = False,
    teacher: Recogniser | SpeechModel | nn.Module | str | Path | None = None,
    following: TeacherSettings | None = None,
    vocabulary: str | Vocabulary | None = None,
    at_least: float | None = None,
    subset: str | float | None = None,
    dev: Corpus | str | Path | None = None,
    hold_out: float = 0.05,
    skip_bad: bool = False,
    resume: bool = False,
    report: Report | None = None,
) -> TrainingOutcome:
    """Trains a copy of a model with CTC over characters or pieces of words.

    A model that has a CTC head already keeps it and its vocabulary, unless one is named; any other gets a fresh head for
    the characters of the transcripts, in lower case. A treated model is trained and stored with its treatments, of which
    some say what is frozen and what learns faster, and with its plan.

    Args:
        model: what `otoscope.load` takes, or what it gave.
        corpus: speech with transcripts: a corpus, a path, or "embedded:train".
        output: folder for the result, see `otoscope.training.loop.train`.
        settings: steps, rates, seed and the like.
        ctc: masks, what is frozen and how long, the phone loss.
        augmentation: what is done to the speech that the model hears.
        plan: treats the model first: a plan, its file, or treatments.
        any_weights: take a plan that was made for a model of the same sizes and other weights.
        teacher: a trained model with the same vocabulary whose outputs and layers are followed beside the transcripts,
            such as the model before its treatment; see `otoscope.training.teacher`.
        following: how much the teacher counts.
        vocabulary: of a fresh head: "characters", "bpe:SIZE" for so many pieces of words, or a vocabulary.
        at_least: seconds that an utterance to train on lasts at least; shorter ones are withheld, as for a server model that
            clients shall adapt to them (`federate`, `shorter_than`).
        subset: how much of the speech to train on, in seconds or as "10min", "1h" and the like; see
            `otoscope.training.subsets.subset`. The settings' seed chooses it.
        dev: speech to watch the training with; by default speakers of the corpus are held out.
        hold_out: share of the speakers to hold out.
        skip_bad: leave out utterances that cannot be used, and list them in the outcome.
        resume: go on with an interrupted run.
        report: called with each line of the log.

    Returns:
        The folder, WER and CER on held-out speech and what was left out.

    Raises:
        TrainingError: the settings or the folder cannot be used, there is no transcript at all, no utterance is shorter than
            `at_least` or none is as long, or the teacher does not fit.
        TranscriptError: an utterance has no transcript, or an empty one.
        EvaluationError: a transcript is longer than its recording allows.
        VocabularyError: a transcript holds a character that the model's vocabulary lacks.
        ModelError: the model cannot be loaded or treated, was edited, or its family has no CTC head.
        PlanError: the plan cannot be read, or is for another model.
    """
    settings, augmentation, folder = settings or TrainingSettings(), augmentation or Augmentation(), Path(output)
    ctc = ctc or CtcSettings()
    if ctc.open_at >= settings.steps:
        raise TrainingError(
            f"The encoder is to be opened at step {ctc.open_at} of {settings.steps}, and would never be trained",
            "Open it earlier, or train for more steps.",
        )
    if following is not None and teacher is None:
        raise TrainingError("There is no teacher to follow", "Name one (teacher=, --teacher).")
    if isinstance(vocabulary, str):
        check_kind(vocabulary)
    check_folder(folder, resume)
    given = None if plan is None else as_plan(plan)
    ready = model if isinstance(model, SpeechModel) else load(model)
    carried = carried_plan(ready, given)
    if given is not None:
        ready = treat(ready, given, name=ready.name, any_weights=any_weights)
    speech = training_speech(corpus, dev, hold_out, settings.seed, skip_bad, ready.frontend, augmentation.speed[1])
    if not any(u.transcript for u in speech.corpus):
        raise TrainingError(
            f"Corpus {speech.corpus.name} has no transcripts", "CTC needs them: add them, or pre-train instead."
        )
    speech.keep(check_transcript)
    if at_least is not None:
        _, long = split_by_length(Corpus(speech.corpus.name, tuple(speech.train)), at_least)
        speech.train = list(long)
    speech.take(subset, settings.seed)
    source, spelling = with_head(ready, [*speech.train, *speech.held], vocabulary, settings.seed)
    phones = sorted({x.label for u in speech.train for x in u.tiers.get("phone", ())}) if ctc.phone_layer else []
    recogniser = Recogniser(SpeechModel(source, ready.family, ready.frontend, ready.name), spelling)
    followed = None if teacher is None else Teacher(load_recogniser(teacher), recogniser, following)
    made = Ctc(recogniser, ctc, augmentation, phones, settings.seed, followed)
    speech.keep(made.check)
    outcome = run_training(made, speech, settings, folder, resume, report)
    if carried is not None and os.environ.get("RANK", "0") == "0":
        carried.save(folder / PLAN)
    return outcome


def with_head(
    ready: SpeechModel, utterances: Sequence[Utterance], vocabulary: str | Vocabulary | None, seed: int
) -> tuple[nn.Module, Vocabulary]:
    """A copy of the model with a CTC head, and the head's vocabulary."""
    path = ready.family.ctc_head
    if path is None:
        raise HeadError(f"The family {ready.family.name} has no CTC head", "Fine-tune a model of another family.")
    if vocabulary is None and submodule(ready.source, path) is not None:
        refuse_unrecorded(ready)
        return copy.deepcopy(ready.source).float(), recogniser_of(ready).vocabulary
    if vocabulary is None or isinstance(vocabulary, str):
        vocabulary = make_vocabulary(utterances, vocabulary or CHARACTERS)
    return with_ctc_head(ready, vocabulary, seed), vocabulary
