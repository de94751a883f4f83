"""Leave-one-out: dead heads cost nothing, every value is that of a model edited by hand, cut-off runs go on."""

import json

import pytest
import torch

from otoscope.errors import EvaluationError, ResultError
from otoscope.evaluation import CTCLoss, WordErrorRate, paired_bootstrap
from otoscope.evaluation.clusters import fit_clusters, mfcc_features
from otoscope.evaluation.masked_prediction import write_prediction_head
from otoscope.evaluation.self_supervised import ContrastiveLoss, MaskedPredictionLoss, labels_of
from otoscope.interventions.leave_one_out import NAME, leave_one_out
from otoscope.interventions.scoring import scores_of_variants
from otoscope.models import load
from otoscope.models.recogniser import Recogniser
from otoscope.surgery import Bypass, Gate, apply
from tests.evaluation.speaking import VOCABULARY, speech
from tests.models.small import CASES
from tests.surgery.cases import speech as noise

DEAD = (2, 3)  # layer, head
CORPUS = speech(seconds=(0.7, 0.9, 0.5, 0.8), transcripts=("A cat", "the cats", "", "it's"))


def _case(name):
    return next(case for case in CASES if case.name == name)


@pytest.fixture(scope="module")
def recogniser():
    """A model with a head whose columns of the output projection are zero, so that nothing of it is passed on."""
    source = _case("wav2vec2-ctc").build().eval()
    layer, head = DEAD
    with torch.no_grad():
        source.wav2vec2.encoder.layers[layer - 1].attention.out_proj.weight[:, 12 * head : 12 * (head + 1)] = 0
    return Recogniser(load(source), VOCABULARY)


def test_a_dead_head_costs_exactly_nothing_and_others_what_a_model_without_them_loses(recogniser):
    found = leave_one_out(recogniser, CORPUS, CTCLoss(), batch_seconds=1.0)
    assert [(row.layer, row.head) for row in found.rows] == [(k, h) for k in (1, 2, 3) for h in range(4)]
    whole = CTCLoss().values(recogniser, CORPUS, batch_seconds=1.0)
    assert found.notes[NAME]["before"] == whole.value
    for row in found.rows:
        assert (row.measure, row.stream, row.target, row.n) == (NAME, f"layer.{row.layer}", "ctc-loss", 4)
        edited = apply(recogniser.model, [Gate(f"layer.{row.layer}.head.{row.head}")])
        without = CTCLoss().values(Recogniser(edited, VOCABULARY), CORPUS, batch_seconds=1.0)
        wanted = paired_bootstrap(whole, without)
        assert row.value == wanted.value
        if (row.layer, row.head) == DEAD:
            assert row.value == 0
            assert row.low is None
            assert row.high is None
        else:
            assert row.value != 0
            assert (row.low, row.high) == (wanted.low, wanted.high)


def test_of_an_error_rate_a_dead_head_has_the_interval_of_what_may_be_unseen(recogniser):
    found = leave_one_out(recogniser, CORPUS, WordErrorRate(), batch_seconds=1.0)
    row = next(row for row in found.rows if (row.layer, row.head) == DEAD)
    assert row.value == 0
    assert row.low < 0 < row.high


def test_layers_and_branches(recogniser):
    whole = CTCLoss().values(recogniser, CORPUS)
    for units, name, other in (
        ("layers", "layer.2", None),
        ("attention", "layer.2.attention", "attention"),
        ("feed_forward", "layer.2.feed_forward", "feed_forward"),
    ):
        found = leave_one_out(recogniser, CORPUS, CTCLoss(), units)
        assert [row.layer for row in found.rows] == [1, 2, 3]
        without = CTCLoss().values(Recogniser(apply(recogniser.model, [Bypass(name)]), VOCABULARY), CORPUS)
        assert (found.rows[1].head, found.rows[1].other) == (None, other)
        assert found.rows[1].value == pytest.approx(without.value - whole.value, abs=1e-12)
    with pytest.raises(EvaluationError, match="no units called 'words'"):
        leave_one_out(recogniser, CORPUS, CTCLoss(), "words")


def test_a_self_supervised_loss(recogniser):
    model, corpus = load(_case("wav2vec2-pretraining").build().eval()), noise(0.5, 0.7)
    found = leave_one_out(model, corpus, ContrastiveLoss(), batch_seconds=0.7)
    without = ContrastiveLoss().values(apply(model, [Gate("layer.3.head.1")]), corpus)
    row = next(row for row in found.rows if (row.layer, row.head) == (3, 1))
    assert row.value == pytest.approx(without.value - ContrastiveLoss().values(model, corpus).value, abs=1e-12)


