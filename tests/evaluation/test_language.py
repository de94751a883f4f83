"""Perplexity, words in other cases, errors by word, and the choice of weights."""

import json
import math

import numpy as np
import pytest

from otoscope.errors import EvaluationError, TranscriptError, VocabularyError
from otoscope.evaluation import (
    BeamSearch,
    Greedy,
    Tuning,
    WordErrorRate,
    check_apart,
    recognise,
    recognise_by,
    tune,
    word_errors,
)
from otoscope.evaluation.language import Spelling, kneser_ney, perplexity_of, sentence_score
from otoscope.evaluation.word_errors import word_errors_of
from tests.evaluation.speaking import VOCABULARY, Scripted, small_recogniser, speech
from tests.evaluation.texts import scores_of

SAID = ["a cat", "the cats", "a", "it's a cat"]
MODEL = kneser_ney([text.split() for text in SAID], 3)


@pytest.fixture
def scripted(monkeypatch):
    recogniser = small_recogniser()

    def give(*texts):
        monkeypatch.setattr(recogniser, "log_probabilities", Scripted(recogniser, list(texts)).log_probabilities)
        return recogniser

    return give


def test_perplexity_of_words_and_ends():
    found = perplexity_of(MODEL, SAID)
    expected = -sum(sentence_score(MODEL, text.split()) for text in SAID) / (8 + 4)
    assert found.value == found.with_unknown == pytest.approx(math.exp(expected))
    assert (found.words, found.unknown, found.sentences) == (8, 0, 4)
    assert str(perplexity_of(MODEL, ["THE Cats"])).startswith("perplexity ")
    assert perplexity_of(MODEL, ["THE Cats"]) == perplexity_of(MODEL, ["the cats"])


def test_a_uniform_model_is_as_perplexed_as_it_has_words():
    """Of counts that are all one, and discounts of FALLBACK, half comes from below; so a model of one word each does."""
    model = kneser_ney([["a", "b", "c"]], 1)
    chances = [math.exp(model.score((), word)[0]) for word in "abc"] + [math.exp(model.end(()))]
    assert np.ptp(chances) < 1e-12
    assert perplexity_of(model, ["a b", "c c c"]).value == pytest.approx(1 / chances[0])


def test_unknown_words_are_counted_beside():
    found = perplexity_of(MODEL, ["a dog", "cat"])
    assert (found.unknown, found.words) == (1, 3)
    state = MODEL.start()
    first, state = MODEL.score(state, "a")
    lost, state = MODEL.score(state, "dog")
    second = MODEL.end(state)
    rest = sentence_score(MODEL, ["cat"])
    assert found.value == pytest.approx(math.exp(-(first + second + rest) / 4))
    assert found.with_unknown == pytest.approx(math.exp(-(first + lost + second + rest) / 5))
    assert "1 of them unknown (33.3%)" in str(found)
    with pytest.raises(EvaluationError, match="no sentence"):
        perplexity_of(MODEL, [])


def test_forms_of_words():
    spelling = Spelling(kneser_ney([["bad", "London", "NATO", "The", "the"]], 1))
    forms = {word: spelling.form(word) for word in ("BAD", "london", "Nato", "THE", "The", "xyz", "<s>")}
    assert forms == {
        "BAD": "bad", "london": "London", "Nato": "NATO", "THE": "the", "The": "The", "xyz": "xyz", "<s>": "<s>"
    }  # fmt: skip
    assert not spelling.knows("<unk>")


def test_errors_by_word():
    found = word_errors(["the cat sat", "the end", "x", ""], ["a cat", "a end now", "x", "now"])
    assert found.substitutions == {("the", "a"): 2}
    assert found.deletions == {"sat": 1}
    assert found.insertions == {"now": 2}
    told = found.to_dict()
    assert told["substitutions"] == [{"said": "the", "recognised": "a", "count": 2, "of": 2}]
    json.dumps(told)
    assert word_errors(["a b c"], ["x y z"]).lines(2) == ["substituted most: a -> x (1), b -> y (1)"]
    assert word_errors_of(scores_of([1], [2])) is None


