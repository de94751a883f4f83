"""The store of chosen segments: the same rows in any order and split, pooled and whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import CorpusError, MeasureError, StateError
from otoscope.measures.layers.spans import SPANS
from otoscope.measures.measure import Result
from otoscope.measures.rows import RowsMeasure, choose_frames, choose_segments
from otoscope.speech import Corpus
from tests.measures.layers.test_cca import ANATOMY, capture, corpus, ids, streams_of


class Words(RowsMeasure):
    name = "words"

    def __init__(self, span="word", **options):
        super().__init__()
        self.span, self.options = span, options

    def choose(self, corpus, seed):
        return choose_segments(corpus, "word", seed, **self.options)

    def score(self):
        return Result([])


def seen(names, span="word", seed=0, speech=None, **options):
    measure = Words(span, **options)
    measure.prepare(ANATOMY, speech or corpus(), seed)
    for name in names:
        measure.update(capture((name,)))
    return measure


@pytest.mark.parametrize("span", ["word", "word-centre", "word-quarter-1", "sequence"])
@given(data=st.data())
@settings(max_examples=4)
def test_any_order_and_split_stores_the_same(span, data):
    order = data.draw(st.permutations(ids()))
    cut = data.draw(st.integers(1, 11))
    parts = [seen(order[:cut], span), seen(order[cut:], span)]
    parts[1].merge(parts[0])
    whole = seen(ids(), span)
    assert all(np.array_equal(array, parts[1].state()[name]) for name, array in whole.state().items())
    shuffled = Corpus("noise", tuple(corpus()[name] for name in order))
    again = seen(ids(), span, speech=shuffled)
    assert again.segments == whole.segments


@pytest.mark.parametrize("span", sorted(SPANS))
def test_vectors_are_means_of_the_frames_of_the_span(span):
    measure = seen(ids(), span, per_label=7)
    found = measure.vectors("layer.1")
    for one, vector in zip(measure.seen_segments(), found, strict=True):
        frames = streams_of(one.utterance)["layer.1"].astype(np.float32)
        first, last = SPANS[span](np.array([one.start]), np.array([one.end]), 320, len(frames))
        np.testing.assert_allclose(vector, frames[first[0] : last[0]].mean(0), rtol=1e-5, atol=1e-5)
        assert corpus()[one.utterance].tiers["word"][one.place].label == one.label


def test_sequences_are_the_frames_themselves():
    measure = seen(ids(), "sequence", most=40)
    for one, rows in zip(measure.seen_segments(), measure.sequences("input"), strict=True):
        frames = streams_of(one.utterance)["input"].astype(np.float32)
        np.testing.assert_array_equal(rows, frames[one.start // 320 : -(-one.end // 320)])


def test_limits_choose_by_hash_and_not_by_place():
    few = choose_segments(corpus(), "word", 0, per_label=5)
    assert {sum(one.label == word for one in few) for word in ("one", "two", "three", "yes")} == {5}
    assert len(choose_segments(corpus(), "word", 0, most=9)) == 9
    assert set(choose_segments(corpus(), "word", 0, most=9)) <= set(choose_segments(corpus(), "word", 0, most=30))
    assert few != choose_segments(corpus(), "word", 1, per_label=5)
    assert {one.label for one in choose_segments(corpus(), "phone", 0)} == {"aa", "b", "iy", "t", "z"}
    assert [one.utterance for one in choose_segments(corpus(), "utterance", 0)] == list(ids())
    frames = choose_frames(corpus(), 0, 50)
    assert len(frames) == len(set(frames)) == 50
    assert all(one.end - one.start == 1 for one in frames)
    with pytest.raises(CorpusError, match="no tier"):
        choose_segments(Corpus.from_arrays([np.zeros(16000)]), "word", 0)


def test_groups_are_speakers_else_utterances():
    measure = seen(ids())
    segments = measure.seen_segments()
    by_speaker = measure.groups(segments)
    assert len(set(by_speaker)) == 6
    assert len({(g, one.speaker) for g, one in zip(by_speaker, segments, strict=True)}) == 6
    two = [one for one in segments if one.speaker in ("s0", "s1")]
    assert len(set(measure.groups(two))) == len({one.utterance for one in two}) == 4


def test_permuted_labels_are_a_permutation_that_is_fixed():
    measure = seen(ids())
    labels = np.array([one.label for one in measure.seen_segments()])
    drawn = measure.permuted(labels)
    assert sorted(drawn) == sorted(labels)
    assert (drawn != labels).mean() > 0.5
    np.testing.assert_array_equal(drawn, measure.permuted(labels))
    assert (drawn != measure.permuted(labels, "again")).any()


def test_what_does_not_fit_is_refused():
    one, other = seen(ids()[:2]), seen(ids()[2:], seed=1)
    with pytest.raises(StateError, match="prepared differently"):
        one.merge(other)
    with pytest.raises(StateError, match="stored the same segment"):
        one.merge(seen(ids()[:1]))
    with pytest.raises(StateError, match="another model, corpus or seed"):
        one.load_state({k: other.state().get(k, v) if k == "prepared" else v for k, v in one.state().items()})
    with pytest.raises(StateError, match="was not prepared"):
        Words().update(capture(ids()[:1]))
    with pytest.raises(MeasureError, match="seen none"):
        seen(()).compute()
    broken = capture(ids()[:1])
    broken.streams["layer.1"][0, 3, 2] = torch.nan
    with pytest.raises(MeasureError, match=r"stream layer.1, 0000: values are not finite"):
        seen(()).update(broken)


def test_a_state_reads_back():
    whole, empty = seen(ids()), seen(())
    empty.load_state({name: array.copy() for name, array in whole.state().items()})
    np.testing.assert_array_equal(empty.vectors("layer.2"), whole.vectors("layer.2"))
    assert empty.compute().notes == whole.compute().notes
