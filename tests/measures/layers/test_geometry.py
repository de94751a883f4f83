import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score

from otoscope.errors import MeasureError
from otoscope.functional import angular_shape_distance, linear_cka, procrustes
from otoscope.measures.layers.correlation import scatter_of
from otoscope.measures.layers.from_moments import (
    angular_shape_distance_from_moments,
    linear_cka_from_moments,
    norm_sums,
    pooled_norm_sums,
    procrustes_from_moments,
)
from otoscope.measures.layers.geometry import ridge_r2
from otoscope.measures.layers.ridge import RIDGES
from otoscope.statistics import Moments, Scatter

from .test_correlation import views

DISTANCES = (procrustes, angular_shape_distance)


def biased(x, y):
    """CKA from centred matrices of rows by rows."""
    n = len(x)
    centring = np.eye(n) - 1 / n
    k, m = centring @ (x @ x.T) @ centring, centring @ (y @ y.T) @ centring
    return np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))


def unbiased(x, y):
    """The U-statistic from matrices of rows by rows without their diagonals."""

    def hsic(a, b):
        n = len(a)
        k, m = a @ a.T, b @ b.T
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        one = np.ones(n)
        both = (
            np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ m @ one
        )
        return both / (n * (n - 3))

    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


@pytest.mark.parametrize(("n", "dx", "dy"), [(50, 7, 4), (50, 4, 7), (9, 20, 30), (4, 2, 3), (30, 1, 1)])
def test_cka_equals_its_definition_by_rows(n, dx, dy):
    x, y = views(n + dx, n=n, dx=dx, dy=dy)
    assert linear_cka(x, y) == pytest.approx(biased(x, y), abs=1e-12)
    assert linear_cka(x, y, debiased=True) == pytest.approx(unbiased(x, y), abs=1e-10)


def test_debiased_cka_is_0_on_average_for_unrelated_views():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 30, 20)), rng.standard_normal((200, 30, 10))
    assert linear_cka(x, y).min() > 0.2
    found = linear_cka(x, y, debiased=True)
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(200)
    assert found.std() < 0.1


@pytest.mark.parametrize("debiased", [False, True])
def test_closed_forms_of_cka(debiased):
    x, _ = views(1)
    assert linear_cka(x, x, debiased) == pytest.approx(1, abs=1e-12)
    t = 2 * np.pi * np.arange(64)[:, None] / 64
    waves = np.sin(t * [1, 2, 3, 4])
    if not debiased:
        assert linear_cka(waves[:, :2], waves[:, 2:]) == pytest.approx(0, abs=1e-12)
        # Of one dimension each, it is the squared correlation; of s shared among orthonormal ones s / sqrt(dx dy).
        a, b = views(2, dx=1, dy=1)
        assert linear_cka(a, b) == pytest.approx(np.corrcoef(a[:, 0], b[:, 0])[0, 1] ** 2, abs=1e-12)
        assert linear_cka(waves[:, :3], waves[:, 1:]) == pytest.approx(2 / 3, abs=1e-12)


def rotation(rng, d):
    return np.linalg.qr(rng.standard_normal((d, d)))[0]


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
@settings(max_examples=30, deadline=None)
def test_invariances(seed, scale, shift):
    rng = np.random.default_rng(seed)
    x, y = views(seed, n=40)
    moved = scale * x @ rotation(rng, 7) + shift, y @ rotation(rng, 4) / scale - shift
    wider = np.concatenate([x, np.full((40, 3), shift)], axis=1)
    for score in (linear_cka, lambda a, b: linear_cka(a, b, debiased=True), *DISTANCES):
        value = float(score(x, y))
        assert score(*moved) == pytest.approx(value, abs=1e-8)
        assert score(y, x) == pytest.approx(value, abs=1e-10)
        assert score(wider, y) == pytest.approx(value, abs=1e-10)
        order = rng.permutation(40)
        assert score(x[order], y[order]) == pytest.approx(value, abs=1e-10)
    for distance in DISTANCES:
        assert distance(x, moved[0]) < 1e-9


@given(seed=st.integers(0, 1000), n=st.integers(3, 20), widths=st.lists(st.integers(1, 6), min_size=3, max_size=3))
@settings(max_examples=30, deadline=None)
def test_distances_are_metrics(seed, n, widths):
    rng = np.random.default_rng(seed)
    a, b, c = (rng.standard_normal((n, d)) for d in widths)
    for distance in DISTANCES:
        assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-9
        assert 0 <= distance(a, b) <= (np.sqrt(2) if distance is procrustes else np.pi / 2)


