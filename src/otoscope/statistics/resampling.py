"""Estimates of sums that are kept apart by group, from all groups, from two halves and from bootstrap samples of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from otoscope.errors import MeasureError

FEWEST_GROUPS = 4
"""Groups that give two halves of two each."""


@dataclass(frozen=True)
class Resampling:
    """How often each group counts in every estimate.

    Attributes:
        weights: (1 + 2 + resamples, groups): all groups once; the two halves; bootstrap samples.
        used: which groups hold anything, (groups,).
    """

    weights: np.ndarray
    used: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray, resamples: int, seed: int) -> Resampling:
        """Halves and bootstrap samples of the groups that hold anything.

        Groups go to the two halves in turn. As utterances are dealt into groups by a hash of the seed, the halves are as
        good as drawn, and have as many groups each, up to one.

        Args:
            counts: observations in each group, (groups,).
            resamples: how many bootstrap samples: as many groups as there are, drawn with replacement.
            seed: of the samples.

        Raises:
            MeasureError: fewer than four groups hold anything.
        """
        used = np.asarray(counts) > 0
        there = int(used.sum())
        if there < FEWEST_GROUPS:
            raise MeasureError(
                f"{there} groups of utterances do not give two halves that each vary",
                f"Give at least {FEWEST_GROUPS} utterances.",
            )
        place = np.arange(there)
        drawn = np.random.default_rng(seed).multinomial(there, np.full(there, 1 / there), resamples)
        weights = np.zeros((3 + resamples, len(used)))
        weights[:, used] = np.concatenate([np.ones((1, there)), [place % 2 == 0, place % 2 == 1], drawn])
        return cls(weights, used)

    @property
    def groups(self) -> int:
        """How many groups hold anything."""
        return int(self.used.sum())

    def means(self, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Means from sums (groups, ...) and counts (groups,): (1 + 2 + resamples, ...)."""
        return np.tensordot(self.weights, sums, 1) / (self.weights @ counts).reshape(-1, *(1,) * (sums.ndim - 1))

    def error(self, estimates: np.ndarray) -> np.ndarray:
        """Standard error of estimates (1 + 2 + resamples, ...): (...).

        The bootstrap's variance of a mean of g groups is (g - 1) / g of the unbiased one (Efron and Tibshirani 1993,
        section 5.3), which is set right here.
        """
        return np.asarray(estimates[3:].std(0, ddof=1) * np.sqrt(self.groups / (self.groups - 1)))

    def interval(self, estimates: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the interval of the first estimate: Student's t of groups - 1 degrees of freedom times the error."""
        half = student.ppf(0.5 + level / 2, self.groups - 1) * self.error(estimates)
        return np.asarray(estimates[0] - half), np.asarray(estimates[0] + half)

    def above_zero(self, estimates: np.ndarray) -> np.ndarray:
        """P-value of each estimate being zero or less, (...); 1 unless it is above zero in both halves too.

        One-sided, by Student's t of groups - 1 degrees of freedom over the bootstrap's standard error. An estimate that
        does not vary is taken as it is. NaN stays NaN, and so does an estimate that any sample lacks, for it has no error.
        """
        error, value = self.error(estimates), estimates[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            p = np.where(error > 0, student.sf(value / error, self.groups - 1), np.where(value > 0, 0.0, 1.0))
        p = np.where((estimates[:3] > 0).all(0), p, 1.0)
        return np.asarray(np.where(np.isnan(estimates).any(0), np.nan, p))
