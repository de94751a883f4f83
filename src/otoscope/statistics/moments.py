"""First and second moments per fold that merge: in float64, centred, of fixed size.

Per fold the count n, the mean m and the centred scatter M = sum (z - m)(z - m)' are kept. Two parts merge by
d = m_b - m_a, M = M_a + M_b + d d' n_a n_b / n, m = m_a + d n_b / n (Chan, Golub and LeVeque 1983). Raw
second moments would lose digits where means dominate, as they do in speech transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg.blas import dgemm
from scipy.linalg.lapack import dsfrk, dtfttr

from otoscope.errors import MeasureError, StateError
from otoscope.statistics.state import matching


@dataclass(frozen=True)
class Scatter:
    """Joint moments of two views of the same rows.

    Attributes:
        n: rows.
        mean_x: mean of the first view, shape (dx,).
        mean_y: mean of the second view, shape (dy,).
        sxx: centred scatter sum (x - mean_x)(x - mean_x)', shape (dx, dx).
        sxy: centred cross-scatter, shape (dx, dy).
        syy: centred scatter of the second view, shape (dy, dy).
    """

    n: float
    mean_x: Float[np.ndarray, " dx"]
    mean_y: Float[np.ndarray, " dy"]
    sxx: Float[np.ndarray, "dx dx"]
    sxy: Float[np.ndarray, "dx dy"]
    syy: Float[np.ndarray, "dy dy"]

    def target(self, columns: slice) -> Scatter:
        """The same with only some columns of the second view."""
        return Scatter(
            self.n,
            self.mean_x,
            self.mean_y[columns],
            self.sxx,
            self.sxy[:, columns],
            self.syy[columns, columns],
        )


class Workspace:
    """Scratch memory that several `Moments` may share, one after another.

    Args:
        width: the greatest number of columns.
        targets: the greatest number of target columns.
        rows: how many rows are taken at a time.
    """

    def __init__(self, width: int, targets: int = 0, rows: int = 1024) -> None:
        self.rows = rows
        # One more row than is taken at a time, for the shift of the mean; see Moments.update.
        self._x = np.empty((rows + 1) * width)
        self._y = np.empty((rows + 1) * targets)

    def take(self, rows: int, width: int, targets: int) -> tuple[np.ndarray, np.ndarray]:
        """Arrays of shape (rows, width) and (rows, targets); what they hold is undefined."""
        return (
            self._x[: rows * width].reshape(rows, width),
            self._y[: rows * targets].reshape(rows, targets),
        )


class Moments:
    """Moments of rows x, and of x with a continuous target y, for every fold.

    The scatter of x is symmetric and stored once, packed (LAPACK's rectangular full packed format), which
    halves memory and lets a symmetric rank-k product add to it in place. Everything is allocated here;
    `update` allocates nothing that stays.

    Args:
        folds: number of folds F.
        width: columns d of x.
        targets: columns t of y; 0 for no target.
        workspace: scratch memory to share; its own where None.
    """

    def __init__(self, folds: int, width: int, targets: int = 0, workspace: Workspace | None = None) -> None:
        self.folds, self.width, self.targets = folds, width, targets
        self._workspace = workspace or Workspace(width, targets)
        self.n = np.zeros(folds)
        self.mean_x = np.zeros((folds, width))
        self.mean_y = np.zeros((folds, targets))
        # Written at once rather than left to np.zeros, whose pages would be taken up only as folds are first seen.
        self._sxx = np.full((folds, width * (width + 1) // 2), 0.0)
        self._sxy = np.full((folds, width, targets), 0.0)
        self._syy = np.zeros((folds, targets, targets))

    def update(self, fold: int, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Adds rows to a fold.

        Args:
            fold: counted from 0.
            x: rows, shape (n, d), float32 or float64.
            y: target of each row, shape (n, t); None where there are no targets.

        Raises:
            MeasureError: the shapes do not fit, or a value is not finite; the state is then as it was.
        """
        if (
            x.ndim != 2
            or x.shape[1] != self.width
            or (y.shape if y is not None else (len(x), 0))
            != (
                len(x),
                self.targets,
            )
        ):
            raise MeasureError(
                f"Rows of shape {x.shape} and targets of shape {None if y is None else y.shape} do not fit "
                f"moments of {self.width} columns and {self.targets} target columns",
                "Give as many targets as rows, and the widths that the moments were made with.",
            )
        if not np.isfinite(x).all() or (y is not None and not np.isfinite(y).all()):
            raise MeasureError(
                f"Rows of shape {x.shape} hold values that are not finite",
                "Check the model's weights and the recordings for NaN and infinity.",
            )
        for first in range(0, len(x), self._workspace.rows):
            part = slice(first, first + self._workspace.rows)
            self._add(fold, x[part], None if y is None else y[part])

    def _add(self, fold: int, x: np.ndarray, y: np.ndarray | None) -> None:
        n_a, n_b = self.n[fold], len(x)
        both = n_a + n_b
        z, w = self._workspace.take(n_b + 1, self.width, self.targets)
        z[:-1] = x
        mean = z[:-1].mean(axis=0)
        z[:-1] -= mean
        # The merge's d d' n_a n_b / n is one more row of the same product.
        shift = np.sqrt(n_a * n_b / both)
        delta = mean - self.mean_x[fold]
        np.multiply(delta, shift, out=z[-1])
        self.mean_x[fold] += delta * (n_b / both)
        self._add_product(fold, z)
        if y is not None and self.targets:
            w[:-1] = y
            mean = w[:-1].mean(axis=0)
            w[:-1] -= mean
            delta = mean - self.mean_y[fold]
            np.multiply(delta, shift, out=w[-1])
            self.mean_y[fold] += delta * (n_b / both)
            # Transposes, for BLAS counts in columns; both products are added in place.
            dgemm(1.0, w.T, z.T, trans_b=1, beta=1.0, c=self._sxy[fold].T, overwrite_c=1)
            dgemm(1.0, w.T, w.T, trans_b=1, beta=1.0, c=self._syy[fold].T, overwrite_c=1)
        self.n[fold] = both

    def _add_product(self, fold: int, z: np.ndarray) -> None:
        dsfrk(self.width, len(z), 1.0, z.T, 1.0, self._sxx[fold], overwrite_c=1)

    def merge(self, other: Moments) -> None:
        """Adds another state to this one, fold by fold, in place.

        Raises:
            StateError: the two differ in folds, width or targets.
        """
        mine, theirs = (
            (self.folds, self.width, self.targets),
            (other.folds, other.width, other.targets),
        )
        if mine != theirs:
            raise StateError(
                f"Moments of (folds, width, targets) {mine} and {theirs} cannot be merged",
                "Merge states of the same model, corpus and seed.",
            )
        for fold in range(self.folds):
            n_a, n_b = self.n[fold], other.n[fold]
            if not n_b:
                continue
            both = n_a + n_b
            delta_x = other.mean_x[fold] - self.mean_x[fold]
            delta_y = other.mean_y[fold] - self.mean_y[fold]
            weight = n_a * n_b / both
            self._sxx[fold] += other._sxx[fold]
            self._add_product(fold, np.sqrt(weight) * delta_x[None])
            self._sxy[fold] += other._sxy[fold] + weight * np.outer(delta_x, delta_y)
            self._syy[fold] += other._syy[fold] + weight * np.outer(delta_y, delta_y)
            self.mean_x[fold] += delta_x * (n_b / both)
            self.mean_y[fold] += delta_y * (n_b / both)
            self.n[fold] = both

    def pooled(self, folds: Sequence[int] | None = None) -> Scatter:
        """Moments of some folds together.

        Args:
            folds: which; all where None.

        Returns:
            Their joint moments; all zero where the folds are empty.
        """
        chosen = list(range(self.folds)) if folds is None else list(folds)
        n = self.n[chosen]
        total = n.sum()
        share = n / total if total else n
        mean_x, mean_y = share @ self.mean_x[chosen], share @ self.mean_y[chosen]
        # sum_f n_f (m_f - m)(m_f - m)' are the merges of all folds at once.
        between_x = np.sqrt(n)[:, None] * (self.mean_x[chosen] - mean_x)
        between_y = np.sqrt(n)[:, None] * (self.mean_y[chosen] - mean_y)
        packed = self._sxx[chosen].sum(axis=0)
        packed = dsfrk(self.width, len(chosen), 1.0, between_x.T, 1.0, packed, overwrite_c=1)
        return Scatter(
            n=float(total),
            mean_x=mean_x,
            mean_y=mean_y,
            sxx=_unpacked(self.width, packed),
            sxy=self._sxy[chosen].sum(axis=0) + between_x.T @ between_y,
            syy=self._syy[chosen].sum(axis=0) + between_y.T @ between_y,
        )

    def state(self) -> dict[str, np.ndarray]:
        """The whole state as float64 arrays (not copies)."""
        return {
            "n": self.n,
            "mean_x": self.mean_x,
            "mean_y": self.mean_y,
            "sxx": self._sxx,
            "sxy": self._sxy,
            "syy": self._syy,
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes over a state.

        Raises:
            StateError: an array is missing or has another shape.
        """
        matching(self.state(), state)
        for name, array in self.state().items():
            array[...] = state[name]


def _unpacked(width: int, packed: np.ndarray) -> np.ndarray:
    """The full symmetric matrix of a packed upper triangle."""
    upper = np.triu(dtfttr(width, packed)[0])
    full = upper + upper.T
    np.fill_diagonal(full, upper.diagonal())
    return full
