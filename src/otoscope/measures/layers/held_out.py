"""Scores of every fold in turn: fitted on some folds, the ridge chosen on another, scored on a third."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from otoscope.measures.layers.correlation import Directions, weighted
from otoscope.measures.layers.geometry import ridge_r2
from otoscope.measures.layers.pasad import pasad_score
from otoscope.measures.layers.ridge import RidgePath, View, held_out, truncated
from otoscope.measures.layers.views import is_constant
from otoscope.statistics import Scatter

STATISTICS = ("pwcca", "mean", "svcca", "pasad", "r2")
"""Projection-weighted mean of the correlations, their plain mean, that within 99 % of each view's variance; the score of
the released code of Pasad et al. (2021) with all its quirks; and the share of the target's variance that ridge regression
from the stream explains."""

PREFIXES = {"pwcca": "cca", "mean": "mean-cca", "svcca": "svcca", "pasad": "pasad-cca", "r2": "r2"}
"""What measures are called by statistic, before the target."""

EPSILONS = (1e-11, 1e-10, 1e-9)
"""What the released code chooses from for each view."""


@dataclass(frozen=True)
class FoldScores:
    """Held-out scores, one for each test fold; NaN where undefined.

    Attributes:
        scores: of the target by statistic, shape (k,) each.
        floors: of the target that is not there, with the same ridges.
        ridges: that the dev folds chose, shape (k,); NaN where there was nothing to choose.
        test_to_train: mean over folds of test rows for every training row.
    """

    scores: dict[str, np.ndarray]
    floors: dict[str, np.ndarray]
    ridges: np.ndarray
    test_to_train: float


@dataclass
class Views:
    """Decomposed covariances that more than one computation needs, within a bound of memory.

    Attributes:
        most: bytes that are kept.
    """

    most: int = 400 * 2**20
    _held: dict[object, tuple[View | np.ndarray, int]] = field(default_factory=dict)

    def view(self, key: object, scatter: np.ndarray, mean: np.ndarray, n: float) -> View:
        """The view of a key, decomposed where it is not at hand."""
        found = self._at_hand(key, lambda: View(scatter, mean, n))
        assert isinstance(found, View)
        return found

    def turned(self, key: object, view: View, other: Scatter) -> np.ndarray:
        """Other rows' covariance in the eigenvectors of a view; `key` names both."""
        found = self._at_hand(key, lambda: view.turned(other.sxx, other.n))
        assert isinstance(found, np.ndarray)
        return found

    def _at_hand(self, key: object, make: Callable[[], View | np.ndarray]) -> View | np.ndarray:
        if key in self._held:
            return self._held[key][0]
        found = make()
        size = found.vectors.nbytes if isinstance(found, View) else found.nbytes
        while self._held and sum(held for _, held in self._held.values()) + size > self.most:
            del self._held[next(iter(self._held))]
        self._held[key] = found, size
        return found

    def clear(self) -> None:
        """Gives the memory back."""
        self._held.clear()


