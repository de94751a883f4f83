"""Treatment: branches or layers are passed by, and their weights and time saved."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from otoscope.errors import TreatmentError
from otoscope.surgery.edit import Edit
from otoscope.surgery.removal import REMOVABLE, Remove
from otoscope.surgery.units import Unit
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment, registered


@registered
@dataclass(frozen=True)
class Bypass(Treatment):
    """Lets the residual stream pass by branches or layers, which are taken out.

    A branch that is gone adds nothing; norms that stand before or after the addition stay.

    Attributes:
        units: attention modules, feed-forward or convolution branches, or layers.
    """

    kind = "bypass"

    def edits(self) -> tuple[Edit, ...]:
        """See `Treatment`."""
        return (Remove(self.units),)

    def check(self, sizes: Sizes) -> None:
        """See `Treatment`."""
        check_removal(sizes.find(self.units, REMOVABLE), sizes)

    def left(self, sizes: Sizes) -> Sizes:
        """See `Treatment`."""
        return sizes.without(sizes.find(self.units, REMOVABLE))


def check_removal(units: Sequence[Unit], sizes: Sizes) -> None:
    """Refuses to take out what others need.

    Raises:
        TreatmentError: no layer would be left, or a layer that is left uses the map of one that goes.
    """
    layers = {unit.layer for unit in units if unit.kind == "layer"}
    if not set(sizes.layers_left) - layers:
        raise TreatmentError("No layer of the model would be left", "Leave one layer or more.")
    check_lenders({unit.layer or 0 for unit in units if unit.kind in ("layer", "attention")}, sizes)


def check_lenders(silent: AbstractSet[int], sizes: Sizes) -> None:
    """Refuses to take the attention of layers away whose maps others use.

    Raises:
        TreatmentError: a layer that keeps its attention uses the map of one that loses it.
    """
    for layer, source in sorted(sizes.maps):
        if source in silent and layer not in silent:
            raise TreatmentError(
                f"Layer {layer} uses the attention map of layer {source}, which would be taken out",
                f"Keep the attention of layer {source}, or take that of layer {layer} out too.",
            )