@pytest.mark.parametrize(("dx", "dy"), [(5, 5), (7, 4), (4, 7), (60, 50)])
def test_procrustes_is_what_the_best_rotation_leaves(dx, dy):
    x, y = views(dx, n=50, dx=dx, dy=dy)
    a, b = (np.pad(v - v.mean(0), ((0, 0), (0, max(dx, dy) - v.shape[1]))) for v in (x, y))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    turn, nuclear = orthogonal_procrustes(b, a)
    assert procrustes(x, y) == pytest.approx(np.linalg.norm(a - b @ turn), abs=1e-12)
    assert procrustes(x, y) == pytest.approx(np.sqrt(2 - 2 * nuclear), abs=1e-12)
    assert angular_shape_distance(x, y) == pytest.approx(np.arccos(nuclear), abs=1e-12)


def test_closed_forms_of_the_distances():
    x, _ = views(3)
    for distance in DISTANCES:
        assert distance(x, x) < 1e-12
    t = 2 * np.pi * np.arange(64)[:, None] / 64
    waves = np.sin(t * [1, 2, 3, 4])
    assert procrustes(waves[:, :2], waves[:, 2:]) == pytest.approx(np.sqrt(2), abs=1e-12)
    assert angular_shape_distance(waves[:, :2], waves[:, 2:]) == pytest.approx(np.pi / 2, abs=1e-7)
    # Of one dimension each, the angle is that of the correlation; of s shared of d orthonormal ones arccos(s / d).
    a, b = views(4, dx=1, dy=1)
    rho = abs(np.corrcoef(a[:, 0], b[:, 0])[0, 1])
    assert angular_shape_distance(a, b) == pytest.approx(np.arccos(rho), abs=1e-12)
    assert angular_shape_distance(waves[:, :3], waves[:, 1:]) == pytest.approx(np.arccos(2 / 3), abs=1e-12)


