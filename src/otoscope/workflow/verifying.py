"""Verify: two models and speech with transcripts in; whether the second is better, by how much, and what it saves."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from otoscope.diagnosis.provenance import corpus_facts, versions
from otoscope.errors import EvaluationError
from otoscope.evaluation.catalogue import RECOGNITION
from otoscope.evaluation.cost import cost_of
from otoscope.evaluation.decoders import DecoderSettings
from otoscope.evaluation.decoding import Decoder
from otoscope.evaluation.invariance import Invariance, check_batch_invariance
from otoscope.evaluation.language.reading import read_language_model
from otoscope.evaluation.metric import Progress, RecognitionMetric, recognise
from otoscope.evaluation.outcome import SIDES, Change, Heard, Outcome, speaker_changes
from otoscope.evaluation.paired import paired_bootstrap
from otoscope.evaluation.references import split_usable
from otoscope.evaluation.scores import Scores
from otoscope.evaluation.seeds import mean_interval, seed_bootstrap
from otoscope.evaluation.timing import TimeComparison, compare_time
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser, load_recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus, LeftOut
from otoscope.workflow.corpora import read_corpus

Model = Recogniser | SpeechModel | nn.Module | str | Path
TIMED_SECONDS = 20.0
"""About so much speech is in each of the runs that are timed."""

CHECKED = 8
"""So many utterances are looked at for whether a model depends on its batch: the longest and the shortest."""

_ALONE = 1e-6  # a budget in seconds that no second utterance fits into


def verify(
    before: Model | Sequence[Model],
    after: Model | Sequence[Model],
    corpus: Corpus | str | Path = "embedded",
    metrics: str | Sequence[str] = "wer,cer",
    seed: int = 0,
    *,
    vocabulary: Vocabulary | Mapping[str, int] | str | Path | None = None,
    decoder: DecoderSettings | str = "greedy",
    paired: bool | None = None,
    skip_bad: bool = False,
    strict: bool = False,
    batch_seconds: float = 30.0,
    draws: int = 10_000,
    cost: bool = True,
    time: bool = True,
    repeats: int = 15,
    progress: Progress | None = None,
) -> Outcome:
    """Holds a changed model against the one before, on the same utterances in the same batches.

    First it is checked for each model, on a few uneven batches, whether what is recognised depends on what else is in a
    batch. If it does for one of them, all of them decode one utterance at a time.

    Args:
        before: the model before: what `load` takes, or a recogniser; several are seeds of one model.
        after: the model after; several are seeds of one model.
        corpus: speech with transcripts that nothing was trained or tuned on.
        metrics: of recognition, names separated by commas.
        seed: of the intervals.
        vocabulary: of models that do not come with theirs; see `recogniser_of`.
        decoder: "greedy", "beam", or settings with a language model; the same for all models.
        paired: whether the k-th model after belongs to the k-th before; see `seed_bootstrap`.
        skip_bad: leave out utterances that one of the models cannot use, and list them in the outcome.
        strict: refuse a model whose results depend on the batch, rather than decode one utterance at a time.
        batch_seconds: budget of a batch, in seconds of padded speech.
        draws: how often speakers are drawn for the intervals.
        cost: also count parameters, multiply-accumulates and bytes of the first model of each side.
        time: also time the first model of each side, in turn.
        repeats: pairs of timed runs.
        progress: called after each batch with the seconds done and in all.

    Raises:
        ModelError: a model cannot be loaded, has no CTC head or no vocabulary.
        SpeechError: the corpus cannot be read, or an utterance is bad or has no transcript.
        EvaluationError: a metric is unknown or cannot be compared between these models, models that are given as seeds
            are not of one kind, a model depends on the batch under `strict`, or there are fewer than two utterances.
    """
    wanted = _metrics(metrics)
    sides = [[load_recogniser(one, vocabulary) for one in _several(given)] for given in (before, after)]
    for side, models in zip(SIDES, sides, strict=True):
        _check_seeds(side, models)
    everyone = [*chain(*sides)]
    notes = _vocabulary_notes([one.vocabulary for one in everyone], wanted)
    decoders = _decoders(DecoderSettings(decoder) if isinstance(decoder, str) else decoder, everyone)
    speech = corpus if isinstance(corpus, Corpus) else read_corpus(corpus, skip_bad=skip_bad)
    left_out = list(speech.left_out)
    if skip_bad:
        speech, more = _usable(everyone, speech)
        left_out += more
    if len(speech) < 2:
        raise EvaluationError(f"Corpus {speech.name} holds {len(speech)} utterance(s)", "Give two or more.")
    invariance = _invariance(sides, speech)
    alone = [name for name, found in invariance.items() if not found.holds]
    if alone and strict:
        raise EvaluationError(
            f"The model {alone[0]} depends on what else is in a batch: {invariance[alone[0]]}",
            "Leave out strict (--strict), so that all models decode one utterance at a time.",
        )
    if alone:
        notes.append(f"All models decoded one utterance at a time, since what {alone[0]} gives depends on the batch")
    scores = _scores(wanted, sides, speech, _ALONE if alone else batch_seconds, decoders, progress)
    changes = {metric.name: _change([side[metric.name] for side in scores], draws, seed, paired) for metric in wanted}
    of_seeds = next(iter(changes.values())).seeds
    notes += [] if of_seeds is None else of_seeds.caveats
    firsts = [models[0] for models in sides]
    if len({one.model.fingerprint() for one in firsts}) == 1:
        notes.append("Both encoders are the same, weight for weight")
    costs = {side: cost_of(one) for side, one in zip(SIDES, firsts, strict=True)} if cost else {}
    timed = _timed(firsts, speech, repeats) if time else None
    about = {
        **{side: [_facts(one) for one in models] for side, models in zip(SIDES, sides, strict=True)},
        "corpus": corpus_facts(speech, {one.id for one in speech}, left_out, {}),
        "decoder": decoders[0].describe(),
        "batches": "one utterance at a time" if alone else f"{batch_seconds:g} s",
        "notes": notes,
        "seed": seed,
        "versions": versions(),
        "command": shlex.join(sys.argv),
    }
    return Outcome(changes, costs, timed, invariance, _heard(scores), about)


def _several(given: Model | Sequence[Model]) -> list[Model]:
    """The models of a side; one that is no sequence makes a side by itself."""
    if isinstance(given, Sequence) and not isinstance(given, str):
        if not given:
            raise EvaluationError("No model is given on a side", "Name one or more before, and one or more after.")
        return list(given)
    return [given]


def _metrics(names: str | Sequence[str]) -> list[RecognitionMetric]:
    listed = names.split(",") if isinstance(names, str) else names
    wanted = [name for name in dict.fromkeys(one.strip() for one in listed) if name]
    unknown = [name for name in wanted if name not in RECOGNITION]
    if unknown or not wanted:
        problem = f"Recognition is not measured by {unknown[0]!r}" if unknown else "No metric is asked for"
        raise EvaluationError(problem, f"Name some of {', '.join(RECOGNITION)}.")
    return [RECOGNITION[name]() for name in wanted]


def _check_seeds(side: str, models: Sequence[Recogniser]) -> None:
    """Refuses models that cannot be seeds of one: others in size or family."""
    kinds = [(one.model.anatomy.family, one.parameters) for one in models]
    for one, kind in zip(models, kinds, strict=True):
        if kind != kinds[0]:
            raise EvaluationError(
                f"{one.name} ({kind[0]}, {kind[1]} parameters) and {models[0].name} ({kinds[0][0]}, {kinds[0][1]} "
                f"parameters) are both given {side}, and are no seeds of one model",
                "Give models that differ in their seed only, or compare them one by one.",
            )


def _vocabulary_notes(vocabularies: Sequence[Vocabulary], metrics: Sequence[RecognitionMetric]) -> list[str]:
    """What follows where models spell with other tokens.

    Raises:
        EvaluationError: a metric counts tokens, so that it means another thing for each.
    """
    first = vocabularies[0]
    if all(set(one.tokens) == set(first.tokens) for one in vocabularies):
        return []
    if any(metric.name == "ctc-loss" for metric in metrics):
        raise EvaluationError(
            "The models have different vocabularies, and a CTC loss for each token of one is none of the other",
            "Compare them by --metrics wer,cer.",
        )
    return ["The models have different vocabularies; references are spelt in the case of each, and words compared"]


def _decoders(settings: DecoderSettings, models: Sequence[Recogniser]) -> list[Decoder]:
    """The decoder of each model; a language model is read once."""
    if settings.lm is not None:
        settings = replace(settings, lm=read_language_model(settings.lm))
    return [settings.decoder(one.vocabulary) for one in models]


def _usable(models: Sequence[Recogniser], speech: Corpus) -> tuple[Corpus, list[LeftOut]]:
    """The utterances that every model can use, and the others with the first reason."""
    left_out: list[LeftOut] = []
    for model in models:
        speech, more = split_usable(model, speech)
        left_out += more
    return speech, left_out


def _labels(sides: Sequence[Sequence[Recogniser]]) -> list[tuple[str, Recogniser]]:
    """Every model with what notes call it: "before", or "before 2" among several."""
    return [
        (side if len(models) == 1 else f"{side} {k}", one)
        for side, models in zip(SIDES, sides, strict=True)
        for k, one in enumerate(models, start=1)
    ]


def _invariance(sides: Sequence[Sequence[Recogniser]], speech: Corpus) -> dict[str, Invariance]:
    ordered = [one.id for one in sorted(speech, key=lambda one: (-one.n_samples, one.id))]
    uneven = speech.subset(dict.fromkeys([*ordered[: CHECKED // 2], *ordered[-CHECKED // 2 :]]))
    return {label: check_batch_invariance(one, uneven) for label, one in _labels(sides)}


def _scores(
    metrics: Sequence[RecognitionMetric],
    sides: Sequence[Sequence[Recogniser]],
    speech: Corpus,
    batch_seconds: float,
    decoders: Sequence[Decoder],
    progress: Progress | None,
) -> list[dict[str, list[Scores]]]:
    """Scores of every model by metric, before and after; the same batches for all."""
    models, done = sum(map(len, sides)), 0
    found: list[dict[str, list[Scores]]] = []
    for side in sides:
        gathered: dict[str, list[Scores]] = {metric.name: [] for metric in metrics}
        for one in side:
            step = None if progress is None else _shifted(progress, done, models)
            scores = recognise(metrics, one, speech, decoder=decoders[done], batch_seconds=batch_seconds, progress=step)
            for name, taken in scores.items():
                gathered[name].append(taken)
            done += 1
        found.append(gathered)
    return found


def _shifted(progress: Progress, done: int, models: int) -> Progress:
    return lambda now, whole: progress(done * whole + now, models * whole)


def _change(scores: Sequence[Sequence[Scores]], draws: int, seed: int, paired: bool | None) -> Change:
    """The change of one metric; scores before and after, of every model."""
    old, new = scores
    _check_references(old[0], [*old, *new])
    if len(old) == len(new) == 1:
        difference, parts = paired_bootstrap(old[0], new[0], draws, seed), None
    else:
        difference, parts = seed_bootstrap(old, new, draws, seed, paired=paired)
    kinds = {
        name: (_mean([one.parts[name].sum() for one in old]), _mean([one.parts[name].sum() for one in new]))
        for name in old[0].parts
    }
    speakers = speaker_changes([[*chain(*(one.by_speaker().to_dicts() for one in side))] for side in scores])
    return Change(
        difference, mean_interval(old, draws, seed), mean_interval(new, draws, seed),
        (tuple(one.value for one in old), tuple(one.value for one in new)), kinds, speakers, parts,
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _check_references(first: Scores, scores: Sequence[Scores]) -> None:
    """Refuses references that models spell differently beyond case, so that their errors are not of the same words."""
    for one in scores:
        texts = dict(zip(one.ids, one.texts.get("reference", ()), strict=False))
        for utterance, text in zip(first.ids, first.texts.get("reference", ()), strict=False):
            if texts[utterance].casefold() != text.casefold():
                raise EvaluationError(
                    f"The models spell the transcript of utterance {utterance!r} differently: {text!r} and "
                    f"{texts[utterance]!r}",
                    "Compare models whose vocabularies hold the same characters.",
                )


def _heard(scores: Sequence[Mapping[str, Sequence[Scores]]]) -> tuple[Heard, ...]:
    """What the first model of each side made of every utterance; nothing where words were not counted."""
    if any("wer" not in side for side in scores):
        return ()
    before = scores[0]["wer"][0]
    after = scores[1]["wer"][0].subset(before.ids)
    columns = (
        before.ids, before.speakers, before.texts["reference"], before.texts["hypothesis"], after.texts["hypothesis"],
        before.numerator.astype(int).tolist(), after.numerator.astype(int).tolist(),
    )  # fmt: skip
    return tuple(Heard(*row) for row in zip(*columns, strict=True))


def _timed(models: Sequence[Recogniser], speech: Corpus, repeats: int) -> TimeComparison:
    """Both models in turn on utterances of all lengths, one at a time."""
    ordered = sorted(speech, key=lambda one: (one.n_samples, one.id))
    count = int(np.clip(round(TIMED_SECONDS / (speech.seconds / len(speech))), 1, len(speech)))
    chosen = [ordered[k] for k in np.unique(np.linspace(0, len(ordered) - 1, count + 2)[1:-1].round().astype(int))]
    return compare_time(models[0], models[1], [one.read() for one in chosen], repeats)


def _facts(one: Recogniser) -> dict[str, Any]:
    return {
        "name": one.name,
        "path": getattr(one.model.source, "name_or_path", "") or None,
        "family": one.model.anatomy.family,
        "layers": one.model.anatomy.n_layers,
        "heads": list(one.model.anatomy.heads),
        "parameters": one.parameters,
        "fingerprint": one.model.fingerprint(),
    }
