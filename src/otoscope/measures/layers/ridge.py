"""Regularised canonical correlation from moments: fitted on some rows, scored on others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from otoscope.errors import MeasureError
from otoscope.measures.layers.correlation import Directions, exact_directions, weighted
from otoscope.measures.layers.views import constant_view, is_constant
from otoscope.statistics import Scatter

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridges relative to the mean eigenvalue of a view."""

SVCCA_SHARE = 0.99
"""Share of a view's variance that SVCCA keeps."""

# Eigenvalues below this share of the greatest are rounding noise.
_NOISE = 1e-13
_SINGLE = 1e-6
# Scores that differ by less are told apart in double precision.
_TELLS_APART = 1e-4


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

    def turned(self, scatter: Float[np.ndarray, "d d"], n: float) -> Float[np.ndarray, "r r"]:
        """Covariance of other rows of this view in its eigenvectors."""
        return self.vectors.T @ (scatter / n) @ self.vectors


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
            raise constant_view()
        self.x, self.y = x, y
        self.cross = x.vectors.T @ (sxy / n) @ y.vectors

    def directions(self, ridge: float, weights: str = "mean") -> Directions:
        """Directions at a ridge.

        Args:
            ridge: relative to the mean eigenvalue of each view, at least 0.
            weights: the view whose weights are wanted, "x" or "y"; those of the other are then NaN. "mean" for both.

        Returns:
            Directions; `rho` are the regularised correlations (the singular values), the weights are those
            of Morcos et al. (2018) with variates of unit norm:
            alpha_i = sum_j |(a_i' Sxx)_j| / sqrt(a_i' Sxx a_i).
        """
        x, y = self.x, self.y
        inverse_x = 1 / np.sqrt(x.values + ridge * x.mean_eigenvalue)
        inverse_y = 1 / np.sqrt(y.values + ridge * y.mean_eigenvalue)
        white = inverse_x[:, None] * self.cross * inverse_y
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
        none = np.full(len(squares), np.nan)
        return Directions(
            x=x.vectors @ in_x,
            y=y.vectors @ in_y,
            rho=np.sqrt(np.clip(squares, 0, None)),
            alpha_x=_alpha(x.values, x.vectors, in_x) if weights != "y" else none,
            alpha_y=_alpha(y.values, y.vectors, in_y) if weights != "x" else none,
        )

    def choose(
        self, ridges: Sequence[float], other: Scatter, weights: str, turned: Float[np.ndarray, "r r"] | None = None
    ) -> tuple[float, Directions | None]:
        """The ridge with the best projection-weighted score on other rows, with its directions.

        Those that single precision cannot tell from the best are scored again in double.

        Args:
            ridges: to choose from, relative to the mean eigenvalue of each view.
            other: moments of the other rows.
            weights: the view that weighs, or "mean".
            turned: the other rows' covariance of the first view, in the eigenvectors of this one; see `View.turned`.

        Returns:
            The ridge, NaN where no variate varies on the other rows; and directions, None with it.
        """
        quick = self._quick_scores(
            ridges, other, weights, self.x.turned(other.sxx, other.n) if turned is None else turned
        )
        none = float("nan"), None
        if not np.isfinite(quick).any():
            return none
        near = [r for r, one in zip(ridges, quick, strict=True) if one >= np.nanmax(quick) - _TELLS_APART]
        found = [self.directions(r, weights) for r in near]
        if len(near) == 1:
            return near[0], found[0]
        exact = [score(one, other, weights) for one in found]
        if not np.isfinite(exact).any():
            return none
        best = int(np.nanargmax(exact))
        return near[best], found[best]

    def _quick_scores(
        self, ridges: Sequence[float], other: Scatter, weights: str, turned: Float[np.ndarray, "r r"]
    ) -> np.ndarray:
        """Scores of a whole grid, shape (ridges,), to some five digits.

        In the eigenvectors of both views the other rows' moments are rotated once for all ridges. A ridge only scales
        them, row by row and column by column, which costs single precision, twice as fast, no digits.
        """
        x, y = self.x, self.y
        # Both views are brought to a mean eigenvalue of one, so that nothing leaves single precision's range.
        size_x, size_y = x.mean_eigenvalue, y.mean_eigenvalue
        between = np.sqrt(size_x * size_y)
        xx, yy = _single(turned / size_x), _single(y.turned(other.syy, other.n) / size_y)
        xy = _single(x.vectors.T @ (other.sxy / other.n) @ y.vectors / between)
        cross, axes_x, axes_y = _single(self.cross / between), _single(x.vectors), _single(y.vectors)
        values_x, values_y = x.values / size_x, y.values / size_y
        found = np.full(len(ridges), np.nan)
        for k, ridge in enumerate(ridges):
            ix, iy = (_single(1 / np.sqrt(values + ridge)) for values in (values_x, values_y))
            white = ix[:, None] * cross * iy
            if white.shape[0] >= white.shape[1]:
                _, v = eigh(white.T @ white, driver="evd", check_finite=False, overwrite_a=True)
                u = white @ v
            else:
                _, u = eigh(white @ white.T, driver="evd", check_finite=False, overwrite_a=True)
                v = white.T @ u
            in_x, in_y = ix[:, None] * u, iy[:, None] * v
            across = np.einsum("ik,ik->k", in_x, xy @ in_y)
            along_x = np.einsum("ik,ik->k", in_x, xx @ in_x)
            along_y = np.einsum("ik,ik->k", in_y, yy @ in_y)
            varies = (along_x > _SINGLE * _size(u)) & (along_y > _SINGLE * _size(v))
            if not varies.any():
                continue
            rho = np.clip(across / np.sqrt(np.where(varies, along_x * along_y, 1)), -1, 1)[varies]
            alphas = [_alpha(values_x, axes_x, in_x[:, varies])] * (weights != "y")
            alphas += [_alpha(values_y, axes_y, in_y[:, varies])] * (weights != "x")
            found[k] = np.mean([alpha @ rho / alpha.sum() for alpha in alphas])
        return found


