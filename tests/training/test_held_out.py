"""Whole speakers are held out, chosen by their names."""

import numpy as np
import pytest

from otoscope.errors import TrainingError
from otoscope.speech.corpus import Corpus
from otoscope.training.held_out import MOST_WATCHED, split, watched


def _corpus(speakers) -> Corpus:
    return Corpus.from_arrays([np.zeros(8000)] * len(speakers), speakers=speakers)


def _ids(utterances):
    return [u.id for u in utterances]


def test_no_speaker_is_on_both_sides():
    corpus = _corpus([f"s{k % 10}" for k in range(40)])
    train, held = split(corpus, 0.2, 0)
    assert len({u.speaker for u in held}) == 2
    assert not {u.speaker for u in train} & {u.speaker for u in held}
    assert sorted(_ids(train) + _ids(held)) == sorted(u.id for u in corpus)


def test_the_choice_depends_on_names_and_seed_not_on_order():
    corpus = _corpus([f"s{k % 10}" for k in range(40)])
    turned = Corpus("turned", corpus.utterances[::-1])
    assert set(_ids(split(corpus, 0.2, 0)[1])) == set(_ids(split(turned, 0.2, 0)[1]))
    assert len({tuple(_ids(split(corpus, 0.2, seed)[1])) for seed in range(8)}) > 1


@pytest.mark.parametrize("speakers", [["a", "b"] * 10, [None] * 20, ["a", "b", "c", None] * 5])
def test_utterances_are_held_out_where_speakers_cannot_be(speakers):
    train, held = split(_corpus(speakers), 0.25, 0)
    assert (len(train), len(held)) == (15, 5)


@pytest.mark.parametrize("share", [0.001, 0.999])
@pytest.mark.parametrize("speakers", [["a", "b", "c"], [None, None]])
def test_something_is_left_on_both_sides(share, speakers):
    train, held = split(_corpus(speakers), share, 0)
    assert train
    assert held


def test_not_more_are_watched_than_needed_in_their_order():
    corpus = _corpus(["a"] * 200)
    kept = watched(list(corpus), 0)
    assert len(kept) == MOST_WATCHED
    assert _ids(kept) == sorted(_ids(kept))
    assert {u.id for u in kept} == {u.id for u in watched(list(corpus)[::-1], 0)}


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(TrainingError, match="cannot be held out"):
        split(_corpus(["a", "b"]), share, 0)


def test_one_utterance_is_too_few():
    with pytest.raises(TrainingError, match="has one utterance"):
        split(_corpus(["a"]), 0.5, 0)
