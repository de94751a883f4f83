"""Relation maps as sums that the tap builds up tile by tile."""

from __future__ import annotations

import torch

from otoscope.measures.heads.relation_labels import Laid, RelationLabels
from otoscope.models.anatomy import Grid
from otoscope.models.reductions import Reduction
from otoscope.speech import Utterance

MOST_KEPT = 64
"""Utterances whose labels are kept laid out; a batch seldom has as many."""


class LabelReader:
    """Lays an utterance's labels and permuted ones over the frames of maps, once for all layers of a batch.

    Args:
        labels: what rows and columns stand for.
    """

    def __init__(self, labels: RelationLabels) -> None:
        self.labels = labels
        self._kept: dict[tuple[str, int], tuple[Laid, ...]] = {}

    def __call__(self, utterance: Utterance, grid: Grid, frames: int) -> tuple[Laid, ...]:
        """The labels and the permuted ones; nothing where the utterance has none."""
        key = (utterance.id, frames)
        if key not in self._kept:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            both = (self.labels.lay(utterance, grid, frames, permuted) for permuted in (False, True))
            self._kept[key] = tuple(one for one in both if one is not None)
        return self._kept[key]


class RelationSum(Reduction):
    """P' of the utterance's labels and of permuted ones, (2, heads, labels, labels); zeros where it has no label.

    Args:
        name: of the sum.
        reader: of the labels that rows and columns stand for.
        exclude_run: see `relation_map`.
    """

    def __init__(self, name: str, reader: LabelReader, exclude_run: bool) -> None:
        self.name = name
        self._reader, self._exclude_run = reader, exclude_run

    def meet(self, utterance: Utterance, grid: Grid) -> None:
        """See `Reduction`."""
        self._utterance, self._grid = utterance, grid

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        n = len(self._reader.labels)
        self._sums = like.new_zeros(2, heads, n, n, dtype=torch.float64)
        self._frames = frames
        self._laid = self._reader(self._utterance, self._grid, frames)
        self._shares = [like.new_tensor(one.shares()) for one in self._laid]
        self._both = torch.cat(self._shares, 1) if self._laid else None
        self._blocks = [
            [(label, first, like.new_tensor(share)) for label, first, share in one.blocks()]
            if self._exclude_run
            else []
            for one in self._laid
        ]

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """See `Reduction`."""
        if self._both is None:
            return
        heads, rows, frames = weights.shape
        to_labels = (weights.reshape(heads * rows, frames) @ self._both).view(heads, rows, 2, self._sums.shape[-1])
        for k, shares in enumerate(self._shares):
            self._sums[k] += shares[first : first + rows].T @ to_labels[:, :, k]
            for label, begin, share in self._blocks[k]:
                low, high = max(first, begin), min(first + rows, begin + len(share))
                if low < high:
                    block = weights[:, low - first : high - first, begin : begin + len(share)]
                    self._sums[k, :, label, label] -= (block @ share) @ share[low - begin : high - begin]

    def finish(self) -> torch.Tensor:
        """See `Reduction`."""
        found = self._sums / self._frames
        if self._exclude_run:
            # What is left of a label that has one run is rounding.
            for k, laid in enumerate(self._laid):
                possible = torch.as_tensor(laid.uniform(True) > 0, device=found.device)
                found[k] = torch.where(possible, found[k].clamp(min=0), 0.0)
        return found
