"""Verify: the same batches for both, what depends on the batch decoded alone, seeds, vocabularies, and the command."""

import json

import kaldialign
import pytest
import torch

import otoscope.cli.verifying  # noqa: F401 - registers the command
from otoscope.errors import EvaluationError, OtoscopeError
from otoscope.evaluation.decoders import DecoderSettings
from otoscope.evaluation.error_rates import WordErrorRate
from otoscope.evaluation.metric import recognise
from otoscope.evaluation.outcome import Outcome
from otoscope.evaluation.paired import paired_bootstrap
from otoscope.models.recogniser import Recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.surgery import Gate, apply
from otoscope.workflow.verifying import verify
from tests.evaluation.speaking import VOCABULARY, Scripted, small_recogniser, speech
from tests.workflow.program import otoscope as command

TEXTS = ("a cat", "the cats", "it is so", "it's", "a cat sat", "the end")
SPEECH = speech((0.7, 1.1, 1.4, 0.9, 1.0, 0.8), TEXTS)


class Writer(Recogniser):
    """A small recogniser that writes texts by the name of an utterance; `leaking` lets the batch show in them."""

    def __init__(self, texts, vocabulary=VOCABULARY, name="writer", leaking=False):
        ready = small_recogniser()
        super().__init__(ready.model, vocabulary)
        self._script = Scripted(self, list(texts))
        self._name, self.leaking, self.batches = name, leaking, []

    @property
    def name(self):
        return self._name

    def log_probabilities(self, samples, names=None):
        self.batches.append(len(samples))
        names = names if names is not None else ["0"] * len(samples)
        found = self._script.log_probabilities(samples, names)
        if not self.leaking or len(samples) == 1:
            return found
        return [torch.log_softmax(one + 0.3 * torch.randn(one.shape), -1) for one in found]


def run(before, after, corpus=SPEECH, **settings):
    return verify(before, after, corpus, **{"draws": 200, "cost": False, "time": False, **settings})


def wrong(k):
    """The texts with an error in the k-th."""
    return [f"{text}x" if place == k else text for place, text in enumerate(TEXTS)]


def test_it_is_the_paired_bootstrap_of_both_models():
    before, after = small_recogniser(), small_recogniser()
    after = Recogniser(apply(after.model, [Gate("layer.1.head.0"), Gate("layer.2.head.1")]), VOCABULARY)
    found = verify(before, after, SPEECH, draws=500, seed=3, repeats=6)
    taken = [recognise([WordErrorRate()], one, SPEECH)["wer"] for one in (before, after)]
    assert found.changes["wer"].difference == paired_bootstrap(*taken, n=500, seed=3)
    assert list(found.changes) == ["wer", "cer"]
    assert found.changes["wer"].before == taken[0].interval(3, n=500)
    assert [one.before for one in found.heard] == list(taken[0].texts["hypothesis"])
    assert [one.errors_after for one in found.heard] == taken[1].numerator.tolist()
    assert all(check.holds for check in found.invariance.values())
    assert found.costs["before"].parameters == before.parameters
    assert len(found.time.seconds_a) == 6
    assert found.provenance["decoder"] == {"kind": "greedy"}
    assert found.provenance["corpus"]["utterances"] == 6
    assert found.provenance["before"][0]["fingerprint"] != found.provenance["after"][0]["fingerprint"]


def test_kaldialign_finds_the_same_rates():
    found = run(Writer(wrong(1)), Writer(wrong(9)))
    one = [[getattr(row, side).split() for row in found.heard] for side in ("reference", "before", "after")]
    oracle = kaldialign.bootstrap_wer_ci(*one, replications=4000, seed=0)
    difference = found.changes["wer"].difference
    assert (difference.before, difference.after) == (pytest.approx(1 / 13), 0)
    assert difference.before == pytest.approx(oracle["system1"]["wer"], abs=0.01)
    assert found.changes["wer"].parts["substitutions"] == (1, 0)


def test_both_hear_the_same_batches():
    pair = Writer(wrong(0)), Writer(wrong(1))
    run(*pair, batch_seconds=3.0)
    assert pair[0].batches == pair[1].batches
    assert max(pair[0].batches) > 1


def test_a_model_that_depends_on_the_batch_has_all_decode_alone():
    torch.manual_seed(0)
    pair = Writer(TEXTS), Writer(TEXTS, leaking=True)
    found = run(*pair)
    assert not found.invariance["after"].holds
    assert found.invariance["before"].holds
    for one in pair:
        assert one.batches[-len(TEXTS) :] == [1] * len(TEXTS)
    assert found.provenance["batches"] == "one utterance at a time"
    assert "since what after gives depends on the batch" in found.provenance["notes"][0]
    assert found.changes["wer"].difference.after == 0  # alone it writes what it should
    with pytest.raises(EvaluationError, match="The model after depends on what else is in a batch"):
        run(*pair, strict=True)


