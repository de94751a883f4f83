"""`pretrain`: from speech to a model on disk, and everything that must stop it."""

import json

import numpy as np
import pytest

from otoscope.embedded import SPEECH
from otoscope.errors import (
    AudioError,
    CaptureError,
    CheckpointError,
    HeadError,
    MeasureError,
    OtoscopeError,
    PlanError,
    TrainingError,
)
from otoscope.evaluation.masked_prediction import read_prediction_head
from otoscope.evaluation.self_supervised import ContrastiveAccuracy, MaskedPredictionAccuracy
from otoscope.models.loading import load
from otoscope.plans.plan import Line, Plan
from otoscope.speech import write_corpus
from otoscope.speech.corpus import Corpus
from otoscope.training.architectures import Size
from otoscope.training.augmentation import Augmentation
from otoscope.training.settings import TrainingSettings
from otoscope.treatments import LimitSpan, RemoveBlocks, record_of
from otoscope.workflow import finetune, pretrain, pretraining, read_corpus
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES
from tests.training.small_training import TINY, same, settings, spelt_speech, stopping_at, tree, weights

SPEECH_HERE = small_speech()
SHORT = settings(steps=2, save_every=2)
QUICK = {"size": TINY, "settings": SHORT, "mask": 0.5, "mask_span": 4, "hold_out": 0.25}


@pytest.fixture(scope="module")
def hubert(tmp_path_factory):
    """A small model that predicts six clusters."""
    folder = tmp_path_factory.mktemp("hubert") / "first"
    return folder, pretrain("hubert", SPEECH_HERE, folder, clusters=6, **QUICK)


