"""The block bootstrap: blocks of utterances are drawn as wholes, and an interval stands on what the draws give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from otoscope.errors import EvaluationError

_CHUNK = 2_000_000  # counts that are drawn at once: 16 MB


@dataclass(frozen=True)
class Blocks:
    """Utterances in groups that are drawn as wholes.

    Attributes:
        of: block of every utterance, from 0, shape (n,).
        names: a name for every block.
        by: what a block is.
    """

    of: np.ndarray
    names: tuple[str, ...]
    by: Literal["speaker", "utterance"]

    def __len__(self) -> int:
        return len(self.names)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over each block, shape (blocks,)."""
        return np.bincount(self.of, weights=values, minlength=len(self.names))


def blocks_of(ids: Sequence[str], speakers: Sequence[str | None]) -> Blocks:
    """Blocks by speaker; by utterance where there are fewer than two speakers.

    Utterances whose speaker is not known count as one speaker together, for they may be.

    >>> blocks_of(["a", "b", "c"], ["x", "y", "x"]).of.tolist()
    [0, 1, 0]
    >>> blocks_of(["a", "b"], ["x", "x"]).by
    'utterance'
    """
    named = ["unknown" if speaker is None else f"speaker {speaker}" for speaker in speakers]
    by: Literal["speaker", "utterance"] = "speaker"
    if len(set(named)) < 2:
        named, by = list(ids), "utterance"
    names = tuple(sorted(set(named)))
    where = {name: k for k, name in enumerate(names)}
    return Blocks(np.array([where[name] for name in named], dtype=np.int64), names, by)


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: of the whole corpus.
        low: lower end; NaN where there is no interval.
        high: upper end; NaN where there is no interval.
        level: coverage that the interval is for.
        blocks: how many blocks were drawn from.
        by: what a block is: "speaker" or "utterance".
    """

    value: float
    low: float
    high: float
    level: float
    blocks: int
    by: str


@dataclass(frozen=True)
class Bootstrap:
    """An estimate with the draws that its interval stands on.

    Attributes:
        estimate: value and interval.
        draws: statistics of the drawn corpora, stretched as `block_bootstrap` says, shape (m,), m <= n: drawn corpora
            on which there is no statistic (a denominator of zero) are left out.
        unstretched: the same statistics as they came, shape (m,).
    """

    estimate: Estimate
    draws: np.ndarray
    unstretched: np.ndarray


def block_bootstrap(
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    by: str = "utterance",
    n: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    positive: bool = False,
) -> Bootstrap:
    """Bootstrap interval of a statistic of sums over blocks, corrected for few blocks.

    As many blocks as there are, G, are drawn with replacement, n times; the statistic of each drawn corpus is taken,
    and its deviation from the whole corpus' statistic is multiplied by sqrt(G / (G - 1)) t / z, where t and z are
    quantiles of Student's distribution with G - 1 degrees of freedom and of the normal one. Without the factor the
    interval is too narrow, since draws of G blocks spread like a variance with divisor G and since the variance of
    few blocks is itself uncertain (Hesterberg 2015, "What teachers should know about the bootstrap", section 4); for a
    mean of normal values it makes the interval Student's. With 40 blocks it is 1.05, with 9 it is 1.25.

    The interval reaches as far to both sides as the deviations' absolute value does at the level; so it held its
    level better, for differences that are zero, than the plain percentiles. Where the statistic is `positive` it is taken
    between percentiles of the deviations of its logarithm instead, and no end is negative.

    Args:
        sums: sums of each block, shape (k, G).
        statistic: from sums of drawn corpora (k, m) to the statistic of each (m,).
        by: what a block is, for the result.
        n: how often blocks are drawn.
        seed: of the drawing.
        level: coverage.
        positive: the statistic is never negative.

    Raises:
        EvaluationError: n is less than 100, or the level is not between 0 and 1.
    """
    if n < 100 or not 0 < level < 1:
        raise EvaluationError(f"{n} draws for a level of {level}", "Draw 100 times or more, for a level below 1.")
    sums = np.asarray(sums, np.float64)
    blocks = sums.shape[1]
    value = float(statistic(sums.sum(1, keepdims=True))[0])
    if blocks < 2:
        return Bootstrap(Estimate(value, float("nan"), float("nan"), level, blocks, by), np.zeros(0), np.zeros(0))
    rng = np.random.default_rng(seed)
    draws, chunk = [], max(1, _CHUNK // blocks)
    for first in range(0, n, chunk):
        counts = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=min(chunk, n - first))
        with np.errstate(divide="ignore", invalid="ignore"):
            draws.append(statistic(sums @ counts.T))
    drawn = np.concatenate(draws)
    drawn = drawn[np.isfinite(drawn)]
    tail = 0.5 + level / 2
    stretch = np.sqrt(blocks / (blocks - 1)) * student.ppf(tail, blocks - 1) / norm.ppf(tail)
    if positive and value > 0:
        stretched = value * (drawn / value) ** stretch
        low, high = (float(end) for end in np.quantile(stretched, [1 - tail, tail]))
    else:
        stretched = value + stretch * (drawn - value)
        reach = float(np.quantile(np.abs(stretched - value), level))
        low, high = value - reach, value + reach
    return Bootstrap(Estimate(value, low, high, level, blocks, by), stretched, drawn)


def allow_for_unseen(found: Estimate, sums: np.ndarray, bounds: tuple[float, float] | None) -> Estimate:
    """The estimate itself, unless all blocks have the same ratio, so that draws of them show no spread at all.

    Nothing at all was seen then of blocks that do otherwise, and the interval says how many there may be. Of G blocks
    that are all of one kind, others make up at most a share of u = 1 - ((1 - level) / 2)^(1 / G) of all that there are
    (Clopper and Pearson 1934, "The use of confidence or fiducial limits"; nearly the rule of three). If each of them
    were as far off as can be, the ratio would reach from v - u (v - least) to v + u (most - v). The end is wide: u is
    0.34 with 9 speakers and 0.09 with 40, whatever each of them said, since speakers are what is independent.

    Args:
        found: the bootstrap's estimate.
        sums: numerators and denominators of each block, shape (2, G).
        bounds: the least and the most that a block's ratio can be; None where there are no such numbers.

    Returns:
        The estimate; its ends are NaN where no spread is seen, and the ratio has no bounds or lies beyond them, or
        fewer than two blocks have a denominator.
    """
    tops, bottoms = np.asarray(sums, np.float64)
    if np.isnan(found.low) or not (tops * bottoms.sum() == bottoms * tops.sum()).all():
        return found
    telling = int((bottoms > 0).sum())
    if bounds is None or telling < 2 or not bounds[0] <= found.value <= bounds[1]:
        return replace(found, low=float("nan"), high=float("nan"))
    unseen = 1 - ((1 - found.level) / 2) ** (1 / telling)
    low, high = (found.value + unseen * (bound - found.value) for bound in bounds)
    return replace(found, low=low, high=high)
