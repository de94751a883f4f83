"""Sequential stopping: a variant is not run on further batches once an interval that allows for looking decides."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import lambertw

from otoscope.errors import EvaluationError


@dataclass(frozen=True)
class Stopping:
    """When a variant's difference from the unedited model is decided, so that the rest of the corpus is not run on it.

    A metric is a ratio of sums. With x_b the sum over batch b of after less before of the numerators, and d_b that of the
    denominators, the difference on the whole corpus lies below tau where the mean of x_b - tau d_b is negative: the
    ratio is made linear without approximation (Fieller 1954, "Some problems in interval estimation"). Around that mean
    stands the asymptotic confidence sequence of `half_width`, which may be looked at after every batch. A variant stops
    once it lies wholly below zero for `tau_low`, or wholly above zero for `tau_high`. Few batches know little of a
    long tail; so one more is counted with them, twice as far from their mean as the furthest, on the side that speaks
    against stopping (otoscope's own; it loses its weight as batches come in).

    What is assumed: batches come in random order, which the seed draws, so that those that were run are a random sample
    of the corpus' batches; and there are enough of them for the mean of x_b - tau d_b to be nearly normal and for its
    spread to be known. The first is given by the drawing, whatever batches have in common. The second is why only
    batches in which a variant differs from the unedited model at all count for `least`: a variant that never differs is
    run on the whole corpus, for what is rare has no spread yet. The decision is about the difference on this corpus,
    not about speakers that are not in it, and the interval that `paired_bootstrap` gives of what was run knows nothing
    of the stopping.

    In simulations (tests) with `least` at ten a difference of exactly tau was declared to be on one side of it in at
    most 5 % of corpora where batches' differences are normal, counts of rare errors, or exponential; where they are
    log-normal with a spread of one, in 8 %.

    Attributes:
        tau_low: a variant stops where its difference (after less before, in the metric's unit) lies below; minus
            infinity never stops it.
        tau_high: a variant stops where its difference lies above; infinity never stops it.
        least: batches that differ before anything is decided.
        level: coverage of the confidence sequence, for all looks together.
        seed: of the order in which batches are run.

    Raises:
        EvaluationError: the bounds are no numbers or in the wrong order, or level or least are none.
    """

    tau_low: float
    tau_high: float
    least: int = 10
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.tau_low <= self.tau_high:
            raise EvaluationError(
                f"A difference is to be decided as below {self.tau_low} or above {self.tau_high}",
                "Give two numbers, the lower one first.",
            )
        if self.least < 2:
            raise EvaluationError(f"A decision after {self.least} batches", "Run two batches or more.")
        if not 0 < self.level < 1:
            raise EvaluationError(f"A level of {self.level}", "Give a coverage between 0 and 1.")

    def decided(self, differences: Float[np.ndarray, " batches"], denominators: Float[np.ndarray, " batches"]) -> bool:
        """Whether the batches that were run decide.

        Args:
            differences: after less before of the numerators, summed over each batch.
            denominators: their sums.
        """
        if np.count_nonzero(differences) < self.least:
            return False
        ends = [
            side * self._end(differences - tau * denominators, side)
            for tau, side in ((self.tau_low, 1), (self.tau_high, -1))
            if math.isfinite(tau)
        ]
        return any(end < 0 for end in ends)

    def _end(self, values: np.ndarray, side: int) -> float:
        """The upper (1) or lower (-1) end of the confidence sequence of a mean, as it stands after these values."""
        mean = values.mean()
        more = np.append(values, mean + side * 2 * np.abs(values - mean).max())
        return float(more.mean() + side * more.std(ddof=1) * half_width(len(more), self.level, self.least))

    def order(self, count: int) -> list[int]:
        """The order in which so many batches are run."""
        return np.random.default_rng(self.seed).permutation(count).tolist()


def half_width(n: int, level: float = 0.95, at: int = 10) -> float:
    """Half width of an asymptotic confidence sequence of a mean, in standard deviations of one value.

    sqrt(2 (n rho^2 + 1) / (n rho)^2 log(sqrt(n rho^2 + 1) / alpha)) with alpha = 1 - level (Waudby-Smith, Arbour, Sinha,
    Kennedy and Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence sequences", arXiv 2103.06476,
    theorem 2.2). rho makes it narrowest after `at` values: the derivative is zero where y = at rho^2 + 1 satisfies
    y - log y = 1 - 2 log alpha, so that y = -W(-alpha^2 / e) with the lower branch of Lambert's W.

    Args:
        n: values so far.
        level: coverage, for all n together.
        at: see above.

    Returns:
        At n = `at` and 95 % about 3.0 over the root of n, where 1.96 would do for one look.

    >>> round(half_width(10) * 10**0.5, 2)
    3.04
    """
    alpha = 1 - level
    rho2 = (float(-lambertw(-(alpha**2) / math.e, -1).real) - 1) / at
    scaled = n * rho2 + 1
    return math.sqrt(2 * scaled / (n * n * rho2) * math.log(math.sqrt(scaled) / alpha))
