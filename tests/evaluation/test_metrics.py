"""The metrics on models: one pass gives what each gives alone, in any batches, and bad input is named."""

import numpy as np
import pytest

from otoscope.errors import AudioError, EvaluationError, HeadError, TranscriptError, VocabularyError
from otoscope.evaluation import CharacterErrorRate, CTCLoss, WordErrorRate, ctc_nats, recognise
from otoscope.evaluation.catalogue import RECOGNITION, metric_by_name
from otoscope.evaluation.references import Reference, reference_of, split_usable
from otoscope.models import load
from otoscope.speech.corpus import Corpus
from tests.evaluation.speaking import VOCABULARY, Scripted, small_recogniser, speech
from tests.models.small import CASES

ALL = (WordErrorRate, CharacterErrorRate, CTCLoss)


@pytest.fixture(scope="module")
def recogniser():
    return small_recogniser()


@pytest.fixture
def scripted(monkeypatch, recogniser):
    """The recogniser with given hypotheses."""

    def give(*texts):
        monkeypatch.setattr(recogniser, "log_probabilities", Scripted(recogniser, list(texts)).log_probabilities)
        return recogniser

    return give


def test_errors_and_their_kinds(scripted):
    corpus = speech((0.7, 1.1, 0.5, 0.9))
    found = recognise([WordErrorRate(), CharacterErrorRate()], scripted("a hat", "cats", "no no", "it's"), corpus)
    words = found["wer"]
    assert words.ids == ("0000", "0001", "0002", "0003")
    assert words.speakers == ("s0", "s1", "s0", "s1")
    assert words.texts["reference"] == ("a cat", "the cats", "", "it's")
    assert words.texts["hypothesis"] == ("a hat", "cats", "no no", "it's")
    assert words.denominator.tolist() == [2, 2, 0, 1]
    assert words.parts["substitutions"].tolist() == [1, 0, 0, 0]
    assert words.parts["deletions"].tolist() == [0, 1, 0, 0]
    assert words.parts["insertions"].tolist() == [0, 0, 2, 0]
    assert words.value == 4 / 5
    assert found["cer"].denominator.tolist() == [5, 8, 0, 4]
    assert found["cer"].numerator.tolist() == [1, 4, 5, 0]


def test_perfect_hypotheses_have_no_error(scripted):
    found = recognise([WordErrorRate(), CharacterErrorRate()], scripted("a cat", "the cats", "", "it's"), speech())
    assert found["wer"].value == found["cer"].value == 0


def test_loss_is_that_of_the_log_probabilities(recogniser):
    corpus = speech()
    found = CTCLoss().values(recogniser, corpus)
    scores = recogniser.log_probabilities([one.read() for one in corpus])
    tokens = [VOCABULARY.encode(one.transcript) for one in corpus]
    expected = [ctc_nats(score, one, 0) for score, one in zip(scores, tokens, strict=True)]
    assert np.allclose(found.numerator, expected, rtol=1e-5)
    assert found.denominator.tolist() == [5, 8, 0, 4]
    assert found.unit == "nats per token"


@pytest.mark.parametrize("name", ["wav2vec2-ctc", "conformer-rotary-ctc", "wavlm-ctc-stable"])
def test_batches_do_not_matter(name):
    recogniser, corpus = small_recogniser(name), speech()
    together = recognise([metric() for metric in ALL], recogniser, corpus, batch_seconds=30)
    for metric in ALL:
        alone = metric().values(recogniser, corpus, batch_seconds=0.1)
        assert np.allclose(alone.numerator, together[metric.name].numerator, rtol=1e-4)
        assert alone.texts == together[metric.name].texts
        assert alone.ids == together[metric.name].ids


def test_plain_models_take_a_vocabulary():
    case = next(case for case in CASES if case.name == "hubert-ctc-stable")
    model = load(case.build())
    with pytest.raises(VocabularyError, match="nothing says what its outputs stand for"):
        WordErrorRate().values(model, speech())
    assert WordErrorRate(VOCABULARY).values(model, speech()).denominator.sum() == 5
    with pytest.raises(HeadError, match="no CTC head"):
        WordErrorRate(VOCABULARY).values(load(CASES[0].build()), speech())