def test_several_decoders_hear_the_model_once(scripted, monkeypatch):
    recogniser, corpus = scripted("a cat", "teh cats", "", "it's"), speech()
    heard = []
    once = recogniser.log_probabilities
    monkeypatch.setattr(recogniser, "log_probabilities", lambda *given: heard.append(1) or once(*given))
    decoders = {"greedy": Greedy(VOCABULARY), "beam": BeamSearch(VOCABULARY)}
    found = recognise_by(decoders, [WordErrorRate()], recogniser, corpus, batch_seconds=30)
    batches = len(heard)
    alone = recognise([WordErrorRate()], recogniser, corpus, decoder=decoders["beam"], batch_seconds=30)
    assert len(heard) == 2 * batches
    assert found["greedy"]["wer"].texts["hypothesis"] == ("a cat", "teh cats", "", "it's")
    assert found["beam"]["wer"].texts == alone["wer"].texts


def test_a_language_model_of_another_language_is_refused_before_the_model_runs(scripted, monkeypatch):
    recogniser = scripted("a")
    monkeypatch.setattr(recogniser, "log_probabilities", lambda *_: pytest.fail("ran"))
    decoder = BeamSearch(VOCABULARY, kneser_ney([["der", "hund"]], 2))
    with pytest.raises(VocabularyError, match="knows 0 of the 5 words of corpus noise, and not 'a'"):
        recognise([WordErrorRate()], recogniser, speech(), decoder=decoder)


class Doubtful(Scripted):
    """Frames that spell a text of which some letters might as well be others."""

    def log_probabilities(self, samples, names=None):
        found = []
        for scores in super().log_probabilities(samples, names):
            chances = scores.exp()
            k, t = VOCABULARY.tokens.index("t"), VOCABULARY.tokens.index("d")
            chances[:, [k, t]] = chances[:, [k, t]].sum(1, keepdim=True) * chances.new_tensor([[0.45, 0.55]])
            found.append(chances.log())
        return found


def test_weights_are_those_of_the_fewest_errors(monkeypatch):
    recogniser = small_recogniser()
    corpus = speech(transcripts=SAID)
    monkeypatch.setattr(recogniser, "log_probabilities", Doubtful(recogniser, SAID).log_probabilities)
    found = tune(recogniser, corpus, MODEL, alphas=(0.0, 0.5, 1.0), betas=(0.0, 1.0), batch_seconds=1)
    assert found.grid[0] == (0.0, 0.0, pytest.approx(5 / 8))  # a cad, dhe cads, a, id's a cad
    assert found.value == 0
    assert (found.alpha, found.beta) == (0.5, 0.0)
    assert not found.at_edge
    assert found.words == 8
    assert found.table().shape == (6, 3)
    assert "alpha 0.5, beta 0, wer 0.0000" in str(found)
    assert len(str(found).splitlines()) == 5
    assert Tuning.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found
    for alpha, beta, rate in found.grid:
        decoder = BeamSearch(VOCABULARY, MODEL, alpha, beta)
        assert recognise([WordErrorRate()], recogniser, corpus, decoder=decoder)["wer"].value == pytest.approx(rate)


def test_weights_are_not_chosen_on_the_exam(scripted):
    recogniser, corpus = scripted(*SAID), speech(transcripts=SAID)
    with pytest.raises(
        EvaluationError, match=r"'0000' of corpus noise, which weights are chosen on, is also in .*exam"
    ):
        tune(recogniser, corpus, MODEL, exam=speech(transcripts=SAID, name="exam"))
    renamed = speech(transcripts=SAID, name="exam", ids=list("wxyz"))
    with pytest.raises(EvaluationError, match="as 'w'"):
        tune(recogniser, corpus, MODEL, exam=renamed)
    with pytest.raises(EvaluationError, match="flattered"):
        tune(recogniser, corpus.subset(["0003"]), MODEL, exam=renamed)
    check_apart(corpus, speech(transcripts=["no", "other", "words", "here"]))  # names alone do not tell
    check_apart(
        speech((0.5,), ["a"]), speech((0.7, 0.5), ["a", "a"], ids=["x", "y"])
    )  # same length and words: another sound


def test_there_must_be_something_to_choose_by(scripted):
    recogniser = scripted("", "", "", "")
    with pytest.raises(EvaluationError, match="no weights"):
        tune(recogniser, speech(), MODEL, alphas=())
    with pytest.raises(EvaluationError, match="no word to choose weights by"):
        tune(recogniser, speech(transcripts=[""] * 4), MODEL)
    with pytest.raises(TranscriptError):
        tune(recogniser, speech(transcripts=[None] * 4), MODEL)
