"""Counts and sums per class and fold: all that a one-hot target adds to the moments of a view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from otoscope.errors import MeasureError, StateError
from otoscope.statistics.moments import Scatter
from otoscope.statistics.state import matching


class ClassMoments:
    """What a one-hot target of K classes adds to the moments of x: counts and sums, never a product.

    Args:
        folds: number of folds F.
        classes: number of classes K.
        width: columns d of x.
    """

    def __init__(self, folds: int, classes: int, width: int) -> None:
        self.folds, self.classes, self.width = folds, classes, width
        self.counts = np.zeros((folds, classes))
        # Written at once, so that memory is taken up here and not as labels are first seen.
        self.sums = np.full((folds, classes, width), 0.0)

    def update(self, fold: int, x: np.ndarray, labels: np.ndarray) -> None:
        """Adds rows with their classes to a fold.

        Args:
            fold: counted from 0.
            x: rows, shape (n, d), float32 or float64.
            labels: class of each row, 0 to K - 1, shape (n,), integers.

        Raises:
            MeasureError: the shapes do not fit, or there is no such class.
        """
        if x.ndim != 2 or x.shape[1] != self.width or labels.shape != x.shape[:1]:
            raise MeasureError(
                f"Rows of shape {x.shape} and labels of shape {labels.shape} do not fit class moments of "
                f"{self.width} columns",
                "Give one label for each row.",
            )
        if not len(labels):
            return
        if labels.min() < 0 or labels.max() >= self.classes:
            raise MeasureError(
                f"Labels from {labels.min()} to {labels.max()} do not fit {self.classes} classes",
                "Count classes from 0.",
            )
        order = np.argsort(labels, kind="stable")
        classes, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
        self.counts[fold, classes] += counts
        self.sums[fold, classes] += np.add.reduceat(x[order].astype(np.float64, copy=False), first, axis=0)

    def merge(self, other: ClassMoments) -> None:
        """Adds another state to this one, in place.

        Raises:
            StateError: the two differ in folds, classes or width.
        """
        if self.sums.shape != other.sums.shape:
            raise StateError(
                f"Class sums of shape {self.sums.shape} and {other.sums.shape} cannot be merged",
                "Merge states of the same model, corpus and seed.",
            )
        self.counts += other.counts
        self.sums += other.sums

    def joined(
        self, x: Scatter, folds: Sequence[int] | None = None, codes: Float[np.ndarray, "k t"] | None = None
    ) -> Scatter:
        """Joint moments of x and a target that the class fixes: one-hot, or a vector of each class.

        With counts c, class sums s and codes V: mean_y = V' c / n, Sxy = (s' - mean_x c') V and
        Syy = V' (diag(c) - c c' / n) V. So a table of word vectors needs no sums beyond those of the words.

        Args:
            x: moments of the same rows, as `Moments.pooled(folds)` gives them; its target is left away.
            folds: which folds; all where None.
            codes: the target of each class, shape (K, t); one-hot where None.

        Raises:
            StateError: the two have seen different numbers of rows.
        """
        chosen = list(range(self.folds)) if folds is None else list(folds)
        counts, sums = self.counts[chosen].sum(axis=0), self.sums[chosen].sum(axis=0)
        if counts.sum() != x.n:
            raise StateError(
                f"{counts.sum():.0f} labels stand beside {x.n:.0f} rows",
                "Update the moments and the class moments with the same rows.",
            )
        mean = counts / x.n if x.n else counts
        sxy = sums.T - np.outer(x.mean_x, counts)
        if codes is None:
            return Scatter(x.n, x.mean_x, mean, x.sxx, sxy, np.diag(counts) - np.outer(counts, mean))
        mean_y = mean @ codes
        centred = codes - mean_y
        return Scatter(x.n, x.mean_x, mean_y, x.sxx, sxy @ centred, (centred.T * counts) @ centred)

    def state(self) -> dict[str, np.ndarray]:
        """The whole state as float64 arrays (not copies)."""
        return {"counts": self.counts, "sums": self.sums}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes over a state.

        Raises:
            StateError: an array is missing or has another shape.
        """
        matching(self.state(), state)
        for name, array in self.state().items():
            array[...] = state[name]
