"""Canonical correlations, their mean and their projection-weighted mean, exactly, on whole arrays.

The canonical correlations of two views are the singular values of Sxx^(-1/2) Sxy Syy^(-1/2) (Hotelling 1936).
SVCCA takes their mean between the greatest principal components (Raghu et al. 2017); PWCCA weights them by how much
of a view each canonical variate accounts for (Morcos, Raghu and Bengio 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
from jaxtyping import Float

from otoscope.errors import MeasureError
from otoscope.measures.layers.pasad import EPSILON, pasad_of
from otoscope.measures.layers.views import Array, Joint, batched, constant_view, known_weights, over_pairs
from otoscope.statistics import Scatter

CONVENTIONS = ("morcos", "pasad", "pasad-2021")
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


def canonical_correlations(x: Array, y: Array, ridge: float = 0.0) -> Array:
    """Canonical correlations of two views of the same rows.

    With a ridge, Sxx + ridge (trace Sxx / dx) I stands in place of Sxx and likewise for Syy (Vinod 1976), and what is
    given are the singular values that result: the correlations of the variates, shrunk by how much the ridge adds to
    their variance. They fall as the ridge grows. Without one, the result is invariant to any invertible affine map of
    either view; with one, to rotation, shift and a common scale.

    Args:
        x: first view, shape (..., N, dx), torch or numpy.
        y: second view, shape (..., N, dy), of the same kind.
        ridge: relative to the mean eigenvalue of each view, at least 0.

    Returns:
        Correlations, strongest first, shape (..., min(dx, dy)), float64; 0 beyond the rank of the narrower
        view. With no more rows than dimensions and no ridge they are all 1.

    Raises:
        MeasureError: the shapes disagree, N < 2, a value is not finite, a view is constant, or the ridge is none.

    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> canonical_correlations(x, x @ np.diag([1.0, 2.0, 3.0])).round(6)
    array([1., 1., 1.])
    """

    def padded(a: Any, b: Any) -> Any:
        rho = correlations(Joint.of(a, b), ridge)
        xp = array_api_compat.array_namespace(a)
        beyond = min(a.shape[1], b.shape[1]) - rho.shape[0]
        return xp.concat([rho, xp.zeros(beyond, dtype=xp.float64, device=array_api_compat.device(a))])

    return over_pairs(x, y, padded)


def mean_cca(x: Array, y: Array, ridge: float = 0.0) -> Array:
    """Mean canonical correlation of two views of the same rows.

    The mean is over as many correlations as the lower rank of the two views has: those that `canonical_correlations`
    fills up with 0 do not count, so that one-hot labels in a view that holds them score 1.

    Args:
        x: first view, shape (..., N, dx), torch or numpy.
        y: second view, shape (..., N, dy), of the same kind.
        ridge: relative to the mean eigenvalue of each view, at least 0; see `canonical_correlations`.

    Returns:
        Score between 0 and 1, shape (...), float64, of the same kind as `x`.

    Raises:
        MeasureError: as `canonical_correlations`.

    >>> x = np.random.default_rng(0).standard_normal((2, 50, 3))
    >>> mean_cca(x, x[..., :2] - 1).round(6)
    array([1., 1.])
    """
    return over_pairs(x, y, lambda a, b: _mean(correlations(Joint.of(a, b), ridge)))


def svcca(x: Array, y: Array, variance: float = 0.99, ridge: float = 0.0) -> Array:
    """Mean canonical correlation of the greatest principal components of two views (SVCCA, Raghu et al. 2017).

    Each view is cut down to the fewest eigenvectors of its covariance that make up a share of its variance. Some
    published code takes the share of the singular values' sum instead, which keeps more of them. Invariant to
    rotation, shift and a common scale of either view, not to other linear maps.

    Args:
        x: first view, shape (..., N, dx), torch or numpy.
        y: second view, shape (..., N, dy), of the same kind.
        variance: share of each view's variance that is kept, greater than 0 and at most 1.
        ridge: relative to the mean eigenvalue of what is kept of each view, at least 0.

    Returns:
        Score between 0 and 1, shape (...), float64, of the same kind as `x`.

    Raises:
        MeasureError: as `canonical_correlations`, or the share is none.

    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> svcca(x, 2 * x[:, ::-1] + 1).round(6)
    np.float64(1.0)
    """
    return over_pairs(x, y, lambda a, b: _mean(correlations(principal(Joint.of(a, b), variance), ridge)))


def pwcca(x: Array, y: Array, weights: str | None = None, convention: str = "morcos") -> Array:
    """Projection-weighted canonical correlation of two views of the same rows.

    With unit-norm canonical variates h_i of the view that weighs, and that view's centred neurons x_j:
    alpha_i = sum_j |<h_i, x_j>| and score = sum_i alpha_i rho_i / sum_i alpha_i (Morcos et al. 2018). The
    absolute values are over neurons, so covariances suffice. The score is invariant to translation, and to
    invertible linear maps of the view that does not weigh; maps of the view that weighs change its weights.
    With N <= dx + dy some correlations are 1 and equal, and their weights are not unique.

    Two more conventions give the numbers of published analyses of speech models, which have none of these
    invariances; see `otoscope.measures.layers.pasad` for their formulas.

    Args:
        x: first view, shape (..., N, dx), torch or numpy.
        y: second view, shape (..., N, dy), of the same kind.
        weights: the view that weighs, "x" or "y", or "mean" for the mean of both scores. None is "x" for "morcos",
            the narrower view ("y" where both are equally wide) for "pasad", and "mean" for "pasad-2021".
        convention: "morcos"; "pasad", the released code of Pasad et al. (2023, 2024), fitted and scored on the same
            rows; or "pasad-2021", the same with the mean of both scores, as in Pasad, Chou and Livescu (2021).

    Returns:
        Score between 0 and 1, shape (...), float64, of the same kind as `x`.

    Raises:
        MeasureError: the shapes disagree, N < 2, a value is not finite, a view is constant, or the weights
            or the convention are unknown or do not go together.

    >>> x = np.random.default_rng(0).standard_normal((2, 50, 3))
    >>> pwcca(x, x + 5).round(6)
    array([1., 1.])
    """
    if convention not in CONVENTIONS:
        raise MeasureError(
            f"There is no PWCCA convention {convention!r}; there are: {', '.join(CONVENTIONS)}",
            "Choose one of these.",
        )
    if weights is not None:
        known_weights(weights)
    if convention == "pasad-2021":
        if weights not in (None, "mean"):
            raise MeasureError(
                f"Convention pasad-2021 averages both views' scores; weights {weights!r} are another",
                'Leave out the weights, or choose convention="pasad".',
            )
        weights = "mean"

    def score(a: Any, b: Any) -> Any:
        joint = Joint.of(a, b)
        if convention == "morcos":
            xp = array_api_compat.array_namespace(a)
            return weighted(exact_directions(joint.sxx, joint.sxy, joint.syy, xp=xp), weights or "x")
        return pasad_of(joint, joint, weights, (EPSILON, EPSILON))

    return over_pairs(x, y, score)


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
    known_weights(weights)
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


def correlations(joint: Joint | Scatter, ridge: float) -> Any:
    """Canonical correlations from moments, as many as the lower rank of the two views; see `canonical_correlations`.

    Raises:
        MeasureError: a view is constant, or the ridge is none.
    """
    if not 0 <= ridge < math.inf:
        raise MeasureError(f"A ridge of {ridge} is none", "Give a number of at least 0.")
    xp = array_api_compat.array_namespace(joint.sxx)
    if ridge == 0:
        return exact_directions(joint.sxx, joint.sxy, joint.syy, xp=xp).rho
    rank = min(_whitening(joint.sxx, "first", xp)[0].shape[1], _whitening(joint.syy, "second", xp)[0].shape[1])
    white = _shrunk(joint.sxx, ridge, xp).T @ joint.sxy @ _shrunk(joint.syy, ridge, xp)
    return xp.clip(xp.linalg.svdvals(white)[:rank], max=1.0)


def principal(joint: Joint | Scatter, variance: float) -> Joint:
    """Moments of the greatest principal components of both views.

    Args:
        joint: moments of two views.
        variance: share of each view's variance that is kept.

    Raises:
        MeasureError: a view is constant, or the share is none.
    """
    if not 0 < variance <= 1:
        raise MeasureError(f"A share of variance of {variance} is none", "Give a number above 0 and up to 1.")
    vx, vy = _components(joint.sxx, "first", variance), _components(joint.syy, "second", variance)
    return Joint(
        joint.n, joint.mean_x @ vx, joint.mean_y @ vy, vx.T @ joint.sxx @ vx, vx.T @ joint.sxy @ vy,
        vy.T @ joint.syy @ vy,
    )  # fmt: skip


def _components(s: Any, which: str, variance: float) -> Any:
    """Of eigenvectors of a scatter the fewest greatest that make up a share of its trace, shape (d, k)."""
    xp = array_api_compat.array_namespace(s)
    values, vectors = xp.linalg.eigh(s)
    total = xp.sum(values)
    if not float(total) > 0:
        raise constant_view(which)
    shares = xp.cumulative_sum(xp.flip(values)) / total
    # Rounding may keep the shares' sum below 1.
    count = int(xp.sum(xp.astype(shares < variance - 1e-12, xp.int64))) + 1
    return vectors[:, -min(count, vectors.shape[1]) :]


def _mean(rho: Any) -> Any:
    return array_api_compat.array_namespace(rho).mean(rho)


def _shrunk(s: Any, ridge: float, xp: Any) -> Any:
    """W of shape (d, d) with W W' = (S + ridge (trace S / d) I)^(-1)."""
    values, vectors = xp.linalg.eigh(s)
    values = xp.clip(values, min=0.0)
    return vectors / xp.sqrt(values + ridge * xp.mean(values))[None, :]


