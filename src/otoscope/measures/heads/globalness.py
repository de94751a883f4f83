"""Globalness: how widely a head's queries spread their attention."""

import math
from typing import Any

import torch

from otoscope.measures.heads.head_measure import HeadMeasure
from otoscope.measures.heads.maps import checked_maps, entropy
from otoscope.models.reductions import ColumnMean, RowEntropy


def globalness(attention: Any) -> Any:
    """Mean entropy of the rows of attention maps (Yang, Liu and Lee 2020, eq. 1).

        G = 1/T sum_q H(A[q])

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.

    Returns:
        (...), in nat: 0 where every query attends to one key, ln T where attention is uniform.

    Raises:
        MeasureError: another shape, or rows that do not sum to one.

    >>> import numpy as np
    >>> round(float(globalness(np.full((10, 10), 0.1))), 5)
    2.30259
    """
    xp, maps = checked_maps(attention)
    return xp.mean(entropy(maps, xp), axis=-1)


class Globalness(HeadMeasure):
    """Globalness of every head, the mean of utterances' values."""

    name = "globalness"
    reductions = (RowEntropy,)

    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """See `HeadMeasure`."""
        return found["row-entropy"]


class NormalisedGlobalness(HeadMeasure):
    """Globalness over its maximum, G / ln T, which does not grow with the length of utterances."""

    name = "globalness-normalised"
    reductions = (RowEntropy, ColumnMean)
    fewest_frames = 2

    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """See `HeadMeasure`."""
        return found["row-entropy"] / math.log(self.frames(found))