@given(
    seed=st.integers(0, 2**32 - 1),
    dx=st.integers(1, 8),
    dy=st.integers(1, 8),
    cuts=st.lists(st.integers(2, 58), min_size=1, max_size=3, unique=True),
    offset=st.sampled_from([0.0, 100.0]),
)
@settings(max_examples=40, deadline=None)
def test_moments_give_the_numbers_of_whole_arrays(seed, dx, dy, cuts, offset):
    x, y = views(seed, n=60, dx=dx, dy=dy)
    x = x + offset
    blocks = [rows for rows in np.split(np.arange(60), sorted(cuts)) if len(rows) >= 2]
    kept = np.concatenate(blocks)
    moments = Moments(len(blocks), dx, dy)
    for fold, rows in enumerate(blocks):
        moments.update(fold, x[rows], y[rows])
    pooled = moments.pooled()
    parts = [(moments.pooled([fold]), norm_sums(x[rows], y[rows])) for fold, rows in enumerate(blocks)]
    norms = pooled_norm_sums(parts)
    x, y = x[kept], y[kept]
    assert linear_cka_from_moments(pooled) == pytest.approx(float(linear_cka(x, y)), abs=1e-10)
    assert linear_cka_from_moments(pooled, norms) == pytest.approx(float(linear_cka(x, y, debiased=True)), abs=1e-9)
    assert procrustes_from_moments(pooled) == pytest.approx(float(procrustes(x, y)), abs=1e-7)
    assert angular_shape_distance_from_moments(pooled) == pytest.approx(float(angular_shape_distance(x, y)), abs=1e-7)
    # What is pooled can be pooled again.
    whole = norm_sums(x, y)
    if len(parts) > 2:
        some = moments.pooled(range(2)), pooled_norm_sums(parts[:2])
        norms = pooled_norm_sums([some, *parts[2:]])
    size = np.sqrt(np.trace(pooled.sxx)), np.sqrt(np.trace(pooled.syy))
    np.testing.assert_allclose(norms.squares, whole.squares, rtol=1e-9)
    np.testing.assert_allclose(norms.x / size[0] ** 3, whole.x / size[0] ** 3, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(norms.y / size[1] ** 3, whole.y / size[1] ** 3, rtol=1e-9, atol=1e-9)


def test_torch_and_numpy_agree_over_leading_dimensions():
    x, y = (np.stack(v).reshape(2, 3, 40, -1) for v in zip(*(views(s, n=40) for s in range(6)), strict=True))
    for score in (linear_cka, lambda a, b: linear_cka(a, b, debiased=True), *DISTANCES):
        found = score(torch.from_numpy(x), torch.from_numpy(y))
        assert isinstance(found, torch.Tensor)
        assert found.shape == (2, 3)
        np.testing.assert_allclose(found.numpy(), score(x, y), atol=1e-12)


@pytest.mark.parametrize("ridge", [0.0, *RIDGES])
@pytest.mark.parametrize(("dx", "dy"), [(7, 4), (4, 7), (40, 3)])
def test_ridge_regression_equals_scikit_learn(ridge, dx, dy):
    x, y = views(dx, n=90, dx=dx, dy=dy)
    penalty = ridge * np.trace(np.cov(x[:60].T, ddof=0)) / dx * 60
    model = Ridge(alpha=penalty, solver="svd") if ridge else LinearRegression()
    predicted = model.fit(x[:60], y[:60]).predict(x[60:])
    train, test = scatter_of(x[:60], y[:60]), scatter_of(x[60:], y[60:])
    expected = r2_score(y[60:], predicted, multioutput="variance_weighted")
    assert ridge_r2(train, test, [ridge])[0] == pytest.approx(expected, abs=1e-9)
    expected = r2_score(y[60:], predicted, multioutput="raw_values")
    np.testing.assert_allclose(ridge_r2(train, test, [ridge], each=True)[0], expected, atol=1e-9)


def test_ridge_regression_on_the_edges():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((80, 6)) + 3
    train, test = (scatter_of(x[rows], x[rows] @ np.ones((6, 2)) + 1) for rows in (slice(50), slice(50, 80)))
    # A linear target is explained whole, and by less the greater the ridge.
    found = ridge_r2(train, test, [0.0, 1e-3, 1.0, 1e12])
    assert found[0] == pytest.approx(1, abs=1e-12)
    assert (np.diff(found) < 0).all()
    assert found[-1] <= 1e-6
    # Repeated and constant dimensions of x change nothing.
    wide = np.concatenate([x, x[:, :2], np.ones((80, 1))], axis=1)
    y = x @ rng.standard_normal((6, 2)) + rng.standard_normal((80, 2))
    narrow = ridge_r2(scatter_of(x[:50], y[:50]), scatter_of(x[50:], y[50:]), [0.0])
    repeated = ridge_r2(scatter_of(wide[:50], y[:50]), scatter_of(wide[50:], y[50:]), [0.0])
    np.testing.assert_allclose(narrow, repeated, atol=1e-9)
    # Unrelated targets are predicted no better than by their mean.
    noise = rng.standard_normal((80, 2))
    assert ridge_r2(scatter_of(x[:50], noise[:50]), scatter_of(x[50:], noise[50:]), [1.0])[0] < 0.1
    # A column that does not vary where it is scored has no share of its own.
    y[50:, 1] = 0.1
    each = ridge_r2(scatter_of(x[:50], y[:50]), scatter_of(x[50:], y[50:]), [0.1], each=True)
    assert np.isnan(each[0, 1])
    assert np.isfinite(each[0, 0])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.eye(5)[:4], np.eye(5), r"\(4, 5\) and \(5, 5\)"),
        (np.zeros((1, 2)), np.zeros((1, 2)), "Too few rows"),
        (np.full((5, 2), np.nan), np.eye(5), "not finite"),
        (np.full((5, 2), 0.1), np.eye(5), "first view is constant"),
        (np.eye(5), np.full((5, 2), 0.1), "second view is constant"),
    ],
)
def test_views_that_cannot_be_compared(x, y, message):
    for score in (linear_cka, lambda a, b: linear_cka(a, b, debiased=True), *DISTANCES):
        with pytest.raises(MeasureError, match=message):
            score(x, y)


def test_what_cannot_be_computed_is_refused():
    x, y = views(6)
    good = scatter_of(x, y)
    short = Scatter(1.0, good.mean_x, good.mean_y, good.sxx, good.sxy, good.syy)
    constant = scatter_of(x, np.full_like(y, 0.1))
    for score in (linear_cka_from_moments, procrustes_from_moments, angular_shape_distance_from_moments):
        with pytest.raises(MeasureError, match="too few"):
            score(short)
        with pytest.raises(MeasureError, match="second view is constant"):
            score(constant)
    with pytest.raises(MeasureError, match="3 rows are too few to debias"):
        linear_cka(x[:3], y[:3], debiased=True)
    with pytest.raises(MeasureError, match="too few rows to debias its CKA"):
        linear_cka(np.eye(6)[:, :1], y[:6], debiased=True)
    with pytest.raises(MeasureError, match="no rows to pool"):
        pooled_norm_sums([])
    with pytest.raises(MeasureError, match="too few"):
        ridge_r2(short, good)
    with pytest.raises(MeasureError, match="second view is constant"):
        ridge_r2(constant, good)
    with pytest.raises(MeasureError, match="target does not vary"):
        ridge_r2(good, constant)
    with pytest.raises(MeasureError, match="one that is none"):
        ridge_r2(good, good, [0.1, -1.0])
