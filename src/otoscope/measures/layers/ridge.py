"""Regularised canonical correlation from moments: fitted on some rows, scored on others."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from otoscope.errors import MeasureError
from otoscope.measures.layers.correlation import Directions, exact_directions, weighted
from otoscope.statistics import Scatter

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridges relative to the mean eigenvalue of a view."""

# Eigenvalues below this share of the greatest are rounding noise.
_NOISE = 1e-13


class View:
    """One view's covariance, decomposed once for all ridges.

    Args:
        scatter: centred scatter of the view, shape (d, d).
        mean: mean of the view, shape (d,).
        n: rows it stands for.
    """

    def __init__(self, scatter: Float[np.ndarray, "d d"], mean: Float[np.ndarray, " d"], n: float) -> None:
        values, vectors = np.linalg.eigh(scatter / n)
        kept = values > _NOISE * values[-1]
        self.values, self.vectors = values[kept], np.ascontiguousarray(vectors[:, kept])
        self.mean_eigenvalue = float(np.trace(scatter)) / n / len(scatter)
        self.constant = is_constant(scatter, mean, n)


def is_constant(scatter: Float[np.ndarray, "d d"], mean: Float[np.ndarray, " d"], n: float) -> bool:
    """Whether a view varies by no more than the rounding of its mean."""
    return not np.trace(scatter) / n > 1e-24 * float(mean @ mean)


class RidgePath:
    """Regularised canonical directions for any ridge, of two views that are decomposed already.

    With S + eps (trace S / d) I in place of S for both views (Vinod 1976): Sxx = V L V' gives
    (Sxx + e I)^(-1/2) = V (L + e)^(-1/2) V', so every ridge costs one small decomposition.

    Args:
        x: first view.
        y: second view.
        sxy: their cross-scatter, shape (dx, dy).
        n: rows it stands for.

    Raises:
        MeasureError: a view is constant.
    """

    def __init__(self, x: View, y: View, sxy: Float[np.ndarray, "dx dy"], n: float) -> None:
        if x.constant or y.constant:
            raise MeasureError("A view is constant: it has no correlation", "Leave out this view.")
        self._x, self._y = x, y
        self._cross = x.vectors.T @ (sxy / n) @ y.vectors

    def directions(self, ridge: float) -> Directions:
        """Directions at a ridge.

        Args:
            ridge: relative to the mean eigenvalue of each view, at least 0.

        Returns:
            Directions; `rho` are the regularised correlations (the singular values), the weights are those
            of Morcos et al. (2018) with variates of unit norm:
            alpha_i = sum_j |(a_i' Sxx)_j| / sqrt(a_i' Sxx a_i).
        """
        x, y = self._x, self._y
        inverse_x = 1 / np.sqrt(x.values + ridge * x.mean_eigenvalue)
        inverse_y = 1 / np.sqrt(y.values + ridge * y.mean_eigenvalue)
        white = inverse_x[:, None] * self._cross * inverse_y
        # The eigenvectors of the smaller square take a third of the time of singular vectors. Directions
        # need no scale, so the smallest singular values are never divided by.
        if white.shape[0] >= white.shape[1]:
            squares, v = np.linalg.eigh(white.T @ white)
            squares, v = squares[::-1], v[:, ::-1]
            u = white @ v
        else:
            squares, u = np.linalg.eigh(white @ white.T)
            squares, u = squares[::-1], u[:, ::-1]
            v = white.T @ u
        in_x, in_y = inverse_x[:, None] * u, inverse_y[:, None] * v
        return Directions(
            x=x.vectors @ in_x,
            y=y.vectors @ in_y,
            rho=np.sqrt(np.clip(squares, 0, None)),
            alpha_x=_alpha(x, in_x),
            alpha_y=_alpha(y, in_y),
        )


def _alpha(view: View, coefficients: np.ndarray) -> np.ndarray:
    """Weights of directions that are given in the view's eigenvectors, shape (rank, k)."""
    loadings = np.abs(view.vectors @ (view.values[:, None] * coefficients)).sum(axis=0)
    norms = np.sqrt((view.values[:, None] * coefficients**2).sum(axis=0))
    return np.divide(loadings, norms, out=np.zeros_like(norms), where=norms > 0)


def held_out(directions: Directions, scatter: Scatter) -> Float[np.ndarray, " k"]:
    """Correlations of fixed directions on other rows: p' Sxy q / sqrt(p' Sxx p q' Syy q), with their sign.

    Args:
        directions: from the rows they were fitted on.
        scatter: moments of the other rows.

    Returns:
        Correlations, shape (k,); NaN where a variate does not vary on these rows.
    """
    p, q = directions.x, directions.y
    across = np.einsum("ik,ik->k", p, scatter.sxy @ q)
    along_x = np.einsum("ik,ik->k", p, scatter.sxx @ p)
    along_y = np.einsum("ik,ik->k", q, scatter.syy @ q)
    # What rounding leaves of a variate that is constant: far below its size if all dimensions added up.
    some_x = along_x > _NOISE * np.einsum("ik,i->k", p**2, np.diagonal(scatter.sxx))
    some_y = along_y > _NOISE * np.einsum("ik,i->k", q**2, np.diagonal(scatter.syy))
    varies = some_x & some_y
    size = np.sqrt(np.where(varies, along_x * along_y, 1.0))
    return np.where(varies, np.clip(across / size, -1.0, 1.0), np.nan)


def pwcca_from_moments(train: Scatter, test: Scatter | None = None, *, weights: str = "x", ridge: float = 0.0) -> float:
    """Projection-weighted canonical correlation from streamed moments.

    Args:
        train: moments that directions and weights are taken from.
        test: moments that the correlations are taken from; those of `train` where None.
        weights: the view that weighs, or "mean".
        ridge: relative to the mean eigenvalue of each view; with 0 and no `test` the result is that of
            `pwcca` on the whole arrays.

    Returns:
        Score between -1 and 1; NaN where no variate varies on the test rows.

    Raises:
        MeasureError: fewer than two rows, a view is constant, or the weights or the ridge are none.
    """
    if min(train.n, train.n if test is None else test.n) < 2:
        raise MeasureError(
            f"{train.n:.0f} rows to fit and {train.n if test is None else test.n:.0f} to score are too few",
            "Give at least two rows each.",
        )
    if not 0 <= ridge < np.inf:
        raise MeasureError(f"A ridge of {ridge} is none", "Give a number of at least 0.")
    if is_constant(train.sxx, train.mean_x, train.n) or is_constant(train.syy, train.mean_y, train.n):
        raise MeasureError("A view is constant: it has no correlation", "Leave out this view.")
    if ridge == 0:
        directions = exact_directions(train.sxx, train.sxy, train.syy)
    else:
        path = RidgePath(
            View(train.sxx, train.mean_x, train.n), View(train.syy, train.mean_y, train.n), train.sxy, train.n
        )
        directions = path.directions(ridge)
    if test is None and ridge == 0:
        return float(weighted(directions, weights))
    return score(directions, train if test is None else test, weights)


def score(directions: Directions, scatter: Scatter, weights: str) -> float:
    """Projection-weighted held-out score; NaN where no variate varies on these rows."""
    rho = held_out(directions, scatter)
    if not np.isfinite(rho).any():
        return float("nan")
    return float(weighted(directions, weights, rho))
