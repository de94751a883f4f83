"""Treatment: layers are taken out."""

from dataclasses import dataclass

from otoscope.surgery.edit import Edit
from otoscope.surgery.removal import Remove
from otoscope.treatments.bypass import check_removal
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment, registered


@registered
@dataclass(frozen=True)
class RemoveBlocks(Treatment):
    """Takes layers out, weights, time and all: what enters one enters the next one that is left.

    The layers that are left keep their numbers. To rounding the model gives what it gave with these layers bypassed.

    Attributes:
        units: layers.
    """

    kind = "remove-blocks"

    def edits(self) -> tuple[Edit, ...]:
        """See `Treatment`."""
        return (Remove(self.units),)

    def check(self, sizes: Sizes) -> None:
        """See `Treatment`."""
        check_removal(sizes.find(self.units, ("layer",)), sizes)

    def left(self, sizes: Sizes) -> Sizes:
        """See `Treatment`."""
        return sizes.without(sizes.find(self.units, ("layer",)))
