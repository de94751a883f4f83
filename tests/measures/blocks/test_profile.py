"""The relative-position profile."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope.functional import relative_profile
from otoscope.measures.blocks.profile import uniform_profile


def slow(maps, reach):
    t = maps.shape[-1]
    out = np.zeros(2 * reach + 3)
    for q in range(t):
        for k in range(t):
            d = k - q
            place = 0 if d < -reach else 2 * reach + 2 if d > reach else d + reach + 1
            out[place] += maps[q, k] / t
    return out


@given(st.integers(1, 25), st.integers(1, 12), st.integers(0, 1000))
def test_equals_the_double_sum(t, reach, seed):
    maps = np.random.default_rng(seed).dirichlet(np.ones(t), size=t)
    profile = relative_profile(maps, reach)
    assert np.allclose(profile, slow(maps, reach), atol=1e-12)
    assert profile.sum() == pytest.approx(1)


@pytest.mark.parametrize("t", [1, 5, 51, 52, 200])
def test_uniform_attention_gives_the_baseline(t):
    assert np.allclose(relative_profile(np.full((t, t), 1 / t)), uniform_profile(t), atol=1e-12)
    assert uniform_profile(t).sum() == pytest.approx(1)


def test_torch_and_leading_dimensions():
    maps = torch.softmax(torch.randn(2, 3, 20, 20, dtype=torch.float64), -1)
    profile = relative_profile(maps, 5)
    assert isinstance(profile, torch.Tensor)
    assert profile.shape == (2, 3, 13)
    assert np.allclose(profile[1, 2].numpy(), relative_profile(maps[1, 2].numpy(), 5))


def test_a_shifted_diagonal_shows_its_offset():
    maps = np.zeros((30, 30))
    maps[np.arange(30), np.minimum(np.arange(30) + 3, 29)] = 1
    assert relative_profile(maps, 10).argmax() == 11 + 3
