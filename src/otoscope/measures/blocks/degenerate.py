"""Attention patterns that need no neighbour to be told as degenerate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from otoscope.measures.blocks.summary import SHAPES, part


@dataclass(frozen=True)
class Pattern:
    """A degenerate pattern, and how it is told.

    Attributes:
        name: as in the table.
        limit: a block shows it where the statistic is beyond.
        above: beyond is above the limit; else it is below.
        implied: patterns that it brings with it, which are then no reasons of their own.
    """

    name: str
    limit: float
    above: bool = False
    implied: tuple[str, ...] = ()

    def excess(self, statistic: np.ndarray) -> np.ndarray:
        """How far a statistic is beyond the limit, in its own unit."""
        return statistic - self.limit if self.above else self.limit - statistic


PATTERNS = (
    Pattern("query-independent", 3e-4, implied=("rank-one",)),
    Pattern(
        "uniform", 0.999, above=True, implied=("query-independent", "rank-one", "same-heads", "neighbour-copy"),
    ),
    Pattern("rank-one", 2e-3),
    Pattern("edge-sink", 0.5, above=True),
    Pattern("same-heads", 1e-4),
    Pattern("neighbour-copy", 1e-5),
)  # fmt: skip
"""Degenerate patterns, with limits of otoscope's own.

The limits lie between maps that were made degenerate, which come to 0 or 1 within rounding, and the blocks of small
models that were trained, whose attention is nearly uniform in places (a spread of 0.998 is found) and carries something
all the same.
"""


def degenerate_statistics(blocks: np.ndarray, copies: np.ndarray, heads: Sequence[int]) -> np.ndarray:
    """The statistic of every pattern; the definitions are otoscope's own.

        query-independent  mean over heads of -(G + V) / ln T: a head's query tells nothing of its keys
        uniform            mean over heads of G / ln T: every query of every head spreads evenly
        rank-one           share of the map of the block that is left when all its rows are replaced by their mean; unlike
                           the first, it is of the mean over heads, in which heads that look to opposite sides cancel
        edge-sink          share of the attention on the first and the last twentieth of an utterance
        same-heads         disagreement of heads over the entropy of the map of the block
        neighbour-copy     distance from the most alike of the blocks before; see `copy_distances`

    Args:
        blocks: means of `observed`, (..., L, sum of `PARTS`).
        copies: means of `copy_distances`, (..., L, L).
        heads: of each block; one head disagrees with none, and has no such statistic.

    Returns:
        (..., L, patterns), in the order of `PATTERNS`; the first block has no block before it, and 1 there.
    """
    shapes, position = part("shapes", blocks), part("position", blocks)
    return np.stack(
        [
            *(shapes[..., SHAPES.index(name)] for name in ("head-dependence", "head-spread", "outside-mean-row")),
            position[..., 0] + position[..., -1],
            np.where(np.array(heads) > 1, shapes[..., SHAPES.index("disagreement-share")], np.nan),
            copies.min(-1),
        ],
        axis=-1,
    )


def copy_distances(offsets: Sequence[np.ndarray], columns: Sequence[np.ndarray]) -> np.ndarray:
    """How unlike every two blocks' maps of an utterance are, by two margins of them; the definition is otoscope's own.

    The distance is half the sum of absolute differences (total variation), of the attention at each offset or of that on
    each key, whichever is greater, averaged over heads, head by head. It is 0 where one block uses the other's map.

    Args:
        offsets: of each block the mean attention at each offset, (heads, 2 T - 1).
        columns: of each block the mean attention on each key, (heads, T).

    Returns:
        (L, L): entry [l, m] for m < l; 1 elsewhere, and between blocks with other numbers of heads.
    """
    blocks = len(offsets)
    distance = np.ones((blocks, blocks))
    for later in range(1, blocks):
        alike = [m for m in range(later) if len(offsets[m]) == len(offsets[later]) > 0]
        for m in alike:
            distance[later, m] = max(
                float(np.abs(margin[later] - margin[m]).sum(-1).mean()) / 2 for margin in (offsets, columns)
            )
    return distance
