"""Prefix beam search against every path of every text, written out."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import EvaluationError, VocabularyError
from otoscope.evaluation import BeamSearch, Decoder, DecoderSettings, Greedy, greedy_text
from otoscope.evaluation.language import kneser_ney, sentence_score
from otoscope.models.vocabulary import Vocabulary
from tests.evaluation.test_decoding import collapse, posteriors

CHARACTERS = Vocabulary(("_", "|", "a"), 0)
TWO = Vocabulary(("a", "|", "_", "b"), 2)
SILENT = Vocabulary(("_", "<s>", "|", "a"), 0, silent=frozenset({1}))
PIECES = Vocabulary(("▁a", "b", "_"), 2, "▁", pieces=list)
SPLIT = Vocabulary(("▁", "a", "▁a", "_"), 3, "▁", pieces=list)
LETTERS = Vocabulary(("_", "|", *"abcdefgh"), 0)
MODEL = kneser_ney([list(text) for text in ("ab", "ba", "aab", "b", "abab")] + [["aa"], ["ab", "a"], ["aaa"]], 3)


def texts_of(scores, vocabulary):
    """Text -> probability, by summing over every path."""
    found = {}
    for path in itertools.product(range(len(vocabulary)), repeat=len(scores)):
        text = vocabulary.decode(collapse(path, vocabulary.blank))
        chance = math.exp(sum(float(scores[t, token]) for t, token in enumerate(path)))
        found[text] = found.get(text, 0.0) + chance
    return found


def best_of(scores, vocabulary, lm=None, alpha=0.0, beta=0.0):
    """The best text and its score, by looking at all of them."""
    ranked = {
        text: math.log(chance)
        + (alpha * sentence_score(lm, text.split()) + beta * len(text.split()) if lm is not None else 0.0)
        for text, chance in texts_of(scores, vocabulary).items()
    }
    return max(ranked.items(), key=lambda pair: pair[1]), ranked


@pytest.mark.parametrize("vocabulary", [CHARACTERS, TWO, SILENT, PIECES, SPLIT], ids=range(5))
@given(
    frames=st.integers(1, 5),
    seed=st.integers(0, 1000),
    weights=st.sampled_from([None, (0.7, 0.5), (1.5, -1.0), (0.0, 2.0)]),
)
def test_a_wide_beam_is_exhaustive(vocabulary, frames, seed, weights):
    scores = posteriors(min(frames, 4) if len(vocabulary) > 3 else frames, len(vocabulary), seed)
    alpha, beta = weights or (0.0, 0.0)
    lm = MODEL if weights is not None else None
    (text, score), every = best_of(scores, vocabulary, lm, alpha, beta)
    found = BeamSearch(vocabulary, lm, alpha, beta, width=10_000, prune=0.0).search(scores)
    assert found[0].score == pytest.approx(score, abs=1e-5)
    assert every[found[0].text] == pytest.approx(every[text], abs=1e-5)  # of two that are as good either may be first
    assert {one.text for one in found} == set(every)
    for one in found:
        assert one.score == pytest.approx(every[one.text], abs=1e-5)
        assert one.words == len(one.text.split())
        assert one.score == pytest.approx(one.ctc + alpha * one.lm + beta * (one.words if lm else 0), abs=1e-9)
    assert sum(math.exp(one.ctc) for one in found) == pytest.approx(1, abs=1e-6)


def test_it_sums_over_alignments_where_the_best_path_does_not():
    chances = torch.tensor([[0.6, 0.0, 0.4], [0.6, 0.0, 0.4]])
    scores = chances.log()
    assert Greedy(CHARACTERS).decode(scores) == ""  # the path of two blanks has 0.36
    assert BeamSearch(CHARACTERS).decode(scores) == "a"  # three paths have 0.64
    assert BeamSearch(CHARACTERS).search(scores)[0].ctc == pytest.approx(math.log(0.64))


@given(seed=st.integers(0, 200), width=st.integers(1, 8))
@settings(max_examples=30)
def test_no_narrow_beam_promises_more_than_there_is(seed, width):
    scores = posteriors(4, 4, seed)
    _, every = best_of(scores, TWO, MODEL, 0.6, 0.4)
    for one in BeamSearch(TWO, MODEL, 0.6, 0.4, width=width).search(scores):
        assert one.score <= every[one.text] + 1e-5


def textbook(scores, vocabulary, lm, alpha, beta, width):
    """Hannun et al. 2014, algorithm 1, with tuples and dictionaries, no pruning but that of the beam; characters."""
    beam = {((), None): (0.0, -math.inf)}

    def text(tokens):
        return vocabulary.decode(tokens)

    def fused(tokens):
        whole = text(tokens) if not tokens or vocabulary.tokens[tokens[-1]] == "|" else text(tokens).rpartition(" ")[0]
        state, total = lm.start(), 0.0
        for word in whole.split():
            log, state = lm.score(state, word)
            total += log
        return alpha * total + beta * len(whole.split())

    for row in scores.tolist():
        masses = {}
        for (tokens, last), (blanks, ends) in beam.items():
            for token, chance in enumerate(row):
                space = vocabulary.tokens[token] == "|"
                longer = tokens if space and (not tokens or vocabulary.tokens[tokens[-1]] == "|") else (*tokens, token)
                if token == vocabulary.blank:
                    steps = [((tokens, last), 0, np.logaddexp(blanks, ends))]
                elif token == last:
                    steps = [((tokens, last), 1, ends), ((longer, token), 1, blanks)]
                else:
                    steps = [((longer, token), 1, np.logaddexp(blanks, ends))]
                for key, place, mass in steps:
                    held = masses.setdefault(key, [-math.inf, -math.inf])
                    held[place] = np.logaddexp(held[place], mass + chance)
        ranked = sorted(masses, key=lambda key: -(np.logaddexp(*masses[key]) + fused(key[0])))
        beam = {key: masses[key] for key in ranked[:width] if np.logaddexp(*masses[key]) > -math.inf}
    found = {}
    for (tokens, _), (blanks, ends) in beam.items():
        found[text(tokens)] = np.logaddexp(found.get(text(tokens), -math.inf), np.logaddexp(blanks, ends))
    return {one: log + alpha * sentence_score(lm, one.split()) + beta * len(one.split()) for one, log in found.items()}


@given(
    seed=st.integers(0, 10_000), width=st.integers(1, 6), weights=st.sampled_from([(0.5, 1.0), (1.0, -0.5), (0.0, 0.0)])
)
@settings(max_examples=25)
def test_a_narrow_beam_is_that_of_the_textbook(seed, width, weights):
    """What is left out before it is scored would not have stayed."""
    scores = posteriors(12, 4, seed)
    expected = textbook(scores, TWO, MODEL, *weights, width)
    found = BeamSearch(TWO, MODEL, *weights, width=width, prune=0.0).search(scores)
    assert {one.text for one in found} == set(expected)
    for one in found:
        assert one.score == pytest.approx(expected[one.text], abs=1e-4)


def test_certain_frames_are_spelt_as_they_are():
    vocabulary = LETTERS
    for text in ("a", "", "abba cab", "a b c"):
        path = [token for one in vocabulary.encode(text) for token in (one, one, 0)] or [0]
        scores = torch.full((len(path), len(vocabulary)), 1e-9)
        scores[torch.arange(len(path)), path] = 1.0
        scores = (scores / scores.sum(1, keepdim=True)).log()
        found = BeamSearch(vocabulary, kneser_ney([["abba", "cab"], ["a", "b"]], 2)).search(scores)[0]
        assert found.text == text == greedy_text(scores, vocabulary)
        assert found.ctc == pytest.approx(0, abs=1e-5)


def test_long_speech_does_not_underflow():
    scores = posteriors(2000, 10, 3)
    found = BeamSearch(LETTERS, width=2).search(scores)[0]
    assert -math.inf < found.ctc < -800
    assert found.score >= BeamSearch(LETTERS, width=1).search(scores)[0].score


def test_texts_that_are_let_go_change_nothing(monkeypatch):
    """Of pieces, where a text can be reached in several ways."""
    for seed in range(5):
        scores = posteriors(40, 4, seed)
        plain = BeamSearch(SPLIT, MODEL, width=8).search(scores)
        with monkeypatch.context() as patched:
            patched.setattr("otoscope.evaluation.beam_search._RENEWED", 3)
            assert BeamSearch(SPLIT, MODEL, width=8).search(scores) == plain


def test_what_is_pruned_does_not_stay(monkeypatch):
    """No prefix makes room for those that pruning takes away."""
    chances = torch.tensor([[0.34, 0.33, 0.33], [0.294, 0.3, 0.406]])
    found = []
    for margin in (0.0, math.inf):
        monkeypatch.setattr("otoscope.evaluation.beam_search._MARGIN", margin)
        found.append(BeamSearch(CHARACTERS, width=3, prune=0.295).search(chances.log()))
    assert found[0] == found[1]


def test_the_language_model_decides_between_words_that_sound_alike():
    lm = kneser_ney([["a", "bad", "cab"]] * 5 + [["a", "cab"]] * 5, 3)
    chances = torch.full((5, 10), 1e-6)
    for t, tokens in enumerate(["a", "|", "bc", "a", "db"]):
        for k, token in enumerate(tokens):
            chances[t, LETTERS.tokens.index(token)] = 0.5 + 0.04 * (k == 1) * (t == 2)
    scores = (chances / chances.sum(1, keepdim=True)).log()
    assert BeamSearch(LETTERS).decode(scores) in ("a cad", "a cab")
    assert BeamSearch(LETTERS, lm, alpha=1.0).decode(scores) == "a cab"
    fewer = kneser_ney([["a", "bad", "cab"]] * 5, 3)
    assert BeamSearch(LETTERS, fewer, alpha=1.0).decode(scores) == "a bad"


def test_case_is_that_of_the_vocabulary_and_no_matter_to_the_model():
    upper = Vocabulary(("_", "|", *"ABCDEFGH"), 0)
    scores = posteriors(12, 10, 5)
    for sentences in ([["bad", "cab"]], [["BAD", "CAB"]], [["Bad", "cAB"]]):
        lm = kneser_ney(sentences, 2)
        assert BeamSearch(upper, lm).decode(scores) == BeamSearch(LETTERS, lm).decode(scores).upper()


def test_models_of_another_vocabulary_are_refused():
    with pytest.raises(
        VocabularyError, match="another vocabulary: of its 2 words the recogniser can write 0, and not 'да'"
    ):
        BeamSearch(LETTERS, kneser_ney([["да", "нет"]], 2))
    with pytest.raises(VocabularyError, match="can write 1, and not"):
        BeamSearch(LETTERS, kneser_ney([["bad", "xyz", "a_b"]], 2))
    search = BeamSearch(LETTERS, kneser_ney([["bad", "cab", "xyz"]], 2))
    search.check(["bad dad cab"], "corpus c")
    with pytest.raises(VocabularyError, match="knows 1 of the 3 words of corpus c, and not 'dad'"):
        search.check(["bad dad", "gag"], "corpus c")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"width": 0}, "width 0"),
        ({"alpha": math.nan}, "alpha = nan"),
        ({"alpha": -0.1}, "alpha = -0.1"),
        ({"beta": math.inf}, "beta = inf"),
        ({"prune": 1.0}, "probability of 1.0"),
        ({"prune": math.nan}, "probability of nan"),
    ],
)
def test_settings_that_mean_nothing(setting, told):
    with pytest.raises(EvaluationError, match=told):
        BeamSearch(LETTERS, **setting)
    with pytest.raises(EvaluationError, match=told):
        DecoderSettings("beam", **setting)


def test_what_is_no_probability_is_refused():
    with pytest.raises(EvaluationError, match="not logits"):
        BeamSearch(LETTERS).search(torch.zeros(3, 10))
    with pytest.raises(EvaluationError, match="9 tokens for a vocabulary of 10"):
        BeamSearch(LETTERS).search(posteriors(3, 9, 0))
    assert BeamSearch(LETTERS).decode(posteriors(0, 10, 0)) == ""


def test_settings_make_decoders():
    assert isinstance(DecoderSettings().decoder(LETTERS), Greedy)
    made = DecoderSettings("beam", kneser_ney([["bad"]], 2), width=7).decoder(LETTERS)
    assert isinstance(made, Decoder)
    told = made.describe()
    assert (told["kind"], told["width"], told["alpha"], told["language_model"]["order"]) == ("beam", 7, 0.5, 2)
    assert "alpha" not in DecoderSettings("beam").decoder(LETTERS).describe()
    with pytest.raises(EvaluationError, match="no decoder 'best'"):
        DecoderSettings("best")
    with pytest.raises(EvaluationError, match="uses no language model"):
        DecoderSettings("greedy", "lm.arpa")
