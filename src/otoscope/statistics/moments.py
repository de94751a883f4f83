"""First and second moments per fold that merge: in float64, centred, of fixed size.

Per fold the count n, the mean m and the centred scatter M = sum (z - m)(z - m)' are kept. Two parts merge by
d = m_b - m_a, M = M_a + M_b + d d' n_a n_b / n, m = m_a + d n_b / n (Chan, Golub and LeVeque 1983). Raw
second moments would lose digits where means dominate, as they do in speech transformers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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


class Workspace:
    """Scratch memory that several `Moments` may share, one after another.

    Args:
        width: the greatest number of columns.
        targets: the greatest number of columns of a target.
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


class Target:
    """What one continuous target adds to the moments of x: a thin cross-scatter.

    Args:
        folds: number of folds F.
        width: columns d of x.
        columns: columns t of y.
        borrowed: the scatter of y is kept elsewhere, as that of another stream, and not here.
    """

    def __init__(self, folds: int, width: int, columns: int, borrowed: bool = False) -> None:
        self.columns, self.borrowed = columns, borrowed
        self.mean = np.zeros((folds, columns))
        # Written at once rather than left to np.zeros, whose pages would be taken up only as folds are first seen.
        self.sxy = np.full((folds, width, columns), 0.0)
        self.syy = np.zeros((folds, 0, 0) if borrowed else (folds, columns, columns))

    def add(self, fold: int, y: np.ndarray, w: np.ndarray, z: np.ndarray, shift: float, weight: float) -> None:
        """Adds rows beside the centred rows z of x, whose last row is the shift of its mean."""
        w[:-1] = y
        mean = w[:-1].mean(axis=0)
        w[:-1] -= mean
        delta = mean - self.mean[fold]
        np.multiply(delta, shift, out=w[-1])
        self.mean[fold] += delta * weight
        # Transposes, for BLAS counts in columns; both products are added in place.
        dgemm(1.0, w.T, z.T, trans_b=1, beta=1.0, c=self.sxy[fold].T, overwrite_c=1)
        if not self.borrowed:
            dgemm(1.0, w.T, w.T, trans_b=1, beta=1.0, c=self.syy[fold].T, overwrite_c=1)

    def merge(self, other: Target, fold: int, delta_x: np.ndarray, weight: float, share: float) -> None:
        """Adds another state's fold; see `Moments.merge`."""
        delta = other.mean[fold] - self.mean[fold]
        self.sxy[fold] += other.sxy[fold] + weight * np.outer(delta_x, delta)
        if not self.borrowed:
            self.syy[fold] += other.syy[fold] + weight * np.outer(delta, delta)
        self.mean[fold] += delta * share


