"""The verb: the embedded model, saving, and what is left out."""

import copy
import json

import polars as pl
import pytest
import torch

from otoscope.errors import AudioError, EvaluationError, HeadError, ResultError, VocabularyError
from otoscope.evaluation import Metric, check_batch_invariance, paired_bootstrap
from otoscope.models import load
from otoscope.models.recogniser import load_recogniser
from otoscope.workflow import read_corpus
from otoscope.workflow.evaluating import Evaluation, evaluate
from tests.evaluation.speaking import VOCABULARY, small_recogniser, speech
from tests.evaluation.texts import scores_of
from tests.models.small import CASES


@pytest.fixture(scope="module")
def few():
    corpus = read_corpus("embedded")
    first = {speaker: [u.id for u in corpus if u.speaker == speaker][:2] for speaker in corpus.speakers}
    return corpus.subset([one for ids in first.values() for one in ids])


@pytest.fixture(scope="module")
def found(few):
    return evaluate("embedded", few)


def test_the_embedded_model_spells_the_embedded_speech(few, found):
    assert list(found.scores) == ["wer", "cer", "ctc-loss"]
    assert found.scores["wer"].value < 1
    assert found.scores["cer"].value < found.scores["wer"].value
    assert found.scores["wer"].texts["reference"] == tuple(u.transcript for u in few)
    assert found.cost.parameters > 10_000


def test_a_silenced_model_is_worse_and_the_difference_is_decided(few, found):
    source = copy.deepcopy(load("embedded").source)
    with torch.no_grad():
        source.lm_head.weight.zero_()
    silenced = evaluate(source, few, cost=False)
    assert silenced.scores["wer"].value == 1  # every word is deleted
    difference = paired_bootstrap(silenced.scores["ctc-loss"], found.scores["ctc-loss"])
    assert difference.value < 0
    assert difference.decided
    assert difference.probability_of_improvement > 0.975
    assert (difference.by, difference.blocks) == ("speaker", len(few.speakers))


def test_the_embedded_model_does_not_depend_on_batches(few):
    shortest = sorted(few, key=lambda u: u.n_samples)[:4]
    recogniser = load_recogniser("embedded", "embedded")
    assert check_batch_invariance(recogniser, few.subset([u.id for u in shortest])).holds


