"""Rule: layers that the residual stream may pass by are taken out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from otoscope.plans.changes import Change
from otoscope.plans.grounds import Grounds, Rule, absent
from otoscope.plans.plan import Evidence
from otoscope.treatments.remove_blocks import RemoveBlocks


def _act(grounds: Grounds) -> Sequence[str]:
    """Takes out the layers whose bypass surely costs least, as long as the margin lasts.

    Evidence: `criticality` under "bypass". A layer that was set back to its initial weights is not evidence enough: what
    is taken out passes its input on, and does not put a random layer in its place.
    """
    found = [one for one in grounds.changes("criticality", "bypass") if one.row.stream == f"layer.{one.row.layer}"]
    if not found:
        return [absent("criticality --modes bypass")]
    most = math.floor(grounds.limits.blocks * len(grounds.sizes.layers_left))
    taken = 0
    lent = {source for _, source in grounds.sizes.maps}
    for change in found:
        layer = change.row.layer
        if taken < most and layer in grounds.sizes.layers_left and layer not in lent and grounds.affordable(change):
            evidence = [change.evidence, *_influence(grounds, change)]
            expected = f"{change.words}; the layer's weights and time are saved."
            grounds.prescribe(RemoveBlocks(f"layer.{layer}"), evidence, expected, changes=[change])
            taken += 1
    if taken:
        return []
    there = [one for one in found if one.row.layer in grounds.sizes.layers_left]
    return [f"no layer is worth taking out here{mildest(grounds, there)}"]


def mildest(grounds: Grounds, changes: Sequence[Change]) -> str:
    """The change that costs least and what the margin leaves for it, as the end of a sentence; changes are sorted."""
    if not changes:
        return ""
    one = changes[0]
    what = f"{one.row.stream}.head.{one.row.head}" if one.row.head is not None else str(one.row.stream)
    if one.vetoed:
        return f"; {what} is spared by {one.row.target}, and {one.vetoed} surely gets worse by more than it tolerates"
    if one.worst is None:
        return f"; of {what} it is not known what it may cost, for its change of {one.row.target} has no interval"
    left = max(grounds.limits.margin - grounds.spent, 0.0)
    return (
        f"; {what} costs least, up to {one.cost:.3g} tolerances of {one.row.target}, and the margin leaves {left:.3g}"
    )


def _influence(grounds: Grounds, change: Change) -> list[Evidence]:
    """How far the layer turns its frames, where it was taken."""
    return [
        Evidence(row.measure, str(row.stream), row.value or 0.0, row.low, row.high)
        for row in grounds.rows("block-influence")
        if row.layer == change.row.layer
    ]


REMOVE_AMBIENT_BLOCKS = Rule(
    "remove-ambient-blocks",
    ("size", "speed"),
    "Zhang, Bengio and Singer 2022; Zhou et al. 2022 (ambient layers); Men et al. 2024 (depth pruning). "
    "Threshold: otoscope's own.",
    _act,
)
