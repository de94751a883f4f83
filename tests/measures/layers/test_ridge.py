import numpy as np
import pytest
from scipy.linalg import eigh, sqrtm

from otoscope.errors import MeasureError
from otoscope.measures.layers import pwcca, pwcca_from_moments
from otoscope.measures.layers.correlation import scatter_of
from otoscope.measures.layers.held_out import STATISTICS, Views, fold_scores
from otoscope.measures.layers.ridge import RIDGES, RidgePath, View, held_out, truncated
from otoscope.statistics import Scatter

from .test_correlation import views


def path_of(train: Scatter) -> RidgePath:
    return RidgePath(View(train.sxx, train.mean_x, train.n), View(train.syy, train.mean_y, train.n), train.sxy, train.n)


def by_hand(x, y, test_x, test_y, ridge):
    """Regularised CCA from explicit matrices, scored on explicit variates, weighed by y."""
    x, y = x - x.mean(0), y - y.mean(0)
    n = len(x)
    sxx, syy = x.T @ x / n, y.T @ y / n
    wx = np.linalg.inv(sqrtm(sxx + ridge * np.trace(sxx) / len(sxx) * np.eye(len(sxx)))).real
    wy = np.linalg.inv(sqrtm(syy + ridge * np.trace(syy) / len(syy) * np.eye(len(syy)))).real
    u, _, vh = np.linalg.svd(wx @ x.T @ y @ wy / n, full_matrices=False)
    p, q = wx @ u, wy @ vh.T
    variates = y @ q
    variates /= np.linalg.norm(variates, axis=0)
    alpha = np.abs(variates.T @ y).sum(axis=1)
    h, g = test_x @ p, test_y @ q
    rho = np.array([np.corrcoef(h[:, i], g[:, i])[0, 1] for i in range(len(alpha))])
    return (alpha * rho).sum() / alpha.sum(), rho


