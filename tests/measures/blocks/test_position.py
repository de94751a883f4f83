"""The position profile."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import MeasureError
from otoscope.measures.blocks.position import BINS, in_bins, position_profile


def exact(frames, bins):
    """Part of each key in each bin, in fractions."""
    out = np.zeros((frames, bins))
    for k in range(frames):
        for b in range(bins):
            start = max(Fraction(k, frames), Fraction(b, bins))
            end = min(Fraction(k + 1, frames), Fraction(b + 1, bins))
            out[k, b] = float(max(end - start, Fraction(0)) * frames)
    return out


@given(st.integers(1, 60), st.integers(1, 25), st.integers(0, 1000))
def test_equals_exact_fractions_and_sums_to_one(frames, bins, seed):
    columns = np.random.default_rng(seed).dirichlet(np.ones(frames))
    found = in_bins(columns, bins)
    assert np.allclose(found, columns @ exact(frames, bins), atol=1e-14)
    assert found.sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("frames", [1, 7, 19, 20, 21, 400])
def test_uniform_attention_is_even_for_any_length(frames):
    found = position_profile(np.full((frames, frames), 1 / frames))
    assert np.allclose(found, 1 / BINS, atol=1e-14)


def test_a_key_that_straddles_an_edge_is_split():
    """Three keys and two bins: half of the middle key lies in each."""
    maps = np.tile([0.2, 0.5, 0.3], (3, 1))
    assert np.allclose(position_profile(maps, bins=2), [0.45, 0.55])


def test_rows_are_queries():
    maps = np.eye(20)[[0] * 20]
    assert np.array_equal(position_profile(maps), np.eye(BINS)[0])
    assert position_profile(maps[::-1].copy()).argmax() == 0


def test_torch_and_leading_dimensions():
    maps = torch.softmax(torch.randn(2, 3, 30, 30, generator=torch.Generator().manual_seed(0)), -1)
    found = position_profile(maps)
    assert found.shape == (2, 3, BINS)
    assert np.allclose(found[1, 2], position_profile(maps[1, 2].numpy()), atol=1e-7)


def test_no_bin_is_refused():
    with pytest.raises(MeasureError, match="0 bins"):
        position_profile(np.eye(3), bins=0)
