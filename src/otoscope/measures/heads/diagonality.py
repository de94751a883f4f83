"""Diagonality: how near to themselves a head's queries attend, by three definitions."""

from typing import Any

import numpy as np
import torch

from otoscope.measures.heads.head_measure import HeadMeasure
from otoscope.measures.heads.maps import at_least, checked_maps, offsets
from otoscope.models.reductions import OffsetMean, RelativeDistance


def diagonality(attention: Any) -> Any:
    """Negative mean distance between query and key, relative to length (Yang, Liu and Lee 2020, eq. 3).

        D = -1/T^2 sum_q sum_k |q - k| A[q, k]

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.

    Returns:
        (...): 0 where every frame attends to itself, -(T^2 - 1) / (3 T^2) where attention is uniform.

    Raises:
        MeasureError: another shape, or rows that do not sum to one.

    >>> import numpy as np
    >>> round(float(diagonality(np.full((10, 10), 0.1))), 5)
    -0.33
    """
    xp, maps = checked_maps(attention)
    return -xp.sum(xp.abs(offsets(xp, maps)) * maps, axis=(-2, -1)) / maps.shape[-1] ** 2


def cumulative_diagonality(attention: Any) -> Any:
    """Cumulative attention diagonality, CAD, integrated exactly (Shim, Choi and Sung 2022).

        CAD = integral over r from 0 to 1 of 1/T sum_q sum_{|q - k| <= r (T - 1)} A[q, k]
            = 1 - 1/T sum_q sum_k |q - k| / (T - 1) A[q, k] = 1 + D T / (T - 1)

    A weight at distance d is inside from r = d / (T - 1) on, so that it counts for the share 1 - d / (T - 1).

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.

    Returns:
        (...): 1 where every frame attends to itself, (2 T - 1) / (3 T) where attention is uniform.

    Raises:
        MeasureError: another shape, rows that do not sum to one, or a single frame.

    >>> import numpy as np
    >>> round(float(cumulative_diagonality(np.full((10, 10), 0.1))), 5)
    0.63333
    """
    frames = checked_maps(attention)[1].shape[-1]
    at_least(frames, 2, "Cumulative diagonality")
    return 1 + diagonality(attention) * frames / (frames - 1)


def centrality(attention: Any) -> Any:
    """Mean nearness of a query's keys, relative to its farthest key (Zhang, Loweimi, Bell and Renals 2021).

        C = 1/T sum_q (1 - sum_k |q - k| A[q, k] / max_k |q - k|)

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.

    Returns:
        (...): 1 where every frame attends to itself, 0 where each attends to the key farthest from it.

    Raises:
        MeasureError: another shape, rows that do not sum to one, or a single frame.

    >>> import numpy as np
    >>> round(float(centrality(np.full((10, 10), 0.1))), 5)
    0.52893
    """
    xp, maps = checked_maps(attention)
    at_least(maps.shape[-1], 2, "Centrality")
    distance = xp.abs(offsets(xp, maps))
    relative = distance / xp.max(distance, axis=-1, keepdims=True)
    return 1 - xp.mean(xp.sum(relative * maps, axis=-1), axis=-1)


def mean_offset(attention: Any) -> Any:
    """Mean of key minus query position: how far ahead (above 0) or back a head attends on average.

        1/T sum_q sum_k (k - q) A[q, k]

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.

    Returns:
        (...), in frames, 1 - T to T - 1; 0 where attention is uniform.

    Raises:
        MeasureError: another shape, or rows that do not sum to one.

    >>> import numpy as np
    >>> float(mean_offset(np.eye(10)[[0, 0, 1, 2, 3, 4, 5, 6, 7, 8]]))
    -0.9
    """
    xp, maps = checked_maps(attention)
    return xp.sum(offsets(xp, maps) * maps, axis=(-2, -1)) / maps.shape[-1]


def _by_offset(found: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mass at each offset, (heads, 2 T - 1), and the offsets in frames."""
    mass = found["offset-mean"]
    farthest = mass.shape[-1] // 2
    return mass, torch.arange(-farthest, farthest + 1, device=mass.device, dtype=mass.dtype)


class Diagonality(HeadMeasure):
    """Diagonality of every head, the mean of utterances' values."""

    name = "diagonality"
    reductions = (OffsetMean,)

    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """From the mass at each offset: sum_k |q - k| A[q, k], averaged over q, is sum_d |d| mu(d)."""
        mass, offset = _by_offset(found)
        return -(mass @ offset.abs()) / self.frames(found)

    def of_permuted(self, found: dict[str, torch.Tensor]) -> float:
        """That of uniform attention, -(T^2 - 1) / (3 T^2)."""
        frames = self.frames(found)
        return (1 - frames**2) / (3 * frames**2)


class CumulativeDiagonality(Diagonality):
    """Cumulative attention diagonality of every head; an affine map of D utterance by utterance, not of its mean."""

    name = "cad"
    fewest_frames = 2

    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """See `HeadMeasure`."""
        frames = self.frames(found)
        return 1 + super().observe(found) * frames / (frames - 1)

    def of_permuted(self, found: dict[str, torch.Tensor]) -> float:
        """That of uniform attention, (2 T - 1) / (3 T)."""
        frames = self.frames(found)
        return (2 * frames - 1) / (3 * frames)


class Centrality(HeadMeasure):
    """Centrality of every head, the mean of utterances' values."""

    name = "centrality"
    reductions = (RelativeDistance, OffsetMean)
    fewest_frames = 2

    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """See `HeadMeasure`."""
        return 1 - found["relative-distance"]

    def of_permuted(self, found: dict[str, torch.Tensor]) -> float:
        """That of uniform attention: with b frames before the query and a after, keys are (b (b + 1) + a (a + 1)) / 2 off."""
        before = np.arange(self.frames(found))
        after = before[::-1]
        off = (before * (before + 1) + after * (after + 1)) / 2
        return float(1 - (off / (len(before) * np.maximum(before, after))).mean())


class MeanOffset(HeadMeasure):
    """Mean offset of every head in frames, the mean of utterances' values."""

    name = "mean-offset"
    reductions = (OffsetMean,)

    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """See `HeadMeasure`."""
        mass, offset = _by_offset(found)
        return mass @ offset

    def of_permuted(self, found: dict[str, torch.Tensor]) -> float:
        """That of uniform attention: as much before as behind."""
        return 0.0
