"""The phones of one utterance, as the rows and columns of its relation maps."""

from functools import partial

import numpy as np
from jaxtyping import Float

from otoscope.measures.heads.relation_labels import RelationLabels
from otoscope.measures.heads.relation_sums import LabelReader, RelationSum
from otoscope.models.anatomy import Grid
from otoscope.speech.phones import SILENCE
from otoscope.speech.utterance import Utterance

TIER = "phone"
"""The tier whose labels are related."""

REST = "\N{EN DASH}"
"""What stands for time without a label."""


class UtteranceRelations:
    """Sums attention from label to label of one utterance, all of whose labels are kept however rare.

    Args:
        utterance: whose labels.

    Attributes:
        maker: makes the sums for the tap; None where the utterance has no phones.
    """

    name = "viewer-relations"

    def __init__(self, utterance: Utterance) -> None:
        self.utterance = utterance
        names = {one.label for one in utterance.tiers.get(TIER, ())}
        ordered = tuple(sorted(names, key=lambda label: (label == SILENCE, label)))
        self._labels = RelationLabels(TIER, ordered, 0, 0, 0)
        self.maker = partial(RelationSum, self.name, LabelReader(self._labels), False) if names else None

    def shares(self, grid: Grid, frames: int) -> tuple[list[str], Float[np.ndarray, " labels"]]:
        """The labels that have a share of the utterance's frames, and the shares; REST, where there is some, last."""
        laid = self._labels.lay(self.utterance, grid, frames)
        if laid is None:
            return [], np.zeros(0)
        shares = laid.shares().mean(0)
        names = (*self._labels.labels, REST)
        self._kept = np.flatnonzero(shares)
        return [names[k] for k in self._kept], shares[self._kept]

    def between(self, sums: Float[np.ndarray, "2 heads n n"]) -> Float[np.ndarray, "heads labels labels"]:
        """P' of the labels that `shares` gave, from what the tap summed."""
        return sums[0][:, self._kept][:, :, self._kept]
