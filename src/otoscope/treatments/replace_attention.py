"""Treatment: the attention of layers is replaced by something simpler."""

from dataclasses import dataclass, replace

from otoscope.errors import TreatmentError
from otoscope.surgery.attention import ReplaceMap
from otoscope.surgery.dropping import DropMap
from otoscope.surgery.edit import Edit
from otoscope.treatments.bypass import check_lenders
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment, registered

MAPS = ("local", "uniform", "layer", "first")
MODULES = ("feed-forward", "convolution")


@registered
@dataclass(frozen=True)
class ReplaceAttention(Treatment):
    """Replaces the maps of all heads of layers, or their attention as a whole.

    Layers whose maps are replaced lose what only made them: queries, keys and what tells positions.

    Attributes:
        units: layers or attention modules.
        by: "local", a map that is uniform over frames at most `width` away; "uniform", over all frames; "layer", the
            map of the earlier layer `source`, head by head; "first", that of the first of the named layers, for the
            others of them (Shim, Choi and Sung 2022); "feed-forward", a position-wise network in place of the attention
            (Zhang, Loweimi, Bell and Renals 2021); "convolution", one over frames at most `width` away.
        width: frames on either side, for "local" and "convolution".
        source: an earlier layer, for "layer"; 0 is the layer just before.
        seed: of the weights of "feed-forward" and "convolution".
    """

    kind = "replace-attention"
    by: str
    width: int = 0
    source: int = 0
    seed: int = 0

    def edits(self) -> tuple[Edit, ...]:
        """See `Treatment`."""
        if self.by in MAPS:
            return (ReplaceMap(self.units, self.by, self.width, self.source), DropMap(self.units))
        if self.by not in MODULES:
            raise TreatmentError(
                f"Attention is not replaced by {self.by!r}", f"It is replaced by {', '.join(MAPS + MODULES)}."
            )
        from otoscope.surgery import replacing

        return (replacing.ReplaceAttention(self.units, self.by, self.width, self.seed),)

    def check(self, sizes: Sizes) -> None:
        """See `Treatment`."""
        pairs = self._pairs(sizes)
        if self.by in MODULES:
            check_lenders(set(pairs), sizes)
            return
        after = self.left(sizes)
        for layer, source in sorted(after.maps):
            if source in after.fixed:
                raise TreatmentError(
                    f"Layer {layer} would use the attention map of layer {source}, which is uniform or local and is not "
                    "made",
                    f"Give layer {layer} the same map by itself.",
                )

    def left(self, sizes: Sizes) -> Sizes:
        """See `Treatment`."""
        pairs = self._pairs(sizes)
        if self.by in MODULES:
            left = sizes.headless(pairs)
            return replace(left, replaced=left.replaced | frozenset(pairs))
        kept = {pair for pair in sizes.maps if pair[0] not in pairs}
        borrowed = {(layer, source) for layer, source in pairs.items() if source is not None}
        fixed = frozenset(layer for layer, source in pairs.items() if source is None)
        return replace(sizes, maps=frozenset(kept | borrowed), fixed=sizes.fixed.difference(pairs) | fixed)

    def _pairs(self, sizes: Sizes) -> dict[int, int | None]:
        """The layers whose attention is replaced, and whose map each uses, None where no layer's."""
        layers = sorted({unit.layer or 0 for unit in sizes.find(self.units, ("layer", "attention"))})
        headless = [layer for layer in layers if not sizes.heads[layer - 1]]
        if headless:
            raise TreatmentError(
                f"The attention of layer {headless[0]} has no heads, so there is nothing to replace",
                "Name a layer that has heads.",
            )
        pairs: dict[int, int | None]
        if self.by == "first":
            if len(layers) < 2:
                raise TreatmentError(
                    f"{self.units!r} is one layer, which has no other's map to use", "Name several layers."
                )
            pairs = dict.fromkeys(layers[1:], layers[0])
        elif self.by == "layer":
            pairs = {layer: self.source or layer - 1 for layer in layers}
        else:
            pairs = dict.fromkeys(layers)
        for layer, source in pairs.items():
            if source is not None:
                self._check_source(sizes, layer, source)
        return pairs

    def _check_source(self, sizes: Sizes, layer: int, source: int) -> None:
        if source >= layer:
            raise TreatmentError(
                f"Layer {layer} cannot use the attention map of layer {source}, which is not made before its own",
                "Name an earlier layer as the source.",
            )
        if source < 1 or not sizes.heads[source - 1]:
            raise TreatmentError(
                f"Layer {layer} cannot use the attention map of layer {source}, which is not there",
                "Name a layer as the source that is left.",
            )
        if sizes.head_names[source - 1] != sizes.head_names[layer - 1]:
            raise TreatmentError(
                f"Layer {layer} has the heads {list(sizes.head_names[layer - 1])} and layer {source}, whose map it "
                f"would use, {list(sizes.head_names[source - 1])}",
                "Prune the same heads from both.",
            )
