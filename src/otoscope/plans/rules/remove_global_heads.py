"""Rule: global heads are pruned where phones are read better without them."""

from __future__ import annotations

from collections.abc import Sequence

from otoscope.plans.grounds import Grounds, Rule, absent, named_heads
from otoscope.plans.plan import Evidence
from otoscope.plans.rules.prune_heads import sharing
from otoscope.treatments.prune_heads import PruneHeads


def _act(grounds: Grounds) -> Sequence[str]:
    """Prunes as many of the most global heads as raise the accuracy of a phone probe that is trained anew.

    Evidence: `pruning-phone-change` by globalness, from the lower end of its interval on, of all steps at which that lies
    above zero the best. The heads are those that the curve removed: all, in the order of `globalness`.
    """
    points = [row for row in grounds.rows("pruning-phone-change", "globalness") if row.other != "0"]
    ranked = sorted(grounds.rows("globalness"), key=lambda row: (-(row.value or 0.0), row.layer or 0, row.head or 0))
    if not points or not ranked:
        return [absent("globalness,pruning-phone")]
    better = [row for row in points if row.low is not None and row.low > 0]
    if not better:
        best = max(points, key=lambda row: row.value or 0.0)
        return [
            f"phones are read no better without global heads: {best.value:+.3g} with {best.other} of them pruned, at best"
        ]
    point = max(better, key=lambda row: (row.low or 0.0, -int(row.other or 0)))
    heads = {(row.layer or 0, row.head or 0): row for row in ranked[: int(point.other or 0)]}
    shared = sharing(grounds)
    kept = [head for head in heads if head in grounds.heads() and head[0] in shared]
    for layer, units in named_heads([head for head in heads if head in grounds.heads() and head not in kept]).items():
        evidence = [
            Evidence(
                point.measure, f"the {point.other} most global heads", point.value or 0.0, point.low, point.high, 0.0,
                "accuracy of a phone probe that is trained anew",
            ),
            *(
                Evidence("globalness", f"layer.{layer}.head.{head[1]}", row.value or 0.0, row.low, row.high)
                for head, row in sorted(heads.items())
                if head[0] == layer
            ),
        ]  # fmt: skip
        expected = f"Together with the other global heads: phones are read better by {point.value:+.3g} of frames."
        grounds.prescribe(PruneHeads(units), evidence, expected)
    if kept:
        layers = ", ".join(f"layer.{layer}" for layer in sorted({layer for layer, _ in kept}))
        return [f"{len(kept)} of the {point.other} heads are kept, since {layers} share a map"]
    return []


REMOVE_GLOBAL_HEADS = Rule(
    "remove-global-heads",
    ("accuracy",),
    "Yang, Liu and Lee 2020, section 7.1 (refinement)",
    _act,
)
