"""Globalness, verticality, diagonality: closed forms, bounds, identities, numpy and torch, and the tap's own way."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope import functional as F
from otoscope.errors import MeasureError
from otoscope.measures.heads.diagonality import Diagonality
from otoscope.measures.heads.globalness import Globalness, NormalisedGlobalness
from otoscope.measures.heads.information import HeadInformation
from otoscope.measures.heads.verticality import NormalisedVerticality, Verticality
from otoscope.models import load
from otoscope.models.reductions import ColumnMean, OffsetMean, RowEntropy, WholeMap
from otoscope.models.tap import TILE, Observation, Tap, attend
from otoscope.speech.corpus import Corpus
from tests.models.small import CASES


def column(t):
    a = np.zeros((t, t))
    a[:, 0] = 1
    return a


def shift(t, by):
    a = np.zeros((t, t))
    a[np.arange(t), np.minimum(np.arange(t) + by, t - 1)] = 1
    return a


LN10 = math.log(10)
TABLE = {
    "uniform": (np.full((10, 10), 0.1), (LN10, -LN10, -0.33)),
    "identity": (np.eye(10), (0, -LN10, 0)),
    "column": (column(10), (0, 0, -0.45)),
    "shift": (shift(10, 2), (0, -1.97300, -0.17)),
}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("kind", ["numpy", "torch", "torch32"])
def test_the_four_maps_of_ten_frames(name, kind):
    maps, expected = TABLE[name]
    stacked = np.stack([np.stack([maps, maps]), np.stack([maps, np.eye(10)])])
    given_maps = {"numpy": stacked, "torch": torch.tensor(stacked), "torch32": torch.tensor(stacked).float()}[kind]
    for function, value in zip((F.globalness, F.verticality, F.diagonality), expected, strict=True):
        out = function(given_maps)
        assert type(out) is type(given_maps)
        assert tuple(out.shape) == (2, 2)
        assert float(out[0, 1]) == pytest.approx(value, abs=1e-5)
        assert float(function(given_maps[0, 0])) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("name", TABLE)
def test_information_and_normalised_values_of_the_four_maps(name):
    maps, (g, v, _) = TABLE[name]
    found = tapped(maps)
    assert float(F.head_information(maps)) == pytest.approx(-(g + v), abs=1e-5)
    assert float(HeadInformation().observe(found)[0]) == pytest.approx(-(g + v), abs=1e-5)
    assert float(NormalisedGlobalness().observe(found)[0]) == pytest.approx(g / LN10, abs=1e-5)
    assert float(NormalisedVerticality().observe(found)[0]) == pytest.approx(v / LN10, abs=1e-5)


@given(st.integers(2, 40), st.integers(0, 10_000), st.floats(0.01, 8))
def test_bounds_and_mutual_information(t, seed, sharpness):
    logits = np.random.default_rng(seed).normal(size=(3, t, t)) * sharpness
    maps = np.exp(logits - logits.max(-1, keepdims=True))
    maps /= maps.sum(-1, keepdims=True)
    g, v, d = F.globalness(maps), F.verticality(maps), F.diagonality(maps)
    assert (g >= -1e-12).all()
    assert (g <= math.log(t) + 1e-12).all()
    assert (v <= 1e-12).all()
    assert (v >= -math.log(t) - 1e-12).all()
    assert (-(g + v) >= -1e-12).all()  # I(query; key) is never negative
    farthest = -np.maximum(np.arange(t), np.arange(t)[::-1]).sum() / t**2
    assert (d >= farthest - 1e-12).all()
    assert (d <= 0).all()
    # An independent way: mutual information of query (uniform) and key.
    joint = maps / t
    information = (joint * np.log(joint / (joint.sum(-1, keepdims=True) * joint.sum(-2, keepdims=True)))).sum((-2, -1))
    assert np.allclose(-(g + v), information, atol=1e-9)


@pytest.mark.parametrize("t", [1, 2, 7, 50])
def test_uniform_attention_for_any_length(t):
    maps = np.full((t, t), 1 / t)
    assert F.globalness(maps) == pytest.approx(math.log(t), abs=1e-12)
    assert F.verticality(maps) == pytest.approx(-math.log(t), abs=1e-12)
    assert F.diagonality(maps) == pytest.approx(-(t**2 - 1) / (3 * t**2), abs=1e-12)


@pytest.mark.parametrize(
    "maps",
    [
        np.ones((3, 4)),
        np.ones((4, 4)),
        np.full((4, 4), np.nan),
        -np.eye(4) + 2 / 4,
        np.eye(4) * 0,
        np.eye(4, dtype=int),
    ],
    ids=["not square", "rows of four", "nan", "negative", "removed head", "integers"],
)
def test_what_is_no_attention_is_refused(maps):
    for function in (F.globalness, F.verticality, F.diagonality, F.relative_profile):
        with pytest.raises(MeasureError, match=r"shape|type"):
            function(maps)


def tapped(maps, queries=None):
    """Passes a given map through the tap: with one-hot keys the scores are the map's logarithms."""
    t = maps.shape[-1]
    logits = torch.tensor(np.log(np.maximum(maps, 1e-30)), dtype=torch.float32)[None, None]
    keys = torch.eye(t)[None, None]
    value = torch.randn(1, 1, t, 5, generator=torch.Generator().manual_seed(0))
    seen = Observation((t,), (t,), [RowEntropy, ColumnMean, OffsetMean, WholeMap])
    context = attend(Tap(1, seen), logits, keys, value, lambda b, first, last: None, 1.0)
    assert torch.allclose(context[0, :, 0], torch.tensor(maps, dtype=torch.float32) @ value[0, 0], atol=1e-5)
    return seen.results[1][0]


