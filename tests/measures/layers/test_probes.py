import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import MeasureError
from otoscope.functional import linear_probe, mlp_probe, online_codelength, weighted_layers


def accuracy(found, labels) -> float:
    return float((np.asarray(found).argmax(1) == labels).mean())


def clouds(seed: int, n: int, classes: int, d: int, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clouds around a centre for each class; the centres are the same for all seeds."""
    rng, centres = np.random.default_rng(seed), np.random.default_rng(77).standard_normal((classes, d))
    labels = rng.integers(0, classes, n)
    return distance * centres[labels] + rng.standard_normal((n, d)), labels


def xor(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 4))
    return x, ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(int)


@pytest.mark.parametrize("probe", [linear_probe, mlp_probe])
def test_labels_that_lie_apart_are_all_named(probe):
    (x, y), (other, truth) = clouds(0, 400, 5, 8, 20.0), clouds(1, 100, 5, 8, 20.0)
    found = probe(x, y, other)
    assert found.shape == (100, 5)
    assert accuracy(found, truth) == 1
    np.testing.assert_allclose(np.exp(found).sum(1), 1, atol=1e-9)


def test_only_a_hidden_layer_tells_exclusive_or():
    (x, y), (other, truth) = xor(0, 800), xor(1, 400)
    assert accuracy(linear_probe(x, y, other), truth) < 0.62
    assert accuracy(mlp_probe(x, y, other), truth) > 0.93


@pytest.mark.parametrize("probe", [linear_probe, mlp_probe])
def test_random_labels_are_named_by_chance(probe):
    rng = np.random.default_rng(3)
    found = probe(rng.standard_normal((600, 6)), rng.integers(0, 4, 600), rng.standard_normal((2000, 6)))
    assert accuracy(found, rng.integers(0, 4, 2000)) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("ridge", [0.3, 0.01])
def test_the_linear_probe_is_at_the_minimum_of_what_it_says(ridge):
    """The same objective minimised by torch, weights and extra row spelled out."""
    x, y = clouds(5, 120, 3, 4, 0.7)
    other, _ = clouds(6, 30, 3, 4, 0.7)
    z, apart = (torch.from_numpy((v - x.mean(0)) / x.std(0)) for v in (x, other))
    w, b = torch.zeros(4, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    optimiser = torch.optim.LBFGS([w.requires_grad_(), b.requires_grad_()], max_iter=500, tolerance_grad=1e-10)

    def closure():
        optimiser.zero_grad()
        rows = -torch.log_softmax(z @ w + b, 1)[torch.arange(120), torch.from_numpy(y)].sum()
        extra = -torch.log_softmax(b, 0).mean()
        loss = (rows + extra) / 121 + ridge / 2 * (w**2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    expected = torch.log_softmax(apart @ w + b, 1).detach().numpy()
    np.testing.assert_allclose(linear_probe(x, y, other, ridge=ridge), expected, rtol=0.03, atol=0.005)


@given(scale=st.floats(1e-6, 1e6), shift=st.floats(-10, 10))
@settings(max_examples=10)
def test_scale_and_place_of_a_dimension_do_not_matter(scale, shift):
    (x, y), (other, _) = clouds(0, 60, 3, 4, 1.0), clouds(1, 20, 3, 4, 1.0)
    factor = np.array([scale, 1, 1, 1])
    expected = linear_probe(x, y, other)
    found = linear_probe((x + shift) * factor, y, (other + shift) * factor)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_classes_that_were_not_seen_and_dimensions_that_do_not_vary():
    x, y = clouds(0, 60, 2, 3, 5.0)
    x = np.concatenate([x, np.full((60, 1), 0.1)], 1)
    for probe in (linear_probe, mlp_probe):
        found = probe(x, y, x + np.array([0, 0, 0, 1e6]), classes=4)
        assert found.shape == (60, 4)
        assert np.isfinite(found).all()
        assert accuracy(found, y) > 0.9
    assert (linear_probe(x, y * 0, x) == 0).all()
    assert accuracy(linear_probe(x[:1], y[:1] * 0, x, classes=2), y * 0) > 0.5


def test_torch_gives_what_numpy_gives_and_seeds_fix_the_rest():
    (x, y), (other, _) = clouds(0, 60, 3, 4, 1.0), clouds(1, 20, 3, 4, 1.0)
    tensors = [torch.from_numpy(v) for v in (x, y, other)]
    for probe in (linear_probe, mlp_probe):
        found = probe(*tensors)
        assert isinstance(found, torch.Tensor)
        np.testing.assert_array_equal(found.numpy(), probe(x, y, other))
    before = torch.get_rng_state()
    assert not np.array_equal(mlp_probe(x, y, other, seed=1), mlp_probe(x, y, other, seed=2))
    assert torch.equal(before, torch.get_rng_state())
    with torch.no_grad():
        np.testing.assert_array_equal(mlp_probe(x, y, other), found.numpy())


@pytest.mark.parametrize("classes", [2, 40])
def test_random_labels_cost_what_the_uniform_code_costs(classes):
    rng = np.random.default_rng(classes)
    found = online_codelength(rng.standard_normal((1500, 20)), rng.integers(0, classes, 1500), classes)
    assert found.uniform == math.log2(classes)
    # At most log2(4) bits for each of the ten blocks after the first, whatever the probes do.
    assert -0.03 * 1500 * found.uniform < found.online - 1500 * found.uniform <= 20
    assert found.compression == pytest.approx(1, abs=0.03)


def test_labels_that_lie_apart_cost_little_more_than_the_first_blocks():
    x, y = clouds(0, 2000, 8, 10, 20.0)
    found = online_codelength(x, y)
    ends = [math.ceil(20 * t) for t in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.25, 12.5, 25, 50, 100)]
    np.testing.assert_array_equal(np.cumsum(np.bincount(found.blocks)), ends)
    np.testing.assert_allclose(found.bits[found.blocks == 0], 3, atol=1e-12)
    assert found.compression > 20
    # The easier the labels, the shorter the code.
    harder = online_codelength(*clouds(0, 2000, 8, 10, 0.5))
    assert 1.1 < harder.compression < found.compression


def test_without_probes_the_code_is_the_mixture_of_frequencies_and_equal_chances():
    """Against the definition, block by block: mean of two products."""
    rng = np.random.default_rng(0)
    y = rng.choice(3, 64, p=[0.8, 0.15, 0.05])
    found = online_codelength(np.zeros((64, 1)), y, 3, timestamps=(12.5, 50, 100), ridges=(), seed=4)
    order = np.random.default_rng(4).permutation(64)
    assert found.bits[order[:8]] == pytest.approx(math.log2(3))
    for a, b, block in ((8, 32, 1), (32, 64, 2)):
        counts = np.bincount(y[order[:a]], minlength=3)
        frequencies = np.prod([(counts[label] + 1 / 3) / (a + 1) for label in y[order[a:b]]])
        expected = -math.log2((frequencies + (1 / 3) ** (b - a)) / 2)
        assert found.bits[found.blocks == block].sum() == pytest.approx(expected, abs=1e-9)
    assert found.compression > 1.2


@pytest.mark.parametrize("norm", [1e-4, 1.0, 1e4])
def test_the_weighted_sum_finds_the_layer_that_holds_the_label_whatever_its_norm(norm):
    rng = np.random.default_rng(0)
    (x, y), (other, truth) = clouds(0, 500, 4, 10, 2.0), clouds(1, 200, 4, 10, 2.0)
    layers, apart = rng.standard_normal((5, 500, 10)), rng.standard_normal((5, 200, 10))
    layers[3], apart[3] = norm * x + 7 * norm, norm * other + 7 * norm
    found = weighted_layers(layers, y, apart)
    assert found.weights.sum() == pytest.approx(1)
    assert found.weights.argmax() == 3
    assert found.weights[3] > 0.4
    assert accuracy(found.log_probabilities, truth) > 0.9
    tensors = weighted_layers(*(torch.from_numpy(v) for v in (layers, y, apart)))
    np.testing.assert_array_equal(tensors.weights, found.weights)
    assert isinstance(tensors.log_probabilities, torch.Tensor)


def test_layers_that_hold_the_same_have_equal_weights_whatever_their_norms():
    x, y = clouds(0, 200, 4, 10, 1.0)
    layers = np.stack([x, 1000 * x - 3, x / 1000 + 5])
    found = weighted_layers(layers, y, layers[:, :5])
    np.testing.assert_allclose(found.weights, 1 / 3, atol=0.01)


def test_what_cannot_be_probed_is_refused():
    x, y = clouds(0, 20, 3, 4, 1.0)
    for labels, other, classes, said in (
        (y[:5], x, None, "shapes disagree"),
        (y, x[:, :2], None, "shapes disagree"),
        (y / 2, x, None, "Labels of type float64"),
        (y - 5, x, None, "between -5"),
        (y, x, 2, "for 2 classes"),
        (y, x * np.nan, None, "not finite"),
    ):
        for probe in (linear_probe, mlp_probe):
            with pytest.raises(MeasureError, match=said):
                probe(x, labels, other, classes)
    with pytest.raises(MeasureError, match="nothing to learn"):
        linear_probe(x[:0], y[:0], x)
    with pytest.raises(MeasureError, match="One class"):
        online_codelength(x, y * 0)
    for bad in ((), (50,), (10, 5, 100), (0, 100)):
        with pytest.raises(MeasureError, match="do not rise"):
            online_codelength(x, y, timestamps=bad)
    with pytest.raises(MeasureError, match="2 layers to fit on and 1 held out"):
        weighted_layers(np.stack([x, x]), y, x[None])
