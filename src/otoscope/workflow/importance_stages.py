"""The stages of an examination of importance, which skip what there is no ground for and say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from otoscope.diagnosis.result import Diagnosis, table_of
from otoscope.errors import CorpusError, EvaluationError, MeasureError, ModelError, TranscriptError
from otoscope.evaluation.catalogue import metric_by_name
from otoscope.evaluation.metric import Metric
from otoscope.interventions.agreement import KENDALL, SPEARMAN, agreement
from otoscope.interventions.attribution import NAME as ATTRIBUTED
from otoscope.interventions.attribution import attribution_importance
from otoscope.interventions.curves import pruning_curves
from otoscope.interventions.engine import Progress
from otoscope.interventions.gradients import BY_FRAME, SUMMED, gradient_importance
from otoscope.interventions.head_values import metrics_of_heads
from otoscope.interventions.leave_one_out import NAME as LEFT_OUT
from otoscope.interventions.leave_one_out import leave_one_out
from otoscope.interventions.losses import Loss, own_loss
from otoscope.interventions.orders import Head, Order, values_of
from otoscope.interventions.probed import Features, Mode, ProbedCurves, Variant, features_of, probe_curves
from otoscope.interventions.signs import Sign, diagonal_against_global, sign_rows, sign_tests
from otoscope.interventions.spans import PLACES, span_curves
from otoscope.interventions.weights import NAME as WEIGHTS
from otoscope.interventions.weights import weight_importance
from otoscope.measures.measure import Result, Row
from otoscope.models.model import SpeechModel
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Edit
from otoscope.training.probes import FrozenProbe, ProbedSpeech, Task, make_task, probed_speech
from otoscope.workflow.importance_needs import SIGNS, VERDICT, Needs

VERDICTS: dict[Mode, str] = {"trained": VERDICT, "frozen": f"{VERDICT}-frozen"}

# What a corpus or a model may give no ground for; what else goes wrong is an error.
_NO_GROUND = (ModelError, MeasureError, EvaluationError, CorpusError, TranscriptError)


@dataclass
class Importance:
    """What an examination of importance gave.

    Attributes:
        result: rows, arrays and notes for a diagnosis.
        skipped: what there was no ground for, with the reason.
        orders: the orders by which heads were removed.
        curves: of the probes; None where no task had any ground.
        signs: the sign tests of what was examined.
    """

    result: Result = field(default_factory=Result)
    skipped: list[dict[str, str]] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    curves: ProbedCurves | None = None
    signs: list[Sign] = field(default_factory=list)

    def add(self, found: Result) -> Result:
        """Joins rows, arrays and notes."""
        self.result.rows += found.rows
        self.result.arrays |= found.arrays
        self.result.notes |= found.notes
        return found

    def joined(self, diagnosis: Diagnosis) -> Diagnosis:
        """A diagnosis of the same model and corpus with these rows, arrays and notes behind its own."""
        told = diagnosis.provenance
        measures = dict.fromkeys([*told.get("measures", ()), *(row.measure for row in self.result.rows)])
        provenance = {
            **told,
            "measures": list(measures),
            "skipped": [*told.get("skipped", ()), *self.skipped],
            "notes": {**told.get("notes", {}), **self.result.notes},
        }
        table = pl.concat([diagnosis.table, table_of(self.result.rows)])
        return Diagnosis(table, diagnosis.arrays | self.result.arrays, provenance)


class Stages:
    """The stages of an examination, of which those are run that the wanted measures need.

    Args:
        model: the model.
        corpus: the speech, of which a bounded part is used.
        needs: what is wanted.
        stream: that probes read; the last one where None.
        seconds: at most so much speech is used.
        seed: of every random choice.
        batch_seconds: budget of a batch, in seconds of padded speech.
        store: folder in which what is found is kept as it comes.
        tell: called with a line before each stage.
        progress: called with what is done and to do of the stage at hand.

    Raises:
        ModelError: the model has fewer than three heads.
    """

    def __init__(
        self,
        model: SpeechModel,
        corpus: Corpus,
        needs: Needs,
        *,
        stream: str | None = None,
        seconds: float = 120.0,
        seed: int = 0,
        batch_seconds: float = 30.0,
        store: Path | None = None,
        tell: Callable[[str], None] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.corpus, self.needs, self.seed, self.store = model, corpus, needs, seed, store
        self.stream, self.seconds, self.batch_seconds = stream, seconds, batch_seconds
        self.tell, self.progress = tell or (lambda line: None), progress
        self.heads: list[Head] = [
            (layer, head) for layer, heads in enumerate(model.anatomy.head_names, start=1) for head in heads
        ]
        if len(self.heads) < 3:
            raise ModelError(
                f"{model.name} has {len(self.heads)} head{'s' * (len(self.heads) != 1)}, which cannot be ranked",
                "Name a model of three heads or more.",
            )
        self.found = Importance()

    @cached_property
    def speech(self) -> ProbedSpeech:
        """The part of the corpus that is used."""
        return probed_speech(self.model, self.corpus, self.stream, self.seconds, self.seed)

    @cached_property
    def features(self) -> Features:
        """Runs variants of the model on it."""
        return features_of(self.model, self.speech, batch_seconds=self.batch_seconds)

    @contextmanager
    def trying(self, *measures: str) -> Iterator[None]:
        """Notes what there is no ground for, under the name of every measure that it would have given."""
        try:
            yield
        except _NO_GROUND as error:
            self.skip(str(error), *measures)

    def skip(self, reason: str, *measures: str) -> None:
        """Notes why measures are not given."""
        self.found.skipped += [{"measure": name, "reason": reason} for name in measures]

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks that are needed and that the speech gives ground for."""
        made: dict[str, Task] = {}
        needed = {*self.needs.probed, *(["phone"] if self.needs.measured else [])}
        for name in (name for name in self.needs.tasks if name in needed):
            with self.trying(f"pruning-{name}", f"span-{name}"):
                made[name] = make_task(name, self.speech)
        return made

    def metrics(self, loss: Loss | None, more: Sequence[Metric]) -> list[Metric]:
        """What is taken of variants one by one: the metric of the loss' name, the phone probe, and what was named."""
        taken: list[Metric] = []
        if loss is not None:
            with self.trying(f"{LEFT_OUT} on {loss.name}"):
                taken.append(metric_by_name(loss.name))
        if "phone" in self.tasks:
            phone = self.tasks["phone"]
            taken.append(FrozenProbe(phone, phone.fit(next(self.features([()])), self.seed)))
        there = {metric.name for metric in taken}  # a metric that was named may be the loss itself
        return [*taken, *(metric for metric in more if metric.name not in there)]

    def own_loss(self) -> Loss | None:
        """The loss of the model's own head, where it has one."""
        with self.trying(BY_FRAME, SUMMED, ATTRIBUTED):
            return own_loss(self.model, self.speech.corpus)
        return None

    def shapes(self) -> dict[str, dict[Head, float]]:
        """Values of every head by its maps, which order heads only."""
        corpus = self.speech.corpus
        self.tell(f"Heads' metrics: one pass over {corpus.seconds / 60:.1f} minutes of speech")
        shapes = metrics_of_heads(
            self.model, corpus, seed=self.seed, batch_seconds=self.batch_seconds, progress=self.progress
        )
        return {name: values_of(shapes.rows, name) for name in dict.fromkeys(row.measure for row in shapes.rows)}

    def left_out(self, metrics: Sequence[Metric]) -> None:
        """Leave-one-out of all heads on each metric."""
        for metric in metrics:
            self.tell(
                f"Leaving out each of {len(self.heads)} heads, on {metric.name}: {len(self.heads)} passes from the "
                "head's layer on"
            )
            with self.trying(f"{LEFT_OUT} on {metric.name}"):
                self.found.add(self._left_out(metric))
        if not any(row.measure == LEFT_OUT for row in self.found.result.rows):
            self.skip(
                "No metric can be taken without each head: no loss of the model's own, no probe of phones, and none "
                "that was named. Name one (--metrics), or give speech with phones.",
                LEFT_OUT,
            )

    def _left_out(self, metric: Metric) -> Result:
        found = leave_one_out(
            self.model, self._corpus_of(metric), metric, seed=self.seed, batch_seconds=self.batch_seconds,
            store=self._kept(f"loo-{metric.name}"), progress=self.progress,
        )  # fmt: skip
        return Result(found.rows, found.arrays, {f"{LEFT_OUT} on {metric.name}": found.notes[LEFT_OUT]})

    def values(self, loss: Loss | None, attributed: int) -> dict[str, dict[Head, float]]:
        """A value of every head by gradient, attribution and weights."""
        values: dict[str, dict[Head, float]] = {}

        def taken(result: Result) -> None:
            rows = self.found.add(result).rows
            values.update({name: values_of(rows, name) for name in dict.fromkeys(row.measure for row in rows)})

        if loss is not None and self.needs.takes(BY_FRAME, SUMMED):
            self.tell(f"Gradient importance: one pass forward and backward, of {loss.name}")
            with self.trying(BY_FRAME, SUMMED):
                taken(gradient_importance(self.model, self.speech.corpus, loss, seed=self.seed, progress=self.progress))
        if loss is not None and self.needs.takes(ATTRIBUTED):
            self.tell(f"Attribution: {20 * self.model.anatomy.n_layers} passes over each of {attributed} utterances")
            with self.trying(ATTRIBUTED):
                taken(
                    attribution_importance(
                        self.model, self.speech.corpus, loss, most=attributed, seed=self.seed, progress=self.progress
                    )
                )
        if self.needs.takes(WEIGHTS):
            with self.trying(WEIGHTS):
                taken(weight_importance(self.model))
        return values

    def turned_losses(self, metrics: Sequence[Metric]) -> dict[str, dict[Head, float]]:
        """What each metric loses without a head, turned so that larger is worse."""
        found = {}
        for metric in metrics:
            rows = [row for row in self.found.result.rows if row.measure == LEFT_OUT and row.target == metric.name]
            if rows:
                sign = -1 if metric.higher_is_better else 1
                changes = values_of(rows, LEFT_OUT)
                found[f"loo-{metric.name}"] = {head: sign * value for head, value in changes.items()}
        return found

    def agreement(self, turned: dict[str, dict[Head, float]]) -> None:
        """Rank correlations of every two ways."""
        with self.trying(KENDALL, SPEARMAN):
            self.found.add(agreement(turned))

    def curves(self, variants: dict[Variant, tuple[Edit, ...]]) -> None:
        """Curves of the probes."""
        tasks = [self.tasks[name] for name in self.needs.probed if name in self.tasks]
        if not tasks:
            return
        distinct = len(set(variants.values()))
        store = self._kept("-".join(["probes", *(task.name for task in tasks)]))  # other tasks are another run
        self.tell(
            f"Curves: {distinct} variants of the model, each one pass over {self.speech.corpus.seconds / 60:.1f} minutes "
            f"and {len(tasks)} probes to train"
        )
        with self.trying(*(f"{kind}-{task.name}" for kind in ("pruning", "span") for task in tasks)):
            self.found.curves = probe_curves(
                self.features, tasks, variants, len(self.heads), seed=self.seed, store=store, progress=self.progress
            )
            found = self.found.curves.result()
            self.found.add(Result(found.rows, notes={"importance probes": found.notes}))

    def metric_curves(self, metrics: Sequence[Metric], orders: Sequence[Order], steps: int) -> None:
        """Curves of metrics that were asked for."""
        for metric in metrics:
            self.tell(f"Curves of {metric.name}: {len(orders) * steps} variants of the model")
            with self.trying(f"pruning-{metric.name}"):
                self.found.add(
                    pruning_curves(
                        self.model, self.speech.corpus, orders, metric, steps=steps, seed=self.seed,
                        batch_seconds=self.batch_seconds, store=self._kept(f"pruning-{metric.name}"),
                        progress=self.progress,
                    )
                )  # fmt: skip

    def spans_by_place(self, metrics: Sequence[Metric], radii: Sequence[int]) -> None:
        """Literal spans of each layer or head by itself, on each metric."""
        for name in self.needs.places:
            places = self.model.anatomy.n_layers if name == "span-layer" else len(self.heads)
            for metric in metrics:
                self.tell(f"Spans of {places} {PLACES[name]}s on {metric.name}: {places * len(radii)} variants")
                with self.trying(f"{name} on {metric.name}"):
                    self.found.add(
                        span_curves(
                            self.model, self._corpus_of(metric), metric, radii=radii, per=PLACES[name], seed=self.seed,
                            batch_seconds=self.batch_seconds, store=self._kept(f"{name}-{metric.name}"),
                            progress=self.progress,
                        )
                    )  # fmt: skip
            if not any(row.measure == name for row in self.found.result.rows):
                self.skip("No metric can be taken under limited spans; name one (--metrics)", name)

    def verdicts(self) -> None:
        """What the curves say about diagonal and global heads."""
        for mode, name in VERDICTS.items():
            with self.trying(name):
                self.found.result.rows.append(diagonal_against_global(self._curves(), mode))

    def signs(self, segmentation: Row | None, relation: Row | None) -> None:
        """The sign tests of the curves, and of the rows that are given."""
        with self.trying(SIGNS):
            absent = {number for number, row in (("v", segmentation), ("vi", relation)) if row is None}
            if len(absent) == 2:
                self._curves()
            tests = sign_tests(self.found.curves, segmentation, relation)
            self.found.signs = [one for one in tests if one.number not in absent]
            self.found.result.rows += sign_rows(self.found.signs)
            self.found.result.notes[SIGNS] = {one.number: one.to_dict() for one in self.found.signs}

    def _curves(self) -> ProbedCurves:
        if self.found.curves is None:
            raise MeasureError(
                "No probe could be trained, so there are no curves of probes", "Give speech with phones or speakers."
            )
        return self.found.curves

    def _corpus_of(self, metric: Metric) -> Corpus:
        """The speech; a probe's, those utterances that have rows."""
        corpus = self.speech.corpus
        if isinstance(metric, FrozenProbe):
            corpus = corpus.subset({corpus[int(k)].id for k in metric.task.utterances.unique()})
        return corpus

    def _kept(self, name: str) -> Path | None:
        return None if self.store is None else self.store / name
