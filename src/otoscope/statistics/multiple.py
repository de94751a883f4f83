"""Several tests at once, and shares of few."""

import numpy as np
from jaxtyping import Float, Float64
from scipy.stats import norm


def holm(p: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """P-values corrected for how many tests there are, so that one wrong rejection among all is as rare as the level.

    With p_(1) <= ... <= p_(n) the corrected p_(k) is the maximum over j <= k of min(1, (n - j + 1) p_(j)).

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Args:
        p: p-values of the tests, in any order.

    Returns:
        Corrected p-values, in the same order.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return corrected


def wilson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share, which holds its level for few trials and for shares of 0 and 1.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Args:
        hits: how many of the trials.
        n: trials, one or more.
        level: coverage.

    Returns:
        Lower and upper end, within 0 and 1.

    >>> tuple(round(end, 4) for end in wilson(0, 10))
    (0.0, 0.2775)
    """
    z = float(norm.ppf(0.5 + level / 2))
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    # Rounding would leave the ends of no hits and of all hits a hair off.
    return 0.0 if hits == 0 else centre - half, 1.0 if hits == n else centre + half
