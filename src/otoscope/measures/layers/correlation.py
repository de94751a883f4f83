"""Canonical correlations and their projection-weighted mean, exactly, on whole arrays or on moments.

The canonical correlations of two views are the singular values of Sxx^(-1/2) Sxy Syy^(-1/2) (Hotelling 1936).
PWCCA weights them by how much of a view each canonical variate accounts for (Morcos, Raghu and Bengio 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import array_api_compat
import numpy as np
from jaxtyping import Float

from otoscope.errors import MeasureError
from otoscope.statistics import Scatter

Array = TypeVar("Array")

CONVENTIONS = ("morcos",)
"""Conventions of the projection weights that `pwcca` knows."""

RANK_TOLERANCE = 1e-10
"""Directions with less than this share of the greatest eigenvalue (of the correlation matrix) are rounding
noise."""


@dataclass(frozen=True)
class Directions:
    """Pairs of canonical directions, strongest first.

    Attributes:
        x: directions in the first view, shape (dx, k).
        y: directions in the second view, shape (dy, k).
        rho: canonical correlations, shape (k,).
        alpha_x: projection weights by the first view, shape (k,).
        alpha_y: projection weights by the second view, shape (k,).
    """

    x: Any
    y: Any
    rho: Any
    alpha_x: Any
    alpha_y: Any


def canonical_correlations(x: Array, y: Array) -> Array:
    """Canonical correlations of two views of the same rows.

    Args:
        x: first view, shape (..., N, dx), torch or numpy.
        y: second view, shape (..., N, dy), of the same kind.

    Returns:
        Correlations, strongest first, shape (..., min(dx, dy)), float64; 0 beyond the rank of the narrower
        view. With no more rows than dimensions they are all 1.

    Raises:
        MeasureError: the shapes disagree, N < 2, a value is not finite, or a view is constant.

    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> canonical_correlations(x, x @ np.diag([1.0, 2.0, 3.0])).round(6)
    array([1., 1., 1.])
    """
    xp, pairs, leading = _batched(x, y)
    k = min(x.shape[-1], y.shape[-1])  # type: ignore[attr-defined]
    found = []
    for a, b in pairs:
        rho = exact_directions(*_covariances(xp, a, b), xp=xp).rho
        found.append(xp.concat([rho, xp.zeros(k - rho.shape[0], dtype=xp.float64, device=_device(x))]))
    return xp.reshape(xp.stack(found), (*leading, k))


def pwcca(x: Array, y: Array, weights: str = "x", convention: str = "morcos") -> Array:
    """Projection-weighted canonical correlation of two views of the same rows.

    With unit-norm canonical variates h_i of the view that weighs, and that view's centred neurons x_j:
    alpha_i = sum_j |<h_i, x_j>| and score = sum_i alpha_i rho_i / sum_i alpha_i (Morcos et al. 2018). The
    absolute values are over neurons, so covariances suffice. The score is invariant to translation, and to
    invertible linear maps of the view that does not weigh; maps of the view that weighs change its weights.
    With N <= dx + dy some correlations are 1 and equal, and their weights are not unique.

    Args:
        x: first view, shape (..., N, dx), torch or numpy.
        y: second view, shape (..., N, dy), of the same kind.
        weights: the view that weighs, or "mean" for the mean of both scores.
        convention: "morcos", the only one there is so far.

    Returns:
        Score between 0 and 1, shape (...), float64, of the same kind as `x`.

    Raises:
        MeasureError: the shapes disagree, N < 2, a value is not finite, a view is constant, or the weights
            or the convention are unknown.

    >>> x = np.random.default_rng(0).standard_normal((2, 50, 3))
    >>> pwcca(x, x + 5).round(6)
    array([1., 1.])
    """
    if convention not in CONVENTIONS:
        raise MeasureError(
            f"There is no PWCCA convention {convention!r}; there are: {', '.join(CONVENTIONS)}",
            "Choose one of these.",
        )
    _known_weights(weights)
    xp, pairs, leading = _batched(x, y)
    found = [weighted(exact_directions(*_covariances(xp, a, b), xp=xp), weights) for a, b in pairs]
    return xp.reshape(xp.stack(found), leading)


def weighted(directions: Directions, weights: str, rho: Any = None) -> Any:
    """The projection-weighted mean of correlations.

    Args:
        directions: with their weights.
        weights: the view that weighs, or "mean".
        rho: correlations shape (k,), such as held-out ones; the directions' own where None. NaN ones do not
            count.

    Returns:
        The score, a scalar array.

    Raises:
        MeasureError: there are no such weights.
    """
    _known_weights(weights)
    if weights == "mean":
        return (weighted(directions, "x", rho) + weighted(directions, "y", rho)) / 2
    values = directions.rho if rho is None else rho
    alpha = directions.alpha_x if weights == "x" else directions.alpha_y
    xp = array_api_compat.array_namespace(values)
    counts = xp.isfinite(values)
    alpha = xp.where(counts, alpha, xp.zeros_like(alpha))
    return xp.sum(alpha * xp.where(counts, values, xp.zeros_like(values))) / xp.sum(alpha)


def exact_directions(sxx: Any, sxy: Any, syy: Any, *, xp: Any = np) -> Directions:
    """Canonical directions without regularisation, rank-deficient views included.

    Args:
        sxx: centred scatter or covariance of the first view, shape (dx, dx), float64.
        sxy: cross-scatter on the same scale, shape (dx, dy).
        syy: of the second view, shape (dy, dy).
        xp: array namespace of all three.

    Returns:
        As many pairs as the lower rank of the two views.

    Raises:
        MeasureError: a view is constant.
    """
    wx, root_x = _whitening(sxx, "first", xp)
    wy, root_y = _whitening(syy, "second", xp)
    u, s, vh = xp.linalg.svd(wx.T @ sxy @ wy, full_matrices=False)
    # Rounding may carry a perfect correlation past 1 in the last digit.
    rho = xp.clip(s, max=1.0)
    return Directions(
        x=wx @ u,
        y=wy @ vh.T,
        rho=rho,
        # <h_i, x_j> = a_i' Sxx e_j, and a_i' Sxx = u_i' W' Sxx is u_i' times the square root of Sxx.
        alpha_x=xp.sum(xp.abs(u.T @ root_x), axis=1),
        alpha_y=xp.sum(xp.abs(vh @ root_y), axis=1),
    )


def _whitening(s: Any, which: str, xp: Any) -> tuple[Any, Any]:
    """W of shape (d, r) with W' S W = I on all r directions that vary, and W' S of shape (r, d)."""
    variance = xp.linalg.diagonal(s)
    # A constant dimension has a variance of 0, or of rounding noise beside the others'.
    varies = variance > RANK_TOLERANCE**2 * xp.max(variance)
    none, one = xp.zeros_like(variance), xp.ones_like(variance)
    scale = xp.where(varies, xp.sqrt(xp.where(varies, variance, one)), none)
    inverse = xp.where(varies, 1 / xp.where(varies, scale, one), none)
    if not bool(xp.any(varies)):
        raise MeasureError(f"The {which} view is constant: it has no correlation", "Leave out this view.")
    # Of the correlation matrix, for dimensions of very different size would hide each other.
    values, vectors = xp.linalg.eigh(inverse[:, None] * s * inverse[None, :])
    kept = values > RANK_TOLERANCE * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    root = xp.sqrt(values)
    return inverse[:, None] * vectors / root[None, :], root[:, None] * vectors.T * scale[None, :]


def _covariances(xp: Any, x: Any, y: Any) -> tuple[Any, Any, Any]:
    # The first row goes first, so that a constant column is exactly 0.
    x, y = x - x[:1, ...], y - y[:1, ...]
    x, y = x - xp.mean(x, axis=0), y - xp.mean(y, axis=0)
    return x.T @ x, x.T @ y, y.T @ y


def _batched(x: Any, y: Any) -> tuple[Any, list[tuple[Any, Any]], tuple[int, ...]]:
    """Checks two views and cuts them into pairs of shape (N, dx) and (N, dy) in float64."""
    try:
        xp = array_api_compat.array_namespace(x, y)
    except TypeError:
        raise MeasureError(
            f"Views of types {type(x).__name__} and {type(y).__name__} cannot be compared",
            "Give two numpy arrays or two torch tensors.",
        ) from None
    shapes = f"views of shape {tuple(x.shape)} and {tuple(y.shape)}"
    if x.ndim < 2 or y.ndim < 2 or x.shape[:-1] != y.shape[:-1]:
        raise MeasureError(
            f"The shapes disagree: {shapes}",
            "Give (..., N, dx) and (..., N, dy): the same leading dimensions and the same rows.",
        )
    if x.shape[-2] < 2 or 0 in (x.shape[-1], y.shape[-1]):
        raise MeasureError(f"Too few rows or no columns: {shapes}", "Give at least two rows and one column.")
    x, y = xp.astype(x, xp.float64), xp.astype(y, xp.float64)
    if not (bool(xp.all(xp.isfinite(x))) and bool(xp.all(xp.isfinite(y)))):
        raise MeasureError(f"Values that are not finite in {shapes}", "Remove rows with NaN or infinity.")
    leading = tuple(x.shape[:-2])
    count = math.prod(leading)
    if not count:
        raise MeasureError(f"Nothing to compare: {shapes}", "Give leading dimensions greater than 0.")
    xs, ys = xp.reshape(x, (count, *x.shape[-2:])), xp.reshape(y, (count, *y.shape[-2:]))
    return xp, [(xs[i, ...], ys[i, ...]) for i in range(count)], leading


def _known_weights(weights: str) -> None:
    if weights not in ("x", "y", "mean"):
        raise MeasureError(f"There are no PWCCA weights {weights!r}", 'Choose "x", "y" or "mean".')


def _device(x: Any) -> Any:
    return array_api_compat.device(x)


def scatter_of(x: Float[np.ndarray, "n dx"], y: Float[np.ndarray, "n dy"]) -> Scatter:
    """Moments of two whole views, shape (N, dx) and (N, dy): what `Moments` streams to.

    Raises:
        MeasureError: as `pwcca`.
    """
    _, [(a, b)], _ = _batched(x, y)
    sxx, sxy, syy = _covariances(np, a, b)
    return Scatter(float(len(a)), a.mean(axis=0), b.mean(axis=0), sxx, sxy, syy)
