"""Correlations and distances of two views from streamed moments, equal to those of whole arrays.

`pwcca_from_moments`, `pasad_score` and `ridge_r2` stand beside their formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

from otoscope.errors import MeasureError
from otoscope.measures.layers.correlation import correlations, principal
from otoscope.measures.layers.geometry import angle_of, cka_of, nuclear_norm
from otoscope.measures.layers.views import batched, centred, comparable
from otoscope.statistics import Scatter


@dataclass(frozen=True)
class NormSums:
    """What debiased CKA needs beside the moments: sums with squared norms, about the rows' own means.

    Attributes:
        squares: sum |u|^2 |v|^2 for views u and v, x before y, shape (2, 2).
        x: sum x |v|^2 for both views v, shape (2, dx).
        y: sum y |v|^2 for both views v, shape (2, dy).
    """

    squares: Float[np.ndarray, "2 2"]
    x: Float[np.ndarray, "2 dx"]
    y: Float[np.ndarray, "2 dy"]


def norm_sums(x: Float[np.ndarray, "n dx"], y: Float[np.ndarray, "n dy"]) -> NormSums:
    """Sums with squared norms of rows, shape (N, dx) and (N, dy).

    Raises:
        MeasureError: the shapes disagree, N < 2, or a value is not finite.
    """
    _, [(a, b)], _ = batched(x, y)
    a, b = centred(a)[0], centred(b)[0]
    norms = np.stack([(a**2).sum(axis=1), (b**2).sum(axis=1)])
    return NormSums(norms @ norms.T, norms @ a, norms @ b)


def pooled_norm_sums(parts: Sequence[tuple[Scatter, NormSums]]) -> NormSums:
    """Sums of several parts' rows together, about their common means.

    With u + d for u, d the distance of the part's mean from the common one, |u + d|^2 = |u|^2 + 2 d'u + |d|^2, and
    sums of u alone vanish.

    Args:
        parts: moments of each part's rows beside the sums.

    Raises:
        MeasureError: there are no parts.
    """
    n = np.array([scatter.n for scatter, _ in parts])
    if not n.sum() > 0:
        raise MeasureError("There are no rows to pool", "Give at least one part with rows.")
    means = [sum(s.n * m for s, m in zip((s for s, _ in parts), of, strict=True)) / n.sum() for of in _means(parts)]
    squares, sums = np.zeros((2, 2)), [np.zeros((2, len(mean))) for mean in means]
    for scatter, norm in parts:
        shift = scatter.mean_x - means[0], scatter.mean_y - means[1]
        across = ((scatter.sxx, scatter.sxy), (scatter.sxy.T, scatter.syy))
        own = norm.x, norm.y
        traces = np.trace(scatter.sxx), np.trace(scatter.syy)
        moved = [float(one @ one) for one in shift]
        for u, v in product(range(2), range(2)):
            turned = across[u][v] @ shift[v]
            sums[u][v] += own[u][v] + 2 * turned + shift[u] * (traces[v] + scatter.n * moved[v])
            squares[u, v] += (
                norm.squares[u, v]
                + 2 * (shift[u] @ own[u][v] + shift[v] @ own[v][u])
                + 4 * shift[u] @ turned
                + moved[v] * traces[u]
                + moved[u] * (traces[v] + scatter.n * moved[v])
            )
    return NormSums(squares, *sums)


def _means(parts: Sequence[tuple[Scatter, NormSums]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [scatter.mean_x for scatter, _ in parts], [scatter.mean_y for scatter, _ in parts]


def canonical_correlations_from_moments(scatter: Scatter, ridge: float = 0.0) -> Float[np.ndarray, " k"]:
    """Canonical correlations, as `canonical_correlations`.

    Args:
        scatter: moments of the rows.
        ridge: relative to the mean eigenvalue of each view.

    Returns:
        Correlations, strongest first, shape (min(dx, dy),); 0 beyond the rank of the narrower view.

    Raises:
        MeasureError: there are fewer than two rows, a view is constant, or the ridge is none.
    """
    rho = correlations(comparable(scatter), ridge)
    return np.concatenate([rho, np.zeros(min(scatter.sxy.shape) - len(rho))])


def mean_cca_from_moments(scatter: Scatter, ridge: float = 0.0) -> float:
    """Mean canonical correlation, as `mean_cca`; arguments and errors as `canonical_correlations_from_moments`."""
    return float(correlations(comparable(scatter), ridge).mean())


def svcca_from_moments(scatter: Scatter, variance: float = 0.99, ridge: float = 0.0) -> float:
    """Mean canonical correlation of the greatest principal components, as `svcca`.

    Args:
        scatter: moments of the rows.
        variance: share of each view's variance that is kept.
        ridge: relative to the mean eigenvalue of what is kept of each view.

    Raises:
        MeasureError: as `canonical_correlations_from_moments`, or the share is none.
    """
    return float(correlations(principal(comparable(scatter), variance), ridge).mean())


def linear_cka_from_moments(scatter: Scatter, norms: NormSums | None = None) -> float:
    """Linear centred kernel alignment, as `linear_cka`.

    Args:
        scatter: moments of the rows.
        norms: sums with squared norms of the same rows, for the debiased one.

    Raises:
        MeasureError: there are fewer than two rows (debiased four), or a view is constant.
    """
    products = None if norms is None else (norms.squares[0, 0], norms.squares[0, 1], norms.squares[1, 1])
    return float(cka_of(comparable(scatter), products))


def procrustes_from_moments(scatter: Scatter) -> float:
    """Orthogonal Procrustes distance, as `procrustes`, to about 1e-8 where views are alike.

    Raises:
        MeasureError: there are fewer than two rows, or a view is constant.
    """
    return float(np.sqrt(2 - 2 * nuclear_norm(comparable(scatter))))


def angular_shape_distance_from_moments(scatter: Scatter) -> float:
    """Angular shape distance in radians, as `angular_shape_distance`, to about 1e-8 where views are alike.

    Raises:
        MeasureError: there are fewer than two rows, or a view is constant.
    """
    return float(angle_of(np.asarray(procrustes_from_moments(scatter))))
