"""What a reset changes a metric by: ratios of sums, their intervals, and what happens where nothing varies."""

import numpy as np
import pytest

from otoscope.evaluation.bootstrap import blocks_of
from otoscope.evaluation.scores import Scores
from otoscope.interventions.criticality.changes import change, mean_scores, share, spread

SPEAKERS = 9


def scores(numerator, denominator=None, higher=False):
    n = len(numerator)
    return Scores(
        "metric", "unit", higher, tuple(f"u{k:02d}" for k in range(n)), tuple(f"s{k % SPEAKERS}" for k in range(n)),
        np.asarray(numerator, np.float64), np.full(n, 10.0) if denominator is None else np.asarray(denominator, np.float64),
    )  # fmt: skip


@pytest.fixture
def drawn():
    """A loss before, under a reset of a unit, and under one of all layers, of which the unit makes up 0.7."""
    draw = np.random.default_rng(1)
    denominator = draw.integers(5, 30, 60)
    before = denominator * (1 + 0.1 * draw.random(60))
    whole = denominator * (2 + draw.random(60))
    unit = 0.7 * whole + denominator * 0.05 * draw.standard_normal(60)
    return tuple(scores(before + plus, denominator) for plus in (0, unit, whole))


def test_a_share_is_the_ratio_of_sums_with_its_interval(drawn):
    before, after, whole = drawn
    found = share(before, after, whole, seed=0)
    gains = [(one.numerator - before.numerator).sum() for one in (after, whole)]
    assert found.value == pytest.approx(gains[0] / gains[1])
    assert found.low < found.value < found.high
    # The same blocks are drawn for both terms: far narrower than by the spread of either alone.
    by = blocks_of(before.ids, before.speakers)
    ratios = by.sums(after.numerator - before.numerator) / by.sums(whole.numerator - before.numerator)
    assert found.high - found.low < 3 * ratios.std() / np.sqrt(SPEAKERS) * 2.4
    turned = [scores(-one.numerator, one.denominator, True) for one in drawn]
    again = share(*turned, seed=0)
    assert (again.value, again.low, again.high) == pytest.approx((found.value, found.low, found.high))


def test_intervals_are_drawn_by_the_seed(drawn):
    before, after, whole = drawn
    assert len({share(before, after, whole, seed).low for seed in range(3)}) == 3
    assert len({change(before, after, seed).low for seed in range(3)}) == 3


def test_the_interval_of_a_share_holds_its_level():
    draw = np.random.default_rng(5)
    held, runs = 0, 80
    for _ in range(runs):
        of_speaker = np.tile(0.4 + 0.1 * draw.standard_normal(SPEAKERS), 4)
        whole = 10 * (2 + draw.random(4 * SPEAKERS))
        after = whole * of_speaker
        found = share(*(scores(10 + plus) for plus in (0 * whole, after, whole)), seed=1)
        held += found.low <= 0.4 <= found.high
    assert held / runs > 0.9


def test_there_is_no_share_of_what_makes_nothing_worse(drawn):
    before, after, whole = drawn
    assert share(before, after, before, seed=0) is None
    assert share(whole, after, before, seed=0) is None
    swing = scores(before.numerator + 20 * np.where(np.arange(60) % SPEAKERS % 2, 1.0, -0.5), before.denominator)
    assert swing.value > before.value  # worse, but not surely
    assert share(before, after, swing, seed=0) is None


def test_where_nothing_varies(drawn):
    before, _, whole = drawn
    for one, value in ((before, 0.0), (whole, 1.0)):
        found = share(before, one, whole, seed=0)
        assert (found.value, found.low, found.high) == (value, value, value)
    # A unit without which no word is right, as without all: of nine speakers none was seen on whom it is otherwise.
    right, wrong = scores([1.0] * 36), scores([10.0] * 36)
    found = share(right, wrong, wrong, seed=0)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / SPEAKERS))
    found = share(right, right, wrong, seed=0)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / SPEAKERS))
    same = change(before, before, 0)
    assert (same.value, same.low, same.high, same.n) == (0, 0, 0, 60)
    shifted = change(before, scores(before.numerator + 0.5 * before.denominator, before.denominator), 0)
    assert shifted.value == pytest.approx(0.5)


def test_no_change_on_the_only_speaker_with_words_is_no_certainty():
    one = scores([2.0, 0.0, 0.0], [10.0, 0.0, 0.0])
    found = change(one, one, 0)
    assert (found.value, found.low, found.high) == (0.0, None, None)


def test_draws_are_averaged_on_the_utterances_that_all_have():
    one, two = scores([1.0, 2.0, 3.0]), scores([3.0, 2.0, 5.0])
    assert mean_scores([one, two]).numerator.tolist() == [2.0, 2.0, 4.0]
    fewer = mean_scores([one, two.subset(("u02", "u00"))])
    assert fewer.ids == ("u00", "u02")
    assert fewer.numerator.tolist() == [2.0, 4.0]
    found = change(one, fewer, 0)
    assert (found.value, found.n) == (pytest.approx(0.1), 2)
    assert spread(one, [one, two, one]) == pytest.approx((np.std([0, 4 / 30, 0], ddof=1), 0, 4 / 30))