@pytest.mark.parametrize("name", TABLE)
def test_the_tap_gives_the_same_closed_forms(name):
    maps, expected = TABLE[name]
    found = tapped(maps)
    for kind, value in zip((Globalness, Verticality, Diagonality), expected, strict=True):
        assert float(kind().observe(found)[0]) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("t", [TILE - 1, TILE, TILE + 1, 2 * TILE + 37])
def test_tiles_do_not_show(t):
    logits = np.random.default_rng(t).normal(size=(t, t)) * 3
    maps = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = tapped(maps)
    for kind, function in ((Globalness, F.globalness), (Verticality, F.verticality), (Diagonality, F.diagonality)):
        assert float(kind().observe(found)[0]) == pytest.approx(float(function(maps)), abs=2e-5)


def test_uniform_attention_through_a_real_forward_pass():
    """Queries of zero make every map uniform: the closed forms must come out of the model's own pass."""
    model = CASES[0].build()
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.attention.q_proj.weight.zero_()
            layer.attention.q_proj.bias.zero_()
    ready = load(model)
    corpus = Corpus.from_arrays([np.random.default_rng(0).normal(size=16000).astype(np.float32)])
    capture = ready.capture(list(corpus), [corpus[0].read()], reductions=[RowEntropy, ColumnMean, OffsetMean])
    t = capture.lengths["input"][0]
    for found in capture.attention.values():
        one = found[0]
        assert torch.allclose(Globalness().observe(one), torch.full((4,), math.log(t), dtype=torch.float64), atol=1e-5)
        assert torch.allclose(
            Verticality().observe(one), torch.full((4,), -math.log(t), dtype=torch.float64), atol=1e-5
        )
        expected = -(t**2 - 1) / (3 * t**2)
        assert torch.allclose(Diagonality().observe(one), torch.full((4,), expected, dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("kind", [np.float16, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("t", [50, 600])
def test_maps_in_half_precision(kind, t):
    maps = np.full((t, t), 1 / t)
    maps = maps.astype(kind) if kind is np.float16 else torch.tensor(maps).to(kind)
    assert float(F.globalness(maps)) == pytest.approx(math.log(t), rel=0.02)
    assert float(F.verticality(maps)) == pytest.approx(-math.log(t), rel=0.02)
    assert float(F.diagonality(maps)) == pytest.approx(-1 / 3, rel=0.02)
    assert float(F.relative_profile(maps).sum()) == pytest.approx(1, rel=0.02)


def test_lists_are_no_maps():
    for function in (F.globalness, F.verticality, F.diagonality, F.head_information, F.relative_profile):
        with pytest.raises(MeasureError, match="are a list"):
            function([[1.0]])


def test_gradients_flow_through_the_pure_functions():
    maps = torch.softmax(torch.randn(2, 6, 6, dtype=torch.float64), -1).requires_grad_()
    for function in (F.globalness, F.verticality, F.diagonality, F.relative_profile):
        function(maps).sum().backward(retain_graph=True)
        assert torch.isfinite(maps.grad).all()
