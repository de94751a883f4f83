"""Treatment: units begin anew."""

from dataclasses import dataclass

from otoscope.errors import TreatmentError
from otoscope.surgery.edit import Edit
from otoscope.surgery.reset import Redraw, Reset
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment, registered


@registered
@dataclass(frozen=True)
class Reinitialise(Treatment):
    """Sets units to a fresh draw from the law by which the library initialises them, or to a checkpoint's weights.

    To be followed by training: Pasad, Chou and Livescu (2021) re-initialise the top layers before fine-tuning.

    Attributes:
        units: layers, or any other part.
        seed: of the draw.
        checkpoint: a folder whose weights the units take instead, such as the model before fine-tuning.
    """

    kind = "reinitialise"
    seed: int = 0
    checkpoint: str = ""

    def edits(self) -> tuple[Edit, ...]:
        """See `Treatment`."""
        return (Reset(self.units, self.checkpoint) if self.checkpoint else Redraw(self.units, self.seed),)

    def check(self, sizes: Sizes) -> None:
        """See `Treatment`."""
        for unit in sizes.find(self.units):
            if unit.kind in ("layer", "attention") and unit.layer in sizes.replaced:
                raise TreatmentError(
                    f"What stands in place of the attention of layer {unit.layer} has no law of the library's, and is in "
                    "no checkpoint of the original",
                    f"Name other branches, such as layer.{unit.layer}.feed_forward*; or re-initialise the layer first.",
                )
