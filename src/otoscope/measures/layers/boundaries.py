"""How well boundaries are found: one-to-one hits, precision, recall, F1, over-segmentation, R-value."""

from __future__ import annotations

from typing import Any

import numpy as np

from otoscope.errors import MeasureError
from otoscope.measures.layers.dtw import as_array

SLACK = 1e-9
"""Seconds by which times may be off through rounding."""


def boundary_scores(reference: Any, hypothesis: Any, tolerance: float) -> dict[str, float]:
    """Scores boundaries that were found against the true ones, one to one.

    Each true boundary has a search region of `tolerance` on both sides, cut at the midpoints between neighbouring true
    boundaries; a midpoint belongs to the earlier one. The first boundary found in a region is a hit, any further one an
    insertion. With hits h, true boundaries r and found ones f: precision h / f, recall h / r, their harmonic mean, over-
    segmentation f / r - 1 (O), and the R-value of Räsänen, Laine and Altosaar (2009),

        R = 1 - (sqrt((1 - recall)^2 + O^2) + abs(recall - 1 - O) / sqrt(2)) / 2,

    which falls where boundaries are found at random for the sake of recall.

    Args:
        reference: true boundaries in seconds, shape (r,), in any order, torch or numpy; or a list of such arrays, one an
            utterance, whose counts are added. Equal times are one boundary.
        hypothesis: found boundaries in seconds, in the same form; precision is 0 where there are none.
        tolerance: seconds.

    Returns:
        "precision", "recall", "f1", "over_segmentation", "r_value".

    Raises:
        MeasureError: there is no true boundary, the numbers of utterances differ, the tolerance is negative, or a time
            is not finite.

    >>> found = boundary_scores([0.50, 1.00], [0.51, 0.52, 2.0], tolerance=0.02)
    >>> {name: round(value, 3) for name, value in found.items()}
    {'precision': 0.333, 'recall': 0.5, 'f1': 0.4, 'over_segmentation': 0.5, 'r_value': 0.293}
    """
    true, found = _utterances(reference), _utterances(hypothesis)
    if len(true) != len(found):
        raise MeasureError(
            f"Boundaries of {len(true)} utterances cannot be compared with those of {len(found)}",
            "Give both for the same utterances, an empty array where none were found.",
        )
    if not tolerance >= 0:
        raise MeasureError(f"A tolerance of {tolerance} s is no length of time", "Give 0 or more.")
    true = [np.unique(one) for one in true]
    hits = 0
    for r, f in zip(true, found, strict=True):
        nearest, within = claims(r, f, tolerance + SLACK)
        hits += len(np.unique(nearest[within]))
    n = sum(len(one) for one in true)
    if not n:
        raise MeasureError("There is no true boundary to find", "Give utterances of two words or more.")
    return scores_of(hits, sum(len(one) for one in found), n)


def _utterances(times: Any) -> list[np.ndarray]:
    """One array of times an utterance."""
    nested = isinstance(times, list | tuple) and len(times) > 0 and np.ndim(times[0]) > 0
    found = []
    for one in times if nested else [times]:
        array = as_array(one).astype(np.float64)
        if array.ndim != 1 or not np.isfinite(array).all():
            raise MeasureError(
                f"Boundaries of shape {array.shape} are not one row of finite times",
                "Give seconds in shape (n,), or a list of such arrays.",
            )
        found.append(array)
    return found


def claims(reference: np.ndarray, hypothesis: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Which true boundary each found one belongs to.

    Args:
        reference: true boundaries, sorted, each once, shape (r,).
        hypothesis: found boundaries, shape (f,), in the same unit.
        tolerance: how far off a hit may be, in the same unit.

    Returns:
        Index of the nearest true boundary, of two as near the earlier one, shape (f,); and whether it is near enough.
    """
    if not len(reference):
        return np.zeros(len(hypothesis), dtype=np.int64), np.zeros(len(hypothesis), dtype=bool)
    right = np.searchsorted(reference, hypothesis).clip(1, max(len(reference) - 1, 1))
    left = np.maximum(right - 1, 0)
    right = np.minimum(right, len(reference) - 1)
    to_left, to_right = np.abs(hypothesis - reference[left]), np.abs(hypothesis - reference[right])
    nearest = np.where(to_left <= to_right + SLACK, left, right)
    return nearest, np.minimum(to_left, to_right) <= tolerance


def scores_of(hits: float, found: float, true: float) -> dict[str, float]:
    """Precision, recall, F1, over-segmentation and R-value from counts; `true` is not 0."""
    recall, over = hits / true, found / true - 1
    r_value = 1 - (np.hypot(1 - recall, over) + abs(recall - 1 - over) / np.sqrt(2)) / 2
    return {
        "precision": hits / found if found else 0.0,
        "recall": recall,
        "f1": 2 * hits / (found + true),
        "over_segmentation": over,
        "r_value": float(r_value),
    }
