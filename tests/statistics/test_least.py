"""The least of many."""

import random

import pytest

from otoscope.statistics.least import Least


@pytest.mark.parametrize("most", [None, 0, 1, 7, 500])
@pytest.mark.parametrize("count", [0, 5, 400])
def test_it_keeps_what_sorting_keeps(most, count):
    keys = list(range(count))
    random.Random(0).shuffle(keys)
    least = Least(most)
    for key in keys:
        least.add(key, -key)
    assert list(least.items()) == [(key, -key) for key in sorted(keys)][:most]


def test_it_holds_little_and_goes_on_after_it_was_read():
    least = Least(10)
    for key in range(1000, 0, -1):
        least.add(key, None)
        assert len(least._held) <= 40
    assert [key for key, _ in least.items()] == list(range(1, 11))
    least.add(0, None)
    assert [key for key, _ in least.items()] == list(range(10))
