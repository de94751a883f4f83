import numpy as np
import pytest

from otoscope.errors import MeasureError
from otoscope.measures.layers.labels import choose_labels
from otoscope.speech import Corpus, Interval


def corpus_of(*rows: str) -> Corpus:
    """One utterance for each text, a word every 100 ms."""
    tiers = [
        {"word": tuple(Interval(1600 * i, 1600 * (i + 1), w) for i, w in enumerate(text.split()))} for text in rows
    ]
    return Corpus.from_arrays([np.zeros(1600 * len(t.split())) for t in rows], tiers=tiers)


CORPUS = corpus_of("a a a b b c c d", "a b b b b c c sil", "c c <unk> c c e e e e e")
FOLDS = {"0000": 0, "0001": 1, "0002": 2}


def test_rare_labels_and_labels_of_one_fold_are_left_out_and_counted():
    chosen = choose_labels(CORPUS, "word", FOLDS, seed=0)
    # d is rare, a has four rows, e is in one fold only.
    assert chosen.labels == ("c", "b")
    assert chosen.rows.tolist() == [8, 6]
    assert chosen.labels_left_out == 3
    assert chosen.rows_left_out == 10


def test_the_most_frequent_stay():
    assert choose_labels(CORPUS, "word", FOLDS, seed=0, most=2).labels == ("c", "b")
    with pytest.raises(MeasureError, match="Of 5 labels in tier 'word'"):
        choose_labels(CORPUS, "word", FOLDS, 0, most=1)


def test_ties_are_in_alphabetical_order():
    texts = ["q p r", "r q p", "p r q", "q r p", "r p q"]
    assert choose_labels(corpus_of(*texts), "word", {f"{i:04d}": i for i in range(5)}, 0).labels == ("p", "q", "r")


def test_too_few_labels_are_refused():
    with pytest.raises(MeasureError, match="needs two labels"):
        choose_labels(CORPUS, "word", dict.fromkeys(FOLDS, 0), seed=0)


def test_segments_hold_kept_labels_only():
    found = choose_labels(CORPUS, "word", FOLDS, seed=0).segments(CORPUS["0000"])
    assert found.labels.tolist() == [1, 1, 0, 0]
    assert found.starts.tolist() == [4800, 6400, 8000, 9600]
    assert found.ends.tolist() == [6400, 8000, 9600, 11200]


def test_an_utterance_without_segments_is_empty():
    found = choose_labels(CORPUS, "word", FOLDS, seed=0).segments(corpus_of("x y")[0])
    assert found.labels.shape == found.permuted.shape == found.starts.shape == (0,)


def test_permuted_labels_follow_the_distribution_and_not_the_label():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["a", "b", "c"], 200, p=[0.6, 0.3, 0.1])) for _ in range(20)]
    corpus = corpus_of(*texts)
    chosen = choose_labels(corpus, "word", {u.id: i % 5 for i, u in enumerate(corpus)}, seed=3)
    segments = [chosen.segments(u) for u in corpus]
    labels = np.concatenate([s.labels for s in segments])
    permuted = np.concatenate([s.permuted for s in segments])
    np.testing.assert_allclose(np.bincount(permuted) / 4000, chosen.rows / 4000, atol=0.03)
    both = np.zeros((3, 3))
    np.add.at(both, (labels, permuted), 1)
    expected = np.outer(both.sum(1), both.sum(0)) / 4000
    assert ((both - expected) ** 2 / expected).sum() < 18.5  # chi-square with 4 degrees of freedom, p = 0.001
    other = choose_labels(corpus, "word", {u.id: i % 5 for i, u in enumerate(corpus)}, seed=4)
    assert (other.segments(corpus[0]).permuted != segments[0].permuted).any()
