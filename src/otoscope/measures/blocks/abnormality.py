"""Which blocks attend abnormally: by their neighbours, by the trend over depth, or by a degenerate pattern.

Chen and Asgari (2021) look for blocks with abnormal patterns; what is abnormal they do not define where it can be read. The
definition here is otoscope's own. A pattern that is abnormal need not do harm: that takes an intervention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from otoscope.measures.blocks.degenerate import PATTERNS, degenerate_statistics
from otoscope.measures.blocks.deviation import jensen_shannon, neighbour_deviation, trend_residual
from otoscope.measures.blocks.summary import part
from otoscope.statistics.multiple import holm
from otoscope.statistics.resampling import Resampling

LEVEL = 0.05
"""Of all tests of a model together."""

LEAST_DEVIATION = 0.03
"""Divergence from the neighbours, in nat, below which no block is abnormal by it."""

STEPS = 6.0
"""Times the median step between other blocks that a block must differ from its neighbours."""

LARGEST_RESIDUAL = 10.0
"""Robust score beyond which a block leaves the trend.

Over depth sound models do not follow a line: scores up to 6 are found in blocks that nothing is wrong with.
"""

VARIANCE = "between-utterance-variance"

FLOORS = {
    "globalness-normalised": 0.02, "verticality-normalised": 0.02, "diagonality": 0.02, "head-information": 0.05,
    "head-disagreement": 0.05, "self-mass": 0.01, "local-mass": 0.02, "mean-offset": 0.5, VARIANCE: 0.01,
}  # fmt: skip
"""Numbers of a block's summary, and the spread around their trend over depth that is told from none."""

TESTS = ("neighbour-deviation", *FLOORS, *(pattern.name for pattern in PATTERNS))
"""What every block is tested for, in the order of the arrays."""

RELATIVE = 1 + len(FLOORS)
"""The first so many tests hold a block against the others."""


def variance(power: np.ndarray, profiles: np.ndarray, n: np.ndarray | float) -> np.ndarray:
    """Variance of the relative profile between utterances, summed over its bins; the definition is otoscope's own.

        n / (n - 1) (E_u |mu_u|^2 - |E_u mu_u|^2)

    Args:
        power: means of the squared norm of utterances' profiles, (...).
        profiles: mean profiles, (..., K).
        n: utterances, (...) or one number, above 1.
    """
    return np.asarray((power - (profiles**2).sum(-1)) * n / (n - 1))


def numbers(blocks: np.ndarray, n: np.ndarray | float) -> np.ndarray:
    """The summary of each block, (..., L, numbers) in the order of `FLOORS`, from means of `observed`.

    Args:
        blocks: (..., L, sum of `PARTS`).
        n: utterances, one number or with as many dimensions as the result's blocks have.
    """
    spread = variance(part("power", blocks)[..., 0], part("profile", blocks), n)
    return np.concatenate([part("summary", blocks), spread[..., None]], -1)


@dataclass(frozen=True)
class Sums:
    """What groups of utterances add up to.

    Attributes:
        counts: utterances in each group, (groups,).
        blocks: sums of `observed`, (groups, L, sum of `PARTS`); blocks that have heads only.
        copies: sums of `copy_distances`, (groups, L, L).
        heads: of each block.
    """

    counts: np.ndarray
    blocks: np.ndarray
    copies: np.ndarray
    heads: tuple[int, ...]


