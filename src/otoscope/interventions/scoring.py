"""A metric of many edited variants of a model, on the same batches, in runs that go on where they were cut off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from otoscope.errors import EvaluationError, ResultError
from otoscope.evaluation.metric import Metric, RecognitionMetric, recognise
from otoscope.evaluation.paired import Difference, paired_bootstrap
from otoscope.evaluation.references import check_lengths, references_of
from otoscope.evaluation.scores import Scores
from otoscope.evaluation.self_supervised import MaskedPredictionLoss
from otoscope.interventions.engine import BASE, Engine, Part, Progress, Variants, parts_of
from otoscope.interventions.kept import put, same_run, taken
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser, recogniser_of
from otoscope.speech.corpus import Corpus
from otoscope.surgery import fingerprint

_Columns = Mapping[str, Sequence[float]]  # numerators and denominators of a stretch's utterances


@dataclass(frozen=True)
class VariantScores:
    """Scores of a model before any edit and of its variants, on the same utterances in the same batches.

    Attributes:
        before: of the unedited model.
        after: of each variant, by name.
    """

    before: Scores
    after: Mapping[str, Scores]

    def difference(self, name: str, seed: int = 0) -> Difference:
        """A variant against the unedited model, with the paired interval.

        Raises:
            EvaluationError: see `paired_bootstrap`.
        """
        return paired_bootstrap(self.before, self.after[name], seed=seed)


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

    Raises:
        EvaluationError: there is no variant, there are fewer than two utterances, or the metric cannot be taken on them.
        ModelError: the model has not what the metric needs, or an edit does not fit it.
        ResultError: the folder holds the results of another run, or cannot be written.
        SpeechError: an utterance cannot be read or used.
    """
    if not variants:
        raise EvaluationError("There is no variant to be scored", "Give one set of edits or more.")
    if len(corpus) == 1:
        raise EvaluationError(
            f"One utterance ({corpus[0].id!r}) gives no interval", "Score variants on two utterances or more."
        )
    spoken = isinstance(metric, RecognitionMetric)
    recogniser = recogniser_of(model, metric.vocabulary) if isinstance(metric, RecognitionMetric) else None
    ready = recogniser.model if recogniser is not None else model.model if isinstance(model, Recogniser) else model
    _check(ready, recogniser, corpus, metric)
    taken = metric.labelled(ready, corpus) if isinstance(metric, MaskedPredictionLoss) else metric

    def take(variant: SpeechModel, part: Corpus) -> Scores:
        if recogniser is None or not isinstance(metric, RecognitionMetric):
            return taken.values(variant, part, batch_seconds=batch_seconds)
        spelling = Recogniser(variant, recogniser.vocabulary)
        return recognise([metric], spelling, part, batch_seconds=batch_seconds)[metric.name]

    parts = parts_of(corpus, batch_seconds, spoken=spoken)
    kept = _Kept(store, ready, corpus, variants, metric, batch_seconds) if store is not None else None
    done = {k: found for k in range(len(parts)) if kept is not None and (found := kept.read(k, parts[k])) is not None}
    left = [k for k in range(len(parts)) if k not in done]
    if left:
        results = Engine(ready, variants, reuse=reuse).over([parts[k] for k in left], take, progress)
        for k, part in zip(left, results, strict=True):
            done[k] = _columns(part)
            if kept is not None:
                kept.write(k, done[k])
    ids = [utterance.id for part in parts for utterance in part]
    joined = {
        name: _joined(metric, corpus, ids, [done[k][name] for k in range(len(parts))]) for name in (BASE, *variants)
    }
    return VariantScores(joined.pop(BASE), joined)


def _check(model: SpeechModel, recogniser: Recogniser | None, corpus: Corpus, metric: Metric) -> None:
    """What a metric refuses about an utterance is refused before the first batch is run."""
    for utterance in corpus:
        model.frontend.check(utterance.n_samples, f"Utterance {utterance.id!r}")
    if recogniser is not None and isinstance(metric, RecognitionMetric):
        references = references_of(recogniser, corpus)
        check_lengths(recogniser, corpus)
        for utterance in corpus:
            metric.check(recogniser, utterance, references[utterance.id])


def _columns(part: Part[Scores]) -> dict[str, _Columns]:
    """Numerators and denominators in the order of the part's utterances."""
    ids = tuple(utterance.id for utterance in part.corpus)
    ordered = {name: scores.subset(ids) for name, scores in part.found.items()}
    return {
        name: {"numerator": scores.numerator.tolist(), "denominator": scores.denominator.tolist()}
        for name, scores in ordered.items()
    }


def _joined(metric: Metric, corpus: Corpus, ids: Sequence[str], columns: Sequence[_Columns]) -> Scores:
    """Scores of all parts as one, in the corpus' order."""
    speakers = {utterance.id: utterance.speaker for utterance in corpus}
    values = {name: np.concatenate([one[name] for one in columns]) for name in ("numerator", "denominator")}
    scores = Scores(
        metric.name, metric.unit, metric.higher_is_better, tuple(ids), tuple(speakers[one] for one in ids),
        values["numerator"], values["denominator"],
    )  # fmt: skip
    return scores.subset(tuple(utterance.id for utterance in corpus))


class _Kept:
    """A folder with what each part gave, and with what it was the result of."""

    def __init__(
        self,
        folder: str | Path,
        model: SpeechModel,
        corpus: Corpus,
        variants: Variants,
        metric: Metric,
        batch_seconds: float,
    ) -> None:
        self.folder = Path(folder)
        plain = {name: value for name, value in vars(metric).items() if isinstance(value, int | float | str | Path)}
        about = {
            "model": fingerprint(model.source),
            "input": {name: str(value) for name, value in model.frontend.description.items()},
            "corpus": corpus.fingerprint(),
            "metric": [metric.name, {name: str(value) for name, value in sorted(plain.items())}],
            "variants": {name: [edit.to_dict() for edit in edits] for name, edits in variants.items()},
            "batch_seconds": batch_seconds,
        }
        self._names = {BASE, *variants}
        self.about = {"run": hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest(), **about}
        same_run(
            self.folder / "run.json",
            self.about,
            "the results of another run: of another model, corpus, metric or edits",
        )

    def read(self, k: int, part: Corpus) -> dict[str, _Columns] | None:
        """What part k gave, None where it was not run yet."""
        place = self._place(k)
        if not place.exists():
            return None
        found = taken(place)
        if found.keys() != self._names or any(len(one["numerator"]) != len(part) for one in found.values()):
            raise ResultError(f"{place} is not what a run wrote", "Remove it, and run again.")
        return found

    def write(self, k: int, found: Mapping[str, _Columns]) -> None:
        """Keeps what part k gave."""
        put(self._place(k), found)

    def _place(self, k: int) -> Path:
        return self.folder / f"part-{k:05d}.json"
