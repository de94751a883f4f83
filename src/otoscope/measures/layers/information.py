"""How much clusters tell about labels: mutual information, chance-corrected mutual information, purity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import array_api_compat
import numpy as np
from jaxtyping import Int

from otoscope.errors import MeasureError

Array = TypeVar("Array")


def mutual_information(clusters: Array, labels: Array, normalise: str | None = None) -> Array:
    """Mutual information of two labellings of the same rows, by the plug-in estimate.

        I = sum_(k, y) p(k, y) ln(p(k, y) / (p(k) p(y)))

    `normalise="labels"` divides by H(labels): the share of the labels that is known once the cluster is, which is the
    score of Pasad et al. (2021, released code) and the phone-normalised mutual information (PNMI) of Hsu et al.
    (HuBERT, 2021). It is not corrected for chance: independent labels score above 0, the more so the more clusters
    there are for a row (0.34 for 500 clusters, 39 labels and 7,000 rows; 0.88 for 5,000 clusters and 500 labels). Look
    at it beside the score of shuffled labels, or at `adjusted_mutual_information`.

    Args:
        clusters: integers, shape (..., N), torch or numpy.
        labels: integers, shape (..., N), of the same kind.
        normalise: None for nats, "labels" for a share between 0 and 1.

    Returns:
        Shape (...), float64.

    Raises:
        MeasureError: the shapes disagree, there is no row, values are not integers, there is no such `normalise`, or
            there is only one label to divide by.

    >>> labels = np.array([0, 0, 1, 1])
    >>> mutual_information(np.array([5, 5, 3, 3]), labels).round(6), mutual_information(np.array([0, 1, 0, 1]), labels)
    (np.float64(0.693147), np.float64(0.0))
    >>> mutual_information(np.array([5, 5, 3, 3]), labels, normalise="labels").round(6)
    np.float64(1.0)
    """
    if normalise not in (None, "labels"):
        raise MeasureError(f"Mutual information cannot be normalised by {normalise!r}", 'Choose None or "labels".')
    return _over_rows(clusters, labels, lambda k, y: information_of(contingency(k, y), normalise))


def adjusted_mutual_information(clusters: Array, labels: Array) -> Array:
    """Mutual information less what chance gives, over the most there could be (Vinh, Epps and Bailey 2010).

        AMI = (I - E[I]) / ((H(clusters) + H(labels)) / 2 - E[I])

    with the expectation over all labellings of the same counts; as scikit-learn computes it.

    Args:
        clusters: integers, shape (..., N), torch or numpy.
        labels: integers, shape (..., N), of the same kind.

    Returns:
        Shape (...), float64: 1 where clusters and labels are the same, about 0 (or a little below) where they are
        independent.

    Raises:
        MeasureError: the shapes disagree, there is no row, or values are not integers.

    >>> adjusted_mutual_information(np.array([5, 5, 3, 3]), np.array([0, 0, 1, 1])).round(6)
    np.float64(1.0)
    """
    from sklearn.metrics import adjusted_mutual_info_score

    return _over_rows(clusters, labels, lambda k, y: float(adjusted_mutual_info_score(y, k)))


def cluster_purity(clusters: Array, labels: Array) -> Array:
    """Share of rows that carry the most frequent label of their cluster.

        purity = 1/N sum_k max_y n(k, y)

    That is the "phone purity" of Hsu et al. (HuBERT, 2021) where labels are phones. It grows with the number of
    clusters and is 1 where every row is a cluster.

    Args:
        clusters: integers, shape (..., N), torch or numpy.
        labels: integers, shape (..., N), of the same kind.

    Returns:
        Shape (...), float64.

    Raises:
        MeasureError: the shapes disagree, there is no row, or values are not integers.

    >>> cluster_purity(np.array([0, 0, 0, 1]), np.array([7, 7, 8, 8]))
    np.float64(0.75)
    """
    return _over_rows(clusters, labels, lambda k, y: purity_of(contingency(k, y)))


def contingency(clusters: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, "clusters labels"]:
    """How often each cluster meets each label; only those that occur have a row or a column."""
    _, k = np.unique(clusters, return_inverse=True)
    values, y = np.unique(labels, return_inverse=True)
    width = len(values)
    return np.bincount(k * width + y, minlength=(k.max() + 1) * width).reshape(-1, width)


def information_of(table: Int[np.ndarray, "clusters labels"], normalise: str | None = None) -> float:
    """`mutual_information` from a table of counts.

    Raises:
        MeasureError: `normalise` is "labels" and there is only one label.
    """
    n = table.sum()
    rows, columns = np.nonzero(table)
    joint = table[rows, columns] / n
    by_cluster, by_label = table.sum(1) / n, table.sum(0) / n
    # Independent counts give a sum of rounding errors, which may fall below 0.
    nats = max(float(joint @ np.log(joint / (by_cluster[rows] * by_label[columns]))), 0.0)
    if normalise is None:
        return nats
    entropy = entropy_of(table.sum(0))
    if entropy == 0:
        raise MeasureError("There is only one label, whose entropy is 0", "Give rows of two labels or more.")
    return min(nats / entropy, 1.0)


def entropy_of(counts: np.ndarray) -> float:
    """Plug-in entropy of counts in nats."""
    share = counts[counts > 0] / counts.sum()
    return max(-float(share @ np.log(share)), 0.0)


def purity_of(table: Int[np.ndarray, "clusters labels"]) -> float:
    """`cluster_purity` from a table of counts."""
    return float(table.max(1).sum() / table.sum())


def _over_rows(clusters: Any, labels: Any, score: Callable[[np.ndarray, np.ndarray], float]) -> Any:
    """Checks two labellings and scores each pair of their last axes."""
    try:
        xp = array_api_compat.array_namespace(clusters, labels)
    except TypeError:
        raise MeasureError(
            f"Labellings of types {type(clusters).__name__} and {type(labels).__name__} cannot be compared",
            "Give two numpy arrays or two torch tensors.",
        ) from None
    shapes = f"labellings of shape {tuple(clusters.shape)} and {tuple(labels.shape)}"
    if clusters.ndim < 1 or tuple(clusters.shape) != tuple(labels.shape) or 0 in clusters.shape:
        raise MeasureError(f"The shapes disagree or there is no row: {shapes}", "Give two arrays of shape (..., N).")
    if not all(xp.isdtype(one.dtype, "integral") for one in (clusters, labels)):
        raise MeasureError(
            f"Labellings of types {clusters.dtype} and {labels.dtype} are not integers", "Number clusters and labels."
        )
    device, leading = array_api_compat.device(clusters), tuple(clusters.shape[:-1])
    pairs = [
        np.asarray(array_api_compat.to_device(one, "cpu")).reshape(math.prod(leading), -1) for one in (clusters, labels)
    ]
    found = [score(k, y) for k, y in zip(*pairs, strict=True)]
    return xp.reshape(xp.asarray(found, dtype=xp.float64, device=device), leading)[()]
