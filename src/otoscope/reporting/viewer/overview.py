"""Small pictures of attention maps: averages over squares of frames, summed in the tap, in one byte a cell."""

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from otoscope.models.reductions import Reduction

CELLS = 256
"""The most cells that an overview has along each axis."""

THUMBNAIL = 64
"""The most cells that a thumbnail has along each axis."""


def cell_frames(frames: int, cells: int = CELLS) -> int:
    """Frames that a cell spans along each axis: the fewest by which `frames` fit into `cells`.

    >>> cell_frames(256), cell_frames(257), cell_frames(999)
    (1, 2, 4)
    """
    return max(1, -(-frames // cells))


class Overview(Reduction):
    """Mean attention over squares of frames: shape (heads, n, n), n = ceil(frames / cell_frames(frames)).

    The cells of the last row and column span what is left, and are means of that.
    """

    name = "overview"

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        self._span = cell_frames(frames)
        self._cells = -(-frames // self._span)
        self._frames = frames
        self._sum = like.new_zeros(heads, self._cells, self._cells)

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """See `Reduction`."""
        heads, rows, frames = weights.shape
        padded = torch.nn.functional.pad(weights, (0, self._cells * self._span - frames))
        columns = padded.view(heads, rows, self._cells, self._span).sum(-1)
        place = torch.arange(first, first + rows, device=weights.device) // self._span
        self._sum.index_add_(1, place, columns)

    def finish(self) -> torch.Tensor:
        """See `Reduction`."""
        counts = torch.full((self._cells,), float(self._span), device=self._sum.device)
        counts[-1] = self._frames - self._span * (self._cells - 1)
        return self._sum / (counts[:, None] * counts)


def coarser(
    overview: Float32[np.ndarray, "heads n n"], frames: int, span: int, times: int
) -> Float32[np.ndarray, "heads m m"]:
    """An overview with `times` as many frames in a cell: means over frames, not over cells.

    Args:
        overview: means over squares of `span` frames.
        frames: of the map.
        span: frames in a cell of it.
        times: how many cells become one along each axis.
    """
    n = overview.shape[-1]
    counts = np.full(n, span, np.float32)
    counts[-1] = frames - span * (n - 1)
    starts = np.arange(0, n, times)
    sums = np.add.reduceat(np.add.reduceat(overview * (counts[:, None] * counts), starts, 1), starts, 2)
    fewer = np.add.reduceat(counts, starts)
    return (sums / (fewer[:, None] * fewer)).astype(np.float32)


def quantised(
    maps: Float32[np.ndarray, "heads n n"],
) -> tuple[UInt8[np.ndarray, "heads n n"], Float32[np.ndarray, " heads"]]:
    """Maps in one byte a cell, on a scale of square roots, so that small weights keep their differences.

    Returns:
        Bytes q and the largest value m of each map; a cell's value is m (q / 255)^2, to within m / 255.
    """
    largest = maps.max((1, 2)) if maps.size else np.zeros(len(maps), np.float32)
    scale = np.where(largest > 0, largest, 1)[:, None, None]
    return np.rint(255 * np.sqrt(maps / scale)).astype(np.uint8), largest.astype(np.float32)


def restored(
    cells: UInt8[np.ndarray, "heads n n"], largest: Float32[np.ndarray, " heads"]
) -> Float32[np.ndarray, "heads n n"]:
    """What `quantised` was given, to within its rounding."""
    return (largest[:, None, None] * (cells.astype(np.float32) / 255) ** 2).astype(np.float32)
