"""The released code's score against an independent one on whole arrays, and what it does to its input."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from otoscope.errors import MeasureError
from otoscope.measures.layers import pwcca
from otoscope.measures.layers.correlation import scatter_of
from otoscope.measures.layers.pasad import pasad_score
from otoscope.statistics import Moments, Scatter

from .test_correlation import views

GRID = list(itertools.product((1e-11, 1e-10, 1e-9), repeat=2))


def fitted(x, y, eps_x=1e-10, eps_y=1e-10):
    """P, Q and the neurons that are kept, neuron by neuron as the protocol has them."""
    covariance = np.cov(x.T, y.T)
    dx = x.shape[1]
    sxx, sxy, syy = covariance[:dx, :dx], covariance[:dx, dx:], covariance[dx:, dx:]
    most_x, most_y = abs(sxx).max(), abs(syy).max()
    sxx, syy, sxy = sxx / most_x, syy / most_y, sxy / np.sqrt(most_x * most_y)
    in_x = [j for j in range(dx) if sxx[j, j] >= eps_x]
    in_y = [j for j in range(y.shape[1]) if syy[j, j] >= eps_y]
    wx = sqrtm(np.linalg.pinv(sxx[np.ix_(in_x, in_x)] + eps_x * np.eye(len(in_x)))).real
    wy = sqrtm(np.linalg.pinv(syy[np.ix_(in_y, in_y)] + eps_y * np.eye(len(in_y)))).real
    u, _, vh = np.linalg.svd(wx @ sxy[np.ix_(in_x, in_y)] @ wy)
    return u.T @ wx, vh @ wy, in_x, in_y


def scored(x, y, parameters, weights=None):
    """The score of rows, by an explicit basis of explicit directions."""
    p, q, in_x, in_y = parameters
    x, y = x[:, in_x], y[:, in_y]
    k = min(len(p), len(q))
    rho, by = [], {"x": [], "y": []}
    for i in range(k):
        h, g = (x - x.mean(0)) @ p[i], (y - y.mean(0)) @ q[i]
        rho.append(h @ g / np.sqrt(h @ h * (g @ g)))
        by["x"].append(h + x[:, i].mean())
        by["y"].append(g + y[:, i].mean())
    found = {}
    for which, rows in (("x", x), ("y", y)):
        z, _ = np.linalg.qr(np.stack(by[which], axis=1))
        alpha = np.array([sum(abs(z[:, i] @ rows[:, j]) for j in range(k)) for i in range(k)])
        found[which] = float(alpha @ rho / alpha.sum())
    found["mean"] = (found["x"] + found["y"]) / 2
    return found[weights or ("x" if len(p) < len(q) else "y")]


@pytest.mark.parametrize("offset", [0.0, 50.0])
@pytest.mark.parametrize(("dx", "dy"), [(7, 4), (4, 7), (5, 5), (1, 3), (1, 1), (60, 12)])
def test_equals_an_independent_implementation(dx, dy, offset):
    x, y = views(dx * 10 + dy, dx=dx, dy=dy)
    x = x + offset
    parameters = fitted(x, y)
    for weights in (None, "x", "y", "mean"):
        assert pwcca(x, y, weights, convention="pasad") == pytest.approx(scored(x, y, parameters, weights), abs=1e-10)
    assert pwcca(x, y, convention="pasad-2021") == pytest.approx(scored(x, y, parameters, "mean"), abs=1e-10)


@given(
    seed=st.integers(0, 2**32 - 1),
    dx=st.integers(1, 8),
    dy=st.integers(1, 8),
    weights=st.sampled_from([None, "x", "y", "mean"]),
    eps=st.sampled_from([*GRID, (1e-3, 1e-5)]),
)
@settings(max_examples=40, deadline=None)
def test_streamed_folds_give_the_score_of_whole_arrays(seed, dx, dy, weights, eps):
    rng = np.random.default_rng(seed)
    x, y = views(seed, n=300, dx=dx, dy=dy)
    moments = Moments(3, dx, dy)
    fold_of = rng.permutation(300) % 3
    for rows in np.array_split(rng.permutation(300), 7):
        for fold in range(3):
            mine = rows[fold_of[rows] == fold]
            moments.update(fold, x[mine], y[mine])
    fitting = fold_of == 0
    parameters = fitted(x[fitting], y[fitting], *eps)
    for fold in range(3):
        mine = fold_of == fold
        found = pasad_score(moments.pooled([0]), moments.pooled([fold]), weights, eps)
        assert found == pytest.approx(scored(x[mine], y[mine], parameters, weights), abs=1e-10)


def test_the_grid_on_dev_and_the_score_on_test_at_the_size_of_a_probe():
    x, y = views(1, n=2000, dx=96, dy=24, shared=10)
    train, dev, test = (slice(0, 1600), slice(1600, 1800), slice(1800, 2000))
    moments = {part: scatter_of(x[rows], y[rows]) for part, rows in (("train", train), ("dev", dev), ("test", test))}
    here = {eps: pasad_score(moments["train"], moments["dev"], eps=eps) for eps in GRID}
    there = {eps: fitted(x[train], y[train], *eps) for eps in GRID}
    for eps, parameters in there.items():
        assert here[eps] == pytest.approx(scored(x[dev], y[dev], parameters), abs=1e-10)
    best = max(GRID, key=lambda eps: here[eps])
    found = pasad_score(moments["train"], moments["test"], eps=best)
    assert found == pytest.approx(scored(x[test], y[test], there[best]), abs=1e-10)


def test_neurons_that_hardly_vary_are_dropped_with_their_means():
    x, y = views(2, dx=6, dy=4)
    x[:, 1] = 0.3
    x[:, 3] = 0.7 + 1e-7 * np.random.default_rng(2).standard_normal(len(x))
    y[:, 0] = -2.0
    parameters = fitted(x, y)
    assert parameters[2:] == ([0, 2, 4, 5], [1, 2, 3])
    for weights in ("x", "y"):
        found = pwcca(x, y, weights, convention="pasad")
        assert found == pytest.approx(scored(x, y, parameters, weights), abs=1e-10)
        without = pwcca(x[:, parameters[2]], y[:, parameters[3]], weights, convention="pasad")
        assert found == pytest.approx(float(without), abs=1e-12)


def test_the_narrower_view_weighs_and_the_second_where_both_are_as_wide():
    x, y = views(3, dx=6, dy=4)
    assert pwcca(x, y, convention="pasad") == pwcca(x, y, "y", convention="pasad")
    assert pwcca(y, x, convention="pasad") == pwcca(y, x, "x", convention="pasad")
    assert pwcca(x[:, :4], y, convention="pasad") == pwcca(x[:, :4], y, "y", convention="pasad")
    # What counts is the width that is left, not the one that was given.
    padded = np.concatenate([y, np.ones((len(y), 4))], axis=1)
    assert pwcca(x, padded, convention="pasad") == pwcca(x, padded, "y", convention="pasad")


def test_it_moves_with_constants_and_with_the_order_of_neurons():
    x, y = views(4, dx=6, dy=4)
    x, y = x - x.mean(0), y - y.mean(0)
    plain = float(pwcca(x, y, convention="pasad"))
    assert abs(pwcca(x, y + 10, convention="pasad") - plain) > 0.01
    assert pwcca(x, y + 10, "y") == pytest.approx(float(pwcca(x, y, "y")), abs=1e-12)
    # Of the wider view only the first neurons count; centred, that is all of the difference.
    by_x = float(pwcca(x, y, "x", convention="pasad"))
    assert abs(pwcca(x[:, ::-1], y, "x", convention="pasad") - by_x) > 1e-3
    # Centred, the narrower view's weights are those of Morcos et al.
    assert plain == pytest.approx(float(pwcca(x, y, "y")), abs=1e-7)


def test_the_empty_direction_of_one_hot_labels_is_dropped():
    rng = np.random.default_rng(5)
    one_hot = np.eye(5)[rng.integers(5, size=400)]
    holds = one_hot @ rng.standard_normal((5, 8))
    assert pwcca(holds, one_hot, convention="pasad") == pytest.approx(1, abs=1e-8)
    # The same as the directions of the protocol less the last one, whose noise is in the others' last digits too.
    noisy = holds + rng.standard_normal(holds.shape)
    p, q, in_x, in_y = fitted(noisy, one_hot)
    for weights in ("x", "y"):
        expected = scored(noisy, one_hot, (p[:4], q[:4], in_x, in_y), weights)
        assert pwcca(noisy, one_hot, weights, convention="pasad") == pytest.approx(expected, abs=1e-6)
    # The direction would have had the greatest weight of all: a layer that holds the label would not reach 1.
    assert scored(holds, one_hot, fitted(holds, one_hot), "y") < 0.95


def test_correlations_of_one_come_through_whatever_the_weights():
    x, _ = views(6)
    for convention in ("pasad", "pasad-2021"):
        assert pwcca(x, 3 * x[:, ::-1] + 1, convention=convention) == pytest.approx(1, abs=1e-7)
    # No more rows than dimensions.
    rng = np.random.default_rng(6)
    few = pwcca(rng.standard_normal((6, 10)), rng.standard_normal((6, 8)), convention="pasad")
    assert few == pytest.approx(1, abs=1e-7)


def test_torch_and_numpy_agree_over_leading_dimensions():
    pairs = [views(seed) for seed in range(4)]
    x, y = (np.stack(v).reshape(2, 2, 200, -1) for v in zip(*pairs, strict=True))
    for weights in (None, "x", "mean"):
        found = pwcca(torch.from_numpy(x), torch.from_numpy(y), weights, convention="pasad")
        assert isinstance(found, torch.Tensor)
        np.testing.assert_allclose(found.numpy(), pwcca(x, y, weights, convention="pasad"), atol=1e-12)


def test_what_cannot_be_scored_is_refused():
    x, y = views(7, dx=5, dy=4)
    good = scatter_of(x, y)
    with pytest.raises(MeasureError, match="second view is constant"):
        pwcca(x, np.full_like(y, 0.1), convention="pasad")
    with pytest.raises(MeasureError, match="first view is constant"):
        pasad_score(scatter_of(np.full_like(x, 0.1), y), good)
    with pytest.raises(MeasureError, match="too few"):
        pasad_score(good, Scatter(1.0, good.mean_x, good.mean_y, good.sxx, good.sxy, good.syy))
    with pytest.raises(MeasureError, match="4 rows cannot be scored in 4 directions"):
        pasad_score(good, scatter_of(x[:4], y[:4]))
    still = y.copy()
    still[:, :2] = 1.0
    with pytest.raises(MeasureError, match="do not vary"):
        pasad_score(good, scatter_of(x, still), "y")
    for eps in (0.0, -1.0, (1e-10, np.nan)):
        with pytest.raises(MeasureError, match="is none"):
            pasad_score(good, good, eps=eps)
    with pytest.raises(MeasureError, match="no PWCCA weights 'z'"):
        pasad_score(good, good, "z")
    with pytest.raises(MeasureError, match="averages both"):
        pwcca(x, y, "x", convention="pasad-2021")
