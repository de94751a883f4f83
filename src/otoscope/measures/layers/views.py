"""Two views of the same rows: checked, cut along their leading dimensions, summed up as joint moments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import array_api_compat
import numpy as np
from jaxtyping import Float

from otoscope.errors import MeasureError
from otoscope.statistics import Scatter

Array = TypeVar("Array")

LARGEST = 1e75
"""Values beyond it, or below its inverse, have fourth powers, or sums of these, that double precision cannot hold."""


@dataclass(frozen=True)
class Joint:
    """Joint moments of two views, as `Scatter`, of whatever kind of array the views are.

    Attributes:
        n: rows.
        mean_x: mean of the first view, shape (dx,).
        mean_y: mean of the second view, shape (dy,).
        sxx: centred scatter of the first view, shape (dx, dx).
        sxy: centred cross-scatter, shape (dx, dy).
        syy: centred scatter of the second view, shape (dy, dy).
    """

    n: float
    mean_x: Any
    mean_y: Any
    sxx: Any
    sxy: Any
    syy: Any

    @classmethod
    def of(cls, x: Any, y: Any) -> Joint:
        """The moments of rows, shape (N, dx) and (N, dy)."""
        (x, mean_x), (y, mean_y) = centred(x), centred(y)
        return cls(float(x.shape[0]), mean_x, mean_y, x.T @ x, x.T @ y, y.T @ y)


def centred(x: Any) -> tuple[Any, Any]:
    """Rows without their mean, shape (N, d), and the mean, shape (d,)."""
    xp = array_api_compat.array_namespace(x)
    # The first row goes first, so that a constant column is exactly 0.
    first = x[0, :]
    x = x - first
    shift = xp.mean(x, axis=0)
    return x - shift, first + shift


def over_pairs(x: Any, y: Any, score: Callable[[Any, Any], Any]) -> Any:
    """A score of two views for each of their leading dimensions.

    Args:
        x: first view, shape (..., N, dx), torch or numpy.
        y: second view, shape (..., N, dy), of the same kind.
        score: takes float64 rows of shape (N, dx) and (N, dy), gives an array of one shape for all.

    Returns:
        Shape (..., *score's shape).

    Raises:
        MeasureError: the shapes disagree, N < 2, or a value is not real, not finite, or too large or small to be squared.
    """
    xp, pairs, leading = batched(x, y)
    found = xp.stack([score(a, b) for a, b in pairs])
    return xp.reshape(found, (*leading, *found.shape[1:]))


def batched(x: Any, y: Any) -> tuple[Any, list[tuple[Any, Any]], tuple[int, ...]]:
    """Checks two views and cuts them into pairs of shape (N, dx) and (N, dy) in float64.

    Returns:
        Array namespace, pairs, leading dimensions.

    Raises:
        MeasureError: as `over_pairs`.
    """
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
    if not all(xp.isdtype(one.dtype, ("bool", "integral", "real floating")) for one in (x, y)):
        raise MeasureError(f"Values of types {x.dtype} and {y.dtype} are not all real", "Give real numbers.")
    x, y = xp.astype(x, xp.float64), xp.astype(y, xp.float64)
    if not (bool(xp.all(xp.isfinite(x))) and bool(xp.all(xp.isfinite(y)))):
        raise MeasureError(f"Values that are not finite in {shapes}", "Remove rows with NaN or infinity.")
    for one in (x, y):
        size = float(xp.max(xp.abs(one))) if math.prod(one.shape) else 0.0
        if size > LARGEST or 0 < size < 1 / LARGEST:
            raise MeasureError(
                f"Values of up to {size:.0e} in {shapes} have squares that leave the range of numbers",
                "Scale the view: no score depends on a common scale.",
            )
    leading = tuple(x.shape[:-2])
    count = math.prod(leading)
    if not count:
        raise MeasureError(f"Nothing to compare: {shapes}", "Give leading dimensions greater than 0.")
    xs, ys = xp.reshape(x, (count, *x.shape[-2:])), xp.reshape(y, (count, *y.shape[-2:]))
    return xp, [(xs[i, ...], ys[i, ...]) for i in range(count)], leading


def constant_view(which: str = "") -> MeasureError:
    """The error for a view that does not vary; `which` is "first", "second" or nothing."""
    name = f"The {which} view" if which else "A view"
    return MeasureError(f"{name} is constant: it has no correlation", "Leave out this view.")


def is_constant(scatter: Float[np.ndarray, "d d"], mean: Float[np.ndarray, " d"], n: float) -> bool:
    """Whether a view varies by no more than the rounding of its mean."""
    return not np.trace(scatter) / n > 1e-24 * float(mean @ mean)


def comparable(scatter: Scatter) -> Scatter:
    """The same moments, once they are found fit to be compared.

    Raises:
        MeasureError: there are fewer than two rows, a moment is not finite, or a view is constant.
    """
    if not scatter.n >= 2:
        raise MeasureError(f"Moments of {scatter.n:.0f} rows are too few", "Give at least two rows.")
    if not all(np.isfinite(one).all() for one in (scatter.sxx, scatter.sxy, scatter.syy)):
        raise MeasureError("Moments that are not finite", "Remove rows with NaN or infinity.")
    if is_constant(scatter.sxx, scatter.mean_x, scatter.n):
        raise constant_view("first")
    if is_constant(scatter.syy, scatter.mean_y, scatter.n):
        raise constant_view("second")
    return scatter


def known_weights(weights: str) -> None:
    """Refuses a name of a view that weighs correlations which is none.

    Raises:
        MeasureError: it is neither "x", "y" nor "mean".
    """
    if weights not in ("x", "y", "mean"):
        raise MeasureError(f"There are no PWCCA weights {weights!r}", 'Choose "x", "y" or "mean".')
