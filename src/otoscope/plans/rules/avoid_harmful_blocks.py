"""Rule: attention that does harm is changed in the way that made the metric better."""

from __future__ import annotations

from collections.abc import Sequence

from otoscope.measures.measure import Row
from otoscope.plans.changes import note_of, preferred
from otoscope.plans.grounds import Grounds, Rule, absent
from otoscope.plans.plan import Evidence
from otoscope.treatments.bypass import Bypass
from otoscope.treatments.limit_span import LimitSpan
from otoscope.treatments.replace_attention import ReplaceAttention
from otoscope.treatments.treatment import Treatment


def _act(grounds: Grounds) -> Sequence[str]:
    """Makes the intervention permanent by which a block was found to be harmful.

    Evidence: `block-verdict` "harmful": the pattern is abnormal, and an intervention makes the metric better, with
    p-values corrected by Holm's method. That attention is abnormal is no ground by itself.
    """
    found = [Row(**one) for one in grounds.diagnosis.measure("block-verdict").to_dicts()]
    metric = grounds.limits.metric or preferred({row.target for row in found if row.target})
    found = [row for row in found if row.target == metric]
    if not found:
        return [absent("blocks")]
    harmful = [row for row in found if row.label == "harmful" and row.layer is not None and row.value is not None]
    borrowed = {source for _, source in grounds.sizes.maps}
    notes = []
    for row in harmful:
        layer = row.layer or 0
        # The block before it is left as it was when the intervention was taken: its map is part of that evidence.
        chained = row.other == "neighbour" and any(grounds.touched(layer - 1, kind) for kind in _KINDS)
        if layer in borrowed or chained or not grounds.attends(layer):
            notes.append(
                f"layer.{layer} is harmful, and hangs together with another that is changed; prescribe again after"
            )
            continue
        expected = (
            f"{metric} gets better by {abs(row.value or 0.0):.3g} without training anew; train briefly and verify."
        )
        grounds.prescribe(_treatment(grounds, row), [_evidence(row), *_pattern(grounds, layer)], expected)
        borrowed |= {source for _, source in grounds.sizes.maps}
    if harmful:
        return notes
    abnormal = sum(row.label != "normal" for row in found)
    return [f"no block is harmful by {metric} ({abnormal} of {len(found)} are abnormal)"]


_KINDS = ("bypass", "replace-attention", "limit-span", "prune-heads")


def _treatment(grounds: Grounds, row: Row) -> Treatment:
    """The intervention on a block as a treatment."""
    unit = f"layer.{row.layer}"
    if row.other == "bypass":
        return Bypass(f"{unit}.attention")
    if row.other == "uniform":
        return ReplaceAttention(unit, "uniform")
    if row.other == "local":
        return LimitSpan(unit, local_width(grounds), "banded")
    return ReplaceAttention(unit, "layer", source=(row.layer or 0) - 1)


def local_width(grounds: Grounds) -> int:
    """The frames on either side that the intervention "local" kept."""
    from otoscope.interventions.blocks.variants import WIDTH

    return int(note_of(grounds.diagnosis, "block-intervention").get("local", {}).get("width", WIDTH))


def _evidence(row: Row) -> Evidence:
    note = ", ".join(one for one in (row.label, row.target, row.other) if one)
    return Evidence(row.measure, str(row.stream), row.value or 0.0, row.low, row.high, 0.0, note)


def _pattern(grounds: Grounds, layer: int) -> list[Evidence]:
    """In what way the block is abnormal."""
    return [
        Evidence(row.measure, str(row.stream), row.value or 0.0, row.low, row.high, None, row.label or "")
        for row in grounds.rows("abnormality")
        if row.layer == layer
    ]


AVOID_HARMFUL_BLOCKS = Rule(
    "avoid-harmful-blocks",
    ("accuracy",),
    "Chen and Asgari 2021, who name no test. Verdict: otoscope's own.",
    _act,
)
