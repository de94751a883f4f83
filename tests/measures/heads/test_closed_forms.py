"""The head metrics: closed forms, bounds, identities, numpy and torch, and the tap's own way."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope import functional as F
from otoscope.errors import MeasureError
from otoscope.measures.heads.diagonality import (
    Centrality,
    CumulativeDiagonality,
    Diagonality,
    MeanOffset,
    centrality,
    cumulative_diagonality,
    mean_offset,
)
from otoscope.measures.heads.globalness import Globalness, NormalisedGlobalness
from otoscope.measures.heads.information import HeadInformation
from otoscope.measures.heads.peak import profile_peak
from otoscope.measures.heads.sharpness import Confidence, MaxWeight, confidence, max_weight
from otoscope.measures.heads.verticality import NormalisedVerticality, Verticality
from otoscope.models.tap import TILE
from tests.measures.heads.given_maps import drawn_maps, sums

FUNCTIONS = {
    Globalness: F.globalness,
    Verticality: F.verticality,
    Diagonality: F.diagonality,
    HeadInformation: F.head_information,
    Centrality: centrality,
    CumulativeDiagonality: cumulative_diagonality,
    MeanOffset: mean_offset,
    MaxWeight: max_weight,
    Confidence: confidence,
}


def column(t):
    a = np.zeros((t, t))
    a[:, 0] = 1
    return a


def shift(t, by):
    a = np.zeros((t, t))
    a[np.arange(t), np.clip(np.arange(t) + by, 0, t - 1)] = 1
    return a


LN10 = math.log(10)
UNEVEN = 0.7 * math.log(0.1) + 0.3 * math.log(0.3)  # seven keys have one query each, the last has three
# The sum over queries of the mean distance to the keys over the farthest: of all keys, and of key 0.
SPREAD = float(1 - sum(Fraction(sum(abs(q - k) for k in range(10)), 100 * max(q, 9 - q)) for q in range(10)))
BEHIND = float(1 - sum(Fraction(q, 10 * max(q, 9 - q)) for q in range(10)))
AHEAD = float(1 - sum(Fraction(min(2, 9 - q), 10 * max(q, 9 - q)) for q in range(10)))
# In the order of FUNCTIONS: G, V, D, I, centrality, CAD, mean offset, largest weight, confidence.
TABLE = {
    "uniform": (np.full((10, 10), 0.1), (LN10, -LN10, -0.33, 0, SPREAD, 19 / 30, 0, 0.1, 0.1)),
    "identity": (np.eye(10), (0, -LN10, 0, LN10, 1, 1, 0, 1, 1)),
    "column": (column(10), (0, 0, -0.45, 0, BEHIND, 0.5, -4.5, 1, 1)),
    "shift": (shift(10, 2), (0, UNEVEN, -0.17, -UNEVEN, AHEAD, 1 - 1.7 / 9, 1.7, 1, 1)),
}


def tapped(maps):
    """The tap's sums over one map, for one head."""
    return sums(maps[None], tuple(dict.fromkeys(make for kind in FUNCTIONS for make in kind.reductions)))


def test_the_published_digits():
    found = {name: [round(x, 5) for x in values] for name, (_, values) in TABLE.items()}
    assert found["uniform"][:6] == [2.30259, -2.30259, -0.33, 0, 0.52893, 0.63333]
    assert found["identity"][:6] == [0, -2.30259, 0, 2.30259, 1, 1]
    assert found["column"][:6] == [0, 0, -0.45, 0, 0.32893, 0.5]
    assert found["shift"][:4] == [0, -1.97300, -0.17, 1.97300]


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("kind", ["numpy", "torch", "torch32"])
def test_the_four_maps_of_ten_frames(name, kind):
    maps, expected = TABLE[name]
    stacked = np.stack([np.stack([maps, maps]), np.stack([maps, np.eye(10)])])
    given_maps = {"numpy": stacked, "torch": torch.tensor(stacked), "torch32": torch.tensor(stacked).float()}[kind]
    for function, value in zip(FUNCTIONS.values(), expected, strict=True):
        out = function(given_maps)
        assert type(out) is type(given_maps)
        assert tuple(out.shape) == (2, 2)
        assert float(out[0, 1]) == pytest.approx(value, abs=1e-6), function.__name__
        assert float(function(given_maps[0, 0])) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("name", TABLE)
def test_the_tap_gives_the_same_closed_forms(name):
    maps, expected = TABLE[name]
    found = tapped(maps)
    for kind, value in zip(FUNCTIONS, expected, strict=True):
        assert float(kind().observe(found)[0]) == pytest.approx(value, abs=1e-6), kind.name
    assert float(NormalisedGlobalness().observe(found)[0]) == pytest.approx(expected[0] / LN10, abs=1e-6)
    assert float(NormalisedVerticality().observe(found)[0]) == pytest.approx(expected[1] / LN10, abs=1e-6)


@given(st.integers(2, 40), st.integers(0, 10_000), st.floats(0.01, 8))
def test_bounds_and_mutual_information(t, seed, sharpness):
    maps = drawn_maps(seed, t, sharpness=sharpness)
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
    for nearness in (centrality(maps), cumulative_diagonality(maps)):
        assert ((nearness >= 0) & (nearness <= 1)).all()
    assert (np.abs(mean_offset(maps)) <= -d * t).all()
    assert (1 / t <= confidence(maps)).all()
    assert (confidence(maps) <= max_weight(maps)).all()
    assert (max_weight(maps) <= 1).all()