def fold_scores(
    pooled: Callable[[list[int]], tuple[Scatter, Scatter]],
    folds: Sequence[int],
    ridges: Sequence[float] | None,
    weights: str,
    views: Views,
    stream: str,
    target: str | None = None,
) -> FoldScores:
    """Rotates the folds through test, dev and train.

    Test is each fold in turn, dev the next one, train all others together. With two folds there is no dev
    fold: the ridge is the middle one of the grid. The dev fold chooses by PWCCA, for all statistics.

    Args:
        pooled: gives, for some folds together, the moments of the stream with the target and with the floor's
            target.
        folds: at least two, each with rows.
        ridges: to choose from, in rising order; None for SVCCA, which needs none.
        weights: the view that weighs: "x", "y" or "mean".
        views: decomposed covariances.
        stream: names the stream's covariances among them.
        target: names the target's, where they are the same for all streams; None where they differ.

    Returns:
        Scores in the order of `folds`: "pwcca" and "mean", or "svcca".
    """
    k = len(folds)
    names = STATISTICS[:2] if ridges is not None else STATISTICS[2:3]
    scores, floors = ({name: np.full(k, np.nan) for name in names} for _ in range(2))
    chosen = np.full(k, np.nan)
    shares = []
    single = [pooled([f]) for f in folds]
    for i in range(k):
        fitted = tuple(f for j, f in enumerate(folds) if j not in (i, _dev(i, k)))
        train, permuted = pooled(list(fitted))
        test, test_permuted = single[i]
        shares.append(test.n / train.n)
        x = views.view((stream, fitted), train.sxx, train.mean_x, train.n)
        y = _target(views, train, (target, fitted))
        if x.constant or y.constant:
            continue
        path = RidgePath(x, y, train.sxy, train.n)
        if ridges is not None:
            if k > 2:
                dev = single[_dev(i, k)][0]
                turned = views.turned((stream, fitted, folds[_dev(i, k)]), x, dev)
                chosen[i], directions = path.choose(ridges, dev, weights, turned)
            else:
                chosen[i] = ridges[len(ridges) // 2]
                directions = path.directions(chosen[i], weights)
            if directions is None:
                continue
        else:
            directions = truncated(path)
        _fill(scores, i, directions, test, weights)
        y = _target(views, permuted, (target and f"{target}, permuted", fitted))
        if not y.constant:
            path = RidgePath(x, y, permuted.sxy, permuted.n)
            directions = truncated(path) if ridges is None else path.directions(chosen[i], weights)
            _fill(floors, i, directions, test_permuted, weights)
    return FoldScores(scores, floors, chosen, float(np.mean(shares)))


def grid_scores(
    pooled: Callable[[list[int]], tuple[Scatter, Scatter]],
    folds: Sequence[int],
    statistic: str,
    ridges: Sequence[float],
) -> FoldScores:
    """The same rotation for "pasad" and "r2", which choose from a grid of their own and share no directions.

    Args:
        pooled: as for `fold_scores`.
        folds: at least two, each with rows.
        statistic: "pasad", whose narrower view weighs and whose `ridges` are the stream's eps; or "r2".
        ridges: to choose from for "r2".

    Returns:
        Scores in the order of `folds`; NaN where the stream is constant.

    Raises:
        MeasureError: the target is constant, or a fold has too few rows for the released code's score.
    """
    k = len(folds)
    pairs = [(a, b) for a in EPSILONS for b in EPSILONS]
    grid: Sequence[float] = [a for a, _ in pairs] if statistic == "pasad" else ridges
    scores, floors, chosen = (np.full(k, np.nan) for _ in range(3))
    shares = []
    single = [pooled([f]) for f in folds]

    def on(train: Scatter, other: Scatter, places: Sequence[int]) -> np.ndarray:
        if statistic == "pasad":
            return np.array([pasad_score(train, other, eps=pairs[j]) for j in places])
        return np.asarray(ridge_r2(train, other, [ridges[j] for j in places]))

    for i in range(k):
        train, permuted = pooled([f for j, f in enumerate(folds) if j not in (i, _dev(i, k))])
        test, test_permuted = single[i]
        shares.append(test.n / train.n)
        if is_constant(train.sxx, train.mean_x, train.n):
            continue
        best = len(grid) // 2 if k == 2 else int(np.argmax(on(train, single[_dev(i, k)][0], range(len(grid)))))
        scores[i], floors[i], chosen[i] = on(train, test, [best])[0], on(permuted, test_permuted, [best])[0], grid[best]
    return FoldScores({statistic: scores}, {statistic: floors}, chosen, float(np.mean(shares)))


def _dev(i: int, k: int) -> int:
    """The fold that chooses where fold i is tested; itself where there is none to spare."""
    return (i + 1) % k if k > 2 else i


def _fill(found: dict[str, np.ndarray], i: int, directions: Directions, test: Scatter, weights: str) -> None:
    rho = held_out(directions, test)
    if np.isfinite(rho).any():
        for name, scores in found.items():
            scores[i] = weighted(directions, weights, rho) if name == "pwcca" else np.nanmean(rho)


def _target(views: Views, scatter: Scatter, key: tuple[str | None, tuple[int, ...]]) -> View:
    if key[0] is None:
        return View(scatter.syy, scatter.mean_y, scatter.n)
    return views.view(key, scatter.syy, scatter.mean_y, scatter.n)
