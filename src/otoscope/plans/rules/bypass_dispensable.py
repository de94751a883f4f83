"""Rule: branches that the model can do without are passed by."""

from __future__ import annotations

from collections.abc import Sequence

from otoscope.plans.grounds import Grounds, Rule, absent
from otoscope.plans.plan import Evidence
from otoscope.plans.rules.remove_ambient_blocks import mildest
from otoscope.treatments.bypass import Bypass

_BRANCHES = ("attention", "feed_forward", "convolution")


def _act(grounds: Grounds) -> Sequence[str]:
    """Passes by the branches whose bypass surely costs least, as long as the margin lasts.

    Evidence: `block-intervention` "bypass" for attention, and `criticality` under "bypass" for any branch (by
    --granularity sub-module). Whether a block is abnormal is told beside it, and decides nothing: a normal block that
    is not needed is as good a saving.
    """
    found = {f"{one.row.stream}.attention": one for one in grounds.changes("block-intervention", "bypass")}
    for one in grounds.changes("criticality", "bypass"):
        _, _, branch = str(one.row.stream).removeprefix("layer.").partition(".")
        if branch.startswith(_BRANCHES):
            found.setdefault(str(one.row.stream), one)
    if not found:
        return [absent("block-intervention", "or criticality with --granularity sub-module --modes bypass")]
    taken = False
    lent = {source for _, source in grounds.sizes.maps}
    for unit, change in sorted(found.items(), key=lambda item: (item[1].cost, item[0])):
        layer = change.row.layer or 0
        attention = unit.endswith(".attention")
        present = layer in grounds.sizes.layers_left and unit not in grounds.sizes.removed
        usable = not attention or (grounds.attends(layer) and layer not in lent)
        if present and usable and grounds.affordable(change):
            evidence = [change.evidence, *_verdict(grounds, layer)] if attention else [change.evidence]
            grounds.prescribe(
                Bypass(unit), evidence, f"{change.words}; the branch's weights and time are saved.", changes=[change]
            )
            taken = True
    if taken:
        return []
    there = [one for one in found.values() if one.row.layer in grounds.sizes.layers_left]
    return [f"no branch is worth passing by here{mildest(grounds, sorted(there, key=lambda one: one.cost))}"]


def _verdict(grounds: Grounds, layer: int) -> list[Evidence]:
    """What interventions said of the block, where its pattern is abnormal."""
    return [
        Evidence(row.measure, str(row.stream), row.value or 0.0, row.low, row.high, note=f"{row.label}, {row.target}")
        for row in grounds.rows("block-verdict")
        if row.layer == layer and row.label not in (None, "normal")
    ]


BYPASS_DISPENSABLE = Rule(
    "bypass-dispensable",
    ("size", "speed"),
    "Chen and Asgari 2021 (blocks that attend abnormally); Zhang et al. 2021 (self-attention that is not needed). "
    "Threshold: otoscope's own.",
    _act,
)
