"""Distances between stretches of speech of unequal length: dynamic time warping, many pairs at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from otoscope.errors import MeasureError

MOST_CELLS = 1 << 16
"""Cells of one anti-diagonal, over all pairs that are aligned at once."""

MOST_FRAMES = 1500
"""Frames whose distances to each other are held at once, unless one block alone has more."""


def angular_distances(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float32[np.ndarray, "n m"]:
    """Angles between frames as a share of a half turn: arccos(cosine) / pi.

    Args:
        x: frames, shape (n, d).
        y: frames, shape (m, d).

    Returns:
        Shape (n, m), between 0 and 1. A frame of zeros is at a right angle, 0.5, to every frame.

    >>> angular_distances(np.eye(2), np.array([[2.0, 0.0], [-1.0, 0.0]]))
    array([[0. , 1. ],
           [0.5, 0.5]], dtype=float32)
    """
    angles = np.clip(unit_rows(x) @ unit_rows(y).T, -1.0, 1.0)
    np.arccos(angles, out=angles)
    angles /= np.pi
    return angles.astype(np.float32)


def unit_rows(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows at length 1, in float64; rows of zeros stay as they are."""
    x = np.asarray(x, dtype=np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1.0)


def as_array(x: Any) -> np.ndarray:
    """An array of what may be a torch tensor, on any device, or a list."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        return np.asarray(x.float() if str(x.dtype) == "torch.bfloat16" else x)  # a type that numpy lacks
    return np.asarray(x)


def dtw(
    distances: Any,
    rows: Int[np.ndarray, "..."] | None = None,
    columns: Int[np.ndarray, "..."] | None = None,
) -> Float[np.ndarray, "..."]:
    """Mean distance per step along the cheapest alignment of two sequences.

    A path leads from the first frames to the last ones by steps of one frame in either sequence or in both; its cost is
    the sum of the distances on it. The cheapest path's cost is divided by its number of cells, as in the ABX tests of
    ZeroSpeech (Schatz 2016; libri-light, fastabx). Where several paths are cheapest the shortest of them counts, so that
    the result is the same for both orders of the two sequences.

    Args:
        distances: between the frames of both, shape (..., n, m), torch or numpy.
        rows: frames of the first sequence, where some are shorter than n; shape (...).
        columns: frames of the second, shape (...).

    Returns:
        Shape (...), float64.

    Raises:
        MeasureError: a sequence has no frame, or more than there are distances.

    >>> dtw(np.array([[0.0, 4.0, 4.0], [4.0, 1.0, 2.0]]))  # (0 + 1 + 2) / 3
    array(1.)
    """
    distances = as_array(distances)
    if distances.ndim < 2:
        raise MeasureError(f"Distances of shape {distances.shape} are of no two sequences", "Give shape (..., n, m).")
    *batch, n, m = distances.shape
    r = np.broadcast_to(n if rows is None else rows, batch).ravel()
    c = np.broadcast_to(m if columns is None else columns, batch).ravel()
    if r.size and (min(r.min(), c.min()) < 1 or r.max() > n or c.max() > m):
        raise MeasureError(
            f"Sequences of {r.min()} to {r.max()} and {c.min()} to {c.max()} frames do not fit distances of shape "
            f"({n}, {m})",
            "Give at least one frame a sequence, and distances between all frames.",
        )
    found = _aligned(distances.reshape(-1), np.arange(r.size) * n * m, m, r, c)
    return found.reshape(batch)


def pair_distances(
    sequences: Sequence[Float[np.ndarray, "_ d"]],
    first: Int[np.ndarray, " p"],
    second: Int[np.ndarray, " p"],
    blocks: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " p"]:
    """Distance of each pair of sequences by `dtw` on angular distances of frames.

    Args:
        sequences: frames of each, shape (t, d), t at least 1.
        first: one sequence of each pair.
        second: the other.
        blocks: of each sequence; both of a pair are in one block. Memory is 4 bytes for each pair of frames in a block,
            or in several blocks while they have no more than 1,500 frames together.

    Returns:
        Shape (p,), float64.
    """
    counts = np.array([len(one) for one in sequences], dtype=np.int64)
    blocks = np.zeros(len(sequences), dtype=np.int64) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    # Blocks in turn go to a bin until it is full.
    sizes = np.bincount(blocks, counts)
    bins, held = np.zeros(len(sizes), dtype=np.int64), 0.0
    for block, size in enumerate(sizes):
        full = block > 0 and held + size > MOST_FRAMES
        bins[block] = bins[block - 1] + full if block else 0
        held = size if full else held + size
    bin_of = bins[blocks]
    found = np.zeros(len(first))
    for one in np.unique(bin_of[first]):
        inside = np.flatnonzero(bin_of == one)
        frames = np.concatenate([sequences[int(i)] for i in inside])
        begin = np.zeros(len(sequences), dtype=np.int64)
        begin[inside] = np.cumsum(counts[inside]) - counts[inside]
        pairs = np.flatnonzero(bin_of[first] == one)
        a, b = first[pairs], second[pairs]
        a, b = np.where(counts[a] <= counts[b], a, b), np.where(counts[a] <= counts[b], b, a)
        flat = angular_distances(frames, frames).reshape(-1)
        found[pairs] = _aligned(flat, begin[a] * len(frames) + begin[b], len(frames), counts[a], counts[b])
    return found


def _aligned(flat: np.ndarray, base: np.ndarray, stride: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Mean costs of pairs whose distance of frames i and j is flat[base + i * stride + j]."""
    found = np.zeros(len(base))
    # Pairs of like size together, for the sweep goes over the largest.
    order = np.lexsort((columns, rows))
    start = 0
    while start < len(order):
        stop = start + max(1, MOST_CELLS // int(rows[order[start]]))
        part = order[start:stop]
        found[part] = _sweep(flat, base[part], stride, rows[part], columns[part])
        start = stop
    return found


def _sweep(flat: np.ndarray, base: np.ndarray, stride: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """One anti-diagonal after the other, for all pairs at once.

    Cells beyond a pair's own rows and columns hold what belongs to others; no path to its end passes them.
    """
    n, m, last = int(rows.max()), int(columns.max()), rows + columns - 2
    # Cell (i, k - i) of anti-diagonal k is in row i + 1; row 0 and the row after the last stay infinite.
    costs = [np.full((n + 2, len(base)), np.inf) for _ in range(3)]
    lengths = [np.zeros((n + 2, len(base)), dtype=np.int32) for _ in range(3)]
    costs[0][0] = 0.0
    found = np.zeros(len(base))
    for k in range(n + m - 1):
        before2, before, now = (k % 3, (k + 1) % 3, (k + 2) % 3)
        i = np.arange(max(0, k - m + 1), min(n - 1, k) + 1)
        low, high = int(i[0]), int(i[-1]) + 1
        local = flat.take(base + (i * stride + k - i)[:, None], mode="clip")
        best, length = _better(
            costs[before][low:high], lengths[before][low:high], costs[before][low + 1 : high + 1],
            lengths[before][low + 1 : high + 1],
        )  # fmt: skip
        best, length = _better(costs[before2][low:high], lengths[before2][low:high], best, length)
        np.add(local, best, out=costs[now][low + 1 : high + 1])
        np.add(length, 1, out=lengths[now][low + 1 : high + 1])
        if k == 0:
            costs[0][0] = np.inf
        ending = np.flatnonzero(last == k)
        found[ending] = costs[now][rows[ending], ending] / lengths[now][rows[ending], ending]
    return found


def _better(cost: np.ndarray, length: np.ndarray, other: np.ndarray, other_length: np.ndarray) -> tuple:
    """The cheaper of two ways to a cell, or the shorter of two equally cheap ones."""
    shorter = (cost < other) | ((cost == other) & (length < other_length))
    return np.minimum(cost, other), np.where(shorter, length, other_length)
