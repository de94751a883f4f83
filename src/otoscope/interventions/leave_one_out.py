"""Leave-one-out: what a metric loses without a head, a layer or a branch, one at a time."""

from __future__ import annotations

from pathlib import Path

from otoscope.errors import EvaluationError
from otoscope.evaluation.metric import Metric
from otoscope.interventions.engine import Progress
from otoscope.interventions.scoring import VariantScores, scores_of_variants
from otoscope.measures.measure import Result, Row
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Bypass, Edit, Gate

NAME = "importance-loo"
UNITS = ("heads", "layers", "attention", "feed_forward")


def leave_one_out(
    model: SpeechModel | Recogniser,
    corpus: Corpus,
    metric: Metric,
    units: str = "heads",
    *,
    seed: int = 0,
    batch_seconds: float = 30.0,
    store: str | Path | None = None,
    cache_gb: float | None = None,
    progress: Progress | None = None,
) -> Result:
    """Takes a metric without each unit in turn; nothing is trained anew.

    A head that is left out gives exactly zero, its value bias included, and the bias of the output projection stays
    (Yang, Liu and Lee 2020, section 7.1); a layer or branch that is left out lets the residual stream pass by. The model
    before the unit is run once for all: of a model of L layers whose front-end costs as much as f of them, leaving out
    all heads costs about (L + 1) / (2 (L + f)) of as many full runs.

    Args:
        model: the model, or a recogniser for metrics of recognition.
        corpus: the speech.
        metric: what is taken.
        units: "heads", "layers", or the branches "attention" or "feed_forward" of all layers.
        seed: of the bootstrap.
        batch_seconds: see `Metric.values`.
        store: see `scores_of_variants`.
        cache_gb: see `Engine`.
        progress: called after each batch with the seconds done and in all.

    Returns:
        A row a unit: value is the metric without it less the metric with it, in the metric's unit, with the paired 95 %
        interval over speakers; n is the number of utterances. Where nothing differs at all a loss has no interval.

    Raises:
        EvaluationError: there are no such units; see also `scores_of_variants`.
    """
    ready = model.model if isinstance(model, Recogniser) else model
    places = _places(ready, units)
    variants = {name: [edit] for name, (_, _, edit) in places.items()}
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
    rows = [_row(scores, name, layer, head, seed) for name, (layer, head, _) in places.items()]
    notes = {
        NAME: {
            "metric": metric.name, "unit": metric.unit, "higher_is_better": metric.higher_is_better, "units": units,
            "before": scores.before.value, "seed": seed, "utterances": len(corpus), "interval_over": scores.before.blocks.by,
        }
    }  # fmt: skip
    return Result(rows, {}, notes)


def _row(scores: VariantScores, name: str, layer: int, head: int | None, seed: int) -> Row:
    found = scores.difference(name, seed)
    low, high = (None if end != end else end for end in (found.low, found.high))
    stream = f"layer.{layer}"
    other = name.removeprefix(f"{stream}.") if head is None and name != stream else None
    return Row(
        NAME, stream, layer, head, found.metric, other, value=found.value, low=low, high=high, n=found.utterances
    )  # fmt: skip


def _places(model: SpeechModel, units: str) -> dict[str, tuple[int, int | None, Edit]]:
    """Unit -> layer, head, and the edit that leaves it out."""
    if units not in UNITS:
        raise EvaluationError(f"There are no units called {units!r}", f"Leave out one of {', '.join(UNITS)}.")
    anatomy = model.anatomy
    places: dict[str, tuple[int, int | None, Edit]] = {}
    for layer in range(1, anatomy.n_layers + 1):
        if units == "heads":
            for head in anatomy.head_names[layer - 1]:
                name = f"layer.{layer}.head.{head}"
                places[name] = (layer, head, Gate(name))
            continue
        branches = {"layers": [""], "attention": [".attention"]}.get(units) or [
            f".{unit}" for unit in _feed_forwards(model)
        ]
        for branch in branches:
            name = f"layer.{layer}{branch}"
            if not {f"layer.{layer}", name} & set(anatomy.removed):
                places[name] = (layer, None, Bypass(name))
    return places


def _feed_forwards(model: SpeechModel) -> list[str]:
    """Names of a layer's feed-forward branches; Conformers have two."""
    count = len(model.family.feed_forwards)
    return ["feed_forward"] if count == 1 else [f"feed_forward.{k}" for k in range(1, count + 1)]
