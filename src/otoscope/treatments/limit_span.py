"""Treatment: heads attend to frames nearby only."""

from dataclasses import dataclass

from otoscope.errors import TreatmentError
from otoscope.surgery.attention import Span
from otoscope.surgery.edit import Edit
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment, registered


@registered
@dataclass(frozen=True)
class LimitSpan(Treatment):
    """Limits heads to frames at most `radius` away from their own.

    Attributes:
        units: heads, or layers or attention modules for all of their heads.
        radius: frames on either side.
        form: "banded" masks scores before the softmax, so that rows sum to one, and saves time where the span is short;
            "literal" sets weights to zero after it, as Yang, Liu and Lee (2020, section 7.2) do.
    """

    kind = "limit-span"
    radius: int
    form: str = "banded"

    def edits(self) -> tuple[Edit, ...]:
        """See `Treatment`."""
        return (Span(self.units, self.radius, self.form),)

    def check(self, sizes: Sizes) -> None:
        """See `Treatment`."""
        layers = {unit.layer or 0 for unit in sizes.find(self.units, ("head", "attention", "layer"))}
        if not any(sizes.heads[layer - 1] for layer in layers):
            raise TreatmentError(f"{self.units!r} names layers without heads", "Name a layer that has heads.")
