"""What a block's attention comes to in one utterance: a few numbers of the map that is the mean of its heads' maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from otoscope.measures.blocks.position import BINS, in_bins, position_profile
from otoscope.measures.blocks.profile import REACH, binned, relative_profile, uniform_profile
from otoscope.measures.heads.diagonality import diagonality, mean_offset
from otoscope.measures.heads.globalness import globalness
from otoscope.measures.heads.maps import at_least, checked_maps
from otoscope.measures.heads.verticality import verticality
from otoscope.models.reductions import BlockMap, ColumnMean, OffsetMean, RowEntropy

SUMMARY = (
    "globalness-normalised", "verticality-normalised", "diagonality", "head-information", "head-disagreement",
    "self-mass", "local-mass", "mean-offset",
)  # fmt: skip
"""Numbers of one utterance that are averaged; see `block_summary`."""

SHAPES = ("head-dependence", "head-spread", "outside-mean-row", "disagreement-share")
"""Numbers of one utterance by which degenerate patterns are known; see `block_summary`."""

LOCAL = 5
"""Frames on either side of the query that count as local."""

PARTS = {"profile": 2 * REACH + 3, "position": BINS, "summary": len(SUMMARY), "shapes": len(SHAPES), "power": 1}
"""What one utterance is observed as, in this order, and how many numbers each part has."""

REDUCTIONS = (RowEntropy, ColumnMean, OffsetMean, BlockMap)
"""Sums of the tap that the observation is made of."""


def block_summary(attention: Any) -> dict[str, float]:
    """Numbers of the attention of one block; the definitions are otoscope's own, built on those for heads.

    With A^h the map of head h, and A the mean of them over heads:

        globalness-normalised   G / ln T of A               (see `globalness`)
        verticality-normalised  V / ln T of A               (see `verticality`)
        diagonality             D of A                      (see `diagonality`)
        head-information        -(G + V) of A, in nat       (see `head_information`)
        head-disagreement       mean row entropy of A minus the mean over heads of that of A^h, in nat: the Jensen-Shannon
                                divergence of the heads' rows; 0 where all heads are alike
        self-mass               1/T sum_q A[q, q]
        local-mass              1/T sum_q sum_k 1[|q - k| <= 5] A[q, k]
        mean-offset             1/T sum_q sum_k (k - q) A[q, k], in frames
        head-dependence         mean over heads of -(G + V) / ln T: how much a head's attention depends on the query
        head-spread             mean over heads of G / ln T
        outside-mean-row        1 - T |a|^2 / |A|^2 with a the mean row of A and |A| the Frobenius norm: the share of A that
                                is left when all rows are replaced by their mean, 0 to 1 - 1/T
        disagreement-share      head-disagreement over the mean row entropy of A

    Heads that look to opposite sides cancel in A: the number of dependence is over heads, that outside of the mean row is
    not.

    Args:
        attention: (H, T, T), torch or numpy; rows are queries and sum to one. T is 2 or more.

    Returns:
        The numbers by name.

    Raises:
        MeasureError: another shape, rows that do not sum to one, or a single frame.

    >>> import numpy as np
    >>> round(block_summary(np.full((2, 10, 10), 0.1))["diagonality"], 2)
    -0.33
    """
    xp, maps = checked_maps(attention)
    frames = maps.shape[-1]
    at_least(frames, 2, "The summary of a block")
    block = xp.mean(maps, axis=0)
    ceiling = math.log(frames)
    by_head = [float(xp.mean(one(maps))) for one in (globalness, verticality)]
    g, v = float(globalness(block)), float(verticality(block))
    near = xp.stack([xp.linalg.trace(block, offset=d) / frames for d in _within(frames)])
    squares = float(xp.sum(block**2))
    return {
        "globalness-normalised": g / ceiling, "verticality-normalised": v / ceiling,
        "diagonality": float(diagonality(block)), "head-information": -(g + v), "head-disagreement": g - by_head[0],
        "self-mass": float(xp.linalg.trace(block)) / frames, "local-mass": float(xp.sum(near)),
        "mean-offset": float(mean_offset(block)),
        "head-dependence": -sum(by_head) / ceiling, "head-spread": by_head[0] / ceiling,
        "outside-mean-row": 1 - frames * float(xp.sum(xp.mean(block, axis=0) ** 2)) / squares,
        "disagreement-share": (g - by_head[0]) / g if g > 0 else 0.0,
    }  # fmt: skip


def block_observation(attention: Any) -> np.ndarray:
    """What one utterance adds to the sums of a block, from its whole maps: the twin of `observed`.

    Args:
        attention: (H, T, T), torch or numpy.

    Returns:
        (sum of `PARTS`,): relative profile, position profile, summary, shapes, squared norm of the relative profile.
    """
    xp, maps = checked_maps(attention)
    block = xp.mean(maps, axis=0)
    profile, numbers = np.asarray(relative_profile(block)), block_summary(maps)
    told = [numbers[name] for name in (*SUMMARY, *SHAPES)]
    return np.concatenate([profile, position_profile(block), told, [profile @ profile]])


def observed(found: Mapping[str, torch.Tensor]) -> np.ndarray:
    """What one utterance adds to the sums of a block, from the tap's sums over its maps.

    Args:
        found: sums of `REDUCTIONS` by name, of one layer with at least one head and one utterance of two frames or more.

    Returns:
        As of `block_observation`.
    """
    by_column = found["column-mean"].double().cpu().numpy()
    offsets = found["offset-mean"].double().cpu().numpy().mean(0)
    rows, squares = (float(x) for x in found["block-map"].cpu())
    by_head = float(found["row-entropy"].mean())
    column = by_column.mean(0)
    frames = len(column)
    ceiling = math.log(frames)
    spread = _entropy(column)
    # Entropies of float32 maps may leave a hair of the wrong sign.
    dependence = max(float(_entropy(by_column).mean()) - by_head, 0.0)
    disagreement = max(rows - by_head, 0.0)
    distance = np.arange(1 - frames, frames)
    near = [frames - 1 + d for d in _within(frames)]
    profile = binned(offsets, REACH)
    told = [
        rows / ceiling, -spread / ceiling, -float(offsets @ np.abs(distance)) / frames, max(spread - rows, 0.0),
        disagreement, offsets[frames - 1], offsets[near].sum(), float(offsets @ distance),
        dependence / ceiling, by_head / ceiling, max(1 - float(column @ column) / squares, 0.0),
        disagreement / rows if rows > 0 else 0.0,
    ]  # fmt: skip
    return np.concatenate([profile, in_bins(column), told, [profile @ profile]])


def uniform_observation(frames: int) -> np.ndarray:
    """The observation of uniform attention over so many frames, in closed form."""
    profile = uniform_profile(frames)
    near = [(frames - abs(d)) / frames**2 for d in _within(frames)]
    told = [1.0, -1.0, -(frames**2 - 1) / (3 * frames**2), 0.0, 0.0, 1 / frames, sum(near), 0.0, 0.0, 1.0, 0.0, 0.0]
    return np.concatenate([profile, np.full(BINS, 1 / BINS), told, [profile @ profile]])


def part(name: str, values: np.ndarray) -> np.ndarray:
    """One part of observations, or of sums of them, (..., sum of `PARTS`)."""
    first = sum(list(PARTS.values())[: list(PARTS).index(name)])
    return values[..., first : first + PARTS[name]]


def _within(frames: int) -> list[int]:
    """Offsets that count as local, as far as a map has them."""
    near = min(LOCAL, frames - 1)
    return list(range(-near, near + 1))


def _entropy(weights: np.ndarray) -> Any:
    """Entropy over the last axis in nat."""
    return -(weights * np.log(np.where(weights > 0, weights, 1.0))).sum(-1)