def _whitening(s: Any, which: str, xp: Any) -> tuple[Any, Any]:
    """W of shape (d, r) with W' S W = I on all r directions that vary, and W' S of shape (r, d)."""
    variance = xp.linalg.diagonal(s)
    # A constant dimension has a variance of 0, or of rounding noise beside the others'.
    varies = variance > RANK_TOLERANCE**2 * xp.max(variance)
    none, one = xp.zeros_like(variance), xp.ones_like(variance)
    scale = xp.where(varies, xp.sqrt(xp.where(varies, variance, one)), none)
    inverse = xp.where(varies, 1 / xp.where(varies, scale, one), none)
    if not bool(xp.any(varies)):
        raise constant_view(which)
    # Of the correlation matrix, for dimensions of very different size would hide each other.
    values, vectors = xp.linalg.eigh(inverse[:, None] * s * inverse[None, :])
    kept = values > RANK_TOLERANCE * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    root = xp.sqrt(values)
    return inverse[:, None] * vectors / root[None, :], root[:, None] * vectors.T * scale[None, :]


def scatter_of(x: Float[np.ndarray, "n dx"], y: Float[np.ndarray, "n dy"]) -> Scatter:
    """Moments of two whole views, shape (N, dx) and (N, dy): what `Moments` streams to.

    Raises:
        MeasureError: the shapes disagree, N < 2, or a value is not finite.
    """
    _, [(a, b)], _ = batched(x, y)
    joint = Joint.of(a, b)
    return Scatter(joint.n, joint.mean_x, joint.mean_y, joint.sxx, joint.sxy, joint.syy)
