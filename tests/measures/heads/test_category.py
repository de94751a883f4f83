"""Categories by rank."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import MeasureError
from otoscope.measures.heads.category import CATEGORIES, head_categories, head_ranks


def slow(g, v, d):
    """The definition, head by head."""
    names, margins = [], []
    for k in range(len(g)):
        ranks = [sum(x > values[k] for x in values) for values in (g, v, d)]
        names.append(("global", "vertical", "diagonal")[ranks.index(min(ranks))])
        margins.append(sorted(ranks)[1] - min(ranks))
    return names, margins


@given(st.integers(1, 30), st.integers(0, 10_000), st.booleans())
def test_equals_the_definition(n, seed, ties):
    draw = np.random.default_rng(seed)
    g, v, d = draw.integers(0, 4, (3, n)).astype(float) if ties else draw.normal(size=(3, n))
    names, margins = head_categories(g, v, d)
    assert (names.tolist(), margins.tolist()) == slow(g.tolist(), v.tolist(), d.tolist())
    ranks = head_ranks(g, v, d)
    assert ranks.min(1).tolist() == [1, 1, 1]  # of every list
    assert [CATEGORIES[k] for k in ranks.argmin(0)] == names.tolist()


def test_equal_values_share_the_better_rank():
    ranks = head_ranks(np.array([2.0, 5.0, 2.0, 1.0]), np.zeros(4), np.arange(4.0))
    assert ranks.tolist() == [[2, 1, 2, 4], [1, 1, 1, 1], [4, 3, 2, 1]]


def test_equal_best_ranks_go_to_the_first_without_a_margin():
    names, margins = head_categories(np.zeros(2), np.zeros(2), np.array([0.0, 1.0]))
    assert (names.tolist(), margins.tolist()) == (["global", "global"], [0, 0])


def test_only_ranks_count():
    draw = np.random.default_rng(0)
    g, v, d = draw.normal(size=(3, 4, 5))
    names, margins = head_categories(g, v, d)
    again, margins_again = head_categories(np.exp(3 * g), v**3, 100 * d - 7)
    assert names.shape == (4, 5)
    assert (names == again).all()
    assert (margins == margins_again).all()


@pytest.mark.parametrize("bad", [np.zeros(3), np.array([0, np.nan]), np.zeros(0)])
def test_refuses_what_cannot_be_ranked(bad):
    with pytest.raises(MeasureError):
        head_categories(bad, np.zeros(bad.size and 2), np.zeros(bad.size and 2))
