"""Position profile: how much attention goes to the beginning, the middle and the end of utterances."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from otoscope.errors import MeasureError
from otoscope.measures.heads.maps import checked_maps

BINS = 20
"""Bins of equal width that an utterance's frames lie in."""


def position_profile(attention: Any, bins: int = BINS) -> np.ndarray:
    """Share of the attention on keys in each stretch of an utterance; the definition is otoscope's own.

        kappa(b) = 1/T sum_q sum_k o(k, b) A[q, k]

    Key k covers the stretch from k / T to (k + 1) / T of the utterance, and o(k, b) is the part of it in bin b, from
    (b - 1) / B to b / B: a key that straddles an edge is split, so that uniform attention gives 1 / B for any T and B.

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.
        bins: B.

    Returns:
        (..., B); sums to one.

    Raises:
        MeasureError: another shape, rows that do not sum to one, or no bin.

    >>> position_profile(np.eye(10)[[0] * 10], bins=5).tolist()
    [1.0, 0.0, 0.0, 0.0, 0.0]
    """
    xp, maps = checked_maps(attention)
    if bins < 1:
        raise MeasureError(f"A position profile of {bins} bins", "Ask for at least one bin.")
    columns = xp.mean(maps, axis=-2)
    if hasattr(columns, "detach"):
        columns = columns.detach().cpu().numpy()
    return in_bins(np.asarray(columns, np.float64), bins)


def in_bins(columns: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The attention on each key, (..., T), by bin: (..., B)."""
    return columns @ _overlaps(columns.shape[-1], bins)


@lru_cache(maxsize=64)
def _overlaps(frames: int, bins: int) -> np.ndarray:
    """Part of each key in each bin, (T, B), in whole numbers up to the last division; rows sum to one."""
    keys, places = np.arange(frames)[:, None], np.arange(bins)
    # In units of 1 / (T B) of the utterance a key is B long and a bin T.
    common = np.minimum((keys + 1) * bins, (places + 1) * frames) - np.maximum(keys * bins, places * frames)
    return np.maximum(common, 0) / bins
