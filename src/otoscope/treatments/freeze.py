"""Treatment: units are not trained."""

from dataclasses import dataclass

from otoscope.errors import TreatmentError
from otoscope.models.edits import ADAPTER
from otoscope.surgery.units import Parts
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Training, Treatment, registered


@registered
@dataclass(frozen=True)
class Freeze(Treatment):
    """Keeps units from being trained; what the model gives stays as it is.

    Low-rank adapters of these units, which are there to be trained, are trained all the same.

    Attributes:
        units: what is frozen: layers, branches, or anything else; "*" is the whole encoder.
        but: what of it is trained after all; "" is nothing.
    """

    kind = "freeze"
    but: str = ""

    def check(self, sizes: Sizes) -> None:
        """See `Treatment`."""
        for pattern in (self.units, self.but):
            if pattern:
                check_trainable(pattern, sizes)

    def training(self, parts: Parts) -> Training:
        """See `Treatment`."""
        kept = set(parameters(parts, self.but)) if self.but else set()
        named = parameters(parts, self.units)
        return Training(frozenset(name for name in named if name not in kept and ADAPTER not in name))


def check_trainable(pattern: str, sizes: Sizes) -> None:
    """Refuses what has no parameters of its own to be trained or not.

    Raises:
        SurgeryError: there is no such unit.
        TreatmentError: it is a head, which shares its tensors with the others of its layer.
    """
    for unit in sizes.find(pattern):
        if unit.kind == "head":
            raise TreatmentError(
                f"{unit.name} shares its parameters with the other heads of its layer, and cannot be trained otherwise "
                "than they",
                f"Name layer.{unit.layer}.attention.",
            )


def parameters(parts: Parts, pattern: str) -> list[str]:
    """Parameters of the units of an encoder that a pattern names, by path."""
    named = {name for unit in parts.find(pattern) for name in parts.tensors(unit)}
    return [name for name, _ in parts.encoder.named_parameters() if name in named]