def test_save_and_load(found, tmp_path):
    for _ in range(2):  # a second time over the first
        place = found.save(tmp_path / "e")
        again = Evaluation.load(place)
        assert str(again) == str(found)
        assert again.to_dict() == found.to_dict()
        assert again.table().equals(found.table())
        assert sorted(path.name for path in place.iterdir()) == [
            "cer.parquet", "ctc-loss.parquet", "evaluation.json", "wer.parquet"
        ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["e"]
    told = json.loads((place / "evaluation.json").read_text())
    assert told["metrics"]["wer"]["value"] == found.scores["wer"].value
    assert told["metrics"]["wer"]["by"] == "speaker"
    assert set(told["metrics"]["wer"]["totals"]) >= {"substitutions", "insertions", "deletions"}


def test_places_that_cannot_be_written(found, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ResultError, match="something other than an evaluation"):
        found.save(tmp_path)
    with pytest.raises(ResultError, match="is a file"):
        found.save(tmp_path / "mine.txt")
    with pytest.raises(ResultError, match="cannot be written"):
        found.save(tmp_path / "mine.txt" / "below")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_folders_that_hold_no_evaluation(found, tmp_path):
    with pytest.raises(ResultError, match="holds no evaluation"):
        Evaluation.load(tmp_path)
    place = found.save(tmp_path / "e")
    (place / "cer.parquet").unlink()
    with pytest.raises(ResultError, match="cer"):
        Evaluation.load(place)
    (place / "evaluation.json").write_text('{"format": 99}')
    with pytest.raises(ResultError, match="format"):
        Evaluation.load(place)


def test_table_and_text(found, few):
    table = found.table()
    assert table.height == 3 * (1 + len(few.speakers))
    whole = table.filter(pl.col("speaker").is_null())
    assert whole["value"].to_list() == [found.scores[name].value for name in ("wer", "cer", "ctc-loss")]
    assert (whole["low"] <= whole["value"]).all()
    text = str(found)
    for speaker in few.speakers:
        assert speaker in text
    assert "substitutions" in text
    assert "million parameters" in text


def test_skip_bad_lists_what_is_left_out():
    corpus = speech(transcripts=["a cat", None, "b 2", "it's"])
    with pytest.raises(Exception, match="'0001' has no transcript"):
        evaluate(small_recogniser(), corpus, cost=False)
    found = evaluate(small_recogniser(), corpus, cost=False, skip_bad=True)
    assert [one["id"] for one in found.provenance["left_out"]] == ["0001", "0002"]
    assert found.provenance["utterances"] == 2
    assert "left out: 2, the first 0001" in str(found)


def test_skip_bad_leaves_out_what_shows_only_in_the_samples():
    corpus = speech(transcripts=["a cat", "it's", "a", "cat"])
    corpus[1].source[7] = float("nan")
    with pytest.raises(AudioError, match="NaN") as error:
        evaluate(small_recogniser(), corpus, cost=False)
    assert "--skip-bad" in error.value.cure
    found = evaluate(small_recogniser(), corpus, cost=False, skip_bad=True)
    assert [one["id"] for one in found.provenance["left_out"]] == ["0001"]


def test_an_evaluation_in_the_place_of_another_leaves_none_of_its_metrics(tmp_path):
    for metrics in ("wer,cer", "wer"):
        place = evaluate(small_recogniser(), speech(), metrics, cost=False).save(tmp_path / "e")
    assert sorted(path.name for path in place.iterdir()) == ["evaluation.json", "wer.parquet"]


def test_a_seed_below_zero_is_refused_before_the_work():
    with pytest.raises(EvaluationError, match="seed is -1"):
        evaluate("/no/such/model", "/no/such/speech", seed=-1)


def test_metrics_by_name():
    found = evaluate(small_recogniser(), speech(), "cer, ctc-loss", cost=False)
    assert list(found.scores) == ["cer", "ctc-loss"]
    assert found.cost is None
    for metrics in ("vertigo", ""):
        with pytest.raises(EvaluationError, match="wer, cer, ctc-loss"):
            evaluate(small_recogniser(), speech(), metrics)


def test_one_utterance_has_no_interval_in_json():
    found = evaluate(small_recogniser(), speech((0.7,), ["a"]), "wer", cost=False)
    assert found.to_dict()["metrics"]["wer"]["low"] is None
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.table()["low"].to_list() == [None, None]


class Loudness(Metric):
    """A metric that needs no CTC head."""

    name, unit, higher_is_better = "loudness", "power per sample", True

    def values(self, model, corpus, *, batch_seconds=30.0, progress=None):
        power = [float((u.read() ** 2).sum()) for u in corpus]
        return scores_of(power, [u.n_samples for u in corpus], [u.speaker for u in corpus],
                         ids=[u.id for u in corpus], metric=self.name, unit=self.unit)  # fmt: skip


def test_metrics_of_other_kinds_need_no_head():
    bare = load(CASES[0].build())
    found = evaluate(bare, speech(transcripts=[None] * 4), [Loudness()], cost=False)
    assert found.scores["loudness"].value == pytest.approx(0.01, rel=0.1)
    both = evaluate(small_recogniser(), speech(), [Loudness(), "wer"], cost=False)
    assert list(both.scores) == ["loudness", "wer"]
    with pytest.raises(HeadError):
        evaluate(bare, speech(), vocabulary=VOCABULARY)
    with pytest.raises(VocabularyError):
        evaluate(small_recogniser().model, speech())


def test_the_command(tmp_path, capsys):
    from otoscope.cli import app
    from otoscope.speech import write_corpus

    corpus = read_corpus("embedded")
    shortest = sorted(corpus, key=lambda u: u.n_samples)[:3]
    write_corpus(corpus.subset([u.id for u in shortest]), tmp_path / "speech")
    command = ["evaluate", "embedded", str(tmp_path / "speech")]
    app([*command, "--metrics", "wer,cer", "--check-batches", "--json", "-o", str(tmp_path / "e")])
    told = json.loads(capsys.readouterr().out)
    assert set(told["metrics"]) == {"wer", "cer"}
    assert [check["path"] for check in told["batches"]] == ["otoscope", "transformers"]
    assert told["batches"][0]["holds"]
    assert Evaluation.load(tmp_path / "e").scores["wer"].value == told["metrics"]["wer"]["value"]
    app([*command, "--metrics", "wer", "-o", str(tmp_path / "e2")])
    out = capsys.readouterr().out
    assert "errors per word" in out
    assert "Saved in" in out
    with pytest.raises(ResultError, match="something other"):
        app([*command, "-o", str(tmp_path / "speech")])
