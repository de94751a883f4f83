"""Diagonality: how near to themselves a head's queries attend."""

from typing import Any

import torch

from otoscope.measures.heads.head_measure import HeadMeasure
from otoscope.measures.heads.maps import checked_maps
from otoscope.models.reductions import OffsetMean


def diagonality(maps: Any) -> Any:
    """Negative mean distance between query and key, relative to length (Yang, Liu and Lee 2020, eq. 3).

        D = -1/T^2 sum_q sum_k |q - k| A[q, k]

    Args:
        maps: (..., T, T), torch or numpy; rows are queries and sum to one.

    Returns:
        (...): 0 where every frame attends to itself, -(T^2 - 1) / (3 T^2) where attention is uniform.

    Raises:
        MeasureError: another shape, or rows that do not sum to one.

    >>> import numpy as np
    >>> round(float(diagonality(np.full((10, 10), 0.1))), 5)
    -0.33
    """
    xp, maps = checked_maps(maps)
    frames = maps.shape[-1]
    place = xp.astype(xp.arange(frames), maps.dtype)
    if hasattr(maps, "device") and hasattr(place, "to"):
        place = place.to(maps.device)
    distance = xp.abs(place[:, None] - place[None, :])
    return -xp.sum(distance * maps, axis=(-2, -1)) / frames**2


class Diagonality(HeadMeasure):
    """Diagonality of every head, the mean of utterances' values."""

    name = "diagonality"
    reductions = (OffsetMean,)

    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """From the mass at each offset: sum_k |q - k| A[q, k], averaged over q, is sum_d |d| mu(d)."""
        offsets = found["offset-mean"]
        frames = (offsets.shape[-1] + 1) // 2
        distance = torch.arange(1 - frames, frames, device=offsets.device, dtype=offsets.dtype).abs()
        return -(offsets @ distance) / frames