def _size(directions: np.ndarray) -> np.ndarray:
    return np.einsum("ik,ik->k", directions, directions)


def truncated(path: RidgePath, share: float = SVCCA_SHARE) -> Directions:
    """Directions within the greatest principal components of both views, not regularised (SVCCA, Raghu et al. 2017).

    Args:
        path: of two views.
        share: of a view's variance that its components make up together.
    """
    kept_x, kept_y = (_kept(view.values, share) for view in (path.x, path.y))
    inverse_x, inverse_y = 1 / np.sqrt(path.x.values[kept_x]), 1 / np.sqrt(path.y.values[kept_y])
    white = inverse_x[:, None] * path.cross[kept_x, kept_y] * inverse_y
    u, rho, v = np.linalg.svd(white, full_matrices=False)
    in_x, in_y = inverse_x[:, None] * u, inverse_y[:, None] * v.T
    none = np.full(len(rho), np.nan)
    return Directions(path.x.vectors[:, kept_x] @ in_x, path.y.vectors[:, kept_y] @ in_y, rho.clip(max=1), none, none)


def _kept(values: np.ndarray, share: float) -> slice:
    """Of eigenvalues in rising order the fewest greatest ones that make up a share of their sum."""
    shares = np.cumsum(values[::-1]) / values.sum()
    count = int(np.searchsorted(shares, share - 1e-12)) + 1
    return slice(len(values) - min(count, len(values)), None)


def _alpha(values: np.ndarray, vectors: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Weights of directions that are given in a view's eigenvectors, shape (rank, k), in the vectors' precision."""
    scaled = values.astype(vectors.dtype)[:, None] * coefficients
    loadings = np.abs(vectors @ scaled).sum(axis=0)
    norms = np.sqrt((scaled * coefficients).sum(axis=0))
    return np.divide(loadings, norms, out=np.zeros_like(norms), where=norms > 0)


def _single(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32)


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
        raise constant_view()
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
