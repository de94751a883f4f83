"""Whether two ways to rank heads agree: rank correlations with intervals over heads."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from jaxtyping import Float

from otoscope.errors import EvaluationError
from otoscope.interventions.orders import Head
from otoscope.measures.measure import Result, Row
from otoscope.statistics import jackknife

KENDALL, SPEARMAN = "agreement-kendall", "agreement-spearman"


def kendall(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> tuple[float, Float[np.ndarray, " n"]]:
    """Kendall's tau-b, and what it is without each value in turn.

    With s_ij = sign(x_i - x_j) and t_ij alike, it is sum s t / sqrt(sum s^2 sum t^2) (Kendall 1945). A sum without value
    k lacks twice the k-th row.

    Args:
        x: values, at least three.
        y: values of the same things.

    Returns:
        The correlation and those without each value; NaN where all values are equal.
    """
    s, t = (np.sign(one[:, None] - one[None, :]) for one in (x, y))
    rows = np.stack([(s * t).sum(1), (s * s).sum(1), (t * t).sum(1)])
    whole = rows.sum(1)
    return float(_ratio(whole)), _ratio(whole[:, None] - 2 * rows)


def spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> tuple[float, Float[np.ndarray, " n"]]:
    """Spearman's rank correlation, with mean ranks for equal values, and what it is without each value in turn.

    The rank of value i is 1/2 + sum_j (1 + s_ij) / 2, which without value k lacks (1 + s_ik) / 2.

    Args:
        x: values, at least three.
        y: values of the same things.

    Returns:
        The correlation and those without each value; NaN where all values are equal.
    """
    n = len(x)
    ranks = []
    for one in (x, y):
        below = (1 + np.sign(one[:, None] - one[None, :])) / 2
        whole = below.sum(1) + 0.5
        ranks.append(np.concatenate([whole[None], whole[None] - below.T]))  # row k + 1: without value k
    counted = np.concatenate([np.ones((1, n)), 1 - np.eye(n)])
    a, b = ((one - (one * counted).sum(1, keepdims=True) / counted.sum(1, keepdims=True)) * counted for one in ranks)
    found = _ratio(np.stack([(a * b).sum(1), (a * a).sum(1), (b * b).sum(1)]))
    return float(found[0]), found[1:]


def agreement(named: Mapping[str, Mapping[Head, float]], level: float = 0.95) -> Result:
    """Rank correlations of every two sets of values, over the heads that all sets have.

    Intervals are a jackknife over heads: they say how much rests on single heads, not how the values vary with the
    speech that they are from.

    Args:
        named: name -> (layer, head) -> value.
        level: coverage of the intervals.

    Returns:
        Rows of `agreement-kendall` (tau-b) and `agreement-spearman`: target and other are the two names, n the number of
        heads. Value and interval are None where one of the two has the same value for all heads.

    Raises:
        EvaluationError: there are fewer than two sets, fewer than three heads that all have, or a value is not finite.
    """
    if len(named) < 2:
        raise EvaluationError(f"{len(named)} sets of values cannot be compared", "Give two or more.")
    heads = sorted(set.intersection(*(set(values) for values in named.values())))
    if len(heads) < 3:
        raise EvaluationError(f"{len(heads)} heads have a value in every set", "Give values of the same heads.")
    columns = {name: np.array([values[head] for head in heads], np.float64) for name, values in named.items()}
    for name, column in columns.items():
        if not np.isfinite(column).all():
            raise EvaluationError(f"The {name} of a head is not finite", "Give a finite value of every head.")
    rows = []
    for one, other in combinations(named, 2):
        for measure, correlation in ((KENDALL, kendall), (SPEARMAN, spearman)):
            value, without = correlation(columns[one], columns[other])
            row = Row(measure, target=one, other=other, n=len(heads))
            if np.isfinite(value):
                row.value = value
                if np.isfinite(without).all():
                    low, high = jackknife(value, without, level=level)
                    row.low, row.high = max(-1.0, float(low)), min(1.0, float(high))
            rows.append(row)
    return Result(rows, {}, {"agreement": {"heads": len(heads), "interval_over": "heads", "level": level}})


def _ratio(sums: np.ndarray) -> np.ndarray:
    """Sum of products over the root of the products of sums of squares; NaN where one of them is zero."""
    top, one, other = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(top / np.sqrt(one * other))
