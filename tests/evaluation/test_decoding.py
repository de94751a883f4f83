"""Best path and CTC loss against all alignments, written out."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope.evaluation.ctc_loss import ctc_nats
from otoscope.evaluation.decoding import best_path, greedy_text
from otoscope.models.vocabulary import Vocabulary


def collapse(path, blank):
    return [token for token, _ in itertools.groupby(path) if token != blank]


def posteriors(frames, tokens, seed):
    return torch.log_softmax(3 * torch.randn(frames, tokens, generator=torch.Generator().manual_seed(seed)), -1)


def probabilities_of_texts(scores, blank):
    """Text -> probability, by summing over every path."""
    found = {}
    for path in itertools.product(range(scores.shape[1]), repeat=scores.shape[0]):
        text = tuple(collapse(path, blank))
        chance = math.exp(sum(float(scores[t, token]) for t, token in enumerate(path)))
        found[text] = found.get(text, 0.0) + chance
    return found


@pytest.mark.parametrize(("frames", "tokens", "blank"), [(1, 3, 0), (4, 3, 0), (4, 3, 2), (5, 4, 1)])
def test_best_path_is_the_most_probable_path(frames, tokens, blank):
    for seed in range(5):
        scores = posteriors(frames, tokens, seed)
        paths = itertools.product(range(tokens), repeat=frames)
        best = max(paths, key=lambda path: sum(float(scores[t, k]) for t, k in enumerate(path)))
        assert best_path(scores, blank) == collapse(best, blank)


@given(path=st.lists(st.integers(0, 3), min_size=1, max_size=30), blank=st.integers(0, 3))
def test_repeats_merge_and_blanks_part(path, blank):
    assert best_path(torch.eye(4)[path], blank) == collapse(path, blank)


def test_words():
    vocabulary = Vocabulary(("<pad>", "|", "a", "b"), 0)
    path = [1, 2, 2, 0, 2, 1, 1, 3, 0, 1, 1, 0]
    assert greedy_text(torch.eye(4)[path], vocabulary) == "aa b"
    assert greedy_text(torch.eye(4)[[0, 0]], vocabulary) == ""


@pytest.mark.parametrize(("frames", "tokens", "blank"), [(1, 3, 0), (4, 3, 0), (5, 3, 2)])
def test_loss_sums_over_all_alignments(frames, tokens, blank):
    scores = posteriors(frames, tokens, 7)
    found = probabilities_of_texts(scores, blank)
    assert sum(found.values()) == pytest.approx(1, abs=1e-6)
    for text, chance in found.items():
        assert ctc_nats(scores, text, blank) == pytest.approx(-math.log(chance), abs=1e-5)


def test_loss_of_no_text_is_that_of_blanks_alone():
    scores = posteriors(6, 4, 1)
    assert ctc_nats(scores, [], 0) == pytest.approx(-float(scores[:, 0].sum()), abs=1e-5)


def test_loss_is_infinite_where_no_alignment_exists():
    assert ctc_nats(posteriors(3, 3, 0), [1, 1], 0) < math.inf
    assert ctc_nats(posteriors(2, 3, 0), [1, 1], 0) == math.inf
