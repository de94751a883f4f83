"""Rule: layers use the attention map of the layer before them where it does as well as their own."""

from __future__ import annotations

from collections.abc import Sequence

from otoscope.plans.changes import Change
from otoscope.plans.grounds import Grounds, Rule, absent
from otoscope.plans.rules.remove_ambient_blocks import mildest
from otoscope.treatments.replace_attention import ReplaceAttention

_KINDS = ("bypass", "replace-attention", "limit-span", "prune-heads")


def _act(grounds: Grounds) -> Sequence[str]:
    """Lends maps to the layers whose loss surely grows least by it, as long as the margin lasts.

    Evidence: `block-intervention` "neighbour", which is the very treatment: that maps are alike enough is read off what
    the model makes of them. It was taken with every other layer as it is, so that a map is not lent on, and no layer
    whose attention was changed lends one.
    """
    found = grounds.changes("block-intervention", "neighbour")
    if not found:
        return [absent("block-intervention")]
    before = len(grounds.lines)
    for change in found:
        layer = change.row.layer or 0
        if _free(grounds, layer) and grounds.affordable(change):
            grounds.prescribe(
                ReplaceAttention(f"layer.{layer}", "layer", source=layer - 1), [change.evidence],
                f"{change.words}; queries and keys of the layer are saved.", changes=[change],
            )  # fmt: skip
    if len(grounds.lines) > before:
        return []
    left: list[Change] = [one for one in found if _free(grounds, one.row.layer or 0)]
    return [f"no layer is worth giving its neighbour's map here{mildest(grounds, left)}"]


def _free(grounds: Grounds, layer: int) -> bool:
    """Whether a layer and the one before it attend as they did when the intervention was taken."""
    sizes = grounds.sizes
    if layer < 2 or not grounds.attends(layer) or sizes.head_names[layer - 1] != sizes.head_names[layer - 2]:
        return False
    lent = {source for _, source in sizes.maps}
    changed = sizes.mapless & {layer, layer - 1} or any(grounds.touched(k, *_KINDS) for k in (layer, layer - 1))
    return layer not in lent and not changed


REUSE_MAPS = Rule(
    "reuse-maps",
    ("size", "speed"),
    "Shim, Choi and Sung 2022 (attention map reuse in speech recognition, of runs of layers, trained so); Xiao et al. "
    "2019; Ying et al. 2021. Neighbours by what it costs, and the threshold: otoscope's own.",
    _act,
)
