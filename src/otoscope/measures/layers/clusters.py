"""What clusters of a stream tell about phones or words: mutual information, AMI and purity, held out."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from otoscope.errors import MeasureError
from otoscope.measures.layers.information import (
    adjusted_mutual_information,
    contingency,
    entropy_of,
    information_of,
    purity_of,
)
from otoscope.measures.layers.labelled import LabelledRows, Rows
from otoscope.measures.measure import Result, Row
from otoscope.models.anatomy import layer_of
from otoscope.statistics import jackknife

CLUSTERS = {"phone": 500, "word": 5000}
ROWS_PER_CLUSTER = 10
"""Rows to fit on for each cluster, at least; with fewer the information of shuffled labels nears that of the true ones."""

_BATCH = 1500
_EPOCHS = 50


class ClusterInformation(LabelledRows):
    """Mutual information of k-means clusters with phones or words, for `input`, `layer.*` and `final_norm`.

    The score of Pasad et al. (2021): `MiniBatchKMeans` is fitted on the rows of all folds but one, the rows of that
    one are sorted into the clusters, and I(cluster; label) / H(label) is taken of them (for phones that is HuBERT's
    PNMI). Every fold is held out once; the score is the mean over folds, each with the weight of its rows. There are
    500 clusters for phones and 5,000 for words, but never more than one for 10 rows that are fitted on; the notes say
    how many.

    Beside it stand rows of two other scores of the same clusters: adjusted mutual information, which is corrected
    for chance, and purity. Each has the score of shuffled labels as its floor. Where there are fewer clusters than
    labels, mutual information cannot reach 1: its ceiling is ln(clusters) / H(label). Intervals leave one group of
    speakers out at a time while the clusters stay.

    It takes about one CPU second for a stream of width 192 and 4,000 phones.

    Args:
        target: "phone" or "word".
        folds: how many folds are wanted.
        most: the most rows.
        clusters: how many clusters are wanted; None for 500 (phone) or 5,000 (word).

    Attributes:
        yields: the measures whose rows it gives: `mi-*`, `ami-*` and `purity-*`.

    Raises:
        MeasureError: there is no such target, or fewer than two clusters are wanted.
    """

    def __init__(self, target: str, *, folds: int = 3, most: int = 4000, clusters: int | None = None) -> None:
        if target not in CLUSTERS or (clusters is not None and clusters < 2):
            raise MeasureError(
                f"There is no information of {clusters or CLUSTERS.get(target, 'any')} clusters about {target!r}",
                'Choose "phone" or "word", and two clusters or more.',
            )
        super().__init__(target, folds=folds, most=most)
        self.name = f"mi-{target}"
        self.yields = (self.name, f"ami-{target}", f"purity-{target}")
        self._wanted = clusters or CLUSTERS[target]

    def score(self) -> Result:
        """Three rows for each stream; see the class."""
        rows = self.rows()
        labels = rows.labels
        shuffled = self.permuted(labels)
        count = {int(rows.folds[held][0]): self._count(int(fit.sum())) for fit, held in rows.splits()}
        ceilings = {f: _ceiling(k, labels[rows.folds == f]) for f, k in count.items()}
        found = []
        for stream in self.streams:
            clusters = _held_out_clusters(self.vectors(stream), rows, count, self.seed)
            for k, name in enumerate(self.yields):
                ceiling = _mean(ceilings, rows.folds) if k == 0 else 1.0
                value, low, high = _interval(name, clusters, labels, rows, ceiling)
                floor = _score(name, clusters, shuffled, rows.folds)
                found.append(
                    Row(
                        name, stream, layer_of(stream), target=self.target, value=value, low=low, high=high,
                        floor=floor, ceiling=ceiling, n=len(labels),
                    )
                )  # fmt: skip
        notes: dict[str, Any] = {
            **self.told(),
            "clusters_wanted": self._wanted,
            "clusters": list(count.values()),
            "rows_per_cluster": ROWS_PER_CLUSTER,
        }
        return Result(sorted(found, key=lambda row: self.yields.index(row.measure)), {}, notes)

    def _count(self, rows: int) -> int:
        """How many clusters so many rows are sorted into."""
        return max(2, min(self._wanted, rows // ROWS_PER_CLUSTER))


def _held_out_clusters(
    x: Float[np.ndarray, "n d"], rows: Rows, count: dict[int, int], seed: int
) -> Int[np.ndarray, " n"]:
    """The cluster of every row, among those fitted on the other folds."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    clusters = np.empty(len(x), dtype=np.int64)
    for fit, held in rows.splits():
        k = count[int(rows.folds[held][0])]
        # Distances do not depend on where the origin is, but their digits do.
        centred = x - x[fit].mean(0, dtype=np.float64).astype(x.dtype)
        means = MiniBatchKMeans(k, batch_size=_BATCH, max_iter=_EPOCHS, n_init=1, random_state=seed)
        with warnings.catch_warnings():
            # Fewer distinct rows than clusters, as in a constant stream: some clusters stay empty, nothing is wrong.
            warnings.simplefilter("ignore", ConvergenceWarning)
            clusters[held] = means.fit(centred[fit]).predict(centred[held])
    return clusters


def _of_fold(name: str, clusters: np.ndarray, labels: np.ndarray) -> float:
    """A score of the rows of one fold; NaN where they all have the same label."""
    if (labels == labels[0]).all():
        return np.nan
    if name.startswith("ami"):
        return float(adjusted_mutual_information(clusters, labels))
    table = contingency(clusters, labels)
    return purity_of(table) if name.startswith("purity") else information_of(table, "labels")


def _score(name: str, clusters: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> float:
    scores = {int(f): _of_fold(name, clusters[folds == f], labels[folds == f]) for f in np.unique(folds)}
    return _mean(scores, folds)


def _mean(scores: dict[int, float], folds: np.ndarray) -> float:
    """Mean over folds, each with the weight of its rows; folds without a score do not count."""
    values = np.array(list(scores.values()))
    sizes = np.array([(folds == f).sum() for f in scores]) * np.isfinite(values)
    return float(sizes @ np.nan_to_num(values) / sizes.sum()) if sizes.any() else np.nan


def _interval(
    name: str, clusters: np.ndarray, labels: np.ndarray, rows: Rows, ceiling: float
) -> tuple[float, float | None, float | None]:
    """The score with the ends of its interval, between 0 (-1 for AMI) and the ceiling."""
    whole = {int(f): _of_fold(name, clusters[rows.folds == f], labels[rows.folds == f]) for f in np.unique(rows.folds)}
    value = _mean(whole, rows.folds)
    numbers, sizes = np.unique(rows.groups, return_counts=True)
    without = []
    for group in numbers:
        kept = rows.groups != group
        scores = dict(whole)
        for f in np.unique(rows.folds[~kept]):  # the other folds are as they were
            mine = kept & (rows.folds == f)
            scores[int(f)] = _of_fold(name, clusters[mine], labels[mine]) if mine.any() else np.nan
        without.append(_mean(scores, rows.folds[kept]))
    usable = np.isfinite(without)
    low, high = jackknife(value, np.array(without)[usable], sizes[usable])
    if not np.isfinite(low):
        return value, None, None
    least = -1.0 if name.startswith("ami") else 0.0
    return value, max(float(low), least), min(float(high), ceiling)


def _ceiling(clusters: int, labels: np.ndarray) -> float:
    """The most that so many clusters can tell of the labels, as a share."""
    entropy = entropy_of(np.bincount(labels))
    return min(1.0, math.log(clusters) / entropy) if entropy else np.nan
