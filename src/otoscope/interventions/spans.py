"""Span curves: a metric as heads may look less and less far, for all heads, layer by layer, or head by head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from otoscope.errors import EvaluationError
from otoscope.evaluation.metric import Metric
from otoscope.interventions.curves import notes_of, rows_of
from otoscope.interventions.engine import Progress
from otoscope.interventions.scoring import scores_of_variants
from otoscope.measures.measure import Result, Row
from otoscope.models.anatomy import Anatomy
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Edit, Span

RADII = (50, 25, 15, 5, 3, 2, 1, 0)
"""In frames of the model; those of Yang, Liu and Lee 2020, section 7.2, whose frames are 30 ms."""

EXTENTS = ("all", "layer", "head")
PLACES = {"span-layer": "layer", "span-head": "head"}
"""Names of the curves by place, and the extent of each."""
FULL = "full"  # in place of a radius, for the whole model


def span_variants(
    anatomy: Anatomy, radii: Sequence[int] = RADII, form: str = "literal", per: str = "all"
) -> dict[str, tuple[Row, list[Edit]]]:
    """Edits that limit spans, by name.

    Args:
        anatomy: of the model.
        radii: frames on either side that are kept.
        form: "literal" or "banded", see `Span`.
        per: "all" limits all heads of all layers together; "layer" those of one layer at a time; "head" one at a time.

    Returns:
        Name -> stream, layer, head, target (form) and other (radius) of its rows, and the edits.

    Raises:
        EvaluationError: there is no such extent, or a radius is there twice or not at all.
        SurgeryError: a radius is negative, or there is no such form.
    """
    if per not in EXTENTS:
        raise EvaluationError(f"Spans cannot be limited per {per!r}", f"Limit them per {', '.join(EXTENTS)}.")
    if not radii or len(set(radii)) < len(radii):
        raise EvaluationError(f"The radii {list(radii)} give no curve", "Give every radius once.")
    places: dict[str, tuple[str | None, int | None, int | None]] = {"layer.*": (None, None, None)}
    if per != "all":
        places = {f"layer.{k}": (f"layer.{k}", k, None) for k, heads in enumerate(anatomy.heads, 1) if heads}
    if per == "head":
        places = {
            f"layer.{k}.head.{head}": (f"layer.{k}", k, head)
            for k, heads in enumerate(anatomy.head_names, start=1)
            for head in heads
        }
    found: dict[str, tuple[Row, list[Edit]]] = {}
    for units, (stream, layer, head) in places.items():
        for radius in radii:
            row = Row("", stream, layer, head, target=form, other=str(radius))
            found[f"{units} within {radius}, {form}"] = (row, [Span(units, radius, form)])
    return found


def span_curves(
    model: SpeechModel | Recogniser,
    corpus: Corpus,
    metric: Metric,
    *,
    radii: Sequence[int] = RADII,
    form: str = "literal",
    per: str = "all",
    seed: int = 0,
    batch_seconds: float = 30.0,
    store: str | Path | None = None,
    cache_gb: float | None = None,
    progress: Progress | None = None,
) -> Result:
    """Limits how far heads look, to one radius after another; nothing is trained anew.

    Source: Yang, Liu and Lee 2020, section 7.2, which limits all heads, after the softmax and without bringing rows back
    to one ("literal").

    Args:
        model: the model, or a recogniser for metrics of recognition.
        corpus: the speech.
        metric: what is taken.
        radii: frames on either side that are kept.
        form: "literal" or "banded", see `Span`.
        per: "all", "layer" or "head", see `span_variants`.
        seed: of the bootstrap.
        batch_seconds: see `Metric.values`.
        store: see `scores_of_variants`.
        cache_gb: see `Engine`.
        progress: called after each batch with the seconds done and in all.

    Returns:
        For each place and radius two rows: `span-METRIC`, the metric with its own 95 % interval, and
        `span-METRIC-change`, the metric less that of the whole model with the paired interval; target is the form,
        other the radius in frames, "full" for the whole model, which stands first. Per layer and per head they are
        called `span-layer` and `span-head`, with the metric as target and the form in the notes; the whole model has no
        change there.

    Raises:
        EvaluationError: see `span_variants` and `scores_of_variants`.
        SurgeryError: see `span_variants`.
    """
    ready = model.model if isinstance(model, Recogniser) else model
    places = span_variants(ready.anatomy, radii, form, per)
    variants = {name: edits for name, (_, edits) in places.items()}
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
    measure, target, told = f"span-{metric.name}", form, f"span-{metric.name}"
    if per != "all":
        measure, target = f"span-{per}", metric.name
        told = f"{measure} on {target}"
    rows = rows_of(scores, None, measure, Row("", target=target, other=FULL), seed)
    rows = rows if per == "all" else rows[:1]  # one whole model for all places, and no change of its own
    for name, (row, _) in places.items():
        rows += rows_of(scores, name, measure, replace(row, target=target), seed)
    return Result(rows, {}, {told: notes_of(scores, seed) | {"form": form, "per": per, "radii": list(radii)}})
