"""The command lm, evaluation by beam search, and what is refused."""

import json

import pytest

from otoscope.cli import language  # noqa: F401 - registers the command
from otoscope.errors import EvaluationError, TrainingError, TranscriptError, VocabularyError
from otoscope.evaluation import BeamSearch, CTCLoss, DecoderSettings
from otoscope.evaluation.language import kneser_ney, perplexity_of, read_arpa
from otoscope.speech import write_corpus
from otoscope.workflow import read_corpus
from otoscope.workflow.decoding import settings_of
from otoscope.workflow.evaluating import Evaluation, evaluate
from otoscope.workflow.language import estimate_language_model
from tests.evaluation.speaking import VOCABULARY, small_recogniser, speech
from tests.workflow.program import otoscope


@pytest.fixture(scope="module")
def few():
    """Two utterances of each voice."""
    corpus = read_corpus("embedded")
    first = {speaker: [u.id for u in corpus if u.speaker == speaker][:2] for speaker in corpus.speakers}
    return corpus.subset([one for ids in first.values() for one in ids])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return estimate_language_model("embedded:train", tmp_path_factory.mktemp("lm") / "lm.arpa", dev="embedded")


def test_a_language_model_of_the_embedded_speech(written):
    texts = [u.transcript for u in read_corpus("embedded:train")]
    assert written.sentences == len(texts)
    assert written.words == sum(len(text.split()) for text in texts)
    model = read_arpa(written.path)
    assert model.order == 4
    assert written.perplexity == perplexity_of(model, [u.transcript for u in read_corpus("embedded")])
    assert perplexity_of(model, texts).value < written.perplexity.value < len(list(model.words()))
    assert "4-gram of" in str(written)
    assert "perplexity" in str(written)
    json.dumps(written.to_dict())


def test_the_language_model_betters_the_embedded_model(written, few, tmp_path):
    greedy = evaluate("embedded", few, "wer", cost=False)
    found = evaluate("embedded", few, "wer,cer", decoder=DecoderSettings("beam", written.path), cost=False)
    assert found.scores["wer"].value <= greedy.scores["wer"].value
    told = found.provenance["decoder"]
    assert (told["kind"], told["alpha"], told["language_model"]["name"]) == ("beam", 0.5, "lm.arpa")
    assert told["language_model"]["sha256"] == written.model["sha256"]
    assert found.provenance["perplexity"]["unknown"] > 0
    text = str(found)
    assert "beam search of width 25, 4-gram lm.arpa, alpha 0.5, beta 1" in text
    assert "perplexity" in text
    again = Evaluation.load(found.save(tmp_path / "e"))
    assert str(again) == text
    assert again.to_dict() == found.to_dict()
    assert greedy.provenance["decoder"] == {"kind": "greedy"}
    assert "beam" not in str(greedy)


def test_errors_by_word_are_told(few):
    found = evaluate("embedded", few, "wer", cost=False)
    told = found.to_dict()["metrics"]["wer"]["by_word"]
    totals = found.scores["wer"].totals()
    assert 0 < sum(one["count"] for one in told["substitutions"]) <= totals["substitutions"]
    assert "substituted most: " in str(found)


def test_an_unreadable_or_missing_text_is_named(tmp_path):
    with pytest.raises(TranscriptError, match="noise has no transcripts with a word"):
        estimate_language_model(speech(transcripts=[None] * 4), tmp_path / "lm.arpa")
    with pytest.raises(EvaluationError, match="order 0"):
        estimate_language_model(speech(), tmp_path / "lm.arpa", 0)
    with pytest.raises(EvaluationError, match="which the language model is estimated from, is also in"):
        estimate_language_model(speech(), tmp_path / "lm.arpa", dev=speech())
    assert not list(tmp_path.iterdir())


