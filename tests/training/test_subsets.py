"""Subsets of speech: long enough and no longer, nested, balanced over speakers, and the same for the same seed."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import TrainingError
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import RATE, Utterance
from otoscope.training.subsets import seconds_of, split_by_length, subset


def _speech(lengths, speakers):
    return [
        Utterance(f"u{k}", speaker, None, n, {}, np.zeros(1, np.float32))
        for k, (n, speaker) in enumerate(zip(lengths, speakers, strict=True))
    ]


ROWS = st.lists(st.tuples(st.integers(1600, 160_000), st.sampled_from(["a", "b", "c", None])), min_size=1, max_size=30)


def _seconds(utterances):
    return sum(u.n_samples for u in utterances) / RATE


@given(rows=ROWS, shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), seed=st.integers(0, 5))
def test_a_subset_is_just_long_enough_and_within_every_longer_one(rows, shares, seed):
    speech = _speech(*zip(*rows, strict=True))
    total = _seconds(speech)
    smaller, larger = sorted(share * total for share in shares)
    small, large = (subset(speech, amount, seed) for amount in (smaller, larger))
    assert {u.id for u in small} <= {u.id for u in large}
    for chosen, amount in ((small, smaller), (large, larger)):
        assert _seconds(chosen) >= amount - 1e-9
        assert [u.id for u in chosen] == [u.id for u in speech if u in chosen]
        # Without the last utterance of the order, whichever it is, there would be too little.
        assert any(_seconds(chosen) - u.n_samples / RATE < amount for u in chosen)


@given(rows=ROWS, share=st.floats(0.1, 1), seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_the_order_of_the_corpus_does_not_count(rows, share, seed, order):
    speech = _speech(*zip(*rows, strict=True))
    mixed = list(speech)
    order.shuffle(mixed)
    amount = share * _seconds(speech)
    assert {u.id for u in subset(speech, amount, seed)} == {u.id for u in subset(mixed, amount, seed)}


def test_speakers_are_heard_equally_long_as_far_as_they_go():
    lengths = [RATE * (1 + k % 3) for k in range(60)]
    speech = _speech(lengths, ["a"] * 30 + ["b"] * 20 + ["c"] * 10)
    for amount in (6, 20, 45):
        heard = Counter()
        for u in subset(speech, amount, 0):
            heard[u.speaker] += u.n_samples / RATE
        assert max(heard.values()) - min(heard.values()) <= 3  # the longest utterance
        assert set(heard) == {"a", "b", "c"}
    heard = Counter(u.speaker for u in subset(speech, 110, 0))
    assert heard["c"] == 10  # all that there is


def test_the_seed_decides_and_speech_is_not_read():
    speech = _speech([RATE] * 40, ["a", "b"] * 20)
    chosen = [{u.id for u in subset(speech, 10, seed)} for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(chosen[0]) == 10


@pytest.mark.parametrize(
    ("amount", "seconds"),
    [("10min", 600), ("1h", 3600), ("10h", 36_000), ("0.5 h", 1800), ("90s", 90), ("600", 600), (45, 45), (7.5, 7.5)],
)
def test_amounts_are_read(amount, seconds):
    assert seconds_of(amount) == seconds


@pytest.mark.parametrize(
    "amount", ["", "ten", "10 minutes", "-1h", "1e3", "0min", 0, -3, float("nan"), float("inf"), True]
)
def test_what_is_no_amount_is_refused(amount):
    with pytest.raises(TrainingError) as error:
        seconds_of(amount)
    assert error.value.cure


def test_a_corpus_that_is_shorter_is_refused():
    speech = _speech([RATE * 100] * 5, "abcde")
    assert len(subset(speech, 500, 0)) == 5
    with pytest.raises(TrainingError, match=r"A subset of 10\.0 min cannot be taken of 8\.3 min of speech"):
        subset(speech, "10min", 0)


def test_utterances_are_short_below_the_length_and_long_at_it():
    short, long = split_by_length(Corpus("four", tuple(_speech([15_840, 16_000, 16_160, 8_000], "aabb"))), 1.0)
    assert ([one.id for one in short], [one.id for one in long]) == (["u0", "u3"], ["u1", "u2"])


@pytest.mark.parametrize(("seconds", "told"), [(0.1, "shorter than 0.1 s"), (5, "as long as 5 s"), (float("nan"), "s")])
def test_a_length_that_parts_nothing_is_named(seconds, told):
    with pytest.raises(TrainingError, match=told) as error:
        split_by_length(Corpus("two", tuple(_speech([1_600, 3_200], "ab"))), seconds)
    assert "0.10 to 0.20 s" in str(error.value)
