import numpy as np
import pytest
from scipy.stats import t as student

from otoscope.errors import MeasureError
from otoscope.statistics import corrected_t, jackknife, ratio_jackknife


def test_of_a_mean_is_student_t():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 3))
    value, low, high = ratio_jackknife(x, np.ones(12))
    half = student.ppf(0.975, 11) * x.std(axis=0, ddof=1) / np.sqrt(12)
    np.testing.assert_allclose(value, x.mean(axis=0))
    np.testing.assert_allclose(high - value, half)
    np.testing.assert_allclose(value - low, half)


def test_of_a_mean_of_unequal_groups_follows_the_pseudo_values():
    rng = np.random.default_rng(1)
    m = np.array([1.0, 5.0, 2.0, 10.0, 4.0])
    sums = m * rng.standard_normal(5)
    n, g = m.sum(), len(m)
    value, low, _ = ratio_jackknife(sums, m)
    theta = sums.sum() / n
    without = (sums.sum() - sums) / (n - m)
    h = n / m
    centre = g * theta - ((1 - m / n) * without).sum()
    pseudo = h * theta - (h - 1) * without
    variance = ((pseudo - centre) ** 2 / (h - 1)).sum() / g
    np.testing.assert_allclose(value - low, student.ppf(0.975, g - 1) * np.sqrt(variance))


def test_scale_and_shift():
    rng = np.random.default_rng(2)
    top, bottom = rng.standard_normal((8, 2)), rng.uniform(1, 3, (8, 2))
    one = np.array(ratio_jackknife(top, bottom))
    np.testing.assert_allclose(np.array(ratio_jackknife(-3 * top, bottom)), -3 * one[[0, 2, 1]])
    np.testing.assert_allclose(np.array(ratio_jackknife(top + 5 * bottom, bottom)), one + 5)
    np.testing.assert_allclose(np.array(ratio_jackknife(top, 4 * bottom)), one / 4)


def test_empty_groups_do_not_count():
    rng = np.random.default_rng(3)
    top, bottom = rng.standard_normal(6), rng.uniform(1, 2, 6)
    padded = ratio_jackknife(np.append(top, [0, 0]), np.append(bottom, [0, 0]))
    np.testing.assert_allclose(padded, ratio_jackknife(top, bottom))


def test_one_group_has_a_value_and_no_interval():
    value, low, high = ratio_jackknife(np.array([[3.0, 1.0], [0.0, 1.0]]), np.array([[2.0, 1.0], [0.0, 1.0]]))
    np.testing.assert_allclose(value, [1.5, 1.0])
    assert np.isnan(low[0])
    assert np.isnan(high[0])
    assert low[1] == high[1] == 1.0


@pytest.mark.parametrize("unequal", [False, True])
def test_coverage_of_a_ratio_of_sums(unequal):
    rng = np.random.default_rng(4)
    trials, g = 4000, 20
    rows = rng.integers(5, 60, (g, trials)) if unequal else np.full((g, trials), 30)
    # Sums of `rows` frames with a mean of 0.4 per frame, each group with an effect of its own.
    bottom = rows * rng.uniform(0.8, 1.2, (g, trials))
    effect = 0.1 * rng.standard_normal((g, trials))
    top = (0.4 + effect) * bottom + np.sqrt(rows) * 0.5 * rng.standard_normal((g, trials))
    _, low, high = ratio_jackknife(top, bottom)
    coverage = float(((low <= 0.4) & (high >= 0.4)).mean())
    assert abs(coverage - 0.95) < 0.03


def test_coverage_of_a_nonlinear_estimate():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1500, 20, 30)) * 2 + 1  # trials, groups, rows
    sums, squares = x.sum(-1), (x**2).sum(-1)

    def deviation(s, q, n):
        return np.sqrt(q / n - (s / n) ** 2)

    full = deviation(sums.sum(1), squares.sum(1), 600)
    without = deviation(sums.sum(1, keepdims=True) - sums, squares.sum(1, keepdims=True) - squares, 570)
    low, high = jackknife(full, without.T)
    assert abs(((low <= 2) & (high >= 2)).mean() - 0.95) < 0.03


def test_corrected_t_is_wider_than_plain_t_by_the_overlap():
    scores = np.array([0.5, 0.6, 0.4, 0.55, 0.45])
    mean, low, high = corrected_t(scores, 1 / 3)
    half = student.ppf(0.975, 4) * scores.std(ddof=1) * np.sqrt(1 / 5 + 1 / 3)
    np.testing.assert_allclose([mean, low, high], [0.5, 0.5 - half, 0.5 + half])
    _, low, high = corrected_t(scores[:1], 1 / 3)
    assert np.isnan(low)
    assert np.isnan(high)


def test_shapes_that_disagree_are_refused():
    with pytest.raises(MeasureError, match=r"\(3, 2\)"):
        jackknife(np.zeros(3), np.zeros((3, 2)))
    with pytest.raises(MeasureError, match="Group sizes"):
        jackknife(np.zeros(2), np.zeros((3, 2)), np.ones(4))
    with pytest.raises(MeasureError, match="disagree"):
        ratio_jackknife(np.zeros((3, 2)), np.zeros((4, 2)))
    with pytest.raises(MeasureError, match="no fold"):
        corrected_t(np.zeros(0), 0.3)
