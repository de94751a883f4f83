from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cross_decomposition import CCA as Nipals

from otoscope.errors import MeasureError
from otoscope.functional import mean_cca, svcca
from otoscope.measures.layers import canonical_correlations, pwcca, pwcca_from_moments
from otoscope.measures.layers.correlation import scatter_of
from otoscope.measures.layers.from_moments import (
    canonical_correlations_from_moments,
    mean_cca_from_moments,
    svcca_from_moments,
)
from otoscope.statistics import Moments, Scatter


def views(seed, n=200, dx=7, dy=4, shared=3):
    """Two views with a common part, of dimensions that differ in size and mean."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, shared))
    x = common @ rng.standard_normal((shared, dx)) + rng.standard_normal((n, dx))
    y = common @ rng.standard_normal((shared, dy)) + rng.standard_normal((n, dy))
    return x * rng.uniform(0.1, 10, dx) + rng.standard_normal(dx) * 5, y + rng.standard_normal(dy)


def morcos(x, y):
    """PWCCA from explicit canonical variates, by QR and SVD of the rows; weights by x."""
    x, y = x - x.mean(0), y - y.mean(0)
    qx, qy = np.linalg.qr(x)[0], np.linalg.qr(y)[0]
    u, rho, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
    variates = qx @ u
    alpha = [sum(abs(variates[:, i] @ x[:, j]) for j in range(x.shape[1])) for i in range(len(rho))]
    return np.dot(alpha, rho) / np.sum(alpha)


def test_correlations_equal_those_of_scikit_learn():
    x, y = views(0)
    a, b = Nipals(n_components=4, max_iter=5000, tol=1e-12).fit_transform(x, y)
    expected = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(canonical_correlations(x, y), expected, atol=1e-7)


@pytest.mark.parametrize(("dx", "dy"), [(7, 4), (4, 7), (5, 5), (1, 3), (1, 1)])
def test_equals_explicit_canonical_variates(dx, dy):
    x, y = views(dx * 10 + dy, dx=dx, dy=dy)
    assert pwcca(x, y) == pytest.approx(morcos(x, y), abs=1e-12)
    assert pwcca(x, y, weights="y") == pytest.approx(morcos(y, x), abs=1e-12)
    assert pwcca(x, y, weights="mean") == pytest.approx((morcos(x, y) + morcos(y, x)) / 2, abs=1e-12)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(18, 80),
    dx=st.integers(1, 8),
    dy=st.integers(1, 8),
    cuts=st.lists(st.integers(0, 80), max_size=4),
    weights=st.sampled_from(["x", "y", "mean"]),
    offset=st.sampled_from([0.0, 100.0]),
)
@settings(max_examples=100, deadline=None)
def test_streamed_moments_give_the_score_of_whole_arrays(seed, n, dx, dy, cuts, weights, offset):
    rng = np.random.default_rng(seed)
    x, y = views(seed, n=n, dx=dx, dy=dy)
    x = x + offset
    parts = [Moments(2, dx, dy), Moments(2, dx, dy)]
    blocks = np.split(np.arange(n), sorted(min(c, n) for c in cuts))
    for i in rng.permutation(len(blocks)):
        parts[rng.integers(2)].update(int(rng.integers(2)), x[blocks[i]], y[blocks[i]])
    parts[0].merge(parts[1])
    assert pwcca_from_moments(parts[0].pooled(), weights=weights) == pytest.approx(
        float(pwcca(x, y, weights=weights)), abs=1e-10
    )


def test_at_the_size_of_a_base_model():
    x, y = views(1, n=3000, dx=768, dy=80, shared=30)
    m = Moments(3, 768, 80)
    for i in range(0, 3000, 250):
        m.update(i % 3, x[i : i + 250], y[i : i + 250])
    for weights in ("x", "y"):
        assert abs(pwcca_from_moments(m.pooled(), weights=weights) - pwcca(x, y, weights=weights)) < 1e-10


def test_population_correlations_are_found_behind_any_mixing():
    rho = np.array([0.9, 0.5, 0.2])
    rng = np.random.default_rng(2)
    n = 100_000
    a = rng.standard_normal((n, 3))
    b = rho * a + np.sqrt(1 - rho**2) * rng.standard_normal((n, 3))
    x = np.concatenate([a, rng.standard_normal((n, 2))], axis=1) @ rng.standard_normal((5, 5)) + 3
    y = b @ rng.standard_normal((3, 3))
    np.testing.assert_allclose(canonical_correlations(x, y), rho, atol=0.01)


@given(seed=st.integers(0, 1000), shift=st.floats(-100, 100))
@settings(max_examples=30, deadline=None)
def test_invariances(seed, shift):
    rng = np.random.default_rng(seed)
    x, y = views(seed)
    mix_x, mix_y = rng.standard_normal((7, 7)) + 4 * np.eye(7), rng.standard_normal((4, 4)) + 4 * np.eye(4)
    np.testing.assert_allclose(
        canonical_correlations(x @ mix_x + shift, y @ mix_y - shift), canonical_correlations(x, y), atol=1e-9
    )
    # Weights are those of x: any map of y leaves the score, for x a shift, a common scale and the order do.
    assert pwcca(3 * x[:, ::-1] + shift, y @ mix_y) == pytest.approx(float(pwcca(x, y)), abs=1e-9)
    assert pwcca(x, y) == pytest.approx(float(pwcca(y, x, weights="y")), abs=1e-12)
    order = rng.permutation(len(x))
    assert pwcca(x[order], y[order]) == pytest.approx(float(pwcca(x, y)), abs=1e-12)


@pytest.mark.parametrize("weights", ["x", "y", "mean"])
def test_closed_forms(weights):
    x, _ = views(3)
    assert pwcca(x, x, weights=weights) == pytest.approx(1, abs=1e-12)
    assert pwcca(x, x @ np.triu(np.ones((7, 7))) + 1, weights=weights) == pytest.approx(1, abs=1e-12)
    # Sines and cosines of different frequency over whole periods are exactly uncorrelated.
    t = 2 * np.pi * np.arange(64)[:, None] / 64
    assert pwcca(np.sin(t * [1, 2, 3]), np.cos(t * [1, 4]), weights=weights) == pytest.approx(0, abs=1e-12)
    # Of one dimension each, it is the absolute correlation.
    a, b = views(4, dx=1, dy=1)
    assert pwcca(a, b, weights=weights) == pytest.approx(abs(np.corrcoef(a[:, 0], b[:, 0])[0, 1]), abs=1e-12)


def test_constant_and_repeated_dimensions_do_not_count():
    x, y = views(5)
    rest = np.concatenate([x, np.full((200, 1), 0.1), 2 * x[:, :1] - x[:, 1:2]], axis=1)
    np.testing.assert_allclose(canonical_correlations(rest, y), canonical_correlations(x, y), atol=1e-9)
    expected = pwcca(x, y, weights="y")
    assert pwcca(rest, y, weights="y") == pytest.approx(float(expected), abs=1e-9)
    padded = canonical_correlations(x, np.concatenate([y, y], axis=1))
    np.testing.assert_allclose(padded, [*canonical_correlations(x, y), 0, 0, 0], atol=1e-9)


def test_one_hot_has_one_direction_less_than_labels():
    rng = np.random.default_rng(6)
    labels = rng.integers(5, size=300)
    one_hot = np.eye(5)[labels]
    x = one_hot @ rng.standard_normal((5, 8)) + rng.standard_normal((300, 8))
    rho = canonical_correlations(x, one_hot)
    np.testing.assert_allclose(rho[:4], canonical_correlations(x, one_hot[:, :4]), atol=1e-10)
    assert rho[4] == 0
    # A layer that holds the label exactly.
    holds = one_hot @ rng.standard_normal((5, 8))
    assert pwcca(holds, one_hot, weights="y") == pytest.approx(1, abs=1e-9)


def test_no_more_rows_than_dimensions_correlate_perfectly():
    rng = np.random.default_rng(7)
    assert pwcca(rng.standard_normal((6, 10)), rng.standard_normal((6, 8))) == pytest.approx(1, abs=1e-9)


def test_torch_and_numpy_agree_over_leading_dimensions():
    pairs = [views(seed) for seed in range(6)]
    x, y = (np.stack(v).reshape(2, 3, 200, -1) for v in zip(*pairs, strict=True))
    found = pwcca(torch.from_numpy(x), torch.from_numpy(y))
    assert isinstance(found, torch.Tensor)
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found.numpy(), pwcca(x, y), atol=1e-12)
    np.testing.assert_allclose(pwcca(x, y).ravel(), [pwcca(*p) for p in pairs], atol=1e-14)
    rho = canonical_correlations(torch.from_numpy(x), torch.from_numpy(y))
    assert rho.shape == (2, 3, 4)
    np.testing.assert_allclose(rho.numpy(), canonical_correlations(x, y), atol=1e-12)


def test_float32_is_computed_in_float64():
    x, y = (v.astype(np.float32) for v in views(8))
    assert pwcca(x, y) == pytest.approx(float(pwcca(x.astype(float), y.astype(float))), abs=1e-14)
    assert pwcca(torch.from_numpy(x), torch.from_numpy(y)).dtype == torch.float64


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((5, 2)), np.zeros((4, 2)), r"\(5, 2\) and \(4, 2\)"),
        (np.zeros((3, 5, 2)), np.zeros((2, 5, 2)), r"\(3, 5, 2\) and \(2, 5, 2\)"),
        (np.zeros(5), np.zeros(5), r"\(5,\)"),
        (np.zeros((1, 2)), np.zeros((1, 2)), "Too few rows"),
        (np.zeros((5, 0)), np.zeros((5, 2)), "no columns"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), "not finite"),
        (np.full((5, 2), 0.1), np.eye(5), "first view is constant"),
        (np.eye(5), np.full((5, 2), 0.1), "second view is constant"),
        (np.zeros((0, 5, 2)), np.zeros((0, 5, 2)), "Nothing to compare"),
        (np.eye(5), torch.eye(5), "ndarray and Tensor"),
    ],
)
def test_views_that_cannot_be_compared(x, y, message):
    with pytest.raises(MeasureError, match=message):
        pwcca(x, y)


def test_unknown_names_are_refused():
    x, y = views(9)
    with pytest.raises(MeasureError, match="there are: morcos, pasad, pasad-2021"):
        pwcca(x, y, convention="other")
    with pytest.raises(MeasureError, match="no PWCCA weights 'z'"):
        pwcca(x, y, weights="z")


def ridged(x, y, ridge):
    """Correlations of regularised variates from explicit inverses."""
    x, y = x - x.mean(0), y - y.mean(0)
    sxx, syy = x.T @ x, y.T @ y
    sxx, syy = (s + ridge * np.trace(s) / len(s) * np.eye(len(s)) for s in (sxx, syy))
    squares = np.linalg.eigvals(np.linalg.solve(sxx, x.T @ y) @ np.linalg.solve(syy, y.T @ x)).real
    return np.sqrt(np.sort(squares)[::-1].clip(0)[: min(x.shape[1], y.shape[1])])


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 1.0, 100.0])
@pytest.mark.parametrize(("dx", "dy"), [(7, 4), (4, 7), (5, 5)])
def test_a_ridge_is_relative_to_the_mean_eigenvalue(ridge, dx, dy):
    x, y = views(dx, dx=dx, dy=dy)
    np.testing.assert_allclose(canonical_correlations(x, y, ridge), ridged(x, y, ridge), atol=1e-9)
    assert mean_cca(x, y, ridge) == pytest.approx(ridged(x, y, ridge).mean(), abs=1e-9)
    # A common scale of a view is no matter.
    np.testing.assert_allclose(canonical_correlations(1e3 * x, y, ridge), ridged(x, y, ridge), atol=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 0.01, 0.5])
def test_correlations_equal_those_of_cca_zoo(ridge):
    from cca_zoo.linear import RidgeCCA

    x, y = views(10)
    # There the covariance is (1 - c) S + c I: the same ridge for c / (1 - c) = ridge times the mean eigenvalue.
    added = np.array([ridge * np.trace(np.cov(v.T)) / v.shape[1] for v in (x, y)])
    shrinkage = added / (1 + added)
    a, b = RidgeCCA(n_components=4, shrinkage=list(shrinkage)).fit([x, y]).transform([x, y])
    across = [np.cov(a[:, i], b[:, i])[0, 1] for i in range(4)]
    expected = np.array(across) * np.sqrt((1 - shrinkage).prod())
    np.testing.assert_allclose(canonical_correlations(x, y, ridge), expected, atol=1e-8)
    assert mean_cca(x, y, ridge) == pytest.approx(expected.mean(), abs=1e-8)


def test_correlations_fall_with_the_ridge_from_the_exact_ones():
    x, y = views(11)
    found = [canonical_correlations(x, y, ridge) for ridge in (0.0, 1e-13, 1e-3, 1e-2, 1.0)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert all((a > b).all() for a, b in pairwise(found[1:]))


@pytest.mark.parametrize("score", [mean_cca, svcca])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_closed_forms_of_the_means(score, ridge):
    x, _ = views(12)
    itself = score(x, 3 * x[:, ::-1] - 1, ridge=ridge)
    assert itself == pytest.approx(1, abs=1e-12) if ridge == 0 else 0.5 < itself < 1
    t = 2 * np.pi * np.arange(64)[:, None] / 64
    waves, others = np.sin(t * [1, 2, 3]), np.cos(t * [1, 4])
    assert score(waves, others, ridge=ridge) == pytest.approx(0, abs=1e-12)
    # One of two components is shared, all have the variance 1: the correlations are 1 and 0, over 1 + ridge.
    half = score(waves[:, :2], np.stack([waves[:, 0], others[:, 1]], axis=1), ridge=ridge)
    assert half == pytest.approx(0.5 / (1 + ridge), abs=1e-12)


def test_the_mean_is_over_the_lower_rank():
    rng = np.random.default_rng(13)
    one_hot = np.eye(5)[rng.integers(5, size=300)]
    holds = one_hot @ rng.standard_normal((5, 8))
    for score in (mean_cca, svcca):
        assert score(holds, one_hot) == pytest.approx(1, abs=1e-9)
    x, y = views(13)
    repeated = np.concatenate([y, y, np.ones((200, 3))], axis=1)
    assert mean_cca(x, repeated) == pytest.approx(canonical_correlations(x, y).mean(), abs=1e-9)
    # All of the variance is less than all components: those of no variance are rounding noise.
    assert svcca(x, repeated, 1.0) == pytest.approx(canonical_correlations(x, y).mean(), abs=1e-9)
    small = [float(mean_cca(x, v, ridge=1e-9)) for v in (y, repeated)]
    assert small[0] == pytest.approx(small[1], abs=1e-6)
    few = rng.standard_normal((6, 10)), rng.standard_normal((6, 8))
    assert mean_cca(*few) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99, 1.0])
def test_svcca_is_the_mean_over_principal_components(variance):
    x, y = views(14, dx=12, dy=6)
    x *= np.geomspace(1, 1e-3, 12)

    def components(a):
        u, s, _ = np.linalg.svd(a - a.mean(0), full_matrices=False)
        kept = int(np.argmax(np.cumsum(s**2) / (s**2).sum() >= variance - 1e-12)) + 1
        return u[:, :kept] * s[:kept]

    a, b = components(x), components(y)
    for ridge in (0.0, 0.1):
        expected = ridged(a, b, ridge).mean() if ridge else np.linalg.svd((a / np.linalg.norm(a, axis=0)).T @ (
            b / np.linalg.norm(b, axis=0)))[1].mean()  # fmt: skip
        assert svcca(x, y, variance, ridge) == pytest.approx(expected, abs=1e-9)
    if variance == 1.0:
        assert svcca(x, y, 1.0) == pytest.approx(float(mean_cca(x, y)), abs=1e-9)


@pytest.mark.parametrize("frequencies", [(1, 2), (3, 5), (2, 7), (4, 6), (5, 9)])
def test_components_that_make_up_the_share_exactly_are_enough(frequencies):
    t = 2 * np.pi * np.arange(64)[:, None] / 64
    waves = np.sin(t * frequencies) * [3, 1]
    assert svcca(waves, waves[:, 1:], 0.9) == pytest.approx(0, abs=1e-9)
    assert svcca(waves, waves[:, 1:], 0.91) == pytest.approx(1, abs=1e-9)


@given(
    seed=st.integers(0, 2**32 - 1),
    dx=st.integers(1, 8),
    dy=st.integers(1, 8),
    ridge=st.sampled_from([0.0, 1e-4, 0.1]),
    offset=st.sampled_from([0.0, 100.0]),
)
@settings(max_examples=30, deadline=None)
def test_moments_give_the_correlations_of_whole_arrays(seed, dx, dy, ridge, offset):
    x, y = views(seed, n=60, dx=dx, dy=dy)
    x = x + offset
    moments = Moments(3, dx, dy)
    for fold, rows in enumerate(np.array_split(np.arange(60), [11, 37])):
        moments.update(fold, x[rows], y[rows])
    pooled = moments.pooled()
    rho = canonical_correlations_from_moments(pooled, ridge)
    assert rho.shape == (min(dx, dy),)
    np.testing.assert_allclose(rho, canonical_correlations(x, y, ridge), atol=1e-9)
    assert mean_cca_from_moments(pooled, ridge) == pytest.approx(float(mean_cca(x, y, ridge)), abs=1e-9)
    assert svcca_from_moments(pooled, 0.9, ridge) == pytest.approx(float(svcca(x, y, 0.9, ridge)), abs=1e-9)


def test_torch_and_numpy_agree_on_the_means():
    x, y = (np.stack(v) for v in zip(*(views(seed, dx=5, dy=6) for seed in range(3)), strict=True))
    for score in (mean_cca, svcca):
        for ridge in (0.0, 0.1):
            found = score(torch.from_numpy(x), torch.from_numpy(y), ridge=ridge)
            assert found.shape == (3,)
            np.testing.assert_allclose(found.numpy(), score(x, y, ridge=ridge), atol=1e-12)
    rho = canonical_correlations(torch.from_numpy(x), torch.from_numpy(y), 0.1)
    np.testing.assert_allclose(rho.numpy(), canonical_correlations(x, y, 0.1), atol=1e-12)


def test_ridges_shares_and_views_that_are_none():
    x, y = views(15)
    for score in (canonical_correlations, mean_cca):
        for ridge in (-1.0, np.inf, np.nan):
            with pytest.raises(MeasureError, match="is none"):
                score(x, y, ridge)
    for share in (0.0, 1.5, np.nan):
        with pytest.raises(MeasureError, match="share of variance"):
            svcca(x, y, share)
    for score in (canonical_correlations, mean_cca, svcca):
        with pytest.raises(MeasureError, match="second view is constant"):
            score(x, np.full_like(y, 0.1))
        with pytest.raises(MeasureError, match="not finite"):
            score(x, y * np.nan)
    good = scatter_of(x, y)
    for one in (canonical_correlations_from_moments, mean_cca_from_moments, svcca_from_moments):
        with pytest.raises(MeasureError, match="first view is constant"):
            one(scatter_of(np.full_like(x, 0.1), y))
        with pytest.raises(MeasureError, match="1 rows are too few"):
            one(Scatter(1.0, good.mean_x, good.mean_y, good.sxx, good.sxy, good.syy))
        with pytest.raises(MeasureError, match="not finite"):
            one(Scatter(good.n, good.mean_x, good.mean_y, good.sxx * np.nan, good.sxy, good.syy))
