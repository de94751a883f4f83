"""Rule: heads that are not missed are pruned."""

from __future__ import annotations

import math
from collections.abc import Sequence

from otoscope.interventions.criticality.labels import tolerance
from otoscope.measures.measure import Row
from otoscope.plans.changes import Change
from otoscope.plans.grounds import Grounds, Head, Rule, absent, named_heads
from otoscope.plans.plan import Evidence
from otoscope.plans.rules.remove_ambient_blocks import mildest
from otoscope.treatments.prune_heads import PruneHeads


def _act(grounds: Grounds) -> Sequence[str]:
    """Prunes the heads whose loss surely costs least, as long as the margin lasts; each layer keeps one.

    Evidence: `importance-loo`, what a metric loses without a head. Where that was not taken, and guesses are allowed,
    the most global heads are pruned, at most `Limits.heads` of all.
    """
    found = [one for one in grounds.changes("importance-loo") if one.row.head is not None]
    if not found:
        return _guessed(grounds)
    left, spent = list(grounds.heads()), grounds.spent
    shared = sharing(grounds)
    chosen: list[Change] = []
    for change in found:
        head = _head(change)
        alone = [one for one in left if one[0] == head[0]] == [head]
        if head in left and not alone and head[0] not in shared and spent + change.cost <= grounds.limits.margin:
            chosen.append(change)
            left.remove(head)
            spent += change.cost
    by_head = {_head(one): one for one in chosen}
    for layer, units in named_heads(list(by_head)).items():
        mine = [one for head, one in sorted(by_head.items()) if head[0] == layer]
        grounds.prescribe(PruneHeads(units), [one.evidence for one in mine], _expected(mine), changes=mine)
    if chosen:
        return []
    return [f"no head is worth pruning here{mildest(grounds, [one for one in found if _head(one) in left])}"]


def _head(change: Change) -> Head:
    return change.row.layer or 0, change.row.head or 0


def _expected(changes: Sequence[Change]) -> str:
    if len(changes) == 1:
        return f"{changes[0].words}."
    total, first = sum(one.row.value or 0.0 for one in changes), changes[0]
    base = "" if first.base is None else f" from {first.base:.3g}"
    return f"Without training anew {first.row.target} changes{base} by {total:+.3g}, if the heads' shares add up."


def _guessed(grounds: Grounds) -> Sequence[str]:
    """Prunes the most global heads; a guess, since nothing was taken without them."""
    measured = absent("importance-loo")
    if not grounds.limits.guesses:
        return [measured]
    values = global_heads(grounds)
    if not values:
        return [f"{measured}, or heads for a guess by their shape"]
    most = math.floor(grounds.limits.heads * len(grounds.heads()))
    left = {head for head in grounds.heads() if head[0] not in sharing(grounds)}
    chosen: list[Head] = []
    for head in values:
        alone = sum(one[0] == head[0] for one in left) == 1
        if head in left and not alone and len(chosen) < most:
            chosen.append(head)
            left.discard(head)
    harmed = _harmed(grounds, len(chosen)) if chosen else None
    if harmed is not None:
        return [
            f"pruning {harmed.other} global heads changes what a probe reads of phones by {harmed.value:+.3g}, and harm is "
            f"not excluded; {measured}"
        ]
    for layer, units in named_heads(chosen).items():
        evidence = [
            Evidence(
                "globalness", f"layer.{layer}.head.{row.head}", row.value or 0.0, row.low, row.high, None, "global"
            )
            for head, row in sorted(values.items())
            if head in chosen and head[0] == layer
        ]
        expected = (
            "A guess: the heads attend globally, and what the model loses without them was not measured. Verify it."
        )
        grounds.prescribe(PruneHeads(units), evidence, expected)
    if not chosen:
        return ["no head of those that may be pruned is global"]
    return [
        "a guess by the shape of attention; to prune by what is missed take `otoscope diagnose --measures importance-loo`"
    ]


def sharing(grounds: Grounds) -> set[int]:
    """Layers that share a map, whose heads can only be pruned together."""
    return {layer for pair in grounds.sizes.maps for layer in pair}


def global_heads(grounds: Grounds) -> dict[Head, Row]:
    """Heads of the category "global", the most global first, with their globalness."""
    called = {(row.layer, row.head) for row in grounds.rows("category") if row.label == "global"}
    rows = [row for row in grounds.rows("globalness") if (row.layer, row.head) in called]
    rows.sort(key=lambda row: (-(row.value or 0.0), row.layer or 0, row.head or 0))
    return {(row.layer or 0, row.head or 0): row for row in rows}


def _harmed(grounds: Grounds, count: int) -> Row | None:
    """The point of a curve of probes at which pruning so many global heads may do harm; None where there is none."""
    for ending in ("", "-frozen"):
        whole = [row for row in grounds.rows(f"pruning-phone{ending}", "globalness") if row.other == "0"]
        points = [
            row for row in grounds.rows(f"pruning-phone{ending}-change", "globalness") if int(row.other or 0) >= count
        ]
        if whole and points:
            point = min(points, key=lambda row: int(row.other or 0))
            if point.low is None or point.low < -tolerance("probe-phone", whole[0].value or 0.0):
                return point
    return None


PRUNE_HEADS = Rule(
    "prune-heads",
    ("size", "speed"),
    "Michel, Levy and Neubig 2019; Yang, Liu and Lee 2020, section 7.1. Threshold: otoscope's own.",
    _act,
)