@pytest.mark.parametrize("ridge", [1e-6, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize(("dx", "dy"), [(7, 4), (4, 7)])
def test_held_out_score_equals_explicit_variates(ridge, dx, dy):
    x, y = views(0, n=400, dx=dx, dy=dy)
    train, test = scatter_of(x[:250], y[:250]), scatter_of(x[250:], y[250:])
    score, rho = by_hand(x[:250], y[:250], x[250:], y[250:], ridge)
    np.testing.assert_allclose(held_out(path_of(train).directions(ridge), test), rho, atol=1e-9)
    assert pwcca_from_moments(train, test, weights="y", ridge=ridge) == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("ridge", RIDGES)
def test_regularised_correlations_solve_the_eigenproblem(ridge):
    x, y = views(1)
    s = scatter_of(x, y)
    sxx = s.sxx + ridge * np.trace(s.sxx) / 7 * np.eye(7)
    syy = s.syy + ridge * np.trace(s.syy) / 4 * np.eye(4)
    squares = eigh(s.sxy.T @ np.linalg.solve(sxx, s.sxy), syy, eigvals_only=True)[::-1]
    np.testing.assert_allclose(path_of(s).directions(ridge).rho ** 2, squares, atol=1e-9)


def test_a_vanishing_ridge_is_the_exact_analysis():
    x, y = views(2)
    exact = float(pwcca(x, y, weights="y"))
    assert pwcca_from_moments(scatter_of(x, y), weights="y", ridge=1e-12) == pytest.approx(exact, abs=1e-6)
    test = scatter_of(*views(3))
    found = [pwcca_from_moments(scatter_of(x, y), test, ridge=r) for r in (0.0, 1e-12)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_independent_views_score_nothing_when_held_out():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((2000, 30)), rng.standard_normal((2000, 10))
    train, test = scatter_of(x[:1000], y[:1000]), scatter_of(x[1000:], y[1000:])
    assert pwcca_from_moments(train, weights="y") > 0.15
    assert abs(pwcca_from_moments(train, test, weights="y")) < 0.05


def test_a_ridge_helps_where_rows_are_few():
    x, y = views(5, n=2060, dx=50, dy=5, shared=2)
    train, test = scatter_of(x[:60], y[:60]), scatter_of(x[60:], y[60:])
    assert pwcca_from_moments(train, test, weights="y", ridge=0.1) > pwcca_from_moments(
        train, test, weights="y", ridge=1e-6
    )


def test_fewer_rows_than_dimensions_give_an_answer():
    x, y = views(6, n=60, dx=50, dy=5)
    train, test = scatter_of(x[:30], y[:30]), scatter_of(x[30:], y[30:])
    assert all(np.isfinite(pwcca_from_moments(train, test, ridge=r)) for r in (0.0, *RIDGES))


def test_variates_that_do_not_vary_on_the_test_rows_do_not_count():
    x, y = views(7, dx=3, dy=2)
    train = scatter_of(x, y)
    still = np.tile(x[:1], (50, 1))
    assert np.isnan(pwcca_from_moments(train, scatter_of(still, y[:50]), ridge=0.1))
    rho = held_out(path_of(train).directions(0.1), scatter_of(still, y[:50]))
    assert np.isnan(rho).all()


def test_what_cannot_be_scored_is_refused():
    x, y = views(8)
    good = scatter_of(x, y)
    with pytest.raises(MeasureError, match="too few"):
        pwcca_from_moments(Scatter(1.0, good.mean_x, good.mean_y, good.sxx, good.sxy, good.syy))
    with pytest.raises(MeasureError, match="ridge of -1"):
        pwcca_from_moments(good, ridge=-1.0)
    with pytest.raises(MeasureError, match="constant"):
        pwcca_from_moments(scatter_of(np.full_like(x, 0.3), y), ridge=0.1)
    with pytest.raises(MeasureError, match="no PWCCA weights"):
        pwcca_from_moments(good, weights="both")


def pooled_from(x, y, floor, fold_of):
    def pooled(folds):
        mine = np.isin(fold_of, folds)
        return scatter_of(x[mine], y[mine]), scatter_of(x[mine], floor[mine])

    return pooled


def test_every_fold_is_tested_once_with_the_ridge_that_the_next_one_chose():
    rng = np.random.default_rng(9)
    x, y = views(9, n=300, dx=20, dy=4)
    floor = rng.standard_normal(y.shape)
    fold_of = rng.integers(5, size=300)
    found = fold_scores(pooled_from(x, y, floor, fold_of), [0, 1, 2, 3, 4], RIDGES, "y", Views(), "layer.1")
    for test in range(5):
        dev = (test + 1) % 5
        rest = ~np.isin(fold_of, [test, dev])
        train = scatter_of(x[rest], y[rest])

        def on(fold, ridge, train=train):
            mine = fold_of == fold
            return pwcca_from_moments(train, scatter_of(x[mine], y[mine]), weights="y", ridge=ridge)

        best = max(RIDGES, key=lambda r: on(dev, r))
        assert found.ridges[test] == best
        assert found.scores["pwcca"][test] == pytest.approx(on(test, best), abs=1e-9)
    assert np.abs(found.floors["pwcca"]).max() < 0.5
    assert abs(found.floors["pwcca"].mean()) < 0.15
    shares = [(fold_of == f).sum() / (~np.isin(fold_of, [f, (f + 1) % 5])).sum() for f in range(5)]
    assert found.test_to_train == pytest.approx(np.mean(shares))


def test_two_folds_have_none_to_choose_the_ridge_by():
    rng = np.random.default_rng(10)
    x, y = views(10, n=100)
    fold_of = rng.integers(2, size=100)
    found = fold_scores(pooled_from(x, y, y, fold_of), [0, 1], RIDGES, "y", Views(), "layer.1")
    assert (found.ridges == RIDGES[3]).all()
    for statistic in STATISTICS[:2]:
        np.testing.assert_allclose(found.scores[statistic], found.floors[statistic])


def test_svcca_is_cca_of_the_main_components():
    """Against principal components and canonical correlations by hand, on other rows."""
    rng = np.random.default_rng(11)
    x, y = views(11, n=400, dx=12, dy=6)
    x *= np.geomspace(1, 1e-3, 12)
    rows = rng.integers(2, size=400) == 0
    path = path_of(scatter_of(x[rows], y[rows]))

    def components(a):
        centred = a[rows] - a[rows].mean(0)
        _, s, vh = np.linalg.svd(centred, full_matrices=False)
        kept = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), 0.99)) + 1
        return a @ vh[:kept].T

    a, b = components(x), components(y)
    assert a.shape[1] < 12
    found = held_out(truncated(path), scatter_of(x[~rows], y[~rows]))
    expected = held_out(path_of(scatter_of(a[rows], b[rows])).directions(0), scatter_of(a[~rows], b[~rows]))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_views_are_kept_within_their_bound():
    views_ = Views(most=3 * 8 * 16)
    for key in range(5):
        scatter = np.diag(np.arange(1.0, 5) + key)
        assert views_.view(key, scatter, np.zeros(4), 10) is views_.view(key, scatter, np.zeros(4), 10)
    assert len(views_._held) <= 3
    views_.clear()
    assert not views_._held
