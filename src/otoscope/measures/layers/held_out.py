"""Scores of every fold in turn: fitted on some folds, the ridge chosen on another, scored on a third."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from otoscope.measures.layers.ridge import RidgePath, View, score
from otoscope.statistics import Scatter


@dataclass(frozen=True)
class FoldScores:
    """Held-out scores, one for each test fold.

    Attributes:
        scores: of the target, shape (k,); NaN where undefined.
        floors: of the target that is not there, with the same ridges, shape (k,).
        ridges: that the dev folds chose, shape (k,); NaN where there was nothing to choose.
        test_to_train: mean over folds of test rows for every training row.
    """

    scores: np.ndarray
    floors: np.ndarray
    ridges: np.ndarray
    test_to_train: float


def fold_scores(
    pooled: Callable[[list[int]], tuple[Scatter, Scatter]],
    folds: Sequence[int],
    ridges: Sequence[float],
    weights: str,
    views: dict[bytes, View] | None = None,
) -> FoldScores:
    """Rotates the folds through test, dev and train.

    Test is each fold in turn, dev the next one, train all others together. With two folds there is no dev
    fold: the ridge is the middle one of the grid.

    Args:
        pooled: gives, for some folds together, the moments of the stream with the target and with the floor's
            target.
        folds: at least two, each with rows.
        ridges: to choose from, in rising order.
        weights: the view that weighs: "x", "y" or "mean".
        views: decomposed one-hot targets, kept from stream to stream; None where targets differ between
            streams.

    Returns:
        Scores in the order of `folds`.
    """
    k = len(folds)
    scores, floors, chosen = np.full((3, k), np.nan)
    shares = []
    single = [pooled([f]) for f in folds]
    for i in range(k):
        others = {i, (i + 1) % k} if k > 2 else {i}
        train, permuted = pooled([f for j, f in enumerate(folds) if j not in others])
        test, test_permuted = single[i]
        shares.append(test.n / train.n)
        x, y = View(train.sxx, train.mean_x, train.n), _view(train, views)
        if x.constant or y.constant:
            continue
        path = RidgePath(x, y, train.sxy, train.n)
        ridge = ridges[len(ridges) // 2]
        if k > 2:
            dev = single[(i + 1) % k][0]
            on_dev = [score(path.directions(r), dev, weights) for r in ridges]
            if not np.isfinite(on_dev).any():
                continue
            ridge = ridges[int(np.nanargmax(on_dev))]
        scores[i], chosen[i] = score(path.directions(ridge), test, weights), ridge
        y = _view(permuted, views)
        if not y.constant:
            floor = RidgePath(x, y, permuted.sxy, permuted.n).directions(ridge)
            floors[i] = score(floor, test_permuted, weights)
    return FoldScores(scores, floors, chosen, float(np.mean(shares)))


def _view(scatter: Scatter, views: dict[bytes, View] | None) -> View:
    """Decomposes the target; a one-hot target, which its counts fix, only once."""
    if views is None:
        return View(scatter.syy, scatter.mean_y, scatter.n)
    key = (scatter.mean_y * scatter.n).round().tobytes()
    if key not in views:
        views[key] = View(scatter.syy, scatter.mean_y, scatter.n)
    return views[key]
