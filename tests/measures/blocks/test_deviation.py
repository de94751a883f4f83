"""Departure from neighbours and from the trend over depth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import median_abs_deviation, theilslopes

from otoscope.errors import MeasureError
from otoscope.measures.blocks.deviation import jensen_shannon, neighbour_deviation, trend_residual


def drawn(seed, *shape):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), size=shape[:-1])


@given(st.integers(2, 30), st.integers(0, 1000))
def test_divergence_equals_scipys(k, seed):
    p, q = drawn(seed, 2, 4, k)
    q[:, 0] = 0
    q /= q.sum(-1, keepdims=True)
    found = jensen_shannon(p, q)
    assert np.allclose(found, jensenshannon(p, q, axis=-1) ** 2, atol=1e-12)
    assert np.allclose(found, jensen_shannon(q, p))
    assert ((found >= 0) & (found <= np.log(2) + 1e-12)).all()


def test_divergence_of_what_is_no_distribution_is_refused():
    for wrong in ([0.5, 0.6], [1.5, -0.5], [np.nan, 1.0]):
        with pytest.raises(MeasureError, match="Distributions of shape"):
            jensen_shannon(np.array(wrong), np.array([0.5, 0.5]))


def test_neighbours_by_hand():
    mu = drawn(0, 5, 7)
    value, step = neighbour_deviation(mu)
    expected = [
        jensen_shannon(mu[0], mu[1]),
        *(jensen_shannon(mu[k], (mu[k - 1] + mu[k + 1]) / 2) for k in (1, 2, 3)),
        jensen_shannon(mu[4], mu[3]),
    ]
    assert np.allclose(value, expected)
    # Without block 2 the steps are 0-1, 1-3 and 3-4.
    steps = [jensen_shannon(mu[a], mu[b]) for a, b in ((0, 1), (1, 3), (3, 4))]
    assert step[2] == pytest.approx(np.median(steps))


def test_blocks_that_are_left_out_are_stepped_over():
    mu = drawn(1, 6, 7)
    value, step = neighbour_deviation(mu, left_out=(2, 5))
    assert value[3] == pytest.approx(float(jensen_shannon(mu[3], (mu[1] + mu[4]) / 2)))
    assert value[4] == pytest.approx(float(jensen_shannon(mu[4], mu[3])))
    assert value[2] == pytest.approx(float(jensen_shannon(mu[2], (mu[1] + mu[3]) / 2)))
    assert step[0] == pytest.approx(np.median([jensen_shannon(mu[a], mu[b]) for a, b in ((1, 3), (3, 4))]))


def test_blocks_on_the_way_are_no_more_than_a_step_away():
    start, end = drawn(2, 2, 9)
    share = np.linspace(0, 1, 8)[:, None]
    value, step = neighbour_deviation((1 - share) * start + share * end)
    assert (value < 1.5 * step).all()
    assert np.allclose(value[1:-1], 0, atol=1e-12)


def test_too_few_blocks_have_no_deviation():
    for blocks, there in ((1, 0), (2, 2), (3, 3)):
        value, step = neighbour_deviation(drawn(3, blocks, 5))
        assert np.isfinite(value).sum() == there
        assert np.isfinite(step).sum() == (blocks if blocks > 2 else 0)


def test_leading_dimensions_are_taken_one_by_one():
    mu, values = drawn(4, 3, 6, 5), np.random.default_rng(0).normal(size=(3, 7))
    for k in range(3):
        for mine, theirs in zip(neighbour_deviation(mu, (1,)), neighbour_deviation(mu[k], (1,)), strict=True):
            assert np.allclose(mine[k], theirs)
        assert np.allclose(trend_residual(values, 0.1, (2,))[k], trend_residual(values[k], 0.1, (2,)))


@given(st.integers(6, 15), st.integers(0, 1000))
def test_residuals_equal_those_from_scipys_slope(blocks, seed):
    values = np.random.default_rng(seed).normal(size=blocks)
    block = seed % blocks
    others = np.delete(np.arange(blocks), block)
    slope, start, *_ = theilslopes(values[others], others)
    rest = values - start - slope * np.arange(blocks)
    spread = median_abs_deviation(rest[others])
    expected = 0.6745 * (rest[block] - np.median(rest[others])) / spread
    assert trend_residual(values, 1e-12)[block] == pytest.approx(expected)


def test_a_line_has_no_residual_and_one_outlier_has():
    line = 3 - 0.5 * np.arange(8)
    assert np.allclose(trend_residual(line, 0.1), 0, atol=1e-9)
    line[3] += 2
    score = trend_residual(line, 0.1)
    assert score[3] == pytest.approx(0.6745 * 2 / 0.1)
    assert np.abs(np.delete(score, 3)).max() < 1e-9
    line[6] -= 5
    assert trend_residual(line, 0.1, left_out=(6,))[3] == pytest.approx(0.6745 * 2 / 0.1)


def test_a_trend_takes_five_others():
    assert np.isnan(trend_residual(np.arange(5.0), 0.1)).all()
    assert np.isfinite(trend_residual(np.arange(6.0), 0.1)).all()
    assert np.isnan(trend_residual(np.arange(6.0), 0.1, left_out=(0,))[1:]).all()
    with pytest.raises(MeasureError, match="floor of 0"):
        trend_residual(np.arange(6.0), 0.0)
