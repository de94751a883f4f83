"""How metrics change when each block's attention is bypassed, made uniform, kept local, or given its neighbour's map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from otoscope.errors import EvaluationError
from otoscope.evaluation.metric import Metric
from otoscope.interventions.blocks.variants import INTERVENTIONS, WIDTH, Planned, plan_interventions
from otoscope.interventions.blocks.verdicts import CHANGE, Criterion
from otoscope.interventions.criticality.labels import tolerance
from otoscope.interventions.engine import Progress
from otoscope.interventions.scoring import VariantScores, scores_of_variants
from otoscope.measures.measure import Result, Row
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Bypass, Edit

_ALL = "attention of all blocks bypassed"


def block_interventions(
    model: SpeechModel | Recogniser,
    corpus: Corpus,
    metrics: Sequence[Metric],
    *,
    width: int | None = None,
    layers: Sequence[int] | None = None,
    margins: Mapping[str, float] | None = None,
    seed: int = 0,
    batch_seconds: float = 30.0,
    store: str | Path | None = None,
    cache_gb: float | None = None,
    together: int = 1,
    progress: Progress | None = None,
) -> Result:
    """Takes metrics with each block's attention changed in four ways, one block at a time; nothing is trained anew.

    The interventions are those of `plan_interventions`; one more variant, in which all attention is bypassed, says how
    much there is to lose; where an intervention gives values that are not finite, those of that variant stand in for them,
    and the notes count them. Each variant begins at its block.

    Args:
        model: the model, or a recogniser for metrics of recognition.
        corpus: the speech.
        metrics: what is taken, each under another name.
        width: of the local window, in frames on either side; None is `variants.WIDTH`.
        layers: blocks to intervene on, from 1; None is all.
        margins: for some metrics the change for the worse that counts as none, in place of that of
            `criticality.labels.tolerance`.
        seed: of the bootstrap.
        batch_seconds: see `Metric.values`.
        store: folder for what each batch gave, in a folder a metric; see `scores_of_variants`.
        cache_gb: see `Engine`.
        together: see `Engine`.
        progress: called after each batch with the seconds done and in all, of all metrics.

    Returns:
        Rows `block-intervention`: target is the metric, other the intervention, value the metric after it less the metric
        before, with the paired 95 % interval over speakers; ceiling is the same with all attention bypassed; n is the
        number of utterances. An intervention that leaves a block as it is has the value zero and no interval, and is
        listed in the notes, as are those that cannot be done.

    Raises:
        EvaluationError: no metric, or two of one name; no such block; see also `scores_of_variants`.
        ModelError: the model has not what a metric needs.
        ResultError: the folder holds the results of another run, or cannot be written.
        SpeechError: an utterance cannot be read or used.
    """
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) < len(names):
        raise EvaluationError(f"The metrics are {names}", "Name one or more, each once.")
    strange = sorted(set(margins or {}) - set(names))
    if strange:
        raise EvaluationError(f"A margin is given for {strange[0]}, which is not taken", f"Name one of {names}.")
    ready = model.model if isinstance(model, Recogniser) else model
    width = WIDTH if width is None else width
    planned = plan_interventions(ready, width, layers)
    variants: dict[str, Sequence[Edit]] = {_ALL: (Bypass("layer.*.attention"),)}
    variants |= {_named(*place): edits for place, edits in planned.edits.items()}
    rows: list[Row] = []
    told: dict[str, Any] = {}
    for k, metric in enumerate(metrics):
        scores = scores_of_variants(
            model, corpus, variants, metric, batch_seconds=batch_seconds,
            store=None if store is None else Path(store) / metric.name, cache_gb=cache_gb, together=together, chance=_ALL,
            progress=_share(progress, k, len(names)),
        )  # fmt: skip
        whole = scores.difference(_ALL, seed)
        margin = (margins or {}).get(metric.name, tolerance(metric.name, scores.before.value, whole.value))
        criterion = Criterion(metric.name, metric.higher_is_better, margin, whole.blocks)
        rows += _rows(planned, scores, whole.value, seed)
        told[metric.name] = {
            "criterion": criterion.to_dict(), "unit": metric.unit, "before": scores.before.value,
            "all_bypassed": whole.to_dict(), "interval_over": whole.by,
            "not_finite": dict(scores.replaced),
        }  # fmt: skip
    notes = {
        "metrics": told, "seed": seed, "utterances": len(corpus), "seconds": corpus.seconds,
        "local": {"width": width, "form": "the block's own map within the window, rows brought back to one"},
        "changes_nothing": [_named(*place) for place in planned.unchanged],
        "absent": {_named(*place): reason for place, reason in planned.absent.items()},
    }  # fmt: skip
    return Result(rows, notes={CHANGE: notes})


def _rows(planned: Planned, scores: VariantScores, ceiling: float, seed: int) -> list[Row]:
    """A row for each block and intervention of one metric, in order."""
    rows = []
    before = scores.before
    places = [*planned.edits, *planned.unchanged]
    for layer, kind in sorted(places, key=lambda place: (place[0], INTERVENTIONS.index(place[1]))):
        row = Row(
            CHANGE, f"layer.{layer}", layer, target=before.metric, other=kind, value=0.0, ceiling=ceiling, n=len(before)
        )
        if (layer, kind) in planned.edits:
            found = scores.difference(_named(layer, kind), seed)
            row.value, row.n = found.value, found.utterances
            row.low, row.high = (None if end != end else end for end in (found.low, found.high))
        rows.append(row)
    return rows


def _named(layer: int, kind: str) -> str:
    return f"layer.{layer} {kind}"


def _share(progress: Progress | None, done: int, count: int) -> Progress | None:
    """Progress of one of several runs over the same speech, as part of all of them."""
    if progress is None:
        return None
    return lambda seconds, total: progress(done * total + seconds, count * total)