def test_a_contrastive_model_is_what_its_figures_say(tmp_path):
    outcome = pretrain("wav2vec2", SPEECH_HERE, tmp_path / "m", **QUICK)
    assert outcome.objective == "contrastive"
    assert (outcome.trained_on, outcome.watched) == (9, 3)
    assert outcome.folder == tmp_path / "m"
    assert str(tmp_path / "m") in str(outcome)
    assert json.loads(json.dumps(outcome.to_dict()))["held_out"] == outcome.held_out
    model = load(tmp_path / "m")
    rows = [json.loads(line) for line in (tmp_path / "m" / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["held_out"] for row in rows if "held_out" in row] == [outcome.held_out]
    everyone = {u.speaker for u in SPEECH_HERE}
    found = [
        ContrastiveAccuracy(0.5, 4).values(model, SPEECH_HERE.subset(lambda u, s=s: u.speaker == s)).value
        for s in sorted(everyone)
    ]
    assert any(value == pytest.approx(outcome.held_out["accuracy"], abs=1e-6) for value in found)


def test_clusters_are_stored_with_the_model(hubert):
    folder, outcome = hubert
    head, clusters = read_prediction_head(folder)
    assert head.weight.shape == (6, TINY.width)
    assert (clusters.source, clusters.centres.shape) == ("mfcc", (6, 39))
    assert outcome.held_out.keys() == {"loss", "accuracy", "commonest"}
    assert 1 / 6 <= outcome.held_out["commonest"] < 1
    assert read_prediction_head(folder / "initial")[1].source == "mfcc"
    assert 0 <= MaskedPredictionAccuracy(share=0.5, span=4).values(load(folder), SPEECH_HERE).value <= 1


def test_a_stream_of_an_earlier_model_is_clustered(hubert, tmp_path):
    teacher = f"{hubert[0]}:layer.1"
    pretrain("wav2vec2", SPEECH_HERE, tmp_path / "m", objective="clusters", targets=teacher, clusters=5, **QUICK)
    assert type(load(tmp_path / "m").source).__name__ == "Wav2Vec2Model"
    _, clusters = read_prediction_head(tmp_path / "m")
    assert (clusters.source, clusters.centres.shape) == (teacher, (5, TINY.width))


def test_training_goes_on_from_a_folder(hubert, tmp_path):
    other = {**QUICK, "size": None}
    outcome = pretrain(hubert[0], SPEECH_HERE, tmp_path / "m", clusters=6, **other)
    assert outcome.objective == "clusters"
    assert same(tmp_path / "m" / "initial", hubert[0])
    assert not same(tmp_path / "m", hubert[0])


@pytest.mark.parametrize("name", ["conformer-relative", "conformer-rotary-ctc", "bert-relative-key", "data2vec-audio"])
def test_other_families_go_on_from_a_folder_with_looks_between(name, tmp_path):
    next(case for case in CASES if case.name == name).write(tmp_path / "before")
    given = settings(steps=3, evaluate_every=1, save_every=3)
    pretrain(tmp_path / "before", SPEECH_HERE, tmp_path / "m", **{**QUICK, "size": None, "settings": given}, clusters=4)
    before, after = load(tmp_path / "before"), load(tmp_path / "m")
    assert before.fingerprint() != after.fingerprint()


def test_initial_weights_are_the_seed_rounded_to_float16(hubert, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        pretrain("hubert", SPEECH_HERE, tmp_path, clusters=6, report=stopping_at(1), **QUICK)
    assert same(tmp_path / "initial", hubert[0] / "initial")
    for value in weights(tmp_path / "initial").values():
        assert (value == value.half().float()).all()


def test_speech_that_is_trained_on_is_not_held_out_too(tmp_path):
    with pytest.raises(TrainingError, match="'u00' is both to be trained on and held out"):
        pretrain("hubert", SPEECH_HERE, tmp_path / "m", dev=small_speech(1), **QUICK)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("changed", "error", "told"),
    [
        (
            {"model": "conformer", "size": None},
            TrainingError,
            "no new model of family 'conformer'.*wav2vec2, hubert, wavlm",
        ),
        ({"model": "mine/conformer", "size": None}, CheckpointError, "mine/conformer"),
        ({"model": "hubert", "objective": "contrastive"}, TrainingError, "no quantiser"),
        ({"objective": "autoencoding"}, TrainingError, "no objective 'autoencoding'"),
        ({"mask": 1.5}, OtoscopeError, "cannot be drawn"),
        ({"mask_span": 1}, OtoscopeError, "cannot be drawn"),
        ({"hold_out": 0.0}, TrainingError, "cannot be held out"),
        ({"objective": "clusters", "clusters": 1}, MeasureError, "part nothing"),
        ({"objective": "clusters", "clusters": 10**6}, MeasureError, "1000000 clusters"),
        ({"objective": "clusters", "targets": "mel"}, TrainingError, "names no targets"),
        ({"objective": "clusters", "targets": "/no/such:layer.1"}, CheckpointError, "/no/such"),
        ({"objective": "clusters", "augmentation": Augmentation(speed=(0.9, 1.1))}, TrainingError, "speed"),
        ({"corpus": Corpus.from_arrays([np.zeros(16000)])}, TrainingError, "has one utterance"),
        ({"settings": TrainingSettings(precision="float16")}, TrainingError, "GPU"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(changed, error, told, tmp_path):
    given = {"model": "wav2vec2", "corpus": SPEECH_HERE, **QUICK, **changed}
    with pytest.raises(error, match=told) as raised:
        pretrain(output=tmp_path / "m", **given)
    assert raised.value.cure
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("stream", ["conv.2", "layer.9"])
def test_streams_that_give_no_targets_are_refused(stream, hubert, tmp_path):
    with pytest.raises(CaptureError, match=stream):
        pretrain("hubert", SPEECH_HERE, tmp_path / "m", targets=f"{hubert[0]}:{stream}", **QUICK)
    assert not (tmp_path / "m").exists()


def test_sizes_are_for_new_models(hubert, tmp_path):
    with pytest.raises(TrainingError, match="has its size already"):
        pretrain(hubert[0], SPEECH_HERE, tmp_path / "m", **QUICK)


@pytest.mark.parametrize("name", ["parakeet", "whisper"])
def test_families_that_mask_nothing_are_refused(name, tmp_path):
    next(case for case in CASES if case.name == name).write(tmp_path / "before")
    with pytest.raises(HeadError, match="masked frames"):
        pretrain(tmp_path / "before", SPEECH_HERE, tmp_path / "m", **{**QUICK, "size": None}, clusters=4)
    assert not (tmp_path / "m").exists()


def test_a_synthesised_corpus_is_trained_on_by_its_split(tmp_path):
    for split in ("train", "exam"):
        write_corpus(SPEECH_HERE, tmp_path / "speech" / split)
    (tmp_path / "speech" / "corpus.json").write_text("{}")
    with pytest.raises(TrainingError, match="holds an examination beside its training speech") as error:
        pretrain("wav2vec2", tmp_path / "speech", tmp_path / "m", **QUICK)
    assert str(tmp_path / "speech" / "train") in error.value.cure
    with pytest.raises(TrainingError, match="is the examination of a synthesised corpus"):
        pretrain("wav2vec2", tmp_path / "speech" / "exam", tmp_path / "m", **QUICK)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "place", ["embedded", SPEECH["embedded"], next(p for p in SPEECH["embedded"].iterdir() if p.is_dir())]
)
@pytest.mark.parametrize("part", ["corpus", "dev"])
def test_nothing_is_trained_or_tuned_on_the_examination(place, part, tmp_path):
    given = {"corpus": SPEECH_HERE, **QUICK, part: place}
    with pytest.raises(TrainingError, match="examination"):
        pretrain("wav2vec2", output=tmp_path / "m", **given)
    if part == "corpus":
        read = read_corpus(place)
        with pytest.raises(TrainingError, match="examination"):
            pretrain("wav2vec2", output=tmp_path / "m", **{**given, "corpus": read.subset(lambda u: True, "mine")})
    assert not (tmp_path / "m").exists()


def test_short_utterances_stop_the_run_or_are_listed(tmp_path):
    arrays = [u.read() for u in SPEECH_HERE] + [np.zeros(900, np.float32)]
    corpus = Corpus.from_arrays(arrays, ids=[*(u.id for u in SPEECH_HERE), "short"])
    with pytest.raises(AudioError, match="'short'"):
        pretrain("wav2vec2", corpus, tmp_path / "m", **QUICK)
    assert not (tmp_path / "m").exists()
    outcome = pretrain("wav2vec2", corpus, tmp_path / "m", skip_bad=True, **QUICK)
    assert [one.id for one in outcome.left_out] == ["short"]
    assert outcome.trained_on + outcome.watched == 12
    assert "1 left out" in str(outcome)


def test_a_folder_that_is_not_empty_is_left_alone(hubert, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for place, told in ((tmp_path, "not empty"), (hubert[0], "holds a model already")):
        before = tree(place)
        for resume in (False, True):
            with pytest.raises(TrainingError, match=told):
                pretrain("hubert", SPEECH_HERE, place, clusters=6, resume=resume, **QUICK)
        assert tree(place) == before


def test_the_folder_is_looked_at_before_anything_is_computed(hubert, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(pretraining, "load", lambda *args, **other: pytest.fail("too late"))
    for place, told in ((tmp_path, "not empty"), (hubert[0], "holds a model already")):
        with pytest.raises(TrainingError, match=told):
            pretrain("hubert", "/no/such/speech", place, clusters=6, **QUICK)


def test_the_librarys_bars_are_not_shown(tmp_path, capfd, monkeypatch):
    from transformers.utils import logging

    monkeypatch.setattr(logging, "_tqdm_active", True)
    pretrain("wav2vec2", SPEECH_HERE, tmp_path / "m", **QUICK)
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"mask": 0.6}, "mask"), ({"hold_out": 0.5}, "held_out"), ({"corpus": small_speech(11)}, ""),
     ({"augmentation": Augmentation(noise=0.1)}, "augmentation"), ({"objective": "clusters", "clusters": 4}, "")],
)  # fmt: skip
def test_a_run_is_taken_up_only_as_it_was_begun(changed, named, tmp_path):
    given = {"model": "wav2vec2", "corpus": SPEECH_HERE, "output": tmp_path, **QUICK}
    with pytest.raises(KeyboardInterrupt):
        pretrain(report=stopping_at(1), **given)
    with pytest.raises(TrainingError, match=f"was begun with {named}"):
        pretrain(resume=True, **{**given, **changed})


@pytest.mark.slow
def test_minutes_of_training_learn_what_lies_under_a_mask(tmp_path):
    size = Size(3, 4, 96, 256, (32, 32, 48, 48, 64, 64, 64), position_kernel=16, dropout=0.0)
    given = TrainingSettings(
        steps=400, batch_seconds=20, learning_rate=2e-3, log_every=25, evaluate_every=100, save_every=400
    )
    rows = []
    outcome = pretrain(
        "wav2vec2", "embedded:train", tmp_path, size=size, settings=given, mask=0.4, mask_span=4, report=rows.append
    )
    told = [row["contrastive"] for row in rows if "contrastive" in row]
    assert told[-1] < told[0] - 0.4
    assert outcome.held_out["accuracy"] > 5 / 101


PLAN = [RemoveBlocks("layer.1"), LimitSpan("layer.2", 6)]


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm"])
def test_a_new_model_is_treated_and_then_trained_from_nothing(family, tmp_path):
    """A plan that was made for other weights of these sizes: none of a new model are anybody's."""
    sizes = {"family": family, "layers": 2, "heads": [2, 2], "width": 32, "fingerprint": "0" * 64}
    Plan(tuple(map(Line, PLAN)), model=sizes).save(tmp_path / "plan.toml")
    given = {**QUICK, "plan": tmp_path / "plan.toml"}
    pretrain(family, SPEECH_HERE, tmp_path / "m", **given)
    for place in (tmp_path / "m" / "initial", tmp_path / "m"):
        found = load(place)
        assert record_of(found.source).treatments == tuple(PLAN)
        assert found.anatomy.head_names == ((), (0, 1))
    assert load(tmp_path / "m" / "initial").fingerprint() != load(tmp_path / "m").fingerprint()
    with pytest.raises(KeyboardInterrupt):
        pretrain(family, SPEECH_HERE, tmp_path / "n", **given, report=stopping_at(2))
    pretrain(family, SPEECH_HERE, tmp_path / "n", **given, resume=True)
    assert load(tmp_path / "n").fingerprint() == load(tmp_path / "m").fingerprint()


def test_a_treated_model_is_gone_on_with_and_fine_tuned(tmp_path):
    pretrain("wav2vec2", SPEECH_HERE, tmp_path / "a", plan=PLAN[:1], **QUICK)
    go_on = {name: value for name, value in QUICK.items() if name != "size"}
    outcome = pretrain(tmp_path / "a", SPEECH_HERE, tmp_path / "b", plan=PLAN[1:], **go_on)
    assert outcome.objective == "contrastive"
    assert record_of(load(tmp_path / "b").source).treatments == tuple(PLAN)
    spelt = finetune(tmp_path / "b", spelt_speech(), tmp_path / "c", settings=SHORT, hold_out=0.25)
    assert record_of(load(spelt.folder).source).treatments == tuple(PLAN)


def test_a_plan_for_other_sizes_and_patience_are_refused(tmp_path):
    plan = Plan((Line(PLAN[0]),), model={"family": "wav2vec2", "layers": 12})
    with pytest.raises(PlanError, match="another architecture"):
        pretrain("wav2vec2", SPEECH_HERE, tmp_path / "m", plan=plan, **QUICK)
    patient = {**QUICK, "settings": settings(steps=2, patience=1)}
    with pytest.raises(TrainingError, match="objective contrastive has no figure"):
        pretrain("wav2vec2", SPEECH_HERE, tmp_path / "m", **patient)
    assert not (tmp_path / "m").exists()


def test_a_subset_stands_in_the_settings(tmp_path):
    outcome = pretrain("wav2vec2", SPEECH_HERE, tmp_path, subset="3s", **QUICK)
    told = json.loads((tmp_path / "run" / "settings.json").read_text())["subset"]
    assert told["asked_seconds"] == 3.0
    assert told["utterances"] == outcome.trained_on < 9
