from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import MeasureError
from otoscope.measures.layers import dtw as module
from otoscope.measures.layers.dtw import angular_distances, dtw, pair_distances


def every_path(distances):
    """Cost and length of all paths, by recursion."""
    n, m = distances.shape

    @cache
    def ways(i, j):
        if (i, j) == (0, 0):
            return [(distances[0, 0], 1)]
        before = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
        return [(c + distances[i, j], k + 1) for a, b in before if a >= 0 and b >= 0 for c, k in ways(a, b)]

    return ways(n - 1, m - 1)


def forward_and_back(distances):
    """As the ABX programs do it: fill the table, then walk back, in both sequences at once where that costs no more."""
    n, m = distances.shape
    cost = np.cumsum(np.cumsum(np.zeros((n, m)), axis=0), axis=1)
    for i in range(n):
        for j in range(m):
            before = [cost[a, b] for a, b in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if a >= 0 and b >= 0]
            cost[i, j] = distances[i, j] + (min(before) if before else 0)
    i, j, length = n - 1, m - 1, 1
    while (i, j) != (0, 0):
        ways = [(a, b) for a, b in ((i - 1, j - 1), (i, j - 1), (i - 1, j)) if a >= 0 and b >= 0]
        i, j = min(ways, key=lambda at: cost[at])
        length += 1
    return cost[-1, -1] / length


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=80)
def test_the_shortest_of_the_cheapest_paths(n, m, seed, ties):
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, 3, (n, m)).astype(float) if ties else rng.random((n, m))
    cost, length = min(every_path(distances))
    assert dtw(distances) == pytest.approx(cost / length, abs=1e-12)
    assert dtw(distances.T) == pytest.approx(cost / length, abs=1e-12)


def test_equals_what_is_found_by_walking_back():
    rng = np.random.default_rng(0)
    for n, m in [(1, 1), (1, 9), (9, 1), (7, 7), (12, 30), (30, 12)]:
        distances = rng.random((n, m))
        assert dtw(distances) == pytest.approx(forward_and_back(distances), abs=1e-12)


def test_batches_of_unequal_length_equal_one_by_one(monkeypatch):
    rng = np.random.default_rng(1)
    distances = rng.random((3, 40, 9, 11))
    rows, columns = rng.integers(1, 10, (3, 40)), rng.integers(1, 12, (3, 40))
    expected = [
        [dtw(distances[a, b, : rows[a, b], : columns[a, b]]) for b in range(40)] for a in range(3)
    ]  # fmt: skip
    np.testing.assert_array_equal(dtw(distances, rows, columns), expected)
    monkeypatch.setattr(module, "MOST_CELLS", 20)
    np.testing.assert_array_equal(dtw(distances, rows, columns), expected)


def test_closed_forms():
    assert dtw(np.full((4, 7), 0.3)) == pytest.approx(0.3)
    assert dtw(1 - np.eye(5)) == 0
    x = np.random.default_rng(2).standard_normal((6, 3))
    # Frames that are held for longer cost nothing.
    assert dtw(angular_distances(x, np.repeat(x, [1, 3, 1, 2, 5, 1], axis=0))) == pytest.approx(0, abs=1e-7)
    turn = np.radians([0, 30, 60, 90, 180])
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    np.testing.assert_allclose(angular_distances(circle[:1], 3 * circle)[0], turn / np.pi, atol=1e-7)
    np.testing.assert_array_equal(angular_distances(np.zeros((1, 2)), circle), np.full((1, 5), 0.5))


@pytest.mark.parametrize("most", [1, 40, 10_000])
def test_pairs_of_sequences(monkeypatch, most):
    monkeypatch.setattr(module, "MOST_FRAMES", most)
    rng = np.random.default_rng(3)
    sequences = [rng.standard_normal((int(n), 4)).astype(np.float32) for n in rng.integers(1, 12, 20)]
    blocks = np.repeat([7, 3, 9, 4], 5)
    first, second = np.array([(i, j) for i in range(20) for j in range(20) if blocks[i] == blocks[j] and i != j]).T
    found = pair_distances(sequences, first, second, blocks)
    expected = [
        dtw(angular_distances(sequences[i], sequences[j])) for i, j in zip(first, second, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-7)
    table = dict(zip(zip(first.tolist(), second.tolist(), strict=True), found.tolist(), strict=True))
    assert all(table[i, j] == table[j, i] for i, j in table)
    np.testing.assert_array_equal(pair_distances(sequences, first, second), pair_distances(sequences, second, first))


def test_sequences_without_frames_are_refused():
    with pytest.raises(MeasureError, match=r"0 to 2 and 3 to 3 frames do not fit distances of shape \(2, 3\)"):
        dtw(np.zeros((2, 2, 3)), rows=np.array([0, 2]))
    with pytest.raises(MeasureError, match="2 to 2 and 4 to 4"):
        dtw(np.zeros((2, 3)), columns=np.array(4))
    with pytest.raises(MeasureError, match=r"shape \(3,\)"):
        dtw(np.zeros(3))