def test_progress_is_told(recogniser):
    told = []
    CTCLoss().values(recogniser, speech(), batch_seconds=1, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == pytest.approx(told[-1][1]) == pytest.approx(3.2)
    assert len(told) == 4


def test_a_corpus_without_transcripts_is_refused(recogniser):
    with pytest.raises(TranscriptError, match="Corpus noise has no transcripts"):
        WordErrorRate().values(recogniser, speech(transcripts=[None] * 4))
    with pytest.raises(TranscriptError, match="Utterance '0001' has no transcript"):
        WordErrorRate().values(recogniser, speech(transcripts=["a", None, "b", "c"]))


def test_characters_outside_the_vocabulary_are_refused(recogniser):
    for metric in ALL:
        with pytest.raises(VocabularyError, match="transcript of utterance '0002' holds '2'"):
            metric().values(recogniser, speech(transcripts=["a", "b", "r2d", "c"]))


def test_audio_shorter_than_its_transcript_is_refused(recogniser):
    frames = recogniser.frames(8000)
    fits = "ab" * (frames // 2) + "a" * (frames % 2)
    assert np.isfinite(CTCLoss().values(recogniser, speech((0.5,), [fits])).value)
    for text in (fits + "c", fits[:-1] + fits[-2]):  # a token more; a repeat, which needs a blank between
        with pytest.raises(EvaluationError, match=f"'0000' gives {frames} frames and .* needs {frames + 1}"):
            CTCLoss().values(recogniser, speech((0.5,), [text]))
        assert WordErrorRate().values(recogniser, speech((0.5,), [text])).denominator.sum() == 1


def test_nothing_is_run_before_all_is_checked(recogniser, monkeypatch):
    monkeypatch.setattr(recogniser.model, "encode", lambda samples: pytest.fail("ran"))
    with pytest.raises(EvaluationError, match="no CTC alignment"):
        CTCLoss().values(recogniser, speech(transcripts=["a", "b", "c", "x" * 200]))
    with pytest.raises(AudioError, match="'0003'"):
        CTCLoss().values(recogniser, speech((0.7, 1.1, 0.5, 0.04), ["a", "b", "c", "d"]))


def test_no_words_at_all_are_refused(scripted):
    with pytest.raises(EvaluationError, match="wer has nothing to be counted on"):
        WordErrorRate().values(scripted("a", "", "", ""), speech(transcripts=["", " ", "", ""]))
    with pytest.raises(EvaluationError, match="Corpus none holds no utterance"):
        WordErrorRate().values(scripted(), Corpus("none", ()))


def test_a_metric_is_taken_once(recogniser):
    with pytest.raises(EvaluationError, match="asked for twice"):
        recognise([WordErrorRate(), WordErrorRate()], recogniser, speech())


def test_catalogue():
    assert list(RECOGNITION) == ["wer", "cer", "ctc-loss"]
    assert isinstance(metric_by_name("cer"), CharacterErrorRate)
    with pytest.raises(EvaluationError, match=r"no metric 'bleu'.*wer, cer, ctc-loss"):
        metric_by_name("bleu")


@pytest.mark.parametrize(("tokens", "frames"), [((), 0), ((1,), 1), ((1, 1), 3), ((1, 2, 1), 3), ((1, 1, 1), 5)])
def test_frames_that_a_transcript_needs(tokens, frames):
    assert Reference("", tokens).frames_needed == frames


def test_unusable_utterances_are_listed(recogniser):
    corpus = speech((0.7, 1.1, 0.5, 0.9, 0.03), ["a", None, "b 2", "x" * 500, "c"])
    kept, left_out = split_usable(recogniser, corpus)
    assert [one.id for one in kept] == ["0000"]
    reasons = {one.id: one.reason for one in left_out}
    assert "no transcript" in reasons["0001"]
    assert "'2'" in reasons["0002"]
    assert "no CTC alignment" in reasons["0003"]
    assert "two frames" in reasons["0004"]
    with pytest.raises(EvaluationError, match="No utterance of corpus noise can be used"):
        split_usable(recogniser, corpus.subset(["0001"]))
    assert reference_of(recogniser, corpus[0]) == Reference("a", (3,))
