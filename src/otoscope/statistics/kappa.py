"""Agreement of several raters beyond what chance would give."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from otoscope.errors import MeasureError
from otoscope.statistics.intervals import jackknife


def fleiss_kappa(counts: Int[np.ndarray, "things labels"]) -> tuple[float, Float[np.ndarray, " things"]]:
    """Kappa of Fleiss 1971, "Measuring nominal scale agreement among many raters", and what it is without each thing.

        kappa = (P - P_e) / (1 - P_e),  P = mean_i sum_j n_ij (n_ij - 1) / (n (n - 1)),  P_e = sum_j p_j^2

    with p_j the share of label j among all labels.

    Args:
        counts: how many of the n raters gave each thing each label; n is the same for all things, two or more.

    Returns:
        Kappa, up to 1, and kappa without each thing; NaN where all labels are the same, so that chance agrees too.

    Raises:
        MeasureError: there is no thing, or not the same two or more raters of each.

    >>> round(fleiss_kappa(np.array([[2, 0], [2, 0], [1, 1], [0, 2]]))[0], 3)
    0.467
    """
    raters = set(counts.sum(1).tolist())
    if len(raters) != 1 or (n := int(next(iter(raters)))) < 2 or (counts < 0).any():
        raise MeasureError(
            f"Counts of shape {counts.shape} are not of the same two or more raters",
            "Give one row a thing, with as many labels as there are raters.",
        )
    agreed = (counts * (counts - 1)).sum(1) / (n * (n - 1))
    shares = counts / n
    things = len(counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = _kappa(np.asarray(agreed.mean()), shares.mean(0))
        without = _kappa((agreed.sum() - agreed) / (things - 1), (shares.sum(0) - shares) / (things - 1))
    return float(whole), without


def kappa_interval(kappa: float, without: Float[np.ndarray, " things"], fewest: int = 5) -> tuple[float, float] | None:
    """Interval of kappa by a jackknife over things, within -1 and 1.

    Args:
        kappa: of all things.
        without: of all things but each.
        fewest: of fewer things there is no interval.

    Returns:
        Both ends; None where there is none, or where kappa is the same without any thing, so that no spread is seen.
    """
    if len(without) < fewest or not np.isfinite(without).all() or not np.ptp(without):
        return None
    low, high = jackknife(kappa, without)
    return max(-1.0, float(low)), min(1.0, float(high))


def _kappa(agreed: np.ndarray, shares: np.ndarray) -> np.ndarray:
    chance = (shares**2).sum(-1)
    # A sum of squares of shares is 1 to the last digit or two where one share is all.
    return np.where(1 - chance > 1e-12, (agreed - chance) / (1 - chance), np.nan)
