"""Maps of all layers rolled into one: from a layer's output back to what entered the first layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from otoscope.errors import MeasureError
from otoscope.measures.heads.maps import checked_maps


def rollout(maps: Any, *, residual: bool = True) -> Any:
    """Rolls maps out over layers (Abnar and Zuidema 2020; their code brings rows back to one).

        R_l = A_l R_{l-1},  R_0 = I,   where with `residual` A_l stands for (A_l + I) / 2

    Args:
        maps: (L, T, T), torch or numpy, layer 1 first; rows are queries and sum to one. Heads are averaged before.
        residual: adds the identity for the residual connection, as raw attention needs; maps of value zeroing, and
            norms with the residual, hold it already (Mohebbi et al. 2023).

    Returns:
        (L, T, T): how much of what entered layer 1 at frame j is in the output of layer l at frame i; rows sum to one.

    Raises:
        MeasureError: another shape, or rows that do not sum to one.

    >>> half = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> rollout(np.stack([half, half]))[-1]
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    xp, maps = checked_maps(maps)
    if maps.ndim != 3:
        raise MeasureError(
            f"Maps of layers have shape {tuple(maps.shape)}, not (L, T, T)", "Average the heads of each layer first."
        )
    frames = maps.shape[-1]
    own = maps.new_zeros(frames, frames).fill_diagonal_(1) if isinstance(maps, torch.Tensor) else np.eye(frames)
    rolled, found = None, []
    for one in maps:
        one = (one + own) / 2 if residual else one
        rolled = one if rolled is None else one @ rolled
        rolled = rolled / xp.sum(rolled, axis=-1)[:, None]  # rounding does not add up
        found.append(rolled)
    return xp.stack(found) if found else maps
