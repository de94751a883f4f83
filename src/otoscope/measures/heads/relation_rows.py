"""From means of relation maps to concentrations with intervals, operations, and their relation to verticality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from otoscope.measures.heads.operations import Operations, head_operations
from otoscope.measures.heads.relation import concentration, relative_relation
from otoscope.statistics.intervals import jackknife

FEWEST_HEADS = 3
"""Fewer heads have no rank correlation."""


@dataclass(frozen=True)
class Means:
    """Means over utterances, of all labels that are looked at and not of the rest.

    Attributes:
        p: P', shape (heads, n, n).
        p_uniform: P_U, shape (n, n).
        verticality: shape (heads,).
        near: share of attention within 100 ms of the query, shape (heads,).
    """

    p: Float[np.ndarray, "heads n n"]
    p_uniform: Float[np.ndarray, "n n"]
    verticality: Float[np.ndarray, " heads"]
    near: Float[np.ndarray, " heads"]

    def concentration(self) -> Float[np.ndarray, "heads n"]:
        """C of every head and label, NaN where it is not known."""
        return np.asarray(concentration(relative_relation(self.p, self.p_uniform)))


@dataclass(frozen=True)
class Score:
    """Numbers with their 95 % intervals and the same with permuted labels, all of one shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    floor: np.ndarray

    def sides(self) -> np.ndarray:
        """1 where the interval lies above both 0 and the floor, -1 where it lies below both, else 0; shape of the value.

        What is not known counts as 0.
        """
        floor = np.where(np.isnan(self.floor), 0.0, self.floor)
        with np.errstate(invalid="ignore"):
            above, below = self.low > np.maximum(floor, 0), self.high < np.minimum(floor, 0)
        return np.asarray(above.astype(np.int64) - below)


class Findings:
    """What the means say, and how it holds with a group of utterances left out.

    Args:
        means: of all utterances.
        permuted: of all utterances, with permuted labels.
        without: of all utterances but those of one group, for each group.
        sizes: utterances of each of these groups.
        labels: names of the labels.
        what: what a label is called, such as "phone".
    """

    def __init__(
        self,
        means: Means,
        permuted: Means,
        without: Sequence[Means],
        sizes: Float[np.ndarray, " groups"],
        labels: Sequence[str],
        what: str,
    ) -> None:
        self._means, self._permuted, self._without = means, permuted, without
        self._labels, self._what = labels, what
        values, floor = means.concentration(), permuted.concentration()
        # Without groups nothing can be left out, and there are no intervals.
        self._sizes = sizes if len(without) else np.zeros(1)
        self._left = np.stack([one.concentration() for one in without] or [values])
        low, high = jackknife(values, self._left, self._sizes)
        self.concentration = Score(values, low, high, floor)

    def extremes(self) -> tuple[Int[np.ndarray, " heads"], Score]:
        """Number of the label of largest absolute concentration of each head, -1 where none is known, and its score.

        The interval is that of the label; the floor the extreme of permuted labels on the same side of 0.
        """
        c = self.concentration
        which = np.where(np.isnan(c.value), -np.inf, np.abs(c.value)).argmax(-1)
        value, low, high = (np.take_along_axis(x, which[:, None], -1)[:, 0] for x in (c.value, c.low, c.high))
        highest = np.where(np.isnan(c.floor), -np.inf, c.floor).max(-1)
        lowest = np.where(np.isnan(c.floor), np.inf, c.floor).min(-1)
        floor = np.where(value >= 0, highest, lowest)
        return np.where(np.isnan(value), -1, which), Score(
            value, low, high, np.where(np.isfinite(floor), floor, np.nan)
        )

    def operations(self) -> tuple[Operations, Float[np.ndarray, " heads"]]:
        """What each head does, and with how large a share of the groups left out it does the same; NaN without groups."""
        found = self._operations(self._means)
        if not self._without:
            return found, np.full(len(found.kinds), np.nan)
        return found, np.mean([self._operations(one).kinds == found.kinds for one in self._without], axis=0)

    def _operations(self, means: Means) -> Operations:
        other = self._permuted
        return head_operations(means.p, means.p_uniform, other.p, other.p_uniform, means.near, self._labels, self._what)

    def verticality_relation(self) -> Score:
        """Spearman's correlation of verticality and the absolute value of the extreme concentration, over heads."""
        vertical = self._means.verticality
        value = rank_correlation(vertical, _largest(self.concentration.value))
        left = [
            rank_correlation(one.verticality, _largest(c)) for one, c in zip(self._without, self._left, strict=False)
        ]
        low, high = jackknife(value, np.array(left or [value]), self._sizes)
        return Score(
            np.array(value), low, high, np.array(rank_correlation(vertical, _largest(self.concentration.floor)))
        )


def rank_correlation(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Spearman's correlation over the places where both are known; ties share their mean rank.

    Returns:
        NaN for fewer than three places, or where either is constant.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([5.0, 7.0, 6.0]))
    0.5
    """
    known = ~(np.isnan(a) | np.isnan(b))
    first, second = rankdata(a[known]), rankdata(b[known])
    if len(first) < FEWEST_HEADS or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _largest(c: Float[np.ndarray, "heads n"]) -> Float[np.ndarray, " heads"]:
    """The largest absolute value of each head; NaN where none is known."""
    found = np.where(np.isnan(c), -np.inf, np.abs(c)).max(-1)
    return np.where(np.isfinite(found), found, np.nan)
