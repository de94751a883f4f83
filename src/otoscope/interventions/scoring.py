"""A metric of many edited variants of a model, on the same batches, in runs that go on where they were cut off."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from otoscope.errors import EvaluationError, NotFiniteError
from otoscope.evaluation.metric import Metric, RecognitionMetric, recognise
from otoscope.evaluation.paired import Difference, paired_bootstrap
from otoscope.evaluation.references import check_lengths, references_of
from otoscope.evaluation.scores import Scores
from otoscope.evaluation.self_supervised import MaskedPredictionLoss
from otoscope.interventions.engine import BASE, Engine, Progress, Variants, parts_of
from otoscope.interventions.kept_parts import Columns, KeptRun
from otoscope.interventions.sequential import Stopping
from otoscope.interventions.tally import Tally
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser, recogniser_of
from otoscope.speech.corpus import Corpus


@dataclass(frozen=True)
class VariantScores:
    """Scores of a model before any edit and of its variants, on the same utterances in the same batches.

    Attributes:
        before: of the unedited model, on the whole corpus.
        after: of each variant, by name; of one that was stopped, on the utterances that it was run on.
        stopped: how many utterances a variant that was stopped was run on, by name.
        replaced: on how many utterances a variant's value was not finite and is taken from the variant that stands for
            chance, by name; those without any are left out.
    """

    before: Scores
    after: Mapping[str, Scores]
    stopped: Mapping[str, int] = field(default_factory=dict)
    replaced: Mapping[str, int] = field(default_factory=dict)

    def difference(self, name: str, seed: int = 0) -> Difference:
        """A variant against the unedited model, on the utterances of the variant, with the paired interval.

        Raises:
            EvaluationError: see `paired_bootstrap`.
        """
        after = self.after[name]
        return paired_bootstrap(self.before.subset(after.ids), after, seed=seed)


def scores_of_variants(
    model: SpeechModel | Recogniser,
    corpus: Corpus,
    variants: Variants,
    metric: Metric,
    *,
    batch_seconds: float = 30.0,
    store: str | Path | None = None,
    progress: Progress | None = None,
    reuse: bool = True,
    cache_gb: float | None = None,
    together: int = 1,
    stop: Stopping | None = None,
    chance: str | None = None,
) -> VariantScores:
    """Takes a metric of the unedited model and of every variant.

    The batches are those that the metric makes of the whole corpus, the same for all variants, since a model may depend
    on what else is in a batch. Texts and counts of kinds of errors are not kept.

    Args:
        model: the model, or a recogniser for metrics of recognition.
        corpus: the speech.
        variants: name -> edits, in order.
        metric: what is taken.
        batch_seconds: see `Metric.values`.
        store: folder for what each batch gave; a run that was cut off and is started again with the same folder goes on
            after its last batch.
        progress: called after each batch with the seconds done and in all.
        reuse: see `Engine`.
        cache_gb: see `Engine`.
        together: see `Engine`.
        stop: when a variant is not run on further batches; None runs all on the whole corpus. The unedited model, and
            the variant that stands for chance, are always run wholly.
        chance: a variant, such as one with all units reset, whose value of an utterance takes the place of another's
            that is not finite; None refuses such a value.

    Raises:
        EvaluationError: there is no variant, or none called `chance`; there are fewer than two utterances; the metric
            cannot be taken on them; or its value for a variant is not finite, and there is none to take its place. What
            was finished is kept, and with `chance` a run with the same folder goes on.
        ModelError: the model has not what the metric needs, gives values that are not finite, or an edit does not fit it.
        ResultError: the folder holds the results of another run, or cannot be written.
        SpeechError: an utterance cannot be read or used.
    """
    if not variants:
        raise EvaluationError("There is no variant to be scored", "Give one set of edits or more.")
    if chance is not None and chance not in variants:
        raise EvaluationError(
            f"No variant is called {chance!r}, which is to stand for chance", f"There are {', '.join(variants)}."
        )
    if len(corpus) == 1:
        raise EvaluationError(
            f"One utterance ({corpus[0].id!r}) gives no interval", "Score variants on two utterances or more."
        )
    spoken = isinstance(metric, RecognitionMetric)
    recogniser = recogniser_of(model, metric.vocabulary) if isinstance(metric, RecognitionMetric) else None
    ready = recogniser.model if recogniser is not None else model.model if isinstance(model, Recogniser) else model
    _check(ready, recogniser, corpus, metric)
    labelled = metric.labelled(ready, corpus) if isinstance(metric, MaskedPredictionLoss) else metric

    def score(variant: SpeechModel, part: Corpus) -> Scores:
        if recogniser is None or not isinstance(metric, RecognitionMetric):
            return labelled.values(variant, part, batch_seconds=batch_seconds)
        spelling = Recogniser(variant, recogniser.vocabulary)
        return recognise([metric], spelling, part, batch_seconds=batch_seconds)[metric.name]

    parts = parts_of(corpus, batch_seconds, spoken=spoken)
    order = list(range(len(parts))) if stop is None else stop.order(len(parts))
    run = KeptRun(store, ready, corpus, variants, metric, batch_seconds, stop, chance) if store is not None else None
    engine: Engine | None = None
    done: dict[int, dict[str, Columns]] = {}
    tally = Tally(tuple(variants), stop, chance)
    left = sum(parts[k].seconds for k in order if run is None or not run.has(k))
    seconds = 0.0
    for k in order:
        found = run.read(k, parts[k], tally.running) if run is not None else None
        if found is None:
            engine = engine or Engine(ready, variants, reuse=reuse, cache_gb=cache_gb, together=together)
            found = _columns(engine, parts[k], score, tally.running)
            if run is not None:
                run.write(k, found)
            seconds += parts[k].seconds
            if progress is not None:
                progress(seconds, left)
        done[k] = tally.settle([utterance.id for utterance in parts[k]], found)
    joined = {
        name: _joined(metric, corpus, {k: columns[name] for k, columns in done.items() if name in columns}, parts)
        for name in (BASE, *variants)
    }
    before = joined.pop(BASE)
    return VariantScores(before, joined, {name: len(joined[name]) for name in tally.stopped}, tally.replaced)


def _check(model: SpeechModel, recogniser: Recogniser | None, corpus: Corpus, metric: Metric) -> None:
    """What a metric refuses about an utterance is refused before the first batch is run."""
    for utterance in corpus:
        model.frontend.check(utterance.n_samples, f"Utterance {utterance.id!r}")
    if recogniser is not None and isinstance(metric, RecognitionMetric):
        references = references_of(recogniser, corpus)
        check_lengths(recogniser, corpus)
        for utterance in corpus:
            metric.check(recogniser, utterance, references[utterance.id])


def _columns(
    engine: Engine, part: Corpus, score: Callable[[SpeechModel, Corpus], Scores], names: Sequence[str]
) -> dict[str, Columns]:
    """Numerators and denominators in the order of the part's utterances; those of variants may be infinite."""
    ids = tuple(utterance.id for utterance in part)
    before: list[Scores] = []

    def take(variant: SpeechModel, held: Corpus) -> Columns:
        try:
            scores = score(variant, held).subset(ids)
        except NotFiniteError:
            if variant is engine.base:
                raise
            return _one_by_one(before[0], lambda some: score(variant, held.subset(some)))
        if variant is engine.base:
            before.append(scores)
        return {"numerator": scores.numerator.tolist(), "denominator": scores.denominator.tolist()}

    return engine.run(part, take, names).found