def test_what_does_not_go_together_is_refused():
    recogniser, lm = small_recogniser(), kneser_ney([["a", "cat"], ["the", "cats"], ["it's"]], 2)
    with pytest.raises(EvaluationError, match="no decoder 'best'"):
        evaluate(recogniser, speech(), "wer", decoder="best")
    with pytest.raises(EvaluationError, match="no language model to weigh"):
        evaluate(recogniser, speech(), "wer", decoder="beam", tune=speech())
    with pytest.raises(EvaluationError, match="is also in corpus noise"):
        evaluate(recogniser, speech(), "wer", decoder=DecoderSettings("beam", lm), tune=speech())
    with pytest.raises(VocabularyError, match="another vocabulary"):
        evaluate(recogniser, speech(), "wer", decoder=DecoderSettings("beam", kneser_ney([["нет"]], 2)))
    with pytest.raises(EvaluationError, match="Nothing is decoded for contrastive-loss"):
        evaluate(recogniser, speech(), "contrastive-loss", decoder="beam")


def test_nothing_is_learnt_from_speech_for_examination(tmp_path):
    recogniser, lm = small_recogniser(), kneser_ney([["a", "cat"], ["the", "cats"], ["it's"]], 2)
    some = read_corpus("embedded")
    for exam in ("embedded", some.subset([some.utterances[0].id])):
        with pytest.raises(TrainingError, match="is for examination"):
            estimate_language_model(exam, tmp_path / "lm.arpa")
        with pytest.raises(TrainingError, match="is for examination"):
            evaluate(recogniser, speech(), "wer", decoder=DecoderSettings("beam", lm), tune=exam)
    assert not list(tmp_path.iterdir())


def test_weights_chosen_on_other_speech_are_in_the_result():
    recogniser, lm = small_recogniser(), kneser_ney([["a", "cat"], ["the", "cats"], ["it's"]], 2)
    dev = speech((0.2, 0.3), ["a", "cat"], ids=["d0", "d1"], name="dev")
    found = evaluate(recogniser, speech(), "wer", decoder=DecoderSettings("beam", lm, width=3), tune=dev, cost=False)
    told = found.provenance
    assert (told["decoder"]["alpha"], told["decoder"]["beta"]) == (told["tuning"]["alpha"], told["tuning"]["beta"])
    assert told["tuning"]["corpus_fingerprint"] == dev.fingerprint()
    assert "chosen on dev\n" in str(found)
    assert "alpha \\ beta" in str(found)
    assert dict(found.facts())["perplexity"].endswith("with these")


def test_a_decoder_of_ones_own_is_taken():
    search = BeamSearch(VOCABULARY, width=2)
    found = evaluate(small_recogniser(), speech(), [CTCLoss()], decoder=search, cost=False)
    assert found.provenance["decoder"] == {"kind": "beam", "width": 2, "prune": 0.001}


def test_options():
    assert settings_of() == DecoderSettings("greedy")
    assert settings_of(lm="lm.arpa", alpha=1.0, width=3) == DecoderSettings("beam", "lm.arpa", alpha=1.0, width=3)
    with pytest.raises(EvaluationError, match="no language model for alpha"):
        settings_of("beam", alpha=1.0)
    with pytest.raises(EvaluationError, match="no beam"):
        settings_of(width=3)
    with pytest.raises(EvaluationError, match="beta is given, and is to be chosen too"):
        settings_of(lm="lm.arpa", beta=1.0, tune=True)
    with pytest.raises(EvaluationError, match="width 0"):
        settings_of("beam", width=0)


def test_the_commands(tmp_path, few):
    lm, exam = tmp_path / "lm.arpa", tmp_path / "exam"
    done = otoscope("lm", "-o", lm, "--order", 3, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["order"] == 3
    ids = sorted((u.n_samples, u.id) for u in few)[:3]
    write_corpus(few.subset([one for _, one in ids]), exam)
    command = ["evaluate", "embedded", exam, "--metrics", "wer", "--lm", lm]
    done = otoscope(*command, "--report", tmp_path / "page.html", "--beam-width", 10, "--alpha", 0.7, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["decoder"]["width"], told["decoder"]["alpha"]) == (10, 0.7)
    assert "Hypotheses" in (tmp_path / "page.html").read_text()
    for wrong, expected in (
        (["--beam-width", "0"], "width 0"),
        (["--alpha", "nan"], "alpha = nan"),
        (["--decoder", "greedy"], "uses no language model"),
        (["--tune", exam], "is also in corpus"),
    ):
        done = otoscope(*command, *wrong)
        assert done.returncode == 2
        assert expected in done.stderr.replace("\n", " ")
    lm.write_text("")
    done = otoscope(*command)
    assert done.returncode == 2
    assert "is empty" in done.stderr
