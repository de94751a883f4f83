"""Pretrain: speech without labels in, a self-supervised model out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from otoscope.errors import TrainingError
from otoscope.evaluation.clusters import Clusters, fit_clusters, mfcc_features, stream_features
from otoscope.evaluation.masking import SHARE, SPAN
from otoscope.models.families import family_of
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.plans.plan import Plan
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance
from otoscope.training.architectures import FAMILIES, Size, make_config, seeded
from otoscope.training.augmentation import Augmentation
from otoscope.training.contrastive import Contrastive
from otoscope.training.folders import check_folder, without_bars
from otoscope.training.loop import Report
from otoscope.training.objective import Objective
from otoscope.training.outcome import TrainingOutcome
from otoscope.training.prediction import MaskedPrediction
from otoscope.training.reconstruction import RUN, MaskedReconstruction
from otoscope.training.reconstruction import SHARE as HIDDEN
from otoscope.training.settings import TrainingSettings
from otoscope.treatments.treatment import Treatment
from otoscope.workflow.training_speech import run_training, training_speech
from otoscope.workflow.treating import treat

OBJECTIVES = ("contrastive", "clusters", "reconstruction")


@without_bars()
def pretrain(
    model: str | Path,
    corpus: Corpus | str | Path,
    output: str | Path,
    *,
    objective: str | None = None,
    size: Size | None = None,
    settings: TrainingSettings | None = None,
    augmentation: Augmentation | None = None,
    mask: float | None = None,
    mask_span: int | None = None,
    mask_run: int | None = None,
    filling: str | None = None,
    clusters: int = 100,
    targets: str = "mfcc",
    plan: Plan | str | Path | Sequence[Treatment] | None = None,
    any_weights: bool = False,
    subset: str | float | None = None,
    dev: Corpus | str | Path | None = None,
    hold_out: float = 0.05,
    skip_bad: bool = False,
    resume: bool = False,
    report: Report | None = None,
) -> TrainingOutcome:
    """Trains a model on speech alone.

    With a plan the model is treated before it is trained: a new one is built, and then trained from nothing without the
    blocks, heads or spans that the plan takes away.

    Args:
        model: "wav2vec2", "hubert", "wavlm" or "mockingjay" for a new small model, or a folder or Hub name (OWNER/NAME)
            of one to go on from.
        corpus: a corpus, a path, or "embedded:train".
        output: folder for the result, see `otoscope.training.loop.train`.
        objective: "contrastive" (wav2vec 2.0), "clusters" (HuBERT, WavLM) or "reconstruction" (Mockingjay); by default
            what the family was made for.
        size: of a new model.
        settings: steps, rates, seed and the like.
        augmentation: what is done to the speech that the model hears.
        mask: share of frames under masks if these did not overlap; by default 0.65, and 0.15 for the objective
            "reconstruction".
        mask_span: frames a mask (10); shorter ones are easier to fill, and a small model learns sooner.
        mask_run: stacked frames a mask (3), C_num, for the objective "reconstruction", which has no spans.
        filling: what stands in masked frames for the objective "reconstruction": "mixed" (the default) or "zero"; see
            `MaskedReconstruction`.
        clusters: how many clusters, for the objective "clusters".
        targets: what is clustered: "mfcc", or "FOLDER:STREAM" for a stream of an earlier model, such as
            "hubert:layer.5".
        plan: treats the model first: a plan, its file, or treatments.
        any_weights: take a plan that was made for a model of the same sizes and other weights, as is always done for a new
            model.
        subset: how much of the speech to train on, in seconds or as "10min", "1h" and the like; see
            `otoscope.training.subsets.subset`. The settings' seed chooses it.
        dev: speech to watch the training with; by default speakers of the corpus are held out.
        hold_out: share of the speakers to hold out.
        skip_bad: leave out utterances that cannot be used, and list them in the outcome.
        resume: go on with an interrupted run.
        report: called with each line of the log.

    Returns:
        The folder, figures on held-out speech and what was left out.

    Raises:
        TrainingError: the settings, the folder or the speech cannot be used.
        SpeechError: the corpus cannot be read, or an utterance is too short.
        ModelError: the model cannot be loaded or treated.
        PlanError: the plan cannot be read, or is for another model.
    """
    settings, augmentation, folder = settings or TrainingSettings(), augmentation or Augmentation(), Path(output)
    check_folder(folder, resume)
    kind = objective
    if kind is None and _is_new(model):
        kind = {"wav2vec2": "contrastive", "mockingjay": "reconstruction"}.get(str(model), "clusters")
    if kind is not None and kind not in OBJECTIVES:
        raise TrainingError(f"There is no objective {kind!r}", f"Choose one of {', '.join(OBJECTIVES)}.")
    source, speech_model = _start(model, size, kind, settings.seed, plan, any_weights)
    kind = kind or _made_for(source) or "clusters"
    _refuse_ignored(kind, {"mask_span": mask_span}, {"mask_run": mask_run, "filling": filling})
    frontend = speech_model.frontend
    speech = training_speech(corpus, dev, hold_out, settings.seed, skip_bad, frontend, augmentation.speed[1])
    speech.take(subset, settings.seed)
    made: Objective
    share = mask if mask is not None else HIDDEN if kind == "reconstruction" else SHARE
    span = SPAN if mask_span is None else mask_span
    if kind == "reconstruction":
        run = RUN if mask_run is None else mask_run
        made = MaskedReconstruction(source, frontend, share, run, filling or "mixed", augmentation)
    elif kind == "contrastive":
        made = Contrastive(source, frontend, share, span, augmentation)
    else:
        head, fitted, labels = _targets(speech_model, speech.train, speech.held, clusters, targets, settings.seed)
        made = MaskedPrediction(source, head, frontend, fitted, labels, share, span, augmentation)
    return run_training(made, speech, settings, folder, resume, report)


def _made_for(source: nn.Module) -> str | None:
    """The objective that a model's head was made for, None where it has none."""
    parts = {"quantizer": "contrastive", "reconstruction_head": "reconstruction"}
    return next((kind for part, kind in parts.items() if hasattr(source, part)), None)