class Moments:
    """Moments of rows x, and of x with any number of continuous targets, for every fold.

    The scatter of x is kept once, whatever the number of targets. It is symmetric and stored packed (LAPACK's
    rectangular full packed format), which halves memory and lets a symmetric rank-k product add to it in place.
    Everything is allocated here; `update` allocates nothing that stays.

    Args:
        folds: number of folds F.
        width: columns d of x.
        targets: columns of each target, by name; a number for one target without a name.
        workspace: scratch memory to share; its own where None.
        borrowed: names of targets whose own scatter is kept elsewhere.
    """

    def __init__(
        self,
        folds: int,
        width: int,
        targets: int | Mapping[str, int] = 0,
        workspace: Workspace | None = None,
        borrowed: Collection[str] = (),
    ) -> None:
        self.folds, self.width = folds, width
        named = targets if isinstance(targets, Mapping) else {"": targets} if targets else {}
        self._workspace = workspace or Workspace(width, max(named.values(), default=0))
        self.n = np.zeros(folds)
        self.mean_x = np.zeros((folds, width))
        # Written at once, as in `Target`.
        self._sxx = np.full((folds, width * (width + 1) // 2), 0.0)
        self.targets = {name: Target(folds, width, columns, name in borrowed) for name, columns in named.items()}

    def update(self, fold: int, x: np.ndarray, y: np.ndarray | Mapping[str, np.ndarray] | None = None) -> None:
        """Adds rows to a fold.

        Args:
            fold: counted from 0.
            x: rows, shape (n, d), float32 or float64.
            y: the targets of each row by name, shape (n, t) each; an array where the one target has no name, None
                where there is none.

        Raises:
            MeasureError: the shapes do not fit, or a value is not finite; the state is then as it was.
        """
        given = y if isinstance(y, Mapping) else {} if y is None else {"": y}
        wanted = {name: (len(x), one.columns) for name, one in self.targets.items()}
        if x.ndim != 2 or x.shape[1] != self.width or {name: one.shape for name, one in given.items()} != wanted:
            raise MeasureError(
                f"Rows of shape {x.shape} and targets of shape {[one.shape for one in given.values()]} do not fit "
                f"moments of {self.width} columns and targets of {[one.columns for one in self.targets.values()]}",
                "Give as many targets as rows, and the widths that the moments were made with.",
            )
        if not np.isfinite(x).all() or not all(np.isfinite(one).all() for one in given.values()):
            raise MeasureError(
                f"Rows of shape {x.shape} hold values that are not finite",
                "Check the model's weights and the recordings for NaN and infinity.",
            )
        for first in range(0, len(x), self._workspace.rows):
            part = slice(first, first + self._workspace.rows)
            self._add(fold, x[part], {name: one[part] for name, one in given.items()})

    def _add(self, fold: int, x: np.ndarray, y: Mapping[str, np.ndarray]) -> None:
        n_a, n_b = self.n[fold], len(x)
        both = n_a + n_b
        z, _ = self._workspace.take(n_b + 1, self.width, 0)
        z[:-1] = x
        mean = z[:-1].mean(axis=0)
        z[:-1] -= mean
        # The merge's d d' n_a n_b / n is one more row of the same product.
        shift = np.sqrt(n_a * n_b / both)
        delta = mean - self.mean_x[fold]
        np.multiply(delta, shift, out=z[-1])
        self.mean_x[fold] += delta * (n_b / both)
        self._add_product(fold, z)
        for name, rows in y.items():
            _, w = self._workspace.take(n_b + 1, 0, rows.shape[1])
            self.targets[name].add(fold, rows, w, z, shift, n_b / both)
        self.n[fold] = both

    def _add_product(self, fold: int, z: np.ndarray) -> None:
        dsfrk(self.width, len(z), 1.0, z.T, 1.0, self._sxx[fold], overwrite_c=1)

    def merge(self, other: Moments) -> None:
        """Adds another state to this one, fold by fold, in place.

        Raises:
            StateError: the two differ in folds, width or targets.
        """
        mine, theirs = ((m.folds, m.width, {k: t.columns for k, t in m.targets.items()}) for m in (self, other))
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
            delta = other.mean_x[fold] - self.mean_x[fold]
            weight, share = n_a * n_b / both, n_b / both
            self._sxx[fold] += other._sxx[fold]
            self._add_product(fold, np.sqrt(weight) * delta[None])
            for name, target in self.targets.items():
                target.merge(other.targets[name], fold, delta, weight, share)
            self.mean_x[fold] += delta * share
            self.n[fold] = both

    def pooled(
        self,
        folds: Sequence[int] | None = None,
        target: str | None = None,
        own: Scatter | None = None,
        beside: Scatter | None = None,
    ) -> Scatter:
        """Moments of some folds together.

        Args:
            folds: which; all where None.
            target: name of the target beside x; None for the only one, or none at all where there are several.
            own: of a borrowed target: what `pooled` gives for it as x, on the same rows.
            beside: what `pooled` gave for the same folds and another target, whose scatter of x is taken over.

        Returns:
            Their joint moments; all zero where the folds are empty.

        Raises:
            StateError: a borrowed target comes without its own moments, or with those of other rows.
        """
        chosen = list(range(self.folds)) if folds is None else list(folds)
        if target is None and len(self.targets) == 1:
            target = next(iter(self.targets))
        n = self.n[chosen]
        total = n.sum()
        share = n / total if total else n
        mean_x = share @ self.mean_x[chosen]
        # sum_f n_f (m_f - m)(m_f - m)' are the merges of all folds at once.
        between_x = np.sqrt(n)[:, None] * (self.mean_x[chosen] - mean_x)
        if beside is None:
            packed = self._sxx[chosen].sum(axis=0)
            packed = dsfrk(self.width, len(chosen), 1.0, between_x.T, 1.0, packed, overwrite_c=1)
            sxx = _unpacked(self.width, packed)
        else:
            sxx = beside.sxx
        if target is None:
            none = np.zeros((self.width, 0))
            return Scatter(float(total), mean_x, none[0], sxx, none, none[:0])
        y = self.targets[target]
        mean_y = share @ y.mean[chosen]
        between_y = np.sqrt(n)[:, None] * (y.mean[chosen] - mean_y)
        if y.borrowed and (own is None or own.n != total):
            raise StateError(
                f"The scatter of target {target!r} is not kept here",
                "Give the target's own moments on the same rows.",
            )
        return Scatter(
            n=float(total),
            mean_x=mean_x,
            mean_y=mean_y,
            sxx=sxx,
            sxy=y.sxy[chosen].sum(axis=0) + between_x.T @ between_y,
            syy=own.sxx if y.borrowed and own is not None else y.syy[chosen].sum(axis=0) + between_y.T @ between_y,
        )

    def state(self) -> dict[str, np.ndarray]:
        """The whole state as float64 arrays (not copies)."""
        arrays = {"n": self.n, "mean_x": self.mean_x, "sxx": self._sxx}
        for name, one in self.targets.items():
            arrays |= {f"{name}/mean": one.mean, f"{name}/sxy": one.sxy, f"{name}/syy": one.syy}
        return arrays

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
