"""How alike two views are as shapes: linear CKA, orthogonal Procrustes, angular distance, held-out ridge regression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import array_api_compat
import numpy as np
from jaxtyping import Float

from otoscope.errors import MeasureError
from otoscope.measures.layers.ridge import RIDGES, View
from otoscope.measures.layers.views import Array, Joint, centred, comparable, constant_view, over_pairs
from otoscope.statistics import Scatter

# A debiased norm below this share of the biased one is rounding noise.
_NOISE = 1e-12


def linear_cka(x: Array, y: Array, debiased: bool = False) -> Array:
    """Linear centred kernel alignment of two views of the same rows.

        CKA = HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)), HSIC(x, y) = ||X'Y||_F^2

    of centred X and Y (Kornblith et al. 2019). It grows with dimensions and falls with rows even for unrelated views;
    debiased, HSIC is the U-statistic of Song et al. (2012), which is 0 for these on average:

        n (n - 3) HSIC(x, y) = ||X'Y||_F^2 - n / (n - 2) c + ab / ((n - 1)(n - 2))

    with a = sum |x|^2, b = sum |y|^2, c = sum |x|^2 |y|^2 over rows, so that no matrix of rows by rows is needed.
    Both are invariant to rotation, shift and a common scale of either view.

    Args:
        x: first view, shape (..., N, dx), torch or numpy.
        y: second view, shape (..., N, dy), of the same kind.
        debiased: whether to take the U-statistic; it needs four rows.

    Returns:
        Shape (...), float64: between 0 and 1, debiased between -1 and 1.

    Raises:
        MeasureError: the shapes disagree, N < 2 (debiased N < 4), a value is not finite, or a view is constant, debiased
            also where it varies in no more than one row.

    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> linear_cka(x, 2 * x[:, ::-1] + 1, debiased=True).round(6)
    np.float64(1.0)
    """

    def score(a: Any, b: Any) -> Any:
        return cka_of(Joint.of(a, b), norm_products(a, b) if debiased else None)

    return over_pairs(x, y, score)


def procrustes(x: Array, y: Array) -> Array:
    """Orthogonal Procrustes distance of two views of the same rows.

    Both views are centred and divided by their Frobenius norm; the narrower one is filled up with zeros. Then

        distance^2 = min over orthogonal R of ||X - Y R||_F^2 = 2 - 2 ||X'Y||_*

    with the nuclear norm, the sum of singular values (Schoenemann 1966; Williams et al. 2021). It is a metric on views
    up to rotation, reflection, shift and a common scale.

    Args:
        x: first view, shape (..., N, dx), torch or numpy.
        y: second view, shape (..., N, dy), of the same kind.

    Returns:
        Distance between 0 (alike) and sqrt(2) (all of X'Y is 0), shape (...), float64.

    Raises:
        MeasureError: the shapes disagree, N < 2, a value is not finite, or a view is constant.

    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> procrustes(x, 2 * x[:, ::-1] + 1) < 1e-12
    np.True_
    """
    return over_pairs(x, y, _distance)


def angular_shape_distance(x: Array, y: Array) -> Array:
    """Angle between two views of the same rows, turned onto each other as well as they can be.

        angle = arccos ||X'Y||_*

    of views as in `procrustes`, from whose distance D it differs only in scale: angle = 2 arcsin(D / 2) (Williams et
    al. 2021).

    Args:
        x: first view, shape (..., N, dx), torch or numpy.
        y: second view, shape (..., N, dy), of the same kind.

    Returns:
        Angle between 0 and pi / 2, in radians, shape (...), float64.

    Raises:
        MeasureError: as `procrustes`.

    >>> t = 2 * np.pi * np.arange(8)[:, None] / 8
    >>> angular_shape_distance(np.sin(t), np.sin(t + 1)).round(6)
    np.float64(1.0)
    """
    return over_pairs(x, y, lambda a, b: angle_of(_distance(a, b)))


def ridge_r2(
    train: Scatter, test: Scatter, ridges: Sequence[float] = RIDGES, each: bool = False
) -> Float[np.ndarray, " ridges"] | Float[np.ndarray, "ridges dy"]:
    """Share of a target's variance on other rows that ridge regression from the first view explains, from moments.

    Fitted on `train`: B = (Sxx / n + ridge (trace Sxx / (n dx)) I)^(-1) Sxy / n, with an intercept that is not shrunk.
    Scored on `test`: R^2 = 1 - sum |y - B'x|^2 / sum |y - mean|^2 with the mean of the test rows. One
    eigendecomposition serves all ridges. With 0 among them and a view of low rank it is the least-norm solution.

    Args:
        train: moments of the rows that the regression is fitted on; x explains y.
        test: moments of the rows that are scored.
        ridges: relative to the mean eigenvalue of x, at least 0.
        each: whether every column of y is scored by itself.

    Returns:
        At most 1 and below 0 where the mean would be the better guess: one for each ridge, shape (ridges,), all columns
        together, weighed by their variance; or shape (ridges, dy), NaN where a column does not vary on the test rows.

    Raises:
        MeasureError: there are fewer than two rows, x or y is constant on the training rows or y on the test rows, or
            a ridge is none.
    """
    comparable(train)
    if not all(0 <= ridge < math.inf for ridge in ridges):
        raise MeasureError(f"Among the ridges {tuple(ridges)} is one that is none", "Give numbers of at least 0.")
    total = np.diagonal(test.syy)
    varies = total > 1e-24 * test.n * test.mean_y**2
    if test.n < 2 or not varies.any():
        raise MeasureError(
            f"The target does not vary on the {test.n:.0f} rows that are scored", "Give more rows, or leave it out."
        )
    view = View(train.sxx, train.mean_x, train.n)
    loadings = view.vectors.T @ train.sxy / train.n
    found = []
    for ridge in ridges:
        slopes = view.vectors @ (loadings / (view.values + ridge * view.mean_eigenvalue)[:, None])
        # Test rows have other means, by which the intercept of the training rows misses.
        missed = test.mean_y - train.mean_y - (test.mean_x - train.mean_x) @ slopes
        explained = 2 * np.einsum("ij,ij->j", slopes, test.sxy) - np.einsum("ij,ij->j", slopes, test.sxx @ slopes)
        errors = total - explained + test.n * missed**2
        found.append(
            np.where(varies, 1 - errors / np.where(varies, total, 1), np.nan)
            if each
            else 1 - errors.sum() / total.sum()
        )
    return np.array(found)


Products = tuple[Any, Any, Any]


def norm_products(a: Any, b: Any) -> Products:
    """Sums over centred rows of |x|^4, |x|^2 |y|^2 and |y|^4, which debiased CKA needs beside the moments."""
    xp = array_api_compat.array_namespace(a)
    p, q = (xp.sum(centred(one)[0] ** 2, axis=1) for one in (a, b))
    return xp.sum(p * p), xp.sum(p * q), xp.sum(q * q)


def cka_of(joint: Joint | Scatter, products: Products | None = None) -> Any:
    """Linear CKA from moments, debiased where the products of norms are given.

    Raises:
        MeasureError: a view is constant, or there are too few rows for the debiased one.
    """
    xp, n = array_api_compat.array_namespace(joint.sxx), joint.n
    if products is not None and n < 4:
        raise MeasureError(f"{n:.0f} rows are too few to debias CKA", "Give at least four rows.")
    a, b = xp.sum(xp.linalg.diagonal(joint.sxx)), xp.sum(xp.linalg.diagonal(joint.syy))
    _varying(a, b)
    # Views of unit variance: squares of very large or small values would leave the range of numbers.
    squares = [xp.sum((s / size) ** 2) for s, size in _sized(joint, a, b)]
    if products is None:
        return squares[1] / xp.sqrt(squares[0] * squares[2])
    sizes = (a * a, a * b, b * b)
    found = [
        square - n / (n - 2) * c / size + 1 / ((n - 1) * (n - 2))
        for square, c, size in zip(squares, products, sizes, strict=True)
    ]
    for which, value, square in (("first", found[0], squares[0]), ("second", found[2], squares[2])):
        if not float(value) > _NOISE * float(square):
            raise MeasureError(
                f"The {which} view varies in too few rows to debias its CKA", "Leave out this view, or give more rows."
            )
    return found[1] / xp.sqrt(found[0] * found[2])


def _sized(joint: Joint | Scatter, a: Any, b: Any) -> list[tuple[Any, Any]]:
    xp = array_api_compat.array_namespace(joint.sxx)
    return [(joint.sxx, a), (joint.sxy, xp.sqrt(a) * xp.sqrt(b)), (joint.syy, b)]


def nuclear_norm(joint: Joint | Scatter) -> Any:
    """Sum of the singular values of X'Y, of views with unit Frobenius norm, at most 1.

    Raises:
        MeasureError: a view is constant.
    """
    xp = array_api_compat.array_namespace(joint.sxx)
    a, b = xp.sum(xp.linalg.diagonal(joint.sxx)), xp.sum(xp.linalg.diagonal(joint.syy))
    _varying(a, b)
    return xp.clip(xp.sum(xp.linalg.svdvals(joint.sxy / (xp.sqrt(a) * xp.sqrt(b)))), max=1.0)


def angle_of(distance: Any) -> Any:
    """The angle between unit vectors that are a distance apart."""
    xp = array_api_compat.array_namespace(distance)
    return 2 * xp.asin(xp.clip(distance / 2, max=math.sqrt(0.5)))


def _distance(a: Any, b: Any) -> Any:
    """Procrustes distance of rows: what remains of them, since 2 - 2 ||X'Y||_* would lose half of the digits."""
    xp = array_api_compat.array_namespace(a)
    (x, _), (y, _) = centred(a), centred(b)
    norms = xp.linalg.vector_norm(x), xp.linalg.vector_norm(y)
    _varying(*norms)
    x, y = x / norms[0], y / norms[1]
    u, _, vh = xp.linalg.svd(x.T @ y, full_matrices=True)
    x, y, k = x @ u, y @ vh.T, min(x.shape[1], y.shape[1])
    rest = xp.sum(x[:, k:] ** 2) + xp.sum(y[:, k:] ** 2)
    return xp.sqrt(xp.sum((x[:, :k] - y[:, :k]) ** 2) + rest)


def _varying(a: Any, b: Any) -> None:
    for which, size in (("first", a), ("second", b)):
        if not float(size) > 0:
            raise constant_view(which)