@dataclass(frozen=True)
class Judgement:
    """What the tests of all blocks give; blocks and tests are counted from 0, tests as in `TESTS`.

    Attributes:
        value: (L, tests): nat, robust score, or a pattern's statistic; NaN where a test cannot be made.
        low: lower ends of their intervals.
        high: upper ends.
        p: corrected by Holm over all blocks and tests; NaN where a test cannot be made.
        noise: divergence of each block's profiles in two halves of the corpus, (L,), in nat.
        out: blocks that are no neighbours and not in the trend of others.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    noise: np.ndarray
    out: tuple[int, ...]

    @property
    def found(self) -> np.ndarray:
        """Which tests find which block abnormal, (L, tests)."""
        return np.nan_to_num(self.p, nan=1.0) < LEVEL

    def reasons(self, block: int) -> list[str]:
        """What finds a block abnormal, in words, without patterns that another pattern brings with it."""
        names = [name for name, found in zip(TESTS, self.found[block], strict=True) if found]
        implied = {also for pattern in PATTERNS if pattern.name in names for also in pattern.implied}
        return [f"trend of {name}" if name in FLOORS else name for name in names if name not in implied]


def judge(sums: Sums, resamples: int = 300, seed: int = 0) -> Judgement:
    """Tests every block for a departure from its neighbours, from the trend of each number, and for degenerate patterns.

    A test compares a statistic with a limit: `LEAST_DEVIATION` or `STEPS` median steps, whichever is more;
    `LARGEST_RESIDUAL`; those of `PATTERNS`. Its p-value is that of the statistic not being beyond, by the bootstrap over
    groups of utterances, and 1 unless the statistic is beyond in both of two disjoint halves too; p-values are corrected
    by Holm over all blocks and tests.

    One faulty block makes its neighbours look odd as well. So blocks that are found abnormal are taken out of what the
    others are held against, those with degenerate patterns first, then one after another the block without which the
    fewest tests of the rest are beyond; each time all that are left are tested anew.

    Args:
        sums: of groups of utterances.
        resamples: bootstrap samples.
        seed: of the samples.

    Raises:
        MeasureError: fewer than four groups.
    """
    drawn = Resampling.of(sums.counts, resamples, seed)
    blocks, n = drawn.means(sums.blocks, sums.counts), drawn.weights @ sums.counts
    # Samples of one utterance over and over have no variance between utterances.
    summary = numbers(blocks, np.maximum(n, 2)[:, None])
    profiles = part("profile", blocks)
    patterns = degenerate_statistics(blocks, drawn.means(sums.copies, sums.counts), sums.heads)
    shown = np.stack([one.excess(patterns[..., k]) for k, one in enumerate(PATTERNS)], -1)
    out: tuple[int, ...] = ()
    while True:
        relative, excess = _relative(profiles, summary, out)
        p = drawn.above_zero(np.concatenate([excess, shown], -1))
        there = np.isfinite(p)
        p[there] = holm(p[there])
        found = np.nan_to_num(p, nan=1.0) < LEVEL
        if not out and found[:, RELATIVE:].any():
            out = tuple(int(block) for block in np.flatnonzero(found[:, RELATIVE:].any(-1)))
            continue
        odd = [int(block) for block in np.flatnonzero(found[:, :RELATIVE].any(-1)) if block not in out]
        if not odd or 2 * (len(out) + 1) > len(sums.heads):
            break
        out = tuple(sorted((*out, _explaining(odd, profiles[:1], summary[:1], excess[0], out))))
    values = np.concatenate([relative, patterns], -1)
    low, high = drawn.interval(values)
    low[:, 0], high[:, 0] = np.maximum(low[:, 0], 0), np.minimum(high[:, 0], np.log(2))
    low[:, RELATIVE:], high[:, RELATIVE:] = np.maximum(low[:, RELATIVE:], 0), np.minimum(high[:, RELATIVE:], 1)
    return Judgement(values[0], low, high, p, jensen_shannon(profiles[1], profiles[2]), out)


def _relative(profiles: np.ndarray, summary: np.ndarray, out: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Statistics that hold blocks against others, and by what share they are beyond limits, each (..., L, RELATIVE)."""
    deviation, step = neighbour_deviation(profiles, out)
    beyond = deviation / np.maximum(LEAST_DEVIATION, STEPS * step) - 1
    scores = [trend_residual(summary[..., k], floor, out) for k, floor in enumerate(FLOORS.values())]
    return (
        np.stack([deviation, *scores], -1),
        np.stack([beyond, *(np.abs(score) / LARGEST_RESIDUAL - 1 for score in scores)], -1),
    )


def _explaining(
    odd: list[int], profiles: np.ndarray, summary: np.ndarray, excess: np.ndarray, out: tuple[int, ...]
) -> int:
    """The block of several odd ones without which the fewest tests of the rest are beyond; of equals the oddest."""

    def left(block: int) -> tuple[int, float]:
        others = [m for m in range(len(excess)) if m != block and m not in out]
        beyond = _relative(profiles, summary, (*out, block))[1][0, others]
        return int((np.nan_to_num(beyond, nan=-1.0) > 0).sum()), -float(np.nanmax(excess[block]))

    return min(odd, key=left)
