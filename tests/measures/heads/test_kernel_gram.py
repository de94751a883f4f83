"""Kernel-Gram segmentation: the definition written out, what repeats, plateaus, edges, scales."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import MeasureError
from otoscope.measures.heads.kernel_gram import KernelGram, kernel_gram_boundaries, kernel_gram_curve, minima


def curve_by_hand(features, alpha, beta):
    """Equations 1 to 4 of the supplement, loop by loop."""
    t = len(features)
    k = np.zeros((t, t))
    for i in range(t):
        for j in range(t):
            k[i, j] = np.exp(-np.sqrt(((features[i] - features[j]) ** 2).sum()) / alpha)
    filtered = np.zeros((t, t))
    for i in range(t):
        threshold = beta * k[i].mean()
        for j in range(t):
            low, high = min(i, j), max(i, j)
            filtered[i, j] = (k[i, low : high + 1] > threshold).all()
    curve = np.zeros(t)
    for at in range(t):
        for k_ in range(-t, t + 1):
            if 0 <= at - k_ < t and 0 <= at + k_ < t:
                curve[at] += filtered[at - k_, at + k_]
    return curve


def minima_by_hand(curve):
    found = []
    for a in range(1, len(curve) - 1):
        for b in range(a, len(curve) - 1):
            flat = len(set(curve[a : b + 1])) == 1
            if flat and curve[a - 1] > curve[a] and curve[b + 1] > curve[b]:
                found.append((a + b) / 2 + 0.5)
    return np.array(sorted(found))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def blocks(lengths, seed=0, noise=0.05):
    """Frames that stay near one vector for each block."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(draw.standard_normal((len(lengths), 6)), lengths, axis=0)
    return centres + noise * draw.standard_normal(centres.shape)


@settings(max_examples=60)
@given(st.integers(1, 15), st.integers(0, 10_000), st.floats(0.1, 4), st.floats(0.2, 6))
def test_the_curve_is_that_of_the_definition(t, seed, alpha, beta):
    draw = np.random.default_rng(seed)
    features = np.cumsum(draw.standard_normal((t, 4)) * draw.uniform(0.1, 1, (t, 1)), axis=0)
    np.testing.assert_array_equal(kernel_gram_curve(features, alpha, beta), curve_by_hand(features, alpha, beta))


@settings(max_examples=40)
@given(st.integers(2, 14), st.integers(0, 10_000), st.floats(0.02, 1), st.floats(0.3, 5))
def test_rows_of_a_map_are_features(t, seed, alpha, beta):
    maps = softmax(3 * np.random.default_rng(seed).standard_normal((t, t)))
    np.testing.assert_array_equal(kernel_gram_curve(maps, alpha, beta), curve_by_hand(maps, alpha, beta))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_minima_by_the_definition(values):
    curve = np.array(values, dtype=np.int64)
    _, twice = minima(curve[None])
    np.testing.assert_array_equal(twice / 2, minima_by_hand(curve))


def test_minima_of_many_curves_are_those_of_each():
    curves = np.random.default_rng(0).integers(0, 3, (40, 17))
    which, twice = minima(curves)
    for k, curve in enumerate(curves):
        np.testing.assert_array_equal(twice[which == k] / 2, minima_by_hand(curve))


def test_a_plateau_that_reaches_an_edge_is_no_boundary():
    for curve in ([0, 0, 3, 1, 1], [2, 2, 2, 2], [0, 1, 0], [5], [1, 0]):
        assert not len(minima(np.array([curve]))[1])


def test_planted_blocks_are_found_between_their_frames():
    lengths = [5, 7, 4, 6, 8]
    found = kernel_gram_boundaries(blocks(lengths), alpha=0.3, beta=1.0)
    # The frames on either side of a change share the minimum, so that the boundary is the change itself.
    np.testing.assert_allclose(found, np.cumsum(lengths)[:-1])


def test_frames_that_are_alike_have_no_boundary():
    features = np.ones((9, 3)) / 3
    for beta in (0.5, 1.0, 2.0):  # at beta 1 the threshold is met exactly by every entry, and nothing is above it
        assert not len(kernel_gram_boundaries(features, 0.1, beta))
    np.testing.assert_array_equal(kernel_gram_curve(features, 0.1, 0.99), curve_by_hand(features, 0.1, 0.99))
    assert not kernel_gram_curve(features, 0.1, 1.0).any()


def test_rounding_does_not_part_frames_that_are_the_same():
    for seed in range(5):
        vector = np.random.default_rng(seed).standard_normal(301)
        assert float(KernelGram(torch.tensor(np.tile(vector, (40, 1)))).distances.max()) == 0
        assert not kernel_gram_curve(np.tile(vector, (40, 1)), 1.0, 1.0).any()


