"""Fleiss' kappa: the example of its source, its limits, and what is refused."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from otoscope.errors import MeasureError
from otoscope.statistics.kappa import fleiss_kappa, kappa_interval

# The well-known worked example of ten things, fourteen raters and five labels.
EXAMPLE = np.array(
    [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]
)  # fmt: skip


def test_the_worked_example():
    kappa, without = fleiss_kappa(EXAMPLE)
    assert kappa == pytest.approx(0.210, abs=5e-4)
    for k in range(10):
        assert without[k] == pytest.approx(fleiss_kappa(np.delete(EXAMPLE, k, 0))[0], rel=1e-12)


def test_two_raters_with_the_same_shares_give_cohens_kappa():
    one, two = [0, 0, 1, 1, 2, 2, 0, 1], [0, 1, 1, 0, 2, 2, 1, 0]
    counts = np.array([[(a == word) + (b == word) for word in range(3)] for a, b in zip(one, two, strict=True)])
    assert fleiss_kappa(counts)[0] == pytest.approx(cohen_kappa_score(one, two), rel=1e-12)


def test_limits():
    assert fleiss_kappa(np.array([[3, 0], [0, 3], [3, 0]]))[0] == pytest.approx(1)
    assert fleiss_kappa(np.array([[1, 1], [1, 1]]))[0] == pytest.approx(-1)
    assert np.isnan(fleiss_kappa(np.array([[3, 0], [3, 0]]))[0])  # chance agrees as well
    assert abs(fleiss_kappa(np.random.default_rng(0).multinomial(5, [0.2, 0.3, 0.5], 5000))[0]) < 0.02


def test_the_interval_is_within_bounds_and_absent_without_a_spread():
    kappa, without = fleiss_kappa(EXAMPLE)
    low, high = kappa_interval(kappa, without)
    assert -1 <= low < kappa < high <= 1
    assert kappa_interval(*fleiss_kappa(EXAMPLE[:4])) is None
    assert kappa_interval(*fleiss_kappa(EXAMPLE[:5])) is not None
    assert kappa_interval(*fleiss_kappa(np.array([[2, 0], [0, 2]] * 4))) is None
    assert kappa_interval(*fleiss_kappa(np.array([[2, 0]] * 5 + [[1, 1]]))) is None  # without the last there is none


@pytest.mark.parametrize("counts", [np.array([[1, 0]]), np.array([[2, 0], [1, 0]]), np.zeros((0, 2), int)])
def test_what_is_not_of_the_same_raters_is_refused(counts):
    with pytest.raises(MeasureError, match="same two or more raters"):
        fleiss_kappa(counts)
