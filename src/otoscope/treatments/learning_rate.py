"""Treatment: units are trained faster or slower than the rest."""

import math
from dataclasses import dataclass

from otoscope.errors import TreatmentError
from otoscope.surgery.units import Parts
from otoscope.treatments.freeze import check_trainable, parameters
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Training, Treatment, registered


@registered
@dataclass(frozen=True)
class LearningRate(Treatment):
    """Multiplies the learning rate of units; what the model gives stays as it is.

    Attributes:
        units: layers, branches, or anything else.
        factor: above 0; of two treatments of the same parameter the later one holds.
    """

    kind = "learning-rate"
    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.factor) or self.factor <= 0:
            raise TreatmentError(
                f"A learning rate cannot be multiplied by {self.factor!r}",
                "Give a factor above 0; what is not to be trained is frozen.",
            )

    def check(self, sizes: Sizes) -> None:
        """See `Treatment`."""
        check_trainable(self.units, sizes)

    def training(self, parts: Parts) -> Training:
        """See `Treatment`."""
        return Training(rates=dict.fromkeys(parameters(parts, self.units), float(self.factor)))
