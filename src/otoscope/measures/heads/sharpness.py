"""Sharpness: how much weight a head puts on single keys; two readings of one figure of the literature."""

from typing import Any

import torch

from otoscope.measures.heads.head_measure import HeadMeasure
from otoscope.measures.heads.maps import checked_maps
from otoscope.models.reductions import LargestWeight, PeakMean


def max_weight(attention: Any) -> Any:
    """The largest weight of attention maps: max_{q, k} A[q, k].

    Yang, Liu and Lee (2020, section 7.1) rank heads by "maximum attention weight" without a formula; this reading is
    by analogy with Hao et al. (2021). `confidence` is the other.

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.

    Returns:
        (...), 1 / T to 1.

    Raises:
        MeasureError: another shape, or rows that do not sum to one.

    >>> import numpy as np
    >>> float(max_weight(np.array([[1.0, 0.0], [0.5, 0.5]])))
    1.0
    """
    xp, maps = checked_maps(attention)
    return xp.max(maps, axis=(-2, -1))


def confidence(attention: Any) -> Any:
    """Mean over queries of the largest weight of their row: 1/T sum_q max_k A[q, k] (Voita et al. 2019).

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.

    Returns:
        (...), 1 / T where attention is uniform, 1 where each query attends to one key.

    Raises:
        MeasureError: another shape, or rows that do not sum to one.

    >>> import numpy as np
    >>> float(confidence(np.array([[1.0, 0.0], [0.5, 0.5]])))
    0.75
    """
    xp, maps = checked_maps(attention)
    return xp.mean(xp.max(maps, axis=-1), axis=-1)


class MaxWeight(HeadMeasure):
    """Largest weight of every head, the mean of utterances' values."""

    name = "max-weight"
    reductions = (LargestWeight,)

    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """See `HeadMeasure`."""
        return found["largest-weight"]


class Confidence(HeadMeasure):
    """Confidence of every head, the mean of utterances' values."""

    name = "confidence"
    reductions = (PeakMean,)

    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """See `HeadMeasure`."""
        return found["peak-mean"]
