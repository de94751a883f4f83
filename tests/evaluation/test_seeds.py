"""The interval over seeds and speakers: variances against those that data were drawn with, and against loops."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import EvaluationError
from otoscope.evaluation.paired import paired_bootstrap
from otoscope.evaluation.seeds import SeedParts, mean_interval, seed_bootstrap
from tests.evaluation.texts import draw_corpus, scores_of

SPEAKERS = 12


def drawn(rng, seeds, speakers=SPEAKERS, gain=-0.02, of_seed=0.0, of_speaker=0.0, of_both=0.0, words=100.0):
    """Scores before, all alike, and scores of seeds after, whose gains vary by seed, by speaker and by both."""
    sizes = np.full(speakers, words) if np.isscalar(words) else words
    names = [f"s{k:02d}" for k in range(speakers)]
    base = scores_of(0.3 * sizes, sizes, names)
    moved = (
        gain
        + of_seed * rng.standard_normal((seeds, 1))
        + of_speaker * rng.standard_normal(speakers)
        + of_both * rng.standard_normal((seeds, speakers))
    )
    return [base] * seeds, [scores_of((0.3 + row) * sizes, sizes, names) for row in moved]


def by_loops(table):
    """Mean squares of two crossed factors without replication, as a text book writes them."""
    rows, columns = table.shape
    grand = sum(sum(row) for row in table) / (rows * columns)
    of_row = [sum(table[s]) / columns for s in range(rows)]
    of_column = [sum(table[s][g] for s in range(rows)) / rows for g in range(columns)]
    seeds = columns * sum((one - grand) ** 2 for one in of_row) / (rows - 1)
    blocks = rows * sum((one - grand) ** 2 for one in of_column) / (columns - 1)
    rest = sum(
        (table[s][g] - of_row[s] - of_column[g] + grand) ** 2 for s in range(rows) for g in range(columns)
    ) / ((rows - 1) * (columns - 1))  # fmt: skip
    return seeds, blocks, rest


@given(st.integers(2, 6), st.integers(2, 9), st.integers(0, 10_000))
def test_variances_are_those_of_the_mean_squares(seeds, speakers, start):
    rng = np.random.default_rng(start)
    before, after = drawn(rng, seeds, speakers, of_seed=0.01, of_speaker=0.02, of_both=0.015)
    _, parts = seed_bootstrap(before, after, n=100)
    table = np.array([(one.numerator - base.numerator) / 100 for one, base in zip(after, before, strict=True)])
    of_seeds, of_blocks, rest = by_loops(table)
    assert parts.seed == pytest.approx(max(0, of_seeds - rest) / (seeds * speakers), abs=1e-12)
    assert parts.speech == pytest.approx(max(0, of_blocks - rest) / (seeds * speakers), abs=1e-12)
    assert parts.both == pytest.approx(rest / (seeds * speakers), abs=1e-12)
    assert parts.deviation == pytest.approx(np.sqrt(max(0, of_seeds - rest) / speakers), abs=1e-12)


@pytest.mark.parametrize("words", [100.0, np.random.default_rng(0).integers(60, 140, 40).astype(float)])
def test_variances_are_those_that_were_drawn(words):
    seeds, speakers, truth = 6, 40, (0.01, 0.02, 0.03)
    rng, found = np.random.default_rng(1), []
    for _ in range(150):
        pair = drawn(rng, seeds, speakers, of_seed=truth[0], of_speaker=truth[1], of_both=truth[2], words=words)
        parts = seed_bootstrap(*pair, n=100)[1]
        found.append((parts.seed, parts.speech, parts.both))
    wanted = (truth[0] ** 2 / seeds, truth[1] ** 2 / speakers, truth[2] ** 2 / (seeds * speakers))
    assert np.mean(found, 0) == pytest.approx(wanted, rel=0.12)


def test_seeds_that_are_all_the_same_add_nothing():
    corpus = draw_corpus(np.random.default_rng(4))
    before, after = corpus.scores("before"), corpus.scores("after")
    found, parts = seed_bootstrap([before] * 4, [after] * 4)
    alone = paired_bootstrap(before, after)
    assert (parts.seed, parts.both, parts.deviation) == (0, 0, 0)
    assert parts.shares == {"seed": 0, "speech": 1, "both": 0}
    assert parts.freedom == pytest.approx(found.blocks - 1)
    assert found.value == pytest.approx(alone.value)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.06 * (alone.high - alone.low))
    assert found.probability_of_improvement == pytest.approx(alone.probability_of_improvement, abs=0.01)


def test_speakers_that_are_all_the_same_leave_the_interval_to_the_seeds():
    from scipy.stats import t as student

    before, after = drawn(np.random.default_rng(2), 5, of_seed=0.02)
    found, parts = seed_bootstrap(before, after, n=4000)
    gains = [one.value - 0.3 for one in after]
    assert parts.shares["seed"] == pytest.approx(1)
    half = student.ppf(0.975, 4) * np.std(gains, ddof=1) / np.sqrt(5)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
    assert parts.deviation == pytest.approx(np.std(gains, ddof=1))


@pytest.mark.parametrize(
    ("seeds", "of_seed", "of_speaker", "least"), [(5, 0.01, 0.02, 0.92), (2, 0.0, 0.02, 0.92), (3, 0.02, 0.01, 0.87)]
)
def test_the_interval_covers_the_true_difference(seeds, of_seed, of_speaker, least):
    rng, covered, trials = np.random.default_rng(seeds), 0, 200
    for _ in range(trials):
        pair = drawn(rng, seeds, of_seed=of_seed, of_speaker=of_speaker, of_both=0.02)
        found = seed_bootstrap(*pair, n=300)[0]
        covered += found.low <= -0.02 <= found.high
    assert covered / trials > least


def test_an_interval_over_speakers_alone_promises_too_much_where_seeds_differ():
    rng, covered, trials = np.random.default_rng(8), {"seeds": 0, "one": 0}, 150
    for _ in range(trials):
        before, after = drawn(rng, 4, of_seed=0.02, of_speaker=0.01)
        both = seed_bootstrap(before, after, n=300)[0], paired_bootstrap(before[0], after[0], n=300)
        for name, found in zip(covered, both, strict=True):
            covered[name] += found.low <= -0.02 <= found.high
    assert covered["one"] / trials < 0.5
    assert covered["seeds"] / trials > 0.88


def test_pairs_tell_more_where_there_are_pairs():
    """Each model after was made from the one before: what its seed did to both is gone from their difference."""
    rng = np.random.default_rng(3)
    names, sizes = [f"s{k}" for k in range(10)], np.full(10, 200.0)
    luck = 0.05 * rng.standard_normal((4, 1)) + 0.01 * rng.standard_normal((4, 10))
    before = [scores_of((0.3 + row) * sizes, sizes, names) for row in luck]
    after = [scores_of((0.28 + row + 0.002 * rng.standard_normal(10)) * sizes, sizes, names) for row in luck]
    pairs, of_pairs = seed_bootstrap(before, after)
    apart, of_both = seed_bootstrap(before, after, paired=False)
    assert pairs.value == pytest.approx(apart.value)
    assert pairs.high - pairs.low < 0.1 * (apart.high - apart.low)
    spread = [np.std([one.value for one in side], ddof=1) for side in (before, after)]
    assert of_both.deviation == pytest.approx(np.hypot(*spread), rel=0.02)
    assert of_pairs.paired
    assert not of_both.paired


def test_one_model_before_and_several_after():
    before, after = drawn(np.random.default_rng(6), 3, of_seed=0.01, of_speaker=0.01, of_both=0.01)
    found, parts = seed_bootstrap(before[:1], after)
    same, _ = seed_bootstrap(before, after)
    assert (found.low, found.high) == pytest.approx((same.low, same.high), abs=0.002)  # all before are alike
    assert (parts.before, parts.after, parts.paired) == (1, 3, False)
    assert parts.caveats == [
        "One model before: the interval does not speak for other seeds of it",
        "3 seeds tell little of how much seeds differ, so the interval is wide or uncertain",
    ]


def test_exchanging_the_sides_turns_the_result_round():
    before, after = drawn(np.random.default_rng(7), 5, of_seed=0.01, of_speaker=0.02, of_both=0.01)
    found, parts = seed_bootstrap(before, after)
    turned, others = seed_bootstrap(after, before)
    assert turned.value == pytest.approx(-found.value)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert turned.probability_of_improvement == pytest.approx(1 - found.probability_of_improvement)
    assert others.shares == pytest.approx(parts.shares)


def test_the_mean_of_seeds_has_an_interval_of_its_own():
    rates = np.array([0.0, 0.002, 0.001, 0.02, 0.0])  # whose plain interval would reach below zero
    sizes = np.full(SPEAKERS, 1000.0)
    after = [scores_of(rate * sizes, sizes, [f"s{k}" for k in range(SPEAKERS)]) for rate in rates]
    found = mean_interval(after)
    assert found.value == pytest.approx(np.mean([one.value for one in after]))
    assert 0 == found.low < found.value < found.high
    assert mean_interval(after[:1]) == after[0].interval()


def test_nothing_differs():
    one = scores_of([2, 4], [10, 20], ["p", "q"])
    found, parts = seed_bootstrap([one, one], [one, one])
    assert (found.value, parts.variance, found.decided) == (0, 0, False)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 2))
    assert json.loads(json.dumps(parts.to_dict(), allow_nan=False))["freedom"] is None
    assert SeedParts(1, 3, False, 1e-4, 2e-4, 1e-4, 0.02, 3.0).shares["speech"] == pytest.approx(0.5)


def test_what_makes_no_seeds_is_refused():
    before, after = drawn(np.random.default_rng(0), 3)
    for one, other, told in (
        (before[:1], after[:1], "hold no seeds that differ"),
        ([], after, "hold no seeds that differ"),
        (before[:2], after, "are no pairs"),
    ):
        with pytest.raises(EvaluationError, match=told):
            seed_bootstrap(one, other, paired=True)
    other = scores_of([1, 2], [10, 20], ["p", "q"])
    with pytest.raises(EvaluationError, match="scored before and not after"):
        seed_bootstrap(before, [*after[:2], other])
    with pytest.raises(EvaluationError, match="No model is scored"):
        mean_interval([])
    with pytest.raises(EvaluationError, match="5 draws"):
        seed_bootstrap(before, after, n=5)
