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


@pytest.mark.parametrize("n", [5, 9, 24])
@pytest.mark.parametrize("r", [-0.7, 0.0, 0.4])
def test_ends_are_those_of_bonett_and_wright(n, r):
    for kind, variance in (("spearman", (1 + r * r / 2) / (n - 3)), ("kendall", 0.437 / (n - 4))):
        half = 1.959964 * math.sqrt(variance)
        wanted = [math.tanh(math.atanh(r) + sign * half) for sign in (-1, 1)]
        assert rank_interval(r, n, kind) == pytest.approx(wanted, abs=1e-6)


def test_a_correlation_of_one_counts_as_half_a_step_below_it():
    """Of six things two neighbours that change places take 12 / 210 from rho and 4 / 30 from tau."""
    for kind, step, variance in (("spearman", 12 / 210, 1.5 / 3), ("kendall", 4 / 30, 0.437 / 2)):
        low = math.tanh(math.atanh(1 - step / 2) - 1.959964 * math.sqrt(variance))
        assert rank_interval(1.0, 6, kind) == pytest.approx((low, 1.0), abs=1e-6)
        assert rank_interval(-1.0, 6, kind) == pytest.approx((-1.0, -low), abs=1e-6)
        swapped = np.array([[0, 1, 3, 2, 4, 5]])
        assert 1 - {"spearman": rho, "kendall": tau}[kind](np.arange(6)[None], swapped)[0] == pytest.approx(step)


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
