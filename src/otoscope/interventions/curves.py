"""Pruning curves: a metric as more and more heads are removed, by any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from otoscope.errors import EvaluationError
from otoscope.evaluation.metric import Metric
from otoscope.interventions.engine import Progress
from otoscope.interventions.orders import Order
from otoscope.interventions.scoring import VariantScores, scores_of_variants
from otoscope.measures.measure import Result, Row
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Edit


def pruning_curves(
    model: SpeechModel | Recogniser,
    corpus: Corpus,
    orders: Sequence[Order],
    metric: Metric,
    *,
    steps: int = 6,
    seed: int = 0,
    batch_seconds: float = 30.0,
    store: str | Path | None = None,
    cache_gb: float | None = None,
    progress: Progress | None = None,
) -> Result:
    """Removes heads cumulatively, by each order; nothing is trained anew.

    Source: Yang, Liu and Lee 2020, section 7.1 (six steps of 24 of 144 heads).

    Args:
        model: the model, or a recogniser for metrics of recognition.
        corpus: the speech.
        orders: each under another name.
        metric: what is taken.
        steps: points of a curve beside that of the whole model.
        seed: of the bootstrap.
        batch_seconds: see `Metric.values`.
        store: see `scores_of_variants`.
        cache_gb: see `Engine`.
        progress: called after each batch with the seconds done and in all.

    Returns:
        For each order and number of removed heads two rows: `pruning-METRIC`, the metric with its own 95 % interval, and
        `pruning-METRIC-change`, the metric less that of the whole model with the paired interval. Target is the order's
        name, other the number of heads that are removed; n is the number of utterances.

    Raises:
        EvaluationError: there is no order, or two have one name; see also `scores_of_variants`.
    """
    names = [order.name for order in orders]
    if not orders or len(set(names)) < len(names):
        raise EvaluationError(
            f"Orders by {', '.join(names) or 'nothing'} give no curves to be told apart", "Name every order once."
        )
    points = {order.name: order.steps(steps) for order in orders}
    # Orders meet where few or all heads are removed: the same edits are run once.
    variants: dict[str, list[Edit]] = {}
    called: dict[tuple[str, int], str | None] = {}
    known: dict[tuple[Edit, ...], str] = {}
    for order in orders:
        for count in points[order.name]:
            edits = order.edits(count)
            name = known.setdefault(tuple(edits), f"{order.name}, {count} heads") if edits else None
            called[order.name, count] = name
            if name is not None:
                variants[name] = edits
    scores = scores_of_variants(
        model,
        corpus,
        variants,
        metric,
        batch_seconds=batch_seconds,
        store=store,
        cache_gb=cache_gb,
        progress=progress,
    )
    rows = [
        row
        for (order, count), name in called.items()
        for row in rows_of(scores, name, f"pruning-{metric.name}", Row("", target=order, other=str(count)), seed)
    ]
    return Result(rows, {}, {f"pruning-{metric.name}": notes_of(scores, seed) | {"steps": steps}})


def rows_of(scores: VariantScores, name: str | None, measure: str, like: Row, seed: int) -> list[Row]:
    """A point of a curve: the metric, and its change against the whole model.

    Args:
        scores: of all variants.
        name: of the variant; None is the whole model.
        measure: name of the first row; that of the second ends in "-change".
        like: its stream, layer, head, target and other are those of both.
        seed: of the bootstrap.
    """
    own = (scores.before if name is None else scores.after[name]).interval(seed)
    n = len(scores.before)
    rows = [_filled(replace(like, measure=measure, n=n), own.value, own.low, own.high)]
    change = replace(like, measure=f"{measure}-change", n=n)
    if name is None:
        return [*rows, _filled(change, 0.0, float("nan"), float("nan"))]
    found = scores.difference(name, seed)
    return [*rows, _filled(change, found.value, found.low, found.high)]


def notes_of(scores: VariantScores, seed: int) -> dict[str, object]:
    """What the rows of a curve are numbers of."""
    before = scores.before
    return {
        "metric": before.metric, "unit": before.unit, "higher_is_better": before.higher_is_better,
        "before": before.value, "seed": seed, "utterances": len(before), "interval_over": before.blocks.by,
    }  # fmt: skip


def _filled(row: Row, value: float, low: float, high: float) -> Row:
    row.value = value
    row.low, row.high = (None if end != end else end for end in (low, high))
    return row
