"""Importance: which heads matter, by leaving them out, by gradients, by their maps and weights, and how far they agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from otoscope.interventions.head_values import kept_longest, metrics_of_heads, orders_of
from otoscope.interventions.leave_one_out import NAME as LEFT_OUT
from otoscope.interventions.leave_one_out import leave_one_out
from otoscope.interventions.losses import Loss, own_loss
from otoscope.interventions.orders import Head, Order, random_orders, values_of
from otoscope.interventions.probed import (
    RADII,
    STEPS,
    ProbedCurves,
    features_of,
    probe_curves,
    pruning_variants,
    span_variants,
)
from otoscope.interventions.signs import Sign, diagonal_against_global, sign_tests
from otoscope.interventions.weights import weight_importance
from otoscope.measures.measure import Result, Row
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.speech.corpus import Corpus
from otoscope.training.probes import TASKS, FrozenProbe, ProbedSpeech, Task, make_task, probed_speech
from otoscope.workflow.corpora import read_corpus

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
        signs: the sign tests of the curves.
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


def examine_importance(
    model: SpeechModel | str | Path = "embedded",
    corpus: Corpus | str | Path = "embedded",
    *,
    seed: int = 0,
    seconds: float = 120.0,
    tasks: Sequence[str] = tuple(TASKS),
    stream: str | None = None,
    metrics: Sequence[Metric] = (),
    loss: Loss | None = None,
    steps: int = STEPS,
    radii: Sequence[int] = RADII,
    forms: Sequence[str] = ("literal", "banded"),
    randoms: int = 2,
    attributed: int = 6,
    batch_seconds: float = 30.0,
    store: str | Path | None = None,
    tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Importance:
    """Ranks the heads of a model in every way there is, removes them by each, and sees what probes still read.

    It runs many passes over a bounded part of the corpus; each stage is told before it starts:

    1. globalness, verticality, diagonality and weight of every head, which order them only;
    2. leaving every head out (`importance-loo`), on the loss of the model's own head, on the phone probe, and on any
       `metrics`;
    3. the gradient of that loss (`importance-gradient`, `importance-gradient-sum`) and attribution
       (`importance-attribution`), and the size of weights (`importance-l1`);
    4. agreement between all of these (`agreement-kendall`, `agreement-spearman`);
    5. curves: heads removed by each of them, and in random orders, and limited spans; probes are trained anew at every
       point, and left as they are (`pruning-TASK`, `span-TASK`, ..., see `ProbedCurves.result`), and `metrics` are taken
       (`pruning-METRIC`);
    6. whether diagonal heads matter more for phones than global ones (`pruning-verdict`, `pruning-verdict-frozen`), and
       the first four sign tests (`sign-test`).

    Args:
        model: a `SpeechModel`, a folder, a Hub name, or "embedded".
        corpus: a `Corpus`, a path, or "embedded".
        seed: of every random choice.
        seconds: at most so much speech is used, chosen evenly over speakers.
        tasks: of the probes.
        stream: that probes read; the last one where None.
        metrics: what is taken of every variant beside the probes.
        loss: in place of the model's own.
        steps: points of a pruning curve.
        radii: of the span curves, in frames.
        forms: of the span curves, "literal" and "banded".
        randoms: how many random orders.
        attributed: utterances for attribution, which is dear.
        batch_seconds: budget of a batch, in seconds of padded speech.
        store: folder in which what is found is kept as it comes, so that a run that was cut off goes on.
        tell: called with a line before each stage.
        progress: called with what is done and to do of the stage at hand.

    Raises:
        ModelError: the model cannot be loaded, or has no heads.
        SpeechError: the corpus cannot be read, or holds a bad utterance.
        MeasureError: too little speech.
    """
    ready = model if isinstance(model, SpeechModel) else load(model)
    whole = corpus if isinstance(corpus, Corpus) else read_corpus(corpus)
    speech = probed_speech(ready, whole, stream, seconds, seed)
    stages = _Stages(ready, speech, seed, batch_seconds, Path(store) if store else None, tell, progress)
    made, probe = stages.tasks(tasks)
    own = loss or stages.own_loss()
    taken = [*stages.own_metric(own), *([probe] if probe is not None else []), *metrics]
    values = stages.values(own, taken, attributed)
    turned = kept_longest(values) | stages.turned_losses(taken)
    stages.agreement(turned)
    orders = orders_of(turned, stages.heads) + random_orders(stages.heads, seed, randoms)
    stages.found.orders = orders
    stages.curves(made, orders, steps, radii, forms)
    stages.metric_curves(metrics, orders, steps)
    stages.verdicts()
    return stages.found


class _Stages:
    """The stages of an examination, which skip what there is no ground for and say so."""

    def __init__(
        self,
        model: SpeechModel,
        speech: ProbedSpeech,
        seed: int,
        batch_seconds: float,
        store: Path | None,
        tell: Callable[[str], None] | None,
        progress: Progress | None,
    ) -> None:
        self.model, self.speech, self.seed, self.store = model, speech, seed, store
        self.tell, self.progress = tell or (lambda line: None), progress
        self.batch_seconds = batch_seconds
        self.features = features_of(model, speech, batch_seconds=batch_seconds)
        self.heads: list[Head] = [
            (layer, head) for layer, heads in enumerate(model.anatomy.head_names, start=1) for head in heads
        ]
        if len(self.heads) < 3:
            raise ModelError(
                f"{model.name} has {len(self.heads)} head{'s' * (len(self.heads) != 1)}, which cannot be ranked",
                "Name a model of three heads or more.",
            )
        self.found = Importance()

    @contextmanager
    def trying(self, *measures: str) -> Iterator[None]:
        """Notes what there is no ground for, under the name of every measure that it would have given."""
        try:
            yield
        except _NO_GROUND as error:
            self.found.skipped += [{"measure": name, "reason": str(error)} for name in measures]

    def tasks(self, names: Sequence[str]) -> tuple[list[Task], FrozenProbe | None]:
        """The tasks that the speech gives ground for, and the phone probe of the whole model."""
        made: list[Task] = []
        for name in names:
            with self.trying(f"pruning-{name}", f"span-{name}"):
                made.append(make_task(name, self.speech))
        phone = next((task for task in made if task.name == "phone"), None)
        return made, None if phone is None else FrozenProbe(phone, phone.fit(next(self.features([()])), self.seed))

    def own_loss(self) -> Loss | None:
        """The loss of the model's own head, where it has one."""
        with self.trying(BY_FRAME, SUMMED, ATTRIBUTED):
            return own_loss(self.model, self.speech.corpus)
        return None

    def own_metric(self, loss: Loss | None) -> list[Metric]:
        """The metric of the loss' name."""
        if loss is not None:
            with self.trying(f"{LEFT_OUT} on {loss.name}"):
                return [metric_by_name(loss.name)]
        return []

    def values(self, loss: Loss | None, metrics: Sequence[Metric], attributed: int) -> dict[str, dict[Head, float]]:
        """A value of every head by its maps, gradient, attribution and weights."""
        count, corpus = len(self.heads), self.speech.corpus
        self.tell(f"Heads' metrics: one pass over {corpus.seconds / 60:.1f} minutes of speech")
        shapes = metrics_of_heads(
            self.model, corpus, seed=self.seed, batch_seconds=self.batch_seconds, progress=self.progress
        )
        values = {name: values_of(shapes.rows, name) for name in dict.fromkeys(row.measure for row in shapes.rows)}
        for metric in metrics:
            self.tell(f"Leaving out each of {count} heads, on {metric.name}: {count} passes from the head's layer on")
            with self.trying(f"{LEFT_OUT} on {metric.name}"):
                self.found.add(self.left_out(metric))
        if not self.found.result.rows:
            self.found.skipped.append({
                "measure": LEFT_OUT,
                "reason": "No metric can be taken without each head: no loss of the model's own, no probe of phones, and "
                "none that was named. Name one (--metrics), or give speech with phones.",
            })  # fmt: skip
        if loss is not None:
            self.tell(f"Gradient importance: one pass forward and backward, of {loss.name}")
            with self.trying(BY_FRAME, SUMMED):
                rows = self.found.add(
                    gradient_importance(self.model, corpus, loss, seed=self.seed, progress=self.progress)
                ).rows
                values |= {name: values_of(rows, name) for name in dict.fromkeys(row.measure for row in rows)}
            layers = self.model.anatomy.n_layers
            self.tell(f"Attribution: {20 * layers} passes over each of {attributed} utterances")
            with self.trying(ATTRIBUTED):
                rows = self.found.add(
                    attribution_importance(
                        self.model, corpus, loss, most=attributed, seed=self.seed, progress=self.progress
                    )
                ).rows
                values[ATTRIBUTED] = values_of(rows, ATTRIBUTED)
        with self.trying("importance-l1"):
            values["importance-l1"] = values_of(self.found.add(weight_importance(self.model)).rows, "importance-l1")
        return values

    def left_out(self, metric: Metric) -> Result:
        """Leave-one-out of all heads on a metric; a probe's, on utterances that have rows."""
        corpus = self.speech.corpus
        if isinstance(metric, FrozenProbe):
            task = metric.task
            corpus = corpus.subset({corpus[int(k)].id for k in task.utterances.unique()})
        store = None if self.store is None else self.store / f"loo-{metric.name}"
        found = leave_one_out(
            self.model, corpus, metric, seed=self.seed, batch_seconds=self.batch_seconds, store=store,
            progress=self.progress,
        )  # fmt: skip
        return Result(found.rows, found.arrays, {f"{LEFT_OUT} on {metric.name}": found.notes[LEFT_OUT]})

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

    def curves(
        self, tasks: Sequence[Task], orders: Sequence[Order], steps: int, radii: Sequence[int], forms: Sequence[str]
    ) -> None:
        """Curves of the probes."""
        if not tasks:
            return
        variants = pruning_variants(orders, min(steps, len(self.heads))) | span_variants(radii, forms)
        distinct = len(set(variants.values()))
        self.tell(
            f"Curves: {distinct} variants of the model, each one pass over {self.speech.corpus.seconds / 60:.1f} minutes "
            f"and {len(tasks)} probes to train"
        )
        with self.trying("pruning curves of probes"):
            store = None if self.store is None else self.store / "probes"
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
                store = None if self.store is None else self.store / f"pruning-{metric.name}"
                self.found.add(
                    pruning_curves(
                        self.model, self.speech.corpus, orders, metric, steps=steps, seed=self.seed,
                        batch_seconds=self.batch_seconds, store=store, progress=self.progress,
                    )
                )  # fmt: skip

    def verdicts(self) -> None:
        """What the curves say about diagonal and global heads, and the signs that they bear on."""
        curves = self.found.curves
        if curves is None:
            return
        for mode in ("trained", "frozen"):
            with self.trying("pruning-verdict" + ("-frozen" if mode == "frozen" else "")):
                self.found.result.rows.append(diagonal_against_global(curves, mode))
        self.found.signs = sign_tests(curves)[:4]
        self.found.result.rows += sign_rows(self.found.signs)
        self.found.result.notes["sign-test"] = {sign.number: sign.to_dict() for sign in self.found.signs}


def sign_rows(signs: Sequence[Sign]) -> list[Row]:
    """Sign tests as rows of the table: target is the test, label its outcome."""
    return [
        Row("sign-test", target=one.number, value=one.value, low=one.low, high=one.high, label=one.outcome)
        for one in signs
    ]
