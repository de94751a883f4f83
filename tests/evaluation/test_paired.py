"""The paired bootstrap: kaldialign as oracle, and its coverage where the true difference is known."""

import json

import kaldialign
import numpy as np
import pytest

from otoscope.errors import EvaluationError
from otoscope.evaluation.bootstrap import block_bootstrap
from otoscope.evaluation.error_rates import error_counts
from otoscope.evaluation.paired import paired_bootstrap
from tests.evaluation.texts import draw_corpus, scores_of


def simulate(trials, seed, truth, **settings):
    """Share of corpora whose interval covers the truth, and share whose interval leaves zero out."""
    rng = np.random.default_rng(seed)
    covered = decided = 0
    for trial in range(trials):
        drawn = draw_corpus(rng, **settings)
        found = paired_bootstrap(drawn.scores("before"), drawn.scores("after"), n=600, seed=trial)
        covered += found.low <= truth <= found.high
        decided += found.decided
    return covered / trials, decided / trials


def binomial_error(trials):
    return 3 * np.sqrt(0.95 * 0.05 / trials)


@pytest.mark.parametrize("speakers", [9, 20])
def test_a_known_difference_is_covered_at_the_stated_rate(speakers):
    trials = 500
    truth = -0.1 * 0.2 + 0.9 * 0.01
    covered, decided = simulate(trials, speakers, truth, speakers=speakers, repaired=0.2, spoilt=0.01)
    assert abs(covered - 0.95) < binomial_error(trials)
    assert decided > 0.1  # so narrow that it says something


def test_no_difference_is_rarely_called_one():
    trials = 500
    covered, decided = simulate(trials, 1, 0.0, speakers=12, repaired=0.18, spoilt=0.02)
    assert abs(covered - 0.95) < binomial_error(trials)
    assert decided == pytest.approx(1 - covered)


def test_drawing_by_utterance_would_promise_too_much():
    """With speakers that differ, an interval over utterances covers less than one over speakers."""
    rng, trials, truth = np.random.default_rng(3), 250, -0.011
    covered = {"speaker": 0, "utterance": 0}
    for trial in range(trials):
        drawn = draw_corpus(rng, speakers=12, repaired=0.2, spoilt=0.01, utterances=40)
        for by, speakers in (("speaker", drawn.speakers), ("utterance", ["one"] * len(drawn.speakers))):
            pair = [drawn.scores(which, speakers) for which in ("before", "after")]
            found = paired_bootstrap(*pair, n=300, seed=trial)
            assert found.by == by
            covered[by] += found.low <= truth <= found.high
    assert covered["utterance"] / trials < 0.85
    assert abs(covered["speaker"] / trials - 0.95) < 3.5 * np.sqrt(0.95 * 0.05 / trials)


@pytest.mark.slow
@pytest.mark.parametrize("speakers", [5, 9, 20, 40])
@pytest.mark.parametrize("varied", [(6, 18), (1, 3)])
def test_coverage_over_numbers_of_speakers(speakers, varied):
    """Skewed speakers cost up to three points; a difference that is not there is not called one more often than said."""
    settings = {"speakers": speakers, "varied": varied}
    covered, _ = simulate(2500, 500 + speakers, -0.011, repaired=0.2, spoilt=0.01, **settings)
    assert 0.915 < covered < 0.97
    _, decided = simulate(2500, 900 + speakers, 0.0, repaired=0.18, spoilt=0.02, **settings)
    assert decided < 0.05 + binomial_error(2500) + 0.005


@pytest.fixture(scope="module")
def corpus():
    return draw_corpus(np.random.default_rng(5), speakers=30, utterances=10)


def test_kaldialign_gives_the_same_without_speakers(corpus):
    said, first = corpus.texts("before")
    second = corpus.texts("after")[1]
    split = [[text.split() for text in texts] for texts in (said, first, second)]
    oracle = kaldialign.bootstrap_wer_ci(*split, replications=10_000, seed=1)
    counts = [[sum(error_counts(a, b)) for a, b in zip(split[0], heard, strict=True)] for heard in split[1:]]
    words = [len(text) for text in split[0]]
    one, other = (scores_of(errors, words) for errors in counts)
    assert one.value == pytest.approx(oracle["system1"]["wer"], abs=2e-4)  # kaldialign gives the draws' mean
    for scores, theirs in ((one, oracle["system1"]), (other, oracle["system2"])):
        found = scores.interval(n=10_000)
        assert found.by == "utterance"
        assert found.high - found.low == pytest.approx(2 * theirs["ci95"], rel=0.05)
    # Systems that are the first on some utterances and the second on the others: which is better is in doubt.
    mixed = [[[pair[(k % 3 == 0) == turned] for k, pair in enumerate(zip(*rows, strict=True))] for turned in (False, True)]
             for rows in (counts, split[1:])]  # fmt: skip
    doubtful = kaldialign.bootstrap_wer_ci(split[0], *mixed[1], replications=10_000, seed=2)
    found = paired_bootstrap(*(scores_of(errors, words) for errors in mixed[0]), n=10_000)
    assert 0.005 < found.probability_of_improvement < 0.995
    assert found.probability_of_improvement == pytest.approx(doubtful["p_s2_improv_over_s1"], abs=0.02)


def test_counts_of_the_texts_are_those_of_the_simulation(corpus):
    said, heard = corpus.texts("before")
    counted = [sum(error_counts(a.split(), b.split())) for a, b in zip(said, heard, strict=True)]
    assert counted == corpus.scores("before").numerator.tolist()


