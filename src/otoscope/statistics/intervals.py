"""Intervals from a handful of groups or folds."""

from __future__ import annotations

import numpy as np

from otoscope.errors import MeasureError


def jackknife(
    estimate: np.ndarray | float,
    without: np.ndarray,
    sizes: np.ndarray | None = None,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of an estimate from its values with one group left out at a time.

    With h_j = n / m_j for a group of m_j out of n, pseudo-values p_j = h_j e - (h_j - 1) e_(-j) and
    e_J = g e - sum_j (1 - m_j / n) e_(-j), the variance s^2 is 1/g sum_j (p_j - e_J)^2 / (h_j - 1): the
    delete-m_j jackknife of Busing, Meijer and van der Leeden (1999); with equal groups it is the usual
    jackknife. The interval is e +- t s with Student's t of g - 1 degrees of freedom.

    Args:
        estimate: from all groups, shape (...).
        without: from all groups but one, shape (g, ...).
        sizes: of the groups, shape (g,) or (g, ...); equal where None. A group of size 0 does not count.
        level: coverage.

    Returns:
        Lower and upper ends, shape (...); NaN where fewer than two groups count.

    Raises:
        MeasureError: the shapes disagree.
    """
    estimate, without = np.asarray(estimate, dtype=np.float64), np.asarray(without, dtype=np.float64)
    if without.ndim < 1 or without.shape[1:] != estimate.shape:
        raise MeasureError(
            f"Leave-one-out estimates of shape {without.shape} do not fit an estimate of shape {estimate.shape}",
            "Give shape (groups, ...) for an estimate of shape (...).",
        )
    m = np.ones(without.shape[0]) if sizes is None else np.asarray(sizes, dtype=np.float64)
    if m.shape not in (without.shape[:1], without.shape):
        raise MeasureError(
            f"Group sizes of shape {m.shape} do not fit estimates of shape {without.shape}",
            "Give one size for each group.",
        )
    if m.ndim < without.ndim:
        m = m.reshape(m.shape + (1,) * (without.ndim - 1))
    counts = np.broadcast_to(m > 0, without.shape)
    g = counts.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(counts, m / m.sum(axis=0), 0.0)
        change = np.where(counts, without - estimate, 0.0)
        # p_j - e_J = sum_i (1 - m_i / n) d_i - (h_j - 1) d_j with d_j = e_(-j) - e: only small terms.
        centre = (np.where(counts, 1 - share, 0.0) * change).sum(axis=0)
        odds = np.where(counts, (1 - share) / share, 1.0)
        spread = np.where(counts, (centre - odds * change) ** 2 / odds, 0.0).sum(axis=0) / g
        half = _student(0.5 + level / 2, np.maximum(g - 1, 1)) * np.sqrt(spread)
    half = np.where(g >= 2, half, np.nan)
    return np.asarray(estimate - half), np.asarray(estimate + half)


def ratio_jackknife(
    numerators: np.ndarray, denominators: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A ratio of sums over groups (a mean is one: sums over counts) with its interval.

    Args:
        numerators: sums of each group, shape (g, ...).
        denominators: sums or counts of each group, not negative, shape (g,) or (g, ...).
        level: coverage.

    Returns:
        Ratio, lower and upper end, each of shape (...); NaN where all denominators are 0, and ends of NaN
        where fewer than two groups count.

    Raises:
        MeasureError: the shapes disagree.

    >>> value, low, high = ratio_jackknife(np.array([2.0, 4.0, 6.0]), np.array([1.0, 1.0, 1.0]))
    >>> float(value), round(float(high - value), 4)  # t(0.975, 2) sqrt(4 / 3)
    (4.0, 4.9683)
    """
    top, bottom = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if bottom.ndim == 1 and top.ndim > 1 and bottom.shape[0] == top.shape[0]:
        bottom = np.broadcast_to(bottom.reshape((-1,) + (1,) * (top.ndim - 1)), top.shape)
    if top.ndim < 1 or top.shape != bottom.shape:
        raise MeasureError(
            f"Numerators of shape {top.shape} and denominators of shape {bottom.shape} disagree",
            "Give one of each for every group.",
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        value = top.sum(axis=0) / bottom.sum(axis=0)
        without = (top.sum(axis=0) - top) / (bottom.sum(axis=0) - bottom)
    # The only group that counts leaves nothing when it is left out; its interval is undefined anyway.
    without = np.where(np.isfinite(without), without, value)
    low, high = jackknife(value, without, bottom, level)
    return np.asarray(value), low, high


def corrected_t(
    scores: np.ndarray, test_to_train: float, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of held-out scores over folds with an interval that allows for shared training data.

    The variance of the mean is s^2 (1/k + n_test / n_train), with k - 1 degrees of freedom: the corrected
    resampled t of Nadeau and Bengio (2003), for scores of folds that share training rows are correlated.

    Args:
        scores: one for every fold, shape (k, ...).
        test_to_train: rows in a test fold for every row it was trained on.
        level: coverage.

    Returns:
        Mean, lower and upper end, each of shape (...); ends of NaN where k < 2.

    Raises:
        MeasureError: there is no score.
    """
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim < 1 or s.shape[0] < 1:
        raise MeasureError(f"Scores of shape {s.shape} have no fold", "Give at least one score.")
    mean, k = np.asarray(s.mean(axis=0)), s.shape[0]
    if k < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = _student(0.5 + level / 2, k - 1) * np.sqrt(s.var(axis=0, ddof=1) * (1 / k + test_to_train))
    return mean, np.asarray(mean - half), np.asarray(mean + half)


def _student(probability: float, freedom: np.ndarray | np.integer | int) -> np.ndarray:
    """Quantile of Student's t; scipy.stats is imported here, for it alone takes most of a second."""
    from scipy.stats import t

    return np.asarray(t.ppf(probability, freedom))
