"""Runs through the Trainer: an interrupted one ends as the unbroken one, bit for bit, and nothing is half-written."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2ForPreTraining, WavLMModel

from otoscope.errors import TrainingError
from otoscope.evaluation.clusters import fit_clusters, mfcc_features
from otoscope.models.loading import load
from otoscope.training import loop, watch
from otoscope.training.architectures import make_config, seeded
from otoscope.training.augmentation import Augmentation
from otoscope.training.batches import BatchPlan
from otoscope.training.contrastive import Contrastive
from otoscope.training.loop import train
from otoscope.training.prediction import MaskedPrediction
from tests.diagnosis.small_speech import small_speech
from tests.training.small_training import TINY, same, settings, stopping_at, tree, weights

CORPUS = small_speech()
TRAIN, HELD = CORPUS.utterances[:9], CORPUS.utterances[9:]
NOISY = Augmentation(noise=0.5, telephone=0.3)


def _contrastive(seed=0, **other):
    model = seeded(seed, lambda: Wav2Vec2ForPreTraining(make_config("wav2vec2", TINY)))
    return Contrastive(model, load(model).frontend, 0.5, 4, NOISY, **other)


def _clusters(seed=0, dropout=TINY.dropout):
    model = seeded(seed, lambda: WavLMModel(make_config("wavlm", replace(TINY, dropout=dropout))))
    ready = load(model)
    features = mfcc_features(CORPUS.utterances, ready)
    fitted = fit_clusters(features.items(), 6, seed, "mfcc")
    labels = {name: fitted.assign(values) for name, values in features.items()}
    head = seeded(seed + 1, lambda: torch.nn.Linear(TINY.width, 6))
    return MaskedPrediction(model, head, ready.frontend, fitted, labels, 0.5, 4, NOISY)


def _run(made, folder, given=None, **other):
    given = given or settings()
    return train(made, TRAIN, HELD, given, folder, **other)


def _lines(folder):
    return [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]


def _without_times(rows):
    return [{name: value for name, value in row.items() if not name.startswith("minutes")} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An unbroken run of each objective: its folder and its figures."""
    made = {}
    for make in (_contrastive, _clusters):
        folder = tmp_path_factory.mktemp("whole") / make.__name__
        made[make] = folder, _run(make(), folder)
    return made


@pytest.mark.parametrize(
    ("make", "step"), [(_contrastive, 1), (_contrastive, 4), (_contrastive, 6), (_clusters, 3)],
    ids=["contrastive, before a state", "contrastive, at one", "contrastive, at the end", "clusters, between two"],
)  # fmt: skip
def test_an_interrupted_run_ends_as_the_unbroken_one(make, step, whole, tmp_path):
    error = KeyboardInterrupt if step % 2 else RuntimeError
    with pytest.raises(error):
        _run(make(), tmp_path, report=stopping_at(step, error))
    assert not (tmp_path / "config.json").exists()
    unbroken, figures = whole[make]
    assert _run(make(), tmp_path, resume=True) == figures
    assert same(unbroken, tmp_path)
    assert _without_times(_lines(unbroken)) == _without_times(_lines(tmp_path))


def test_a_run_that_was_stopped_after_its_last_step_is_only_stored(whole, tmp_path, monkeypatch):
    put = loop.put_model

    def stopped(write, folder):
        if folder == tmp_path / "broken":
            raise KeyboardInterrupt
        put(write, folder)

    monkeypatch.setattr(loop, "put_model", stopped)
    with pytest.raises(KeyboardInterrupt):
        _run(_contrastive(), tmp_path / "broken")
    monkeypatch.setattr(loop, "put_model", put)
    unbroken, figures = whole[_contrastive]
    assert _run(_contrastive(), tmp_path / "broken", resume=True) == figures
    assert same(unbroken, tmp_path / "broken")


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_half_written_state_is_passed_over(damage, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _run(_contrastive(), tmp_path, report=stopping_at(5))
    state = tmp_path / "run" / "checkpoint-4" / "trainer_state.json"
    if damage == "gone":
        state.unlink()
    else:
        state.write_text(state.read_text()[:40])
    _run(_contrastive(), tmp_path, resume=True)
    assert same(whole[_contrastive][0], tmp_path)


def test_what_lies_in_the_folder_at_the_end(tmp_path):
    made = _contrastive()
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    _run(made, tmp_path, settings(keep=(2, 5)))
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"initial", "step-2", "step-5", "run"}
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    for name, value in weights(tmp_path / "initial").items():
        assert torch.equal(value, before[name])
        assert torch.equal(value, value.half().float())
    stages = [tmp_path / "initial", tmp_path / "step-2", tmp_path / "step-5", tmp_path]
    assert len({load(stage).fingerprint() for stage in stages}) == 4
    assert all(torch.equal(value, made.model.state_dict()[name]) for name, value in weights(tmp_path).items())
    rows = _lines(tmp_path)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "held_out" in row] == [4, 6]
    assert rows[0].keys() >= {"loss", "contrastive", "accuracy", "learning_rate", "minutes", "minutes_left"}
    left = [row["minutes_left"] for row in rows if "loss" in row]
    assert left[-1] == 0
    assert all(one > 0 for one in left[:-1])


def test_weights_are_the_same_however_often_held_out_speech_is_looked_at_and_states_are_kept(whole, tmp_path):
    _run(_contrastive(), tmp_path, settings(evaluate_every=1, keep=(3,), save_every=6, log_every=5))
    assert same(whole[_contrastive][0], tmp_path)


