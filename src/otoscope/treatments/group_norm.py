"""Treatment: group norms in place of a Conformer's batch norms."""

from dataclasses import dataclass

from otoscope.errors import TreatmentError
from otoscope.surgery import norms
from otoscope.surgery.edit import Edit
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment, registered

BATCH_NORMED = ("wav2vec2-conformer", "parakeet")


@registered
@dataclass(frozen=True)
class GroupNorm(Treatment):
    """Replaces the batch norms of convolution modules by group norms that begin near them; see `surgery.GroupNorm`.

    Statistics of an utterance do not depend on the batch that it is trained in.

    Attributes:
        units: layers or convolution modules.
        groups: groups of adjacent channels.
        over: "time", statistics over the frames of the utterance; or "frame".
    """

    kind = "group-norm"
    units: str = "layer.*"
    groups: int = 8
    over: str = "time"

    def edits(self) -> tuple[Edit, ...]:
        """See `Treatment`."""
        return (norms.GroupNorm(self.units, self.groups, self.over),)

    def check(self, sizes: Sizes) -> None:
        """See `Treatment`."""
        if sizes.family not in BATCH_NORMED:
            raise TreatmentError(
                f"A {sizes.family} model has no batch norm that a group norm could replace",
                f"Norms are replaced in these families: {', '.join(BATCH_NORMED)}.",
            )
        sizes.find(self.units, ("layer", "convolution"))