def _one_by_one(before: Scores, score: Callable[[Sequence[str]], Scores]) -> Columns:
    """Numerators of a variant that is not finite somewhere: infinity where it is.

    An utterance in which nothing is counted cannot be scored by itself, and shares the fate of its neighbour.
    """
    units = dict(zip(before.ids, before.denominator.tolist(), strict=True))
    groups: list[list[str]] = [[]]
    for name in before.ids:
        if units[name] and any(units[one] for one in groups[-1]):
            groups.append([])
        groups[-1].append(name)
    found: dict[str, float] = {}
    for group in groups:
        try:
            scores = score(group)
            found |= dict(zip(scores.ids, scores.numerator.tolist(), strict=True))
        except NotFiniteError:
            found |= dict.fromkeys(group, math.inf)
    return {"numerator": [found[name] for name in before.ids], "denominator": before.denominator.tolist()}


def _joined(metric: Metric, corpus: Corpus, columns: Mapping[int, Columns], parts: Sequence[Corpus]) -> Scores:
    """Scores of parts, by their number, as one, in the corpus' order."""
    rows = {
        utterance.id: (utterance.speaker, *pair)
        for k, one in columns.items()
        for utterance, pair in zip(parts[k], zip(one["numerator"], one["denominator"], strict=True), strict=True)
    }
    ids = tuple(utterance.id for utterance in corpus if utterance.id in rows)
    return Scores(
        metric.name, metric.unit, metric.higher_is_better, ids, tuple(rows[one][0] for one in ids),
        np.array([rows[one][1] for one in ids], np.float64), np.array([rows[one][2] for one in ids], np.float64),
    )  # fmt: skip
