"""Projection-weighted CCA as released with the layer-wise analyses of speech models, its peculiarities included.

Fitted on some rows, with both scatters divided by their greatest absolute entry:

    drop neurons with variance < eps; Wx = (Sxx + eps I)^(-1/2); U s V' = svd(Wx Sxy Wy); P = U' Wx, Q = V' Wy

and scored on any rows, by their own means, with k directions:

    h_i = P_i (x - mean), rho_i = corr(h_i, g_i), d_i = h_i + mean_i, Z = QR basis of d_1 ... d_k in this order,
    a_i = sum over the first k neurons of |<z_i, x_j>| with x_j not centred, score = sum_i a_i rho_i / sum_i a_i

(released code of Pasad, Chou and Livescu 2021, Pasad, Shi and Livescu 2023 and 2024). The mean of neuron i is added to
direction i, neurons are not centred, and of the wider view only the first k count. So the score changes where a constant
is added to neurons or their order changes, and even with the signs that the singular value decomposition happens to
give to directions (here LAPACK's). `pwcca`'s own convention has none of this.

One thing is not reproduced: a direction in which a view does not vary, as one-hot labels have one because their columns
add up to 1, is divided rounding noise there, with a correlation at random and the largest weight. It is dropped
here, and k is one less.
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat

from otoscope.errors import MeasureError
from otoscope.measures.layers.views import Joint, comparable, constant_view, known_weights
from otoscope.statistics import Scatter

EPSILON = 1e-10
"""What the released code adds to the diagonal of the scaled covariances, the middle of its grid."""

# Eigenvalues below this share of the greatest are rounding noise.
_NOISE = 1e-13
# Of the QR basis: a direction that adds less than this share to those before it adds rounding noise.
_DEPENDENT = 1e-9


def pasad_score(
    train: Scatter, test: Scatter, weights: str | None = None, eps: float | tuple[float, float] = EPSILON
) -> float:
    """The released code's score, fitted on some rows and scored on others, from their moments.

    The basis Z needs no rows: <d_i, d_j> and <d_i, x_j> follow from scatters and means.

    Args:
        train: moments of the rows that directions are fitted on.
        test: moments of the rows that are scored: those of the test fold, or of the dev fold to choose eps by.
        weights: the view that weighs, "x" or "y"; "mean" for the mean of both scores; None for the view that has fewer
            neurons left, "y" where both have as many.
        eps: added to the diagonal of both scaled covariances, and the variance below which a neuron is dropped; two
            numbers for the two views. The released code chooses from 1e-11, 1e-10 and 1e-9 for each.

    Returns:
        Score between -1 and 1.

    Raises:
        MeasureError: there are fewer than two rows, a view is constant, weights or eps are none, or there are
            directions that do not vary on the test rows, as where these are fewer than directions: the released code
            stops there or weighs rounding noise.
    """
    if weights is not None:
        known_weights(weights)
    both = eps if isinstance(eps, tuple) else (eps, eps)
    if not all(0 < one < math.inf for one in both):
        raise MeasureError(f"An eps of {eps} is none", "Give a number above 0, such as 1e-10, or two.")
    return float(pasad_of(comparable(train), comparable(test), weights, both))


def pasad_of(train: Joint | Scatter, test: Joint | Scatter, weights: str | None, eps: tuple[float, float]) -> Any:
    """The score from moments of any kind of array; see `pasad_score`.

    Raises:
        MeasureError: a view is constant, or there are directions that do not vary on the test rows.
    """
    xp = array_api_compat.array_namespace(train.sxx)
    wx, kept_x, rank_x, scale_x = _whitening(train.sxx, eps[0], "first", xp)
    wy, kept_y, rank_y, scale_y = _whitening(train.syy, eps[1], "second", xp)
    sxy = train.sxy[kept_x, :][:, kept_y] / xp.sqrt(scale_x * scale_y)
    u, _, vh = xp.linalg.svd(wx @ sxy @ wy, full_matrices=False)
    k = min(rank_x, rank_y)
    p, q = u.T[:k, :] @ wx, vh[:k, :] @ wy
    if test.n <= k:
        raise MeasureError(
            f"{test.n:.0f} rows cannot be scored in {k} directions",
            "Give more rows than the narrower view has neurons.",
        )
    sxx, sxy, syy = test.sxx[kept_x, :][:, kept_x], test.sxy[kept_x, :][:, kept_y], test.syy[kept_y, :][:, kept_y]
    across = xp.sum((p @ sxy) * q, axis=1)
    along_x, along_y = xp.sum((p @ sxx) * p, axis=1), xp.sum((q @ syy) * q, axis=1)
    varies = xp.minimum(along_x / xp.max(along_x), along_y / xp.max(along_y)) > _NOISE
    if not bool(xp.all(varies)):
        raise _still(k)
    rho = across / xp.sqrt(along_x * along_y)
    if weights is None:
        weights = "x" if wx.shape[0] < wy.shape[0] else "y"
    scores = []
    if weights in ("x", "mean"):
        scores.append(_weighted(rho, p, sxx, test.mean_x[kept_x], test.n, xp))
    if weights in ("y", "mean"):
        scores.append(_weighted(rho, q, syy, test.mean_y[kept_y], test.n, xp))
    return sum(scores) / len(scores)


def _whitening(s: Any, eps: float, which: str, xp: Any) -> tuple[Any, Any, int, Any]:
    """(S + eps I)^(-1/2) of the scaled scatter on the neurons that vary, which these are, S's rank, and the scale."""
    scale = xp.max(xp.abs(s))
    if not float(scale) > 0:
        raise constant_view(which)
    kept = xp.linalg.diagonal(s) / scale >= eps
    values, vectors = xp.linalg.eigh(s[kept, :][:, kept] / scale)
    varies = values > _NOISE * values[-1]
    values, vectors = values[varies], vectors[:, varies]
    # The symmetric root, not any other: the signs of directions and the order of neurons hang on it.
    return (vectors / xp.sqrt(values + eps)[None, :]) @ vectors.T, kept, int(values.shape[0]), scale


def _weighted(rho: Any, p: Any, s: Any, mean: Any, n: float, xp: Any) -> Any:
    """The weighted mean of correlations by one view.

    Rows orthogonal to the constant and the constant itself are told apart: with C = P S P' = V L V', the columns of
    [L^(1/2) V'; sqrt(n) m'] have the same products with each other as the d_i, and those of
    [L^(-1/2) V' (P S)_k; sqrt(n) m'] the same products with them as the first k neurons. So the small QR stands for the
    one of all rows, and large means cost no digits.
    """
    k = p.shape[0]
    loadings = p @ s
    values, vectors = xp.linalg.eigh(loadings @ p.T)
    varies = values > _NOISE * values[-1]
    root, vectors = xp.sqrt(values[varies])[:, None], vectors[:, varies]
    constant = math.sqrt(n) * mean[None, :k]
    basis, triangle = xp.linalg.qr(xp.concat([root * vectors.T, constant]))
    lengths = xp.abs(xp.linalg.diagonal(triangle))
    if lengths.shape[0] < k or not bool(xp.all(lengths > _DEPENDENT * xp.max(lengths))):
        raise _still(k)
    neurons = xp.concat([(vectors.T @ loadings[:, :k]) / root, constant])
    alpha = xp.sum(xp.abs(basis.T @ neurons), axis=1)
    return xp.sum(alpha * rho) / xp.sum(alpha)


def _still(k: int) -> MeasureError:
    return MeasureError(
        f"Some of {k} directions do not vary on the rows that are scored, and this convention has no weight for them",
        "Give folds that hold all labels, or choose the convention morcos.",
    )