def test_the_seed_decides(whole, tmp_path):
    torch.manual_seed(17)  # what was drawn before does not count
    _run(_contrastive(), tmp_path / "again")
    assert same(whole[_contrastive][0], tmp_path / "again")
    _run(_contrastive(), tmp_path / "other", settings(seed=1))
    assert not same(whole[_contrastive][0], tmp_path / "other")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"given": settings(learning_rate=2e-3)}, "learning_rate"),
        ({"given": settings(seed=4)}, "seed"),
        ({"speech": TRAIN[:8]}, "speech"),
        ({"held_out": HELD[:2]}, "held_out"),
        ({"made": "clusters"}, "clusters"),
    ],
    ids=["rate", "seed", "speech", "held-out speech", "objective"],
)
def test_a_run_is_taken_up_only_as_it_was_begun(other, named, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _run(_contrastive(), tmp_path, report=stopping_at(3))
    before = tree(tmp_path)
    made = _clusters() if "made" in other else _contrastive()
    given, speech, held = other.get("given", settings()), other.get("speech", TRAIN), other.get("held_out", HELD)
    with pytest.raises(TrainingError, match=f"was begun with {named}"):
        train(made, speech, held, given, tmp_path, resume=True)
    assert tree(tmp_path) == before


def test_a_model_of_another_shape_is_refused_by_what_differs(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _run(_contrastive(), tmp_path, report=stopping_at(3))
    config = make_config("wav2vec2", replace(TINY, heads=4))
    model = seeded(0, lambda: Wav2Vec2ForPreTraining(config))
    with pytest.raises(TrainingError, match="model.num_attention_heads = 2, not 4"):
        _run(Contrastive(model, load(model).frontend, 0.5, 4, NOISY), tmp_path, resume=True)


def test_a_run_that_began_with_other_weights_is_not_gone_on_with(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _run(_contrastive(), tmp_path, report=stopping_at(3))
    before = tree(tmp_path)
    made = _contrastive()
    with torch.no_grad():
        next(made.parameters()).flatten()[0] += 1
    with pytest.raises(TrainingError, match="was begun with starting_weights = '[0-9a-f]{64}', not '"):
        _run(made, tmp_path, resume=True)
    assert tree(tmp_path) == before


def test_the_first_of_several_processes_takes_figures_for_all(monkeypatch):
    sent = []

    def broadcast(found):
        sent.append(found[0]) if found[0] is not None else found.__setitem__(0, sent[-1])

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    for chief in (True, False):
        found = watch.from_first(lambda: {"wer": 0.5} if chief else pytest.fail("taken again"), chief)  # noqa: B023
        assert found == {"wer": 0.5}

    def failing():
        raise TrainingError("no", "yes")

    for chief in (True, False):
        with pytest.raises(TrainingError, match="no"):
            watch.from_first(failing, chief)


def test_an_initial_model_that_is_gone_is_missed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _run(_contrastive(), tmp_path, report=stopping_at(3))
    (tmp_path / "initial" / "config.json").unlink()
    with pytest.raises(TrainingError, match="initial is gone"):
        _run(_contrastive(), tmp_path, resume=True)


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_run_that_diverges_is_stopped_and_leaves_no_model(log_every, tmp_path):
    given = settings(learning_rate=1e30, clip=1e30, warmup=0.0, steps=4, log_every=log_every, evaluate_every=100)
    with pytest.raises(TrainingError, match="no longer finite") as error:
        _run(_contrastive(), tmp_path, given)
    assert "lower learning rate" in error.value.cure
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("sets", [((), HELD), (TRAIN, ())])
def test_no_speech_is_refused_before_anything_is_written(sets, tmp_path):
    with pytest.raises(TrainingError, match="No utterance is left"):
        train(_contrastive(), *sets, settings(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_two_batches_an_update_have_the_mean_of_their_losses(tmp_path):
    made = _clusters(dropout=0.0)
    given = settings(steps=1, accumulate=2)
    plan = BatchPlan(TRAIN, given.batch_seconds, 2, given.seed, made.assemble)
    with torch.no_grad(), pytest.warns(UserWarning, match="mismatched"):
        losses = [float(made.eval()(**plan[k])["loss"]) for k in range(2)]
    _run(made.train(), tmp_path, given)
    row = next(row for row in _lines(tmp_path) if "loss" in row)
    assert row["loss"] == pytest.approx(np.mean(losses), abs=1e-3)


def test_mixed_precision_runs_and_keeps_weights_in_float32(tmp_path):
    _run(_contrastive(), tmp_path / "bf16", settings(precision="bfloat16", steps=2))
    _run(_contrastive(), tmp_path / "fp32", settings(steps=2))
    assert not same(tmp_path / "bf16", tmp_path / "fp32")
    a, b = weights(tmp_path / "bf16"), weights(tmp_path / "fp32")
    assert all(value.dtype == torch.float32 for value in a.values())
    assert all(torch.allclose(a[name], b[name], atol=5e-3) for name in a)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes float16")
def test_float16_without_a_gpu_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TrainingError, match="needs a GPU"):
        _run(_contrastive(), tmp_path / "new", settings(precision="float16"))
    assert not (tmp_path / "new").exists()


def test_tensorboard_gets_the_log(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _run(_contrastive(), tmp_path, settings(tensorboard=True, steps=2))
    place = next((tmp_path / "run").rglob("events.out.tfevents.*")).parent
    events = EventAccumulator(str(place)).Reload()
    assert {"train/loss", "train/accuracy", "train/learning_rate"} <= set(events.Tags()["scalars"])
    assert [one.step for one in events.Scalars("train/loss")] == [1, 2]