def test_seeds_on_both_sides():
    before = [Writer(wrong(k)) for k in (0, 1)]
    after = [Writer(TEXTS), Writer(wrong(3))]
    found = run(before, after)
    change = found.changes["wer"]
    assert change.runs == ((pytest.approx(1 / 13),) * 2, (0, pytest.approx(1 / 13)))
    assert change.difference.value == pytest.approx(-0.5 / 13)
    assert change.seeds.paired
    assert "2 seeds tell little" in found.provenance["notes"][0]
    assert set(found.invariance) == {"before 1", "before 2", "after 1", "after 2"}
    alone = run(before[0], after, paired=None)
    assert alone.changes["wer"].seeds.before == 1
    assert "One model before" in alone.provenance["notes"][0]
    with pytest.raises(EvaluationError, match="are no pairs"):
        run(before[0], after, paired=True)


def test_models_of_other_sizes_are_no_seeds():
    class Smaller(Writer):
        parameters = 7

    with pytest.raises(EvaluationError, match="are both given before, and are no seeds of one model"):
        run([Writer(TEXTS), Smaller(TEXTS)], Writer(TEXTS))


def test_a_vocabulary_of_another_case_is_noted_and_words_are_compared():
    capital = Vocabulary(tuple(token.upper() for token in VOCABULARY.tokens), 0)
    after = Writer([text.upper() for text in TEXTS], capital)
    found = run(Writer(TEXTS), after)
    assert found.changes["wer"].difference.after == 0
    assert "different vocabularies" in found.provenance["notes"][0]
    with pytest.raises(EvaluationError, match="a CTC loss for each token"):
        run(Writer(TEXTS), after, metrics="wer,ctc-loss")


def test_the_same_model_twice_is_told():
    found = run(Writer(TEXTS), Writer(TEXTS))
    assert found.provenance["notes"] == ["Both encoders are the same, weight for weight"]
    assert found.changes["wer"].verdict == "not told apart"


def test_what_one_of_them_cannot_use_is_left_out_for_both():
    mixed = speech((0.7, 1.1, 1.4, 0.9), ("a cat", "naïve", "it is so", "it's"))
    texts = ["a cat", "", "it is so", "it's"]
    with pytest.raises(OtoscopeError, match="ï"):
        run(Writer(texts), Writer(texts), mixed)
    found = run(Writer(texts), Writer(texts), mixed, skip_bad=True)
    assert found.provenance["corpus"]["utterances"] == 3
    assert [one["id"] for one in found.provenance["corpus"]["left_out"]] == ["0001"]


def test_a_beam_search_decodes_both():
    found = run(Writer(TEXTS), Writer(wrong(2)), decoder=DecoderSettings("beam", width=4))
    assert found.provenance["decoder"]["width"] == 4
    assert found.changes["wer"].difference.before == 0
    assert "beam (width 4) decoding" in str(found)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"metrics": "speed"}, "not measured by 'speed'"),
        ({"metrics": " , "}, "No metric is asked for"),
        ({"corpus": speech((0.7,), ("a cat",))}, "holds 1 utterance"),
        ({"before": []}, "No model is given"),
        ({"decoder": "viterbi"}, "There is no decoder 'viterbi'"),
        ({"draws": 5}, "5 draws"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings, told):
    given = {"before": Writer(TEXTS), "after": Writer(TEXTS), "corpus": SPEECH, **settings}
    with pytest.raises(EvaluationError, match=told):
        run(**given)


def test_progress_runs_over_all_models():
    seen = []
    run(Writer(TEXTS), Writer(TEXTS), progress=lambda done, whole: seen.append((done, whole)), batch_seconds=2.0)
    assert seen == sorted(seen)
    assert seen[-1][0] == pytest.approx(seen[-1][1]) == pytest.approx(2 * SPEECH.seconds)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """The command on the embedded model and a little of its speech."""
    from otoscope.speech.writing import write_corpus
    from otoscope.workflow import read_corpus

    place = tmp_path_factory.mktemp("verify")
    corpus = read_corpus("embedded").subset(lambda utterance: utterance.id.endswith("-0001"))
    corpus = corpus.subset([one.id for one in sorted(corpus, key=lambda one: one.n_samples)[:4]])
    write_corpus(corpus, place / "speech")
    return place


def test_the_command(said):
    place = said / "outcome.json"
    done = command(
        "verify", "embedded", "embedded:wav2vec2", said / "speech", "--repeats", 6, "--threads", 1, "-o", place,
        "--margin", "0.9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = Outcome.load(place)
    assert found.changes["wer"].difference.utterances == 4
    for line in (
        "embedded -> embedded:wav2vec2",
        "4 utterances",
        "leaves out that it is worse by 0.9 or more",
        "Saved in",
    ):
        assert line in done.stdout
    told = command(
        "verify", "embedded", "embedded,embedded", said / "speech", "--no-time", "--json", "--metrics", "wer"
    )
    read = json.loads(told.stdout)
    assert read["metrics"]["wer"]["seeds"]["after"] == 2
    assert read["output"] is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--margin", "0"), "The margin is 0"),
        (("--card",), "holds no treated model"),
        (("--lm", "x.arpa", "--decoder", "greedy"), "Greedy decoding uses no language model"),
        (("--alpha", "0.5"), "no language model for alpha"),
        (("--plan", "plan.toml"), "for the model card alone"),
        (("-o", "."), "is no file"),
    ],
)
def test_the_command_refuses_before_it_works(arguments, told):
    done = command("verify", "no-model", "no-other", *arguments)
    assert done.returncode == 2
    assert told in done.stderr.replace("\n", " ")
