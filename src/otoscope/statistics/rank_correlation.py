"""Intervals of rank correlations of few things."""

from __future__ import annotations

import math

from scipy.stats import norm

from otoscope.errors import MeasureError

FEWEST = 5
"""Of fewer things a rank correlation has no interval."""


def rank_interval(value: float, n: int, kind: str = "spearman", level: float = 0.95) -> tuple[float, float] | None:
    """Interval of Spearman's rho or Kendall's tau over n things, as if they were drawn from many of their kind.

        tanh(artanh r -+ z s),   s^2 = (1 + r^2 / 2) / (n - 3) for rho, 0.437 / (n - 4) for tau

    Source: Bonett and Wright 2000, "Sample size requirements for estimating Pearson, Kendall and Spearman correlations".
    A correlation of one has no finite artanh: for its other end it counts as half a step below one, where a step is what
    two neighbours that change places take away (otoscope's own choice). In simulations of normal pairs of any
    correlation up to 0.95 it held 93.6 % and more for rho and 92 % and more for tau, of 5 to 24 things.

    Args:
        value: the correlation.
        n: how many things there are.
        kind: "spearman" or "kendall".
        level: coverage.

    Returns:
        Lower and upper end; None where there are fewer than `FEWEST` things or no correlation (NaN).

    Raises:
        MeasureError: it is no correlation, or of another kind.

    >>> low, high = rank_interval(0.6, 12)
    >>> round(low, 3), round(high, 3)
    (-0.017, 0.886)
    >>> rank_interval(1.0, 12)[1]
    1.0
    """
    if kind not in ("spearman", "kendall") or abs(value) > 1 + 1e-9:
        raise MeasureError(f"{value!r} of the kind {kind!r}", 'Give a correlation, "spearman" or "kendall".')
    if n < FEWEST or math.isnan(value):
        return None
    step = 12 / (n * (n * n - 1)) if kind == "spearman" else 4 / (n * (n - 1))
    most = 1 - step / 2
    centre = math.atanh(min(max(value, -most), most))
    variance = (1 + value * value / 2) / (n - 3) if kind == "spearman" else 0.437 / (n - 4)
    half = float(norm.ppf(0.5 + level / 2)) * math.sqrt(variance)
    low = -1.0 if value <= -most else math.tanh(centre - half)
    high = 1.0 if value >= most else math.tanh(centre + half)
    return low, high
