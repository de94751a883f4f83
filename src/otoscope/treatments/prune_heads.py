"""Treatment: attention heads are taken out."""

from dataclasses import dataclass

from otoscope.errors import TreatmentError
from otoscope.surgery.edit import Edit
from otoscope.surgery.heads import CutHeads
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment, registered


@registered
@dataclass(frozen=True)
class PruneHeads(Treatment):
    """Takes heads out, with their rows of query, key and value and their columns of the output projection.

    To rounding the model gives what it gave with these heads' outputs set to zero (Michel, Levy and Neubig 2019; Yang,
    Liu and Lee 2020, section 7.1). Layers may be left with different numbers of heads, or none: what is left of an
    attention without heads is the bias of its output projection.

    Attributes:
        units: heads, or layers or attention modules for all of their heads.
    """

    kind = "prune-heads"

    def edits(self) -> tuple[Edit, ...]:
        """See `Treatment`."""
        return (CutHeads(self.units),)

    def check(self, sizes: Sizes) -> None:
        """See `Treatment`."""
        found = sizes.find(self.units, ("head", "attention", "layer"), cut=True)
        if not sizes.attending & {unit.layer for unit in found}:
            raise TreatmentError(f"{self.units!r} names layers without attention", "Name a layer that has attention.")
        names = self.left(sizes).head_names
        for layer, source in sorted(sizes.maps):
            if names[layer - 1] != names[source - 1]:
                raise TreatmentError(
                    f"Layer {layer} uses the attention map of layer {source}, and would be left with the heads "
                    f"{list(names[layer - 1])}, the other with {list(names[source - 1])}",
                    f"Prune the same heads from both at once, as in layer.{source},{layer}.head.0.",
                )

    def left(self, sizes: Sizes) -> Sizes:
        """See `Treatment`."""
        found = sizes.find(self.units, ("head", "attention", "layer"), cut=True)
        whole = {unit.layer for unit in found if unit.head is None}
        heads = [unit for unit in found if unit.head is not None]
        for layer in whole:
            heads += sizes.find(f"layer.{layer}.head.*") if sizes.head_names[(layer or 0) - 1] else []
        return sizes.without(heads)
