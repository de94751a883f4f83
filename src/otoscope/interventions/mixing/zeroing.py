"""Value zeroing: what a frame contributes is how much its absence changes (Mohebbi et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from otoscope.errors import MeasureError
from otoscope.interventions.mixing.sublayers import Sublayer

MOST_NUMBERS = 1 << 22
"""Numbers in the altered states of a layer that are held at once; its feed-forward part takes a few times as many."""


def zeroing_distances(sublayer: Sublayer, spans: Sequence[tuple[int, int]] | None = None) -> torch.Tensor:
    """How much a layer's output at each frame changes where the values of other frames are zero.

    For every span j the values of its frames are zero in all heads of this layer, and all else that enters the layer,
    its maps among it, is as it was; C[i, j] = 1 - cos(y_i without j, y_i). The rest of the layer is run on the altered
    sums of its attention, many at a time: attention itself is not computed again. In Conformers the rest holds a
    convolution, so that a frame changes by its neighbours' absence too.

    Args:
        sublayer: the layer's attention.
        spans: first frame and one past the last frame of each; None takes every frame by itself.

    Returns:
        (frames, n spans), float64, from 0 to 2.

    Raises:
        MeasureError: the model computes in half precision, whose rounding moves frames as far as most absences do.
    """
    if sublayer.dtype not in (torch.float32, torch.float64):
        raise MeasureError(
            f"Value zeroing in {str(sublayer.dtype).removeprefix('torch.')} would measure rounding: what the absence of "
            "a frame changes is as small",
            "Load the model in float32.",
        )
    rows = sublayer.frames
    spans = [(j, j + 1) for j in range(sublayer.frames)] if spans is None else list(spans)
    output, maps = sublayer.output[:rows], sublayer.maps[:, :rows]
    at_once = max(1, MOST_NUMBERS // max(output.numel(), 1))
    whole = _unit(sublayer.rerun(output[None]))
    found = [whole.new_zeros(0, rows)]
    for first in range(0, len(spans), at_once):
        handed = torch.stack([_handed(maps, sublayer.transformed, span) for span in spans[first : first + at_once]])
        altered = _unit(sublayer.rerun(output - handed))
        # Of unit vectors 1 - cos is half the squared distance, which keeps its digits where they nearly agree.
        found.append((altered - whole).square().sum(-1) / 2)
    return torch.cat(found).T


def _handed(maps: torch.Tensor, transformed: torch.Tensor, span: tuple[int, int]) -> torch.Tensor:
    """What the frames of a span hand to every frame through all heads, (T, d)."""
    first, last = span
    weights = maps[:, :, first:last].permute(1, 2, 0).flatten(1)  # (T, frames of the span x H)
    return weights @ transformed[first:last].flatten(0, 1)


def _unit(states: torch.Tensor) -> torch.Tensor:
    """States at length 1, float64."""
    wide = states.double()
    return wide / torch.linalg.vector_norm(wide, dim=-1, keepdim=True).clamp(min=1e-300)