def test_masked_prediction_finds_its_clusters_once(tmp_path, monkeypatch):
    corpus = noise(0.5, 0.7)
    model = load(_case("hubert-group").write(tmp_path))
    clusters = fit_clusters(mfcc_features(corpus.utterances, model).items(), 4, 0, "mfcc")
    torch.manual_seed(0)
    write_prediction_head(torch.nn.Linear(48, 4), clusters, tmp_path)
    wanted = [
        MaskedPredictionLoss(tmp_path).values(one, corpus) for one in (model, apply(model, [Gate("layer.2.head.1")]))
    ]
    found = []

    def counting(*args):
        found.append(args)
        return labels_of(*args)

    monkeypatch.setattr("otoscope.evaluation.self_supervised.labels_of", counting)
    variants = {"gated": [Gate("layer.2.head.1")], "other": [Gate("layer.3")]}
    scores = scores_of_variants(model, corpus, variants, MaskedPredictionLoss(tmp_path), batch_seconds=0.7)
    assert len(found) == 1
    for one, full in zip((scores.before, scores.after["gated"]), wanted, strict=True):
        assert (one.numerator == full.numerator).all()


def test_both_feed_forwards_of_a_conformer_are_named():
    model = load(_case("conformer-rotary-ctc").build().eval())
    found = leave_one_out(Recogniser(model, VOCABULARY), CORPUS, CTCLoss(), "feed_forward")
    assert [(row.layer, row.other) for row in found.rows[:3]] == [
        (1, "feed_forward.1"),
        (1, "feed_forward.2"),
        (2, "feed_forward.1"),
    ]


class Interrupted(CTCLoss):
    """Stops in the middle of a run."""

    calls = 0
    most = 10**9

    def count(self, recogniser, one):
        type(self).calls += 1
        if type(self).calls > self.most:
            raise KeyboardInterrupt
        return super().count(recogniser, one)


def test_a_run_that_was_cut_off_goes_on_after_its_last_batch(recogniser, tmp_path, monkeypatch):
    variants = {"a": [Gate("layer.1.head.0")], "b": [Gate("layer.3")]}
    whole = scores_of_variants(recogniser, CORPUS, variants, Interrupted(), batch_seconds=1.0)
    monkeypatch.setattr(Interrupted, "most", Interrupted.calls + 5)
    with pytest.raises(KeyboardInterrupt):
        scores_of_variants(recogniser, CORPUS, variants, Interrupted(), batch_seconds=1.0, store=tmp_path / "run")
    kept = sorted(one.name for one in (tmp_path / "run").iterdir())
    assert kept == ["part-00000.json", "run.json"]
    monkeypatch.setattr(Interrupted, "most", 10**9)
    before = Interrupted.calls
    again = scores_of_variants(recogniser, CORPUS, variants, Interrupted(), batch_seconds=1.0, store=tmp_path / "run")
    assert Interrupted.calls - before == 3 * 3  # three of four utterances, three models
    for one, other in ((whole.before, again.before), *((whole.after[n], again.after[n]) for n in variants)):
        assert one.ids == other.ids
        assert (one.numerator == other.numerator).all()
        assert (one.denominator == other.denominator).all()


def test_results_of_another_run_are_refused(recogniser, tmp_path):
    def run(variants):
        scores_of_variants(recogniser, CORPUS, variants, CTCLoss(), store=tmp_path)

    run({"a": [Gate("layer.1.head.0")]})
    with pytest.raises(ResultError, match="another run"):
        run({"a": [Gate("layer.1.head.1")]})
    (tmp_path / "part-00000.json").write_text(json.dumps({"a": {"numerator": [1.0]}}))
    with pytest.raises(ResultError, match="is not what a run wrote"):
        run({"a": [Gate("layer.1.head.0")]})
    (tmp_path / "part-00000.json").write_text("{")
    with pytest.raises(ResultError, match="cannot be read"):
        run({"a": [Gate("layer.1.head.0")]})


def test_nothing_to_be_scored_is_refused(recogniser):
    with pytest.raises(EvaluationError, match="no variant"):
        scores_of_variants(recogniser, CORPUS, {}, CTCLoss())
    with pytest.raises(EvaluationError, match="has no name"):
        scores_of_variants(recogniser, CORPUS, {"": [Gate("layer.1")]}, CTCLoss())
    with pytest.raises(EvaluationError, match="gives no interval"):
        scores_of_variants(recogniser, CORPUS.subset([CORPUS[0].id]), {"a": [Gate("layer.1")]}, CTCLoss())
    with pytest.raises(EvaluationError, match="holds no utterance"):
        scores_of_variants(recogniser, CORPUS.subset([]), {"a": [Gate("layer.1")]}, CTCLoss())
