import pickle

import numpy as np
import pytest

from otoscope.errors import AlignmentError, CorpusError, SpeechError
from otoscope.speech import Corpus, Interval


@pytest.fixture
def corpus(noise):
    tiers = [{"word": [Interval(0, 800, "a"), Interval(800, 1600, "b")]}, {}, {}]
    arrays = [noise(n, n) for n in (16000, 8000, 4000)]
    return Corpus.from_arrays(
        arrays,
        speakers=["x", "y", "x"],
        transcripts=["A B", None, "C"],
        ids=["one", "two", "three"],
        tiers=tiers,
    )


def test_interval():
    assert Interval(2, 5, "a").duration == 3
    for start, end in [(5, 5), (5, 4), (-1, 4)]:
        with pytest.raises(SpeechError, match="empty or negative"):
            Interval(start, end, "a")


def test_container(corpus):
    assert len(corpus) == 3
    assert [u.id for u in corpus] == ["one", "two", "three"]
    assert corpus[0] is corpus["one"]
    assert corpus.speakers == ("x", "y")
    assert corpus.seconds == 1.75
    assert corpus["two"].seconds == 0.5
    assert corpus.tiers == ("word",)
    with pytest.raises(CorpusError, match="no utterance 'none'"):
        corpus["none"]


def test_prints_as_a_short_table(corpus):
    lines = str(corpus).splitlines()
    assert lines[0].split() == ["corpus", "arrays"]
    assert len(lines) == 6


def test_absent_tier_names_those_there_are(corpus):
    assert corpus.has_tier("word")
    assert not corpus.has_tier("phone")
    corpus.require_tier("word")
    with pytest.raises(CorpusError, match="no tier 'phone'; its tiers: word"):
        corpus.require_tier("phone")
    with pytest.raises(CorpusError, match="no tier 'phone'; its tiers: word"):
        corpus["one"].tier("phone")
    with pytest.raises(CorpusError, match="none at all"):
        corpus["two"].tier("word")


def test_subset(corpus):
    assert [u.id for u in corpus.subset(["three", "one"])] == ["one", "three"]
    assert [u.id for u in corpus.subset(lambda u: u.speaker == "y", name="ys")] == ["two"]
    assert corpus.subset(["one"], name="first").name == "first"
    with pytest.raises(CorpusError, match="'four'"):
        corpus.subset(["one", "four"])


def test_fingerprint_depends_on_content_not_on_order(corpus, noise):
    same = Corpus("other", tuple(reversed(corpus.utterances)))
    assert same.fingerprint() == corpus.fingerprint()
    assert len(corpus.fingerprint()) == 64
    arrays = [u.read() for u in corpus]
    seen = {corpus.fingerprint()}
    plain = {"ids": ["one", "two", "three"], "speakers": ["x", "y", "x"]}
    tiers = [dict(u.tiers) for u in corpus]
    for change in (
        {"transcripts": ["A B", None, "D"], "tiers": tiers},
        {"transcripts": ["A B", "", "C"], "tiers": tiers},
        {"transcripts": ["A B", None, "C"]},
        {"transcripts": ["A B", None, "C"], "tiers": [*tiers[:2], {"word": []}]},
        {"transcripts": ["A B", None, "C"], "tiers": tiers, "ids": ["one", "two", "3"]},
        {"transcripts": ["A B", None, "C"], "tiers": tiers, "speakers": ["x", "y", "z"]},
    ):
        seen.add(Corpus.from_arrays(arrays, **{**plain, **change}).fingerprint())
    assert len(seen) == 7


def test_what_was_read_may_be_written_to(corpus):
    first = corpus["one"].read()
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(corpus["one"].read(), kept)


def test_equality_and_pickle(corpus):
    again = pickle.loads(pickle.dumps(corpus))
    assert again == corpus
    assert len({*again.utterances, *corpus.utterances}) == 3


def test_from_arrays_resamples():
    corpus = Corpus.from_arrays([np.zeros(8000)], rate=8000)
    assert corpus[0].n_samples == 16000
    assert corpus[0].read().shape == (16000,)


def test_from_arrays_refuses():
    with pytest.raises(CorpusError, match="2 arrays but 1 speakers"):
        Corpus.from_arrays([np.zeros(800), np.zeros(800)], speakers=["a"])
    with pytest.raises(CorpusError, match="more than once"):
        Corpus.from_arrays([np.zeros(800), np.zeros(800)], ids=["a", "a"])
    with pytest.raises(AlignmentError, match="past the end"):
        Corpus.from_arrays([np.zeros(800)], tiers=[{"word": [Interval(0, 1200, "a")]}])


def test_from_arrays_counts_cuts():
    corpus = Corpus.from_arrays([np.zeros(800)], tiers=[{"word": [Interval(0, 1120, "a")]}])
    assert corpus.counts == {"cut_intervals": 1}
    assert corpus[0].tier("word") == (Interval(0, 800, "a"),)
    assert "cut intervals" in str(corpus)