@given(st.integers(2, 30), st.integers(0, 10_000))
def test_cumulative_diagonality_is_the_integral(t, seed):
    """The mass within r (T - 1) frames is a step function of r, constant over T - 1 intervals of the same width."""
    maps = drawn_maps(seed, t, heads=1)[0]
    within = [sum(maps[q, k] for q in range(t) for k in range(t) if abs(q - k) <= d) / t for d in range(t - 1)]
    assert float(cumulative_diagonality(maps)) == pytest.approx(sum(within) / (t - 1), abs=1e-12)


@given(st.integers(2, 25), st.integers(0, 10_000))
def test_centrality_offset_and_weights_equal_their_sums(t, seed):
    maps = drawn_maps(seed, t, heads=1)[0]
    near = [1 - sum(maps[q, k] * abs(q - k) for k in range(t)) / max(q, t - 1 - q) for q in range(t)]
    assert float(centrality(maps)) == pytest.approx(sum(near) / t, abs=1e-12)
    offset = sum((k - q) * maps[q, k] for q in range(t) for k in range(t)) / t
    assert float(mean_offset(maps)) == pytest.approx(offset, abs=1e-12)
    assert float(confidence(maps)) == pytest.approx(sum(max(row) for row in maps) / t, abs=1e-12)
    assert float(max_weight(maps)) == max(max(row) for row in maps)


@pytest.mark.parametrize("by", [-7, -2, 0, 1, 5])
def test_the_peak_of_a_shifted_diagonal(by):
    """T - |by| queries reach their key; those that are clipped attend nearer, up to one more within the breadth."""
    offset, mass = profile_peak(shift(30, by))
    assert offset == by
    assert mass == pytest.approx((30 - abs(by) + (by != 0)) / 30)


def test_of_equal_peaks_the_nearest_and_then_the_earlier_counts():
    maps = np.zeros((3, 7, 7))
    place = np.arange(7)
    for one, pair in zip(maps, ((-1, 1), (-3, 2), (2, 3)), strict=True):
        for by in pair:
            one[place, (place + by) % 7] = 0.5
    # A circle of seven frames: the mass at by and at by - 7 grows and shrinks with how many frames it fits in.
    assert profile_peak(maps)[0].tolist() == [-1, 2, 2]
    assert profile_peak(maps, radius=1)[0].tolist() == [-1, 0, 0]


def test_a_peak_beyond_the_radius_is_not_looked_for():
    assert profile_peak(shift(30, 12), radius=5)[0] <= 5
    with pytest.raises(MeasureError, match="radius of -1"):
        profile_peak(np.eye(3), radius=-1)


@pytest.mark.parametrize("function", [centrality, cumulative_diagonality])
def test_one_frame_has_no_distance(function):
    with pytest.raises(MeasureError, match="of a map of 1 frame is not defined"):
        function(np.ones((4, 1, 1)))


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
    for function in (*FUNCTIONS.values(), F.relative_profile, profile_peak):
        with pytest.raises(MeasureError, match=r"shape|type"):
            function(maps)


@pytest.mark.parametrize("frames", [1, 7])
@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_padding_inside_a_map_is_named(frames, kind):
    maps = np.zeros((2, 3, 10, 10))
    maps[:] = np.eye(10)
    maps[1, :, frames:] = maps[1, :, :, frames:] = 0  # the second utterance is shorter
    with pytest.raises(
        MeasureError, match=rf"padding: from frame {frames} on, all rows.*\[\.\.\., :{frames}, :{frames}\]"
    ):
        F.globalness(kind(maps))


@pytest.mark.parametrize(
    ("maps", "cause"),
    [
        (np.full((4, 4), np.nan), "not finite"),
        (np.full((4, 4), -np.inf), "not finite"),
        (np.eye(4) * 2 - 0.25, "negative"),
        (np.eye(4) * 0.5, r"rows that do not sum to one, but to 0\.5"),
        (np.zeros((4, 4)), "with no head removed"),
    ],
)
def test_the_cause_is_told(maps, cause):
    with pytest.raises(MeasureError, match=cause):
        F.verticality(maps)


@pytest.mark.parametrize("t", [1, TILE - 1, TILE, TILE + 1, 2 * TILE + 37])
def test_tiles_do_not_show(t):
    maps = drawn_maps(t, t, heads=1, sharpness=3.0)[0]
    found = tapped(maps)
    for kind, function in FUNCTIONS.items():
        if t >= kind.fewest_frames:
            assert float(kind().observe(found)[0]) == pytest.approx(float(function(maps)), abs=2e-5), kind.name


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
    for function in (*FUNCTIONS.values(), F.relative_profile):
        with pytest.raises(MeasureError, match="are a list"):
            function([[1.0]])


def test_gradients_flow_through_the_pure_functions():
    maps = torch.softmax(torch.randn(2, 6, 6, dtype=torch.float64), -1).requires_grad_()
    for function in (*FUNCTIONS.values(), F.relative_profile):
        function(maps).sum().backward(retain_graph=True)
        assert torch.isfinite(maps.grad).all()
