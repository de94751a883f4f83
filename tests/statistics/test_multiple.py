"""Corrections for many tests against their definitions; intervals of shares against the equation that they solve."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from otoscope.statistics.multiple import holm, wilson

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@given(P_VALUES)
def test_holm_is_the_closed_test_of_bonferroni(values):
    p = np.array(values)
    everyone = range(len(p))
    subsets = [s for size in range(1, len(p) + 1) for s in combinations(everyone, size)]
    wanted = [max(min(1.0, len(s) * min(p[list(s)])) for s in subsets if k in s) for k in everyone]
    assert holm(p) == pytest.approx(wanted, abs=1e-12)


def test_holm_of_no_test():
    assert holm(np.zeros(0)).shape == (0,)


@given(st.integers(1, 200), st.data())
def test_wilson_ends_are_the_shares_that_are_z_errors_away(n, data):
    hits = data.draw(st.integers(0, n))
    z = norm.ppf(0.975)
    low, high = wilson(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    for end in (low, high):
        assert (hits / n - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / n, abs=1e-9)


def test_wilson_holds_its_level_on_average():
    n = 12
    covered = []
    for share in np.linspace(0.05, 0.95, 37):
        inside = [low <= share <= high for low, high in (wilson(k, n) for k in range(n + 1))]
        covered.append(float(np.dot(inside, binom.pmf(np.arange(n + 1), n, share))))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)