def test_values_are_ratios_of_sums(corpus):
    found = paired_bootstrap(corpus.scores("before"), corpus.scores("after"))
    words = corpus.words.sum()
    assert found.before == pytest.approx(corpus.wrong["before"].sum() / words)
    assert found.after == pytest.approx(corpus.wrong["after"].sum() / words)
    assert found.value == pytest.approx(found.after - found.before)
    assert found.low < found.value < found.high
    assert (found.blocks, found.by, found.utterances) == (30, "speaker", 300)
    assert json.loads(json.dumps(found.to_dict()))["metric"] == "wer"


def test_exchanging_the_two_turns_the_result_round(corpus):
    found = paired_bootstrap(corpus.scores("before"), corpus.scores("after"), seed=4)
    assert found.decided
    assert found.probability_of_improvement > 0.97
    swapped = paired_bootstrap(corpus.scores("after"), corpus.scores("before"), seed=4)
    assert swapped.value == pytest.approx(-found.value)
    assert swapped.low == pytest.approx(-found.high, abs=1e-12)
    assert swapped.probability_of_improvement == pytest.approx(1 - found.probability_of_improvement)


def test_which_way_is_better():
    rng = np.random.default_rng(0)
    low, high = rng.uniform(0, 1, 20), rng.uniform(2, 3, 20)
    for better, expected in ((False, 0.0), (True, 1.0)):
        pair = [scores_of(x, np.ones(20), higher_is_better=better) for x in (low, high)]
        assert paired_bootstrap(*pair).probability_of_improvement == expected


def test_the_same_scores_differ_by_nothing(corpus):
    found = paired_bootstrap(corpus.scores("before"), corpus.scores("before"))
    assert (found.value, found.probability_of_improvement) == (0, 0.5)
    assert not found.decided
    # Speakers on which they differ, by all their words at most, may have been missed.
    assert -found.low == found.high == pytest.approx(1 - 0.025 ** (1 / 30))


def test_two_speakers_that_gain_alike_decide_nothing():
    found = paired_bootstrap(*(scores_of(wrong, [4, 8], ["p", "q"]) for wrong in ([4, 8], [2, 4])))
    assert (found.value, found.decided) == (-0.5, False)
    unseen = 1 - 0.025**0.5
    assert (found.low, found.high) == pytest.approx((-0.5 - unseen * 0.5, -0.5 + unseen * 1.5))


def test_losses_that_differ_by_nothing_have_no_interval():
    one = scores_of([1.5, 2.25], [4, 5], ["p", "q"])
    found = paired_bootstrap(one, one)
    assert np.isnan([found.low, found.high]).all()
    assert not found.decided
    assert "without an interval" in str(found)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["high"] is None


def test_a_corpus_on_which_nothing_differs_is_a_tie():
    """One utterance of 20 gains, and a drawn corpus lacks it with probability (19/20)^20: neither better nor worse."""
    before = np.random.default_rng(0).uniform(1, 2, 20)  # as losses are: no whole numbers
    after = np.where(np.arange(20) == 3, before - 0.5, before)
    lacking = (19 / 20) ** 20
    for better, expected in ((False, 1 - lacking / 2), (True, lacking / 2)):
        found = paired_bootstrap(*(scores_of(x, np.full(20, 7.0), higher_is_better=better) for x in (before, after)))
        assert found.probability_of_improvement == pytest.approx(expected, abs=0.015)


def test_order_of_utterances_does_not_matter(corpus):
    one, other = corpus.scores("before"), corpus.scores("after")
    turned = other.subset(tuple(reversed(other.ids)))
    assert paired_bootstrap(one, other) == paired_bootstrap(one, turned)


def test_the_seed_fixes_the_draws(corpus):
    one, other = corpus.scores("before"), corpus.scores("after")
    first, again, another = (paired_bootstrap(one, other, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.low != another.low
    assert first.low == pytest.approx(another.low, abs=0.002)


def test_of_a_mean_of_normal_values_the_interval_is_students():
    from scipy.stats import t as student

    for blocks in (4, 10, 40):
        x = np.random.default_rng(blocks).standard_normal(blocks)
        found = block_bootstrap(np.stack([x, np.ones(blocks)]), lambda s: s[0] / s[1], n=60_000).estimate
        half = student.ppf(0.975, blocks - 1) * x.std(ddof=1) / np.sqrt(blocks)
        assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.08)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ids": ("a", "b", "x")}, "1 utterance(s) are scored before and not after, such as 'c'"),
        ({"speakers": ("p", "p", "r")}, "'c' is spoken by 'q' before and by 'r' after"),
        ({"metric": "cer"}, "Scores of wer (errors per word) cannot be compared with scores of cer"),
        ({"denominator": np.array([4.0, 4.0, 5.0])}, "'c' counts 4 units of wer before and 5 after"),
    ],
)
def test_what_is_not_the_same_utterances_is_refused(change, told):
    one = scores_of([1, 0, 2], [4, 4, 4], ("p", "p", "q"), ids=("a", "b", "c"))
    settings = {"ids": ("a", "b", "c"), "speakers": ("p", "p", "q"), **change}
    other = scores_of([1, 0, 2], [4, 4, 4], **settings)
    with pytest.raises(EvaluationError) as raised:
        paired_bootstrap(one, other)
    assert told in str(raised.value)


def test_too_little_is_refused():
    one = scores_of([1], [4], ids=("a",))
    with pytest.raises(EvaluationError, match="One utterance"):
        paired_bootstrap(one, one)
    two = scores_of([1, 0], [4, 4])
    with pytest.raises(EvaluationError, match="50 draws"):
        paired_bootstrap(two, two, n=50)
    with pytest.raises(EvaluationError, match=r"level of 1\.0"):
        paired_bootstrap(two, two, level=1.0)
