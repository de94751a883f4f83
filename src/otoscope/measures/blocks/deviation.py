"""How far a block departs from its neighbours and from the trend over depth."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import numpy as np

from otoscope.errors import MeasureError

FEWEST_FOR_TREND = 5
"""Other blocks that a trend is fitted to."""

NORMAL = 0.6745
"""Median absolute deviation of the standard normal distribution."""


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of distributions over the last axis, in nat: 0 where they are alike, ln 2 where apart.

        1/2 KL(p || m) + 1/2 KL(q || m),   m = (p + q) / 2      (Lin 1991)

    Args:
        p: (..., K), not negative, sums to one.
        q: likewise.

    Returns:
        (...).

    Raises:
        MeasureError: negative values, or sums that are not one.

    >>> round(float(jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0]))), 4)
    0.6931
    """
    return _divergence(_shares(p), _shares(q))


def _shares(given: np.ndarray) -> np.ndarray:
    """Distributions in double precision; refuses what is none."""
    p = np.asarray(given, np.float64)
    # Written so that NaN fails as well.
    if not ((p >= 0).all() and (np.abs(p.sum(-1) - 1) < 1e-3).all()):
        raise MeasureError(
            f"Distributions of shape {p.shape} have negative values, or do not sum to one",
            "Pass shares over the last axis.",
        )
    return p


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """See `jensen_shannon`; entropy of the mean less mean of the entropies, which rounding can leave below zero."""

    def entropy(x: np.ndarray) -> np.ndarray:
        return np.asarray(-(x * np.log(np.where(x > 0, x, 1.0))).sum(-1))

    return np.asarray(np.maximum(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, 0.0))


def neighbour_deviation(profiles: np.ndarray, left_out: Collection[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Divergence of each block's profile from the mean of its neighbours', and what to hold it against; otoscope's own.

        d_l = JSD(mu_l, (mu_(l-1) + mu_(l+1)) / 2)

    The first and the last block have one neighbour. Beside it stands the median divergence of one block from the next
    in the model without block l: a block departs where d_l is many times that. The divergence is convex, so that a block
    on the way from one neighbour to the other comes to less than such a step.

    Args:
        profiles: (..., L, K), each sums to one.
        left_out: blocks, counted from 0, that are no neighbours and no steps: the nearest others stand in for them.

    Returns:
        d and the median step, each (..., L), in nat; NaN where there is no other block, or no two of them.

    Raises:
        MeasureError: negative values, or sums that are not one.
    """
    mu = _shares(profiles)
    blocks = mu.shape[-2]
    value, step = np.full((2, *mu.shape[:-1]), np.nan)
    steps: dict[tuple[int, int], np.ndarray] = {}
    for block in range(blocks):
        others = [m for m in range(blocks) if m != block and m not in left_out]
        before, after = [m for m in others if m < block][-1:], [m for m in others if m > block][:1]
        if others:
            value[..., block] = _divergence(mu[..., block, :], mu[..., before + after, :].mean(-2))
        for pair in pairwise(others):
            if pair not in steps:
                steps[pair] = _divergence(mu[..., pair[0], :], mu[..., pair[1], :])
        if len(others) > 1:
            step[..., block] = np.median([steps[pair] for pair in pairwise(others)], axis=0)
    return value, step


def trend_residual(values: np.ndarray, floor: float, left_out: Collection[int] = ()) -> np.ndarray:
    """How far each block lies off the line through the others, in robust standard scores; otoscope's own.

    The line over depth is that of Theil (1950) and Sen (1968): the median of the slopes between every two other blocks,
    through the median of what it leaves. With r_m the residuals of the other blocks, the score of block l is

        z_l = 0.6745 (r_l - median r_m) / max(MAD r_m, floor)

    with MAD the median absolute deviation (Iglewicz and Hoaglin 1993 take scores beyond 3.5 for outliers). The floor
    keeps a model whose blocks follow a line closely from being all outliers.

    Args:
        values: (..., L).
        floor: the least median absolute deviation that is told from none, in the unit of the values.
        left_out: blocks, counted from 0, that the line is not fitted to.

    Returns:
        (..., L); NaN where fewer than five other blocks are left.

    Raises:
        MeasureError: the floor is not above zero.
    """
    if not floor > 0:
        raise MeasureError(f"A floor of {floor} for the spread around a trend", "Give a number above zero.")
    y = np.asarray(values, np.float64)
    score = np.full(y.shape, np.nan)
    for block in range(y.shape[-1]):
        others = np.array([m for m in range(y.shape[-1]) if m != block and m not in left_out])
        if len(others) < FEWEST_FOR_TREND:
            continue
        i, j = (others[place] for place in np.triu_indices(len(others), 1))
        slope = np.median((y[..., j] - y[..., i]) / (j - i), axis=-1)
        residual = y - slope[..., None] * np.arange(y.shape[-1])
        middle = np.median(residual[..., others], axis=-1)
        spread = np.median(np.abs(residual[..., others] - middle[..., None]), axis=-1)
        score[..., block] = NORMAL * (residual[..., block] - middle) / np.maximum(spread, floor)
    return score
