"""Importance: which heads matter, by leaving them out, by gradients, by their maps and weights, and how far they agree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from otoscope.diagnosis.result import Diagnosis
from otoscope.evaluation.metric import Metric
from otoscope.interventions.engine import Progress
from otoscope.interventions.head_values import kept_longest, orders_of
from otoscope.interventions.leave_one_out import NAME as LEFT_OUT
from otoscope.interventions.losses import Loss
from otoscope.interventions.orders import Head, Order, random_orders
from otoscope.interventions.probed import RADII, STEPS, pruning_variants, span_variants
from otoscope.measures.measure import Row
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.speech.corpus import Corpus
from otoscope.training.probes import TASKS
from otoscope.workflow.corpora import read_corpus
from otoscope.workflow.importance_needs import SIGNS, VERDICT, Needs
from otoscope.workflow.importance_stages import Importance, Stages


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
    wanted: Collection[str] | None = None,
    beside: Diagnosis | None = None,
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
       sign tests (`sign-test`): the first four, and the fifth and sixth where `beside` has the rows that they are of;
    7. only by name: the metrics of stage 2 as the spans of one layer or one head after another are limited (`span-layer`,
       `span-head`; target is the metric, other the radius).

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
        wanted: names of the measures that are wanted; only what these need is run, and only their rows are given. None
            for all that stages 1 to 6 give. Pruning curves of `metrics` come with those of probes.
        beside: a diagnosis of the same model and speech, whose `head-segmentation` and `relation-verticality-phone`
            decide the fifth and the sixth sign test.
        tell: called with a line before each stage.
        progress: called with what is done and to do of the stage at hand.

    Raises:
        ModelError: the model cannot be loaded, or has no heads.
        SpeechError: the corpus cannot be read, or holds a bad utterance.
        MeasureError: too little speech, or no measure of a name that is wanted.
    """
    ready = model if isinstance(model, SpeechModel) else load(model)
    needs = Needs.of(wanted, tasks, [metric.name for metric in metrics])
    whole = corpus if isinstance(corpus, Corpus) else read_corpus(corpus)
    stages = Stages(
        ready, whole, needs, stream=stream, seconds=seconds, seed=seed, batch_seconds=batch_seconds,
        store=Path(store) if store else None, tell=tell, progress=progress,
    )  # fmt: skip
    own = loss or (stages.own_loss() if needs.loss else None)
    taken = stages.metrics(own, metrics) if needs.measured else []
    values = stages.shapes() if needs.shapes else {}
    if needs.takes(LEFT_OUT):
        stages.left_out(taken)
    values |= stages.values(own, attributed)
    turned = kept_longest(values) | stages.turned_losses(taken)
    if needs.agreement:
        stages.agreement(turned)
    orders = _orders(needs, turned, stages.heads, seed, randoms)
    stages.found.orders = orders
    limited = span_variants(radii, needs.forms(forms))
    if needs.probed and (orders or limited):
        pruned = pruning_variants(orders, min(steps, len(stages.heads))) if orders else {}
        stages.curves(pruned | limited)
    stages.metric_curves([one for one in metrics if needs.gives(f"pruning-{one.name}")], orders, steps)
    stages.spans_by_place(taken, radii)
    if needs.gives(VERDICT):
        stages.verdicts()
    if needs.gives(SIGNS):
        stages.signs(
            _row_of(beside, "head-segmentation", "best-head-less-mfcc"),
            _row_of(beside, "relation-verticality-phone", "phone"),
        )
    return _asked(stages.found, needs)


def _orders(
    needs: Needs, turned: Mapping[str, Mapping[Head, float]], heads: Sequence[Head], seed: int, randoms: int
) -> list[Order]:
    """Orders by which heads are removed: all of them with their random control, or those that verdicts need."""
    if needs.orders is None:
        return orders_of(turned, heads) + random_orders(heads, seed, randoms)
    return [order for order in orders_of(turned, heads) if order.name in needs.orders]


def _row_of(diagnosis: Diagnosis | None, measure: str, target: str) -> Row | None:
    """The row of a measure and target; None where it was not taken."""
    found = [] if diagnosis is None else diagnosis.measure(measure).filter(target=target).to_dicts()
    return Row(**found[0]) if found else None


def _asked(found: Importance, needs: Needs) -> Importance:
    """Without rows that were not asked for, and without what is skipped of them."""
    found.result.rows = [row for row in found.result.rows if needs.gives(row.measure)]
    found.skipped = [one for one in found.skipped if needs.gives(one["measure"].partition(" on ")[0])]
    return found
