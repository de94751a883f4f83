"""Intervals of rank correlations: their coverage, their ends, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import MeasureError
from otoscope.statistics.rank_correlation import rank_interval

TRIALS = 1500


def rho(x, y):
    a, b = (one.argsort(1).argsort(1) for one in (x, y))
    n = x.shape[1]
    return 1 - 6 * ((a - b) ** 2).sum(1) / (n * (n * n - 1))


def tau(x, y):
    n = x.shape[1]
    signs = sum(np.sign((x[:, i] - x[:, j]) * (y[:, i] - y[:, j])) for i in range(n) for j in range(i))
    return signs / (n * (n - 1) / 2)


@pytest.mark.parametrize("n", [6, 12])
@pytest.mark.parametrize("r", [0.0, 0.8])
@pytest.mark.parametrize(
    ("kind", "of", "population", "least"),
    [
        ("spearman", rho, lambda r: 6 / np.pi * np.arcsin(r / 2), 0.93),
        ("kendall", tau, lambda r: 2 / np.pi * np.arcsin(r), 0.91),
    ],
)
def test_it_covers_the_correlation_of_the_population(n, r, kind, of, population, least):
    draw = np.random.default_rng(0)
    x = draw.standard_normal((TRIALS, n))
    y = r * x + math.sqrt(1 - r * r) * draw.standard_normal((TRIALS, n))
    ends = {value: rank_interval(float(value), n, kind) for value in np.unique(of(x, y))}
    held = np.mean([ends[value][0] <= population(r) <= ends[value][1] for value in of(x, y)])
    assert least <= held <= 0.99


@given(st.floats(-1, 1), st.integers(5, 40), st.sampled_from(["spearman", "kendall"]))
def test_ends_lie_on_either_side_and_turn_with_the_sign(value, n, kind):
    low, high = rank_interval(value, n, kind)
    assert -1 <= low <= value + 1e-12
    assert value - 1e-12 <= high <= 1
    assert rank_interval(-value, n, kind) == pytest.approx((-high, -low), abs=1e-12)
    wider = rank_interval(value, n, kind, level=0.99)
    assert wider[0] <= low
    assert high <= wider[1]


def test_a_perfect_order_of_few_things_is_not_certain():
    assert rank_interval(1.0, 5)[0] < 0.9 < rank_interval(1.0, 24)[0] < 1
    assert rank_interval(1.0, 4) is None
    assert rank_interval(math.nan, 12) is None


@pytest.mark.parametrize(("value", "kind"), [(1.2, "spearman"), (0.5, "pearson")])
def test_what_is_no_rank_correlation_is_refused(value, kind):
    with pytest.raises(MeasureError, match="correlation"):
        rank_interval(value, 12, kind)
