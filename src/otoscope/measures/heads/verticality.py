"""Verticality: how much all queries of an utterance agree on the same keys."""

import math
from typing import Any

import torch

from otoscope.measures.heads.head_measure import HeadMeasure
from otoscope.measures.heads.maps import checked_maps, entropy
from otoscope.models.reductions import ColumnMean


def verticality(attention: Any) -> Any:
    """Negative entropy of the mean row of attention maps (Yang, Liu and Lee 2020, eq. 2).

        V = -H(1/T sum_q A[q])

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.

    Returns:
        (...), in nat: 0 where all queries attend to one and the same key, -ln T where keys are used evenly.

    Raises:
        MeasureError: another shape, or rows that do not sum to one.

    >>> import numpy as np
    >>> round(float(verticality(np.eye(10))), 5)
    -2.30259
    """
    xp, maps = checked_maps(attention)
    return -entropy(xp.mean(maps, axis=-2), xp)


class Verticality(HeadMeasure):
    """Verticality of every head, the mean of utterances' values."""

    name = "verticality"
    reductions = (ColumnMean,)

    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """See `HeadMeasure`."""
        columns = found["column-mean"]
        return torch.special.xlogy(columns, columns).sum(-1)


class NormalisedVerticality(Verticality):
    """Verticality over its extent, V / ln T, which does not grow with the length of utterances."""

    name = "verticality-normalised"
    fewest_frames = 2

    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """See `HeadMeasure`."""
        return super().observe(found) / math.log(self.frames(found))
