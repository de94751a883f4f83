"""Estimates from all groups, from halves and from bootstrap samples."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from otoscope.errors import MeasureError
from otoscope.statistics.resampling import Resampling


def test_halves_are_disjoint_and_make_the_whole():
    counts = np.array([3.0, 0, 2, 5, 1, 4, 0, 2])
    drawn = Resampling.of(counts, 50, seed=1)
    whole, first, second = drawn.weights[:3]
    assert drawn.groups == 6
    assert np.array_equal(whole, counts > 0)
    assert np.array_equal(first + second, whole)
    assert first.sum() == second.sum() == 3
    assert (drawn.weights[3:].sum(1) == 6).all()
    assert not drawn.weights[:, counts == 0].any()
    assert np.array_equal(Resampling.of(counts, 50, seed=1).weights, drawn.weights)
    assert not np.array_equal(Resampling.of(counts, 50, seed=2).weights, drawn.weights)


def test_means_weigh_observations_and_not_groups():
    draw = np.random.default_rng(0)
    counts = np.array([1.0, 4, 2, 3])
    sums = draw.normal(size=(4, 2, 3))
    drawn = Resampling.of(counts, 5, seed=0)
    means = drawn.means(sums, counts)
    assert means.shape == (8, 2, 3)
    assert np.allclose(means[0], sums.sum(0) / 10)
    assert np.allclose(means[1], (sums[0] + sums[2]) / 3)
    assert np.allclose(means[2], (sums[1] + sums[3]) / 7)
    times = drawn.weights[5]
    assert np.allclose(means[5], np.einsum("g,gab->ab", times, sums) / (times @ counts))


def test_error_and_test_are_those_of_a_mean():
    """Of groups of one observation each the mean has a standard error and a t-test in closed form."""
    values = np.random.default_rng(3).normal(0.3, 1.0, size=30)
    drawn = Resampling.of(np.ones(30), 20000, seed=0)
    estimates = drawn.means(values, np.ones(30))
    assert float(drawn.error(estimates)) == pytest.approx(values.std(ddof=1) / 30**0.5, rel=0.02)
    assert (estimates[:3] > 0).all()
    expected = ttest_1samp(values, 0, alternative="greater").pvalue
    assert float(drawn.above_zero(estimates)) == pytest.approx(expected, rel=0.1)
    low, high = drawn.interval(estimates)
    assert (float(low), float(high)) == pytest.approx(ttest_1samp(values, 0).confidence_interval()[:], abs=0.02)


def test_few_groups_have_students_interval():
    """Of five groups the plain bootstrap's error would be 11 % too small, and a p-value by one more degree by a sixth."""
    values = np.array([0.9, 0.4, 1.3, 0.6, 0.1])
    drawn = Resampling.of(np.ones(5), 50000, seed=0)
    estimates = drawn.means(values, np.ones(5))
    assert float(drawn.error(estimates)) == pytest.approx(values.std(ddof=1) / 5**0.5, rel=0.01)
    expected = ttest_1samp(values, 0, alternative="greater").pvalue
    assert float(drawn.above_zero(estimates)) == pytest.approx(expected, rel=0.05)
    low, high = drawn.interval(estimates)
    assert (float(low), float(high)) == pytest.approx(ttest_1samp(values, 0).confidence_interval()[:], abs=0.01)


def test_what_one_half_does_not_show_is_not_found():
    values = np.array([1.0, -0.01, 1.1, 0.0, 0.9, -0.02, 1.0, 0.01])
    drawn = Resampling.of(np.ones(8), 300, seed=0)
    estimates = drawn.means(values, np.ones(8))
    assert estimates[0] > 0 > estimates[2]
    assert float(drawn.above_zero(estimates)) == 1
    again = drawn.means(values + 0.05, np.ones(8))
    assert float(drawn.above_zero(again)) < 0.05


def test_what_does_not_vary_is_taken_as_it_is_and_nan_stays():
    drawn = Resampling.of(np.ones(4), 10, seed=0)
    estimates = np.stack([np.full(13, 0.2), np.full(13, -0.2), np.zeros(13), np.full(13, np.nan)], -1)
    assert np.allclose(drawn.above_zero(estimates), [0, 1, 1, np.nan], equal_nan=True)
    estimates[7, 0] = np.nan  # without an error, which is no reason to call it found
    assert np.isnan(drawn.above_zero(estimates)[0])


def test_three_groups_are_refused():
    with pytest.raises(MeasureError, match="3 groups of utterances .*at least 4"):
        Resampling.of(np.array([1.0, 1, 0, 5]), 10, seed=0)