@pytest.mark.parametrize("repeat", [2, 3, 8])
def test_repeating_is_what_repeated_features_give(repeat):
    features = np.cumsum(np.random.default_rng(repeat).standard_normal((20, 5)), axis=0)
    repeated = np.repeat(features, repeat, axis=0)
    for alpha, beta in ((0.5, 1.0), (2.0, 1.3), (2.0, 0.4), (1.0, 4.0)):
        expected = curve_by_hand(repeated, alpha, beta)
        np.testing.assert_array_equal(kernel_gram_curve(features, alpha, beta, repeat=repeat), expected)
        np.testing.assert_allclose(
            kernel_gram_boundaries(features, alpha, beta, repeat=repeat), minima_by_hand(expected) / repeat
        )


@pytest.mark.parametrize("repeat", [2, 3])
def test_up_sampled_maps_are_closer_by_the_root_of_how_often(repeat):
    maps = softmax(3 * np.random.default_rng(1).standard_normal((16, 16)))
    up = np.kron(maps, np.ones((repeat, repeat))) / repeat
    assert np.allclose(up.sum(1), 1)
    for alpha, beta in ((0.2, 1.0), (0.5, 1.2), (0.1, 3.0)):
        np.testing.assert_array_equal(
            kernel_gram_curve(up, alpha / np.sqrt(repeat), beta), kernel_gram_curve(maps, alpha, beta, repeat=repeat)
        )


@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_alpha_is_in_the_unit_of_the_distances(seed, factor):
    features = np.cumsum(np.random.default_rng(seed).standard_normal((15, 3)), axis=0)
    one, other = KernelGram(torch.tensor(features)), KernelGram(torch.tensor(features * factor))
    assert other.scale == pytest.approx(one.scale * factor)
    curves = [gram.curves([share * gram.scale for share in (0.1, 0.5, 1.0)], (0.7, 1.5)) for gram in (one, other)]
    np.testing.assert_array_equal(*curves)


def test_the_scale_is_the_mean_over_pairs():
    features = np.random.default_rng(0).standard_normal((7, 3))
    pairs = [np.linalg.norm(features[i] - features[j]) for i in range(7) for j in range(7) if i != j]
    assert KernelGram(torch.tensor(features)).scale == pytest.approx(np.mean(pairs))
    assert KernelGram(torch.ones(1, 3)).scale == 0


@given(st.integers(0, 1000))
def test_a_stricter_threshold_never_raises_the_curve(seed):
    gram = KernelGram(torch.tensor(np.cumsum(np.random.default_rng(seed).standard_normal((25, 3)), axis=0)))
    curves = gram.curves((0.5, 2.0), (0.3, 0.8, 1.0, 2.0, 5.0))
    assert (np.diff(curves, axis=1) <= 0).all()


def test_torch_and_leading_dimensions():
    maps = softmax(4 * np.random.default_rng(2).standard_normal((2, 3, 14, 14)))
    curves = kernel_gram_curve(torch.tensor(maps), 0.3, 1.1)
    assert isinstance(curves, torch.Tensor)
    assert curves.shape == (2, 3, 14)
    found = kernel_gram_boundaries(torch.tensor(maps), 0.3, 1.1)
    for i in range(2):
        for j in range(3):
            np.testing.assert_array_equal(curves[i, j], curve_by_hand(maps[i, j], 0.3, 1.1))
            assert isinstance(found[i][j], torch.Tensor)
            np.testing.assert_array_equal(found[i][j], kernel_gram_boundaries(maps[i, j], 0.3, 1.1))
    assert kernel_gram_boundaries(maps[:0], 0.3, 1.1) == []


def test_single_precision_finds_the_same_boundaries():
    features = blocks([6, 5, 7, 6], seed=3)
    np.testing.assert_allclose(
        kernel_gram_boundaries(features.astype(np.float32), 0.3, 1.0), kernel_gram_boundaries(features, 0.3, 1.0)
    )


@pytest.mark.parametrize(
    ("features", "given_settings", "told"),
    [
        (np.ones(3), {}, "shape"),
        (np.ones((0, 3)), {}, "shape"),
        (np.ones((3, 3), int), {}, "type"),
        (np.full((3, 3), np.nan), {}, "not finite"),
        ([[1.0]], {}, "are a list"),
        (np.ones((3, 3)), {"alpha": 0.0}, "positive"),
        (np.ones((3, 3)), {"beta": float("nan")}, "positive"),
        (np.ones((3, 3)), {"repeat": 0}, "stand for 0"),
    ],
)
def test_what_cannot_be_segmented_is_refused(features, given_settings, told):
    parameters = {"alpha": 1.0, "beta": 1.0, **given_settings}
    for function in (kernel_gram_curve, kernel_gram_boundaries):
        with pytest.raises(MeasureError, match=told):
            function(features, **parameters)


def test_extreme_alphas_stay_finite():
    features = blocks([4, 5, 6])
    for alpha in (1e-6, 1e6):
        for beta in (0.5, 1.0, 3.0):
            np.testing.assert_array_equal(
                kernel_gram_curve(features, alpha, beta), curve_by_hand(features, alpha, beta)
            )