def _refuse_ignored(kind: str, of_spans: Mapping[str, object], of_runs: Mapping[str, object]) -> None:
    """Refuses options that the objective has no use for.

    Raises:
        TrainingError: one is given.
    """
    ignored = of_spans if kind == "reconstruction" else of_runs
    for name, value in ignored.items():
        if value is not None:
            instead = " and ".join(of_runs if kind == "reconstruction" else of_spans)
            raise TrainingError(f"The objective {kind} has no {name}", f"Leave it out; it has {instead}.")


def _is_new(model: str | Path) -> bool:
    """Whether a family of a new model is named: one word, which is no folder and no embedded model."""
    return "/" not in str(model) and not str(model).startswith("embedded") and not Path(model).exists()


def _start(
    model: str | Path,
    size: Size | None,
    kind: str | None,
    seed: int,
    plan: Plan | str | Path | Sequence[Treatment] | None,
    any_weights: bool,
) -> tuple[nn.Module, SpeechModel]:
    """The model to train, treated and in a class that fits the objective, and the same made ready for examination."""
    if _is_new(model):
        config = make_config(str(model), size or Size())
        if kind == "contrastive" and not hasattr(config, "num_codevectors_per_group"):
            raise TrainingError(f"A new {model} has no quantiser", "Choose the objective clusters, or a new wav2vec2.")
        if (kind == "reconstruction") != (config.model_type == "mockingjay"):
            raise TrainingError(
                f"A new {model} is not trained by the objective {kind}",
                "The objective reconstruction is that of a mockingjay; leave --objective out.",
            )
        family = family_of(config.model_type)
        name = family.bare
        if kind != "clusters":
            name = name.removesuffix("Model") + "ForPreTraining"
        ready = load(seeded(seed, lambda: family.model_class(name)(config)), name=str(model))
        if plan is not None:
            ready = treat(ready, plan, name=ready.name, any_weights=True)
        return ready.source, ready
    if size is not None:
        raise TrainingError(f"{model} has its size already", f"Sizes are for new models: {', '.join(FAMILIES)}.")
    ready = load(model)
    if plan is not None:
        ready = treat(ready, plan, name=ready.name, any_weights=any_weights)
    whole = (kind or _made_for(ready.source)) in ("contrastive", "reconstruction")
    return ready.source if whole else ready.family.encoder(ready.source), ready


def _targets(
    ready: SpeechModel,
    utterances: Sequence[Utterance],
    held: Sequence[Utterance],
    count: int,
    targets: str,
    seed: int,
) -> tuple[nn.Linear, Clusters, dict[str, np.ndarray]]:
    """A fresh head, clusters fitted on the training speech, and labels for all speech."""
    every = [*utterances, *held]
    if targets == "mfcc":
        features = mfcc_features(every, ready)
    else:
        place, _, stream = targets.rpartition(":")
        if not place:
            raise TrainingError(f"{targets!r} names no targets", "Write mfcc, or FOLDER:STREAM such as hubert:layer.5.")
        features = stream_features(every, load(place), stream, ready.anatomy.grid)
    fitted = fit_clusters(((u.id, features[u.id]) for u in utterances), count, seed, targets)
    labels = {name: fitted.assign(values) for name, values in features.items()}
    width = ready.anatomy.widths["input"]
    return seeded(seed + 1, lambda: nn.Linear(width, count)), fitted, labels
