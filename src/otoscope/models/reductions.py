"""Sums over attention maps that the tap builds up tile by tile, so that no map outlives its tile."""

from abc import ABC, abstractmethod

import torch

from otoscope.models.anatomy import Grid
from otoscope.speech.utterance import Utterance


class Reduction(ABC):
    """One statistic of the maps of one layer and one utterance.

    The tap calls `meet`, then `start`, then for consecutive blocks of query rows `peaks` and `tile`, then `finish`.

    Attributes:
        name: under which the capture holds it.
        reads_peaks: whether `peaks` is called; they are found once for all sums of a map that read them.
    """

    name: str
    reads_peaks = False

    def meet(self, utterance: Utterance, grid: Grid) -> None:  # noqa: B027
        """Whose map it is, and how its frames lie over the samples; for statistics that read its labels."""

    @abstractmethod
    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """A new map of shape (heads, frames, frames) begins; `like` gives device and type."""

    def peaks(self, scores: torch.Tensor, weights: torch.Tensor) -> None:  # noqa: B027
        """The largest score and the largest weight of each row that `tile` is handed next, (heads, rows) both."""

    @abstractmethod
    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """Rows first, first + 1, ... of the map.

        Args:
            first: index of the first query row.
            scores: (heads, rows, frames), before the softmax.
            weights: (heads, rows, frames), each row sums to one.
        """

    @abstractmethod
    def finish(self) -> torch.Tensor:
        """The statistic of the whole map."""


class RowEntropy(Reduction):
    """Mean over queries of the entropy of their row, in nat: shape (heads,)."""

    name = "row-entropy"
    reads_peaks = True

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        self._sum = like.new_zeros(heads, dtype=torch.float64)
        self._frames = frames

    def peaks(self, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """Entropy is lse - E[s], and lse is max s - log max p: no logarithm of the whole tile."""
        self._sum += (scores - weights.log()).sum(-1, dtype=torch.float64)

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """Takes E[s] off."""
        self._sum -= torch.linalg.vecdot(weights, scores).sum(-1, dtype=torch.float64)

    def finish(self) -> torch.Tensor:
        """Rounding can leave a one-hot row a hair below zero; entropy is not negative."""
        return (self._sum / self._frames).clamp(min=0)


class PeakMean(Reduction):
    """Mean over queries of the largest weight of their row: shape (heads,)."""

    name = "peak-mean"
    reads_peaks = True

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        self._sum = like.new_zeros(heads, dtype=torch.float64)
        self._frames = frames

    def peaks(self, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """See `Reduction`."""
        self._sum += weights.sum(-1, dtype=torch.float64)

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """Nothing: `peaks` tells all."""

    def finish(self) -> torch.Tensor:
        """See `Reduction`."""
        return self._sum / self._frames


class LargestWeight(Reduction):
    """The largest weight of the map: shape (heads,)."""

    name = "largest-weight"
    reads_peaks = True

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        self._largest = like.new_zeros(heads)

    def peaks(self, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """See `Reduction`."""
        self._largest = torch.maximum(self._largest, weights.amax(-1))

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """Nothing: `peaks` tells all."""

    def finish(self) -> torch.Tensor:
        """See `Reduction`."""
        return self._largest.double()


class ColumnMean(Reduction):
    """Mean over queries of the attention on each key: shape (heads, frames)."""

    name = "column-mean"

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        self._sum = like.new_zeros(heads, frames)
        self._frames = frames

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """See `Reduction`."""
        self._sum += weights.sum(1)

    def finish(self) -> torch.Tensor:
        """See `Reduction`."""
        return self._sum.double() / self._frames


class OffsetMean(Reduction):
    """Mean over queries of the attention at each key-minus-query offset: shape (heads, 2 * frames - 1).

    Entry frames - 1 + d holds offset d, for d in [1 - frames, frames - 1]; entries sum to one.
    """

    name = "offset-mean"

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        self._sum = like.new_zeros(heads, 2 * frames - 1)
        self._frames = frames
        self._buffer: torch.Tensor | None = None

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """Sums along diagonals: rows laid one element apart in memory make a diagonal a column."""
        heads, rows, frames = weights.shape
        width = frames + rows
        if self._buffer is None or self._buffer.shape[1] != rows * (width + 1):
            self._buffer = weights.new_zeros(heads, rows * (width + 1))
        self._buffer[:, : rows * width].view(heads, rows, width)[:, :, rows:] = weights
        # Column c of the skewed view holds offset c - rows - first.
        skewed = self._buffer.view(heads, rows, width + 1).sum(1)
        low = frames - 1 - rows - first + 1
        self._sum[:, low : low + width - 1] += skewed[:, 1:width]

    def finish(self) -> torch.Tensor:
        """See `Reduction`."""
        self._buffer = None
        return self._sum.double() / self._frames


class RelativeDistance(Reduction):
    """Mean over queries of the distance to the keys, relative to the farthest key of the query: shape (heads,).

    A map of one frame has no distance; it counts as 0.
    """

    name = "relative-distance"

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        self._sum = like.new_zeros(heads, dtype=torch.float64)
        self._frames = frames

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """One product of all rows of a head with their distances."""
        last = self._frames - 1
        keys = torch.arange(self._frames, device=weights.device, dtype=weights.dtype)
        queries = keys[first : first + weights.shape[1], None]
        farthest = torch.maximum(queries, last - queries).clamp(min=1)
        self._sum += weights.flatten(1) @ ((queries - keys).abs_() / farthest).flatten()

    def finish(self) -> torch.Tensor:
        """See `Reduction`."""
        return self._sum / self._frames


class BlockMap(Reduction):
    """Of the map of the block, which is the mean of its heads' maps, the means over queries of two numbers of a row.

    The first is the row's entropy in nat, the second the sum of its squared weights: shape (2,). Without heads both are 0.
    """

    name = "block-map"

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        self._sums = like.new_zeros(2, dtype=torch.float64)
        self._heads, self._frames = max(heads, 1), frames

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """One map's worth of logarithms, however many heads there are."""
        block = weights.sum(0) / self._heads
        self._sums[0] += torch.special.entr(block).sum(dtype=torch.float64)
        self._sums[1] += block.square_().sum(dtype=torch.float64)

    def finish(self) -> torch.Tensor:
        """See `Reduction`; a weight that rounding left above 1 takes a hair off the entropy."""
        return (self._sums / self._frames).clamp(min=0)


class WholeMap(Reduction):
    """The map itself, (heads, frames, frames): for viewers and tests, never for a pass over a corpus."""

    name = "whole-map"

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        self._tiles: list[torch.Tensor] = []

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """See `Reduction`."""
        self._tiles.append(weights.clone())

    def finish(self) -> torch.Tensor:
        """See `Reduction`."""
        return torch.cat(self._tiles, 1)
