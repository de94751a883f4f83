"""Relation maps: how much attention goes from one label to another, against uniform attention."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from otoscope.errors import MeasureError
from otoscope.measures.heads.maps import checked_maps

ROUNDING = 1e-6
"""By how much the shares of a frame may exceed one through rounding."""


def relation_map(attention: Any, labels: Any, n_labels: int, exclude_run: bool = False) -> tuple[Any, Any]:
    """Attention between labels in one utterance, and that of uniform attention (Yang, Liu and Lee 2020, eq. 4, s5).

        P'[m, n]  = 1/T   sum_q sum_k F[q, m] F[k, n] A[q, k]
        P_U[m, n] = 1/T^2 sum_q sum_k F[q, m] F[k, n]

    F[t, m] is the share of frame t that label m holds: one or none of it where a frame has one label. With shares the
    result is that of a map that was up-sampled to the rate of the labels, each weight repeated, and its rows brought
    back to one; no up-sampled map is made. (The paper's eq. 4 is printed with 1/T^2, which its authors corrected.)

    Means over utterances are taken of P' and of P_U, and only then divided: see `relative_relation`.

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.
        labels: number of each frame's label from 0, shape (T,), with -1 where it has none; or shares, shape
            (T, n_labels), of which those of a frame sum to one at most. Frames without a label have no part in the
            sums, which then stay below one; a label of its own for them brings the sums to one.
        n_labels: how many labels there are.
        exclude_run: leave out the keys that are linked to the query by an unbroken run of its own label, of P' and P_U
            alike (Shim, Choi and Sung 2022), so that nearness does not count as sameness. Needs a label a frame.

    Returns:
        P' (..., n_labels, n_labels) and P_U (n_labels, n_labels); rows are the labels of queries.

    Raises:
        MeasureError: the maps are no attention; labels of another length than the frames, or out of range; shares that
            are negative or sum to more than one; runs are to be left out of shares.

    >>> p, uniform = relation_map(np.eye(4), np.array([0, 0, 1, 1]), 2)
    >>> p.tolist(), uniform.tolist()
    ([[0.5, 0.0], [0.0, 0.5]], [[0.25, 0.25], [0.25, 0.25]])
    """
    xp, maps = checked_maps(attention)
    frames = maps.shape[-1]
    numbers, shares = _checked_labels(labels, n_labels, frames)
    pairs = np.ones((frames, frames))
    if exclude_run:
        if numbers is None:
            raise MeasureError(
                f"Runs cannot be told from shares of shape {shares.shape}",
                "Give one label a frame, of a map that was repeated to the rate of the labels.",
            )
        run = np.cumsum(np.diff(numbers, prepend=numbers[0]) != 0)
        pairs = (run[:, None] != run[None, :]).astype(np.float64)
        maps = maps * _like(pairs, maps, xp)
    f = _like(shares, maps, xp)
    found = xp.matmul(f.T, xp.matmul(maps, f)) / frames
    return found, _like(shares.T @ pairs @ shares / frames**2, maps, xp)


def relative_relation(p: Any, p_uniform: Any) -> Any:
    """Relation map relative to uniform attention (Yang, Liu and Lee 2020, eq. 5).

        P[m, n] = (P'[m, n] - P_U[m, n]) / P_U[m, n]

    Without the division the most frequent labels, silence first of all, would swamp the map.

    Args:
        p: P', the mean over utterances, (..., n, n), torch or numpy.
        p_uniform: P_U, likewise, (n, n) or the shape of `p`.

    Returns:
        P, the shape of `p`: 0 where attention is uniform, -1 where there is none; NaN where two labels never come
        together and P_U is 0. Over the labels n of keys, P_U[m, n] P[m, n] sums to 0, where labels cover all frames and
        no runs are left out.

    Raises:
        MeasureError: the shapes disagree, values are negative or not finite, or P' is not 0 where P_U is.

    >>> relative_relation(np.array([[0.5, 0.0], [0.0, 0.5]]), np.full((2, 2), 0.25)).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    xp, p = _checked_relations(p)
    _, uniform = _checked_relations(p_uniform)
    if uniform.shape not in (p.shape, p.shape[-2:]):
        raise MeasureError(
            f"A relation map of shape {tuple(p.shape)} has no baseline of shape {tuple(uniform.shape)}",
            "Give P' (..., n, n) with P_U (n, n) of the same labels.",
        )
    # Written so that NaN fails as well.
    if not (bool(xp.all(p >= 0)) and bool(xp.all(uniform >= 0)) and bool(xp.all(xp.isfinite(p + uniform)))):
        raise MeasureError(
            "A relation map holds values that are negative or not finite",
            "Give P' and P_U as `relation_map` returns them, or their means over utterances.",
        )
    together = uniform > 0
    if bool(xp.any((p > 0) & ~together)):
        raise MeasureError(
            "Attention goes between labels that never come together: P' is above 0 where P_U is 0",
            "Take both means over the same utterances, with runs left out of both or of neither.",
        )
    nan = xp.full_like(p, float("nan"))
    return xp.where(together, (p - uniform) / xp.where(together, uniform, xp.ones_like(uniform)), nan)


def concentration(p: Any) -> Any:
    """How much attention labels draw from all others alike (Yang, Liu and Lee 2020, eq. 6).

        C[n] = 1/|Y| sum_m P[m, n]

    Args:
        p: relative relation map P, (..., n, n), torch or numpy; NaN where it is not known.

    Returns:
        C, (..., n): above 0 where heads focus on the label, below 0 where they neglect it. Labels of queries weigh the
        same, however frequent; of pairs that never come together (NaN) none is counted, and C is the mean of the others,
        NaN where there is none.

    Raises:
        MeasureError: the array is no map of labels by labels.

    >>> concentration(np.array([[1.0, -1.0], [0.0, np.nan]])).tolist()
    [0.5, -1.0]
    """
    xp, p = _checked_relations(p)
    known = ~xp.isnan(p)
    count = xp.sum(xp.astype(known, p.dtype), axis=-2)
    total = xp.sum(xp.where(known, p, xp.zeros_like(p)), axis=-2)
    nan = xp.full_like(total, float("nan"))
    return xp.where(count > 0, total / xp.where(count > 0, count, xp.ones_like(count)), nan)


def _checked_labels(labels: Any, n_labels: int, frames: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Label of each frame, where it has one, and shares (T, n) in double precision."""
    if n_labels < 1:
        raise MeasureError(f"There are {n_labels} labels", "Give how many labels there are, 1 or more.")
    array = labels.detach().cpu().numpy() if hasattr(labels, "detach") else np.asarray(labels)
    if array.shape not in ((frames,), (frames, n_labels)) or array.dtype.kind not in "iuf":
        raise MeasureError(
            f"Labels of shape {array.shape} and type {array.dtype} do not fit maps of {frames} frames and "
            f"{n_labels} labels",
            f"Give whole numbers of shape ({frames},), or shares of shape ({frames}, {n_labels}).",
        )
    if array.ndim == 1:
        if array.dtype.kind == "f" or array.min() < -1 or array.max() >= n_labels:
            raise MeasureError(
                f"Labels of frames run from {array.min()} to {array.max()} ({array.dtype})",
                f"Give whole numbers from 0 to {n_labels - 1}, and -1 for a frame without a label.",
            )
        numbers = array.astype(np.int64)
        return numbers, (numbers[:, None] == np.arange(n_labels)).astype(np.float64)
    shares = array.astype(np.float64)
    if not (np.all(shares >= 0) and np.all(shares.sum(-1) <= 1 + ROUNDING)):
        raise MeasureError(
            f"Shares of labels in frames are negative, not finite, or sum to {shares.sum(-1).max():.6g} in a frame",
            "Give for each frame what part of it each label holds: 0 or more, together 1 at most.",
        )
    return None, shares


def _checked_relations(p: Any) -> tuple[Any, Any]:
    """The namespace, and the array if it is (..., n, n) in floating point."""
    try:
        xp = array_namespace(p)
    except TypeError as error:
        raise MeasureError(
            f"A relation map is a {type(p).__name__}", "Pass a numpy array or a torch tensor of shape (..., n, n)."
        ) from error
    if p.ndim < 2 or p.shape[-1] != p.shape[-2] or not xp.isdtype(p.dtype, "real floating"):
        raise MeasureError(
            f"A relation map has shape {tuple(p.shape)} and type {p.dtype}, not (..., n, n) in floating point",
            "Pass one row for each label of queries and one column for each label of keys.",
        )
    return xp, p


def _like(array: np.ndarray, maps: Any, xp: Any) -> Any:
    """An array of the namespace, type and device of the maps."""
    return xp.asarray(array, dtype=maps.dtype, device=device(maps))
