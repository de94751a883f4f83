"""Categories by rank."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import MeasureError
from otoscope.functional import categories


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
    names, margins = categories(g, v, d)
    assert (names.tolist(), margins.tolist()) == slow(g.tolist(), v.tolist(), d.tolist())


def test_only_ranks_count():
    draw = np.random.default_rng(0)
    g, v, d = draw.normal(size=(3, 4, 5))
    names, margins = categories(g, v, d)
    again, margins_again = categories(np.exp(3 * g), v**3, 100 * d - 7)
    assert names.shape == (4, 5)
    assert (names == again).all()
    assert (margins == margins_again).all()


@pytest.mark.parametrize("bad", [np.zeros(3), np.array([0, np.nan])])
def test_refuses_what_cannot_be_ranked(bad):
    with pytest.raises(MeasureError):
        categories(bad, np.zeros(2), np.zeros(2))
