"""Masked reconstruction: which frames are hidden, by what, what the loss counts, and runs that are taken up."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope.cli import app
from otoscope.errors import AudioError, EvaluationError, HeadError, TrainingError
from otoscope.evaluation.catalogue import metric_by_name
from otoscope.evaluation.reconstruction import Reconstruction
from otoscope.models.loading import load
from otoscope.models.mockingjay.modelling import stack_frames
from otoscope.speech import write_corpus
from otoscope.speech.corpus import Corpus
from otoscope.surgery import CutHeads, Gate, apply
from otoscope.training.architectures import make_config, seeded
from otoscope.training.augmentation import Augmentation
from otoscope.training.loop import train
from otoscope.training.reconstruction import MaskedReconstruction, filled, run_mask
from otoscope.workflow import evaluate, pretrain
from tests.diagnosis.small_speech import small_speech
from tests.models.small import _MOCKINGJAY, CASES, mockingjay
from tests.training.small_training import TINY, same, settings, stopping_at, weights

SPEECH = small_speech()
TRAIN, HELD = SPEECH.utterances[:9], SPEECH.utterances[9:]


def _new(seed=0):
    return seeded(seed, lambda: mockingjay.MockingjayForPreTraining(make_config("mockingjay", TINY)))


def _objective(seed=0, **other):
    model = _new(seed)
    return MaskedReconstruction(model, load(model).frontend, **other)


def _batch(made, seed=0, utterances=TRAIN):
    return made.assemble(utterances, [u.read() for u in utterances], np.random.default_rng(seed))


@given(st.integers(2, 200), st.floats(0.01, 1), st.integers(1, 12), st.integers(0, 2**31))
def test_frames_are_hidden_in_runs(frames, share, run, seed):
    mask = run_mask(frames, share, run, np.random.default_rng(seed))
    assert mask.shape == (frames,)
    padded = np.diff(np.concatenate([[0], mask.astype(int), [0]]))
    lengths = np.flatnonzero(padded == -1) - np.flatnonzero(padded == 1)
    assert lengths.min() >= min(run, max(1, frames // 2))
    assert mask.sum() <= max(1, share * frames / run + 1) * run


@pytest.mark.parametrize("run", [1, 3, 6, 9])
def test_the_share_is_that_of_frames_that_would_be_hidden_without_overlap(run):
    draw = np.random.default_rng(0)
    found = np.mean([run_mask(300, 0.15, run, draw).mean() for _ in range(400)])
    assert found == pytest.approx(1 - (1 - 0.15 / run) ** run, abs=0.006)


@pytest.mark.parametrize("run", [3, 9])
def test_every_place_is_hidden_alike_but_for_the_borders(run):
    draw = np.random.default_rng(1)
    rates = np.mean([run_mask(60, 0.15, run, draw) for _ in range(6000)], 0)[run:-run]
    assert rates.std() < 0.01


def _kinds(count=2500):
    draw = np.random.default_rng(2)
    features = torch.arange(1.0, 41.0)[:, None].repeat(1, 3)
    found = []
    for _ in range(count):
        mask = run_mask(40, 0.15, 4, draw)
        out = filled(features, mask, "mixed", draw)
        assert torch.equal(out[~mask], features[~mask])
        hidden = out[mask]
        if torch.equal(hidden, features[mask]):
            found.append("same")
        elif not hidden.any():
            found.append("zero")
        else:
            found.append("other")
            inside = np.flatnonzero(mask[1:] & mask[:-1])
            assert (out[inside + 1] - out[inside] == 1).all()  # runs come from elsewhere as runs
    return {kind: found.count(kind) / count for kind in ("zero", "other", "same")}


def test_mixed_filling_is_eighty_ten_ten():
    assert _kinds() == pytest.approx({"zero": 0.8, "other": 0.1, "same": 0.1}, abs=0.025)


def test_zero_filling_always_is_zeros_and_leaves_its_input():
    features = torch.ones(20, 2)
    mask = np.arange(20) < 5
    for seed in range(30):
        out = filled(features, mask, "zero", np.random.default_rng(seed))
        assert out[:5].abs().max() == 0
        assert (out[5:] == 1).all()
    assert (features == 1).all()


def test_a_batch_holds_the_true_features_under_the_mask():
    made = _objective(filling="zero")
    batch = _batch(made)
    clean = made.frontend.inputs([u.read() for u in TRAIN])
    labels = stack_frames(clean["input_features"], 3)
    assert torch.equal(batch["labels"], labels)
    where = batch["mask_time_indices"]
    shown = stack_frames(batch["input_features"], 3)
    assert where.shape == shown.shape[:2]
    assert where.any(1).all()
    assert shown[where].abs().max() == 0
    assert torch.equal(shown[~where], labels[~where])
    for k, u in enumerate(TRAIN):
        assert not where[k, made.frontend.frames(u.n_samples) :].any()
    assert labels[where].abs().mean() > 0.5


def test_noise_is_heard_and_not_reconstructed():
    made = _objective(augmentation=Augmentation(noise=1.0))
    batch = _batch(made)
    clean = stack_frames(made.frontend.inputs([u.read() for u in TRAIN])["input_features"], 3)
    assert torch.equal(batch["labels"], clean)
    shown, where = stack_frames(batch["input_features"], 3), batch["mask_time_indices"]
    assert (shown - clean)[~where].abs().mean() > 0.1


def test_the_loss_is_the_mean_absolute_difference_over_hidden_frames():
    made = _objective().eval()
    batch = _batch(made)
    with torch.no_grad():
        loss = made(torch.tensor(0.0), **batch)["loss"]
        out = made.model(batch["input_features"], attention_mask=batch["attention_mask"]).reconstruction
    where = batch["mask_time_indices"]
    assert float(loss) == pytest.approx(float((out[where] - batch["labels"][where]).abs().mean()), rel=1e-5)


def test_figures_on_held_out_speech_by_hand():
    made = _objective(seed=3, run=2)
    model = made.model.train()
    found = made.held_out(HELD)
    assert model.training
    assert found == made.held_out(HELD)
    model.eval()
    totals = np.zeros(2)
    for u in HELD:
        features = made.frontend.inputs([u.read()])["input_features"]
        labels = stack_frames(features, 3)
        with torch.no_grad():
            out = model(features).reconstruction
        totals += float((out - labels).abs().mean(-1).sum()), labels.shape[1]
    assert found["reconstruction"] == pytest.approx(totals[0] / totals[1], rel=1e-5)
    assert 0.3 < found["loss"] < 2


def test_the_metric_is_that_figure_by_utterance_whatever_the_batches():
    made = _objective(seed=3)
    ready = load(made.model)
    corpus = Corpus("held", HELD)
    one, other = (Reconstruction().values(ready, corpus, batch_seconds=s) for s in (1, 60))
    assert np.allclose(one.numerator, other.numerator, rtol=1e-5)
    assert one.value == pytest.approx(made.held_out(HELD)["reconstruction"], rel=1e-5)
    assert one.denominator.tolist() == [made.frontend.frames(u.n_samples) for u in HELD]
    assert type(metric_by_name("reconstruction")) is Reconstruction


def test_the_metric_sees_edits_and_progress():
    ready = load(next(case for case in CASES if case.name == "mockingjay-pretraining").build())
    corpus, seen = Corpus("held", HELD), []
    values = [
        Reconstruction().values(one, corpus, progress=lambda *at: seen.append(at)).value
        for one in (ready, apply(ready, [Gate("layer.*")]), apply(ready, [CutHeads("layer.*")]))
    ]
    assert abs(values[0] - values[1]) > 1e-4
    assert values[1] == pytest.approx(values[2], rel=1e-6)
    assert seen[-1][0] == pytest.approx(seen[-1][1])


def _other_spectrum():
    config = mockingjay.MockingjayConfig(**_MOCKINGJAY, output_size=201)
    return load(mockingjay.MockingjayForPreTraining(config))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: load(CASES[0].build()), "Wav2Vec2Model has no head that reconstructs"),
        (lambda: load(_new().mockingjay), "MockingjayModel has no head"),
        (_other_spectrum, "gives 201 numbers a frame, and the encoder hears 160"),
    ],
)
def test_models_that_do_not_reconstruct_their_input_are_refused(make, told):
    model = make()
    with pytest.raises(HeadError, match=told) as raised:
        Reconstruction().values(model, SPEECH)
    assert raised.value.cure
    with pytest.raises(HeadError, match=told):
        MaskedReconstruction(model.source, model.frontend)


def test_a_corpus_that_is_empty_or_too_short_is_refused():
    ready = load(_new())
    with pytest.raises(EvaluationError, match="holds no utterance"):
        Reconstruction().values(ready, Corpus("none", ()))
    with pytest.raises(AudioError, match="fewer than two frames"):
        Reconstruction().values(ready, Corpus.from_arrays([np.zeros(500, np.float32)]))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"share": 0.0}, "share of 0.0"),
        ({"share": 1.5}, "share of 1.5"),
        ({"run": 0}, "runs of 0 frames"),
        ({"filling": "noise"}, "filled by 'noise'"),
        ({"augmentation": Augmentation(speed=(0.9, 1.1))}, "at its own speed"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, told):
    with pytest.raises(TrainingError, match=told) as raised:
        _objective(**given)
    assert raised.value.cure


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An unbroken run: its folder and its figures."""
    folder = tmp_path_factory.mktemp("whole") / "m"
    return folder, train(_objective(), TRAIN, HELD, settings(), folder)


@pytest.mark.parametrize("step", [1, 4])
def test_an_interrupted_run_ends_as_the_unbroken_one(step, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(_objective(), TRAIN, HELD, settings(), tmp_path, report=stopping_at(step))
    with pytest.raises(TrainingError, match="mask_run = 3, not 6"):
        train(_objective(run=6), TRAIN, HELD, settings(), tmp_path, resume=True)
    unbroken, figures = whole
    assert train(_objective(), TRAIN, HELD, settings(), tmp_path, resume=True) == figures
    assert same(unbroken, tmp_path)


QUICK = {"size": TINY, "settings": settings(steps=2, save_every=2), "hold_out": 0.25}


def test_pretrain_makes_a_model_that_is_gone_on_with(tmp_path):
    outcome = pretrain("mockingjay", SPEECH, tmp_path / "m", mask_run=2, filling="zero", **QUICK)
    assert outcome.objective == "reconstruction"
    assert outcome.held_out.keys() == {"loss", "reconstruction"}
    ready = load(tmp_path / "m")
    assert type(ready.source).__name__ == "MockingjayForPreTraining"
    assert (ready.anatomy.n_layers, ready.anatomy.heads) == (2, (2, 2))
    kept = json.loads((tmp_path / "m" / "run" / "settings.json").read_text())
    assert (kept["mask"], kept["mask_run"], kept["filling"]) == (0.15, 2, "zero")
    assert (tmp_path / "m" / "preprocessor_config.json").exists()
    for value in weights(tmp_path / "m" / "initial").values():
        assert (value == value.half().float()).all()
    again = pretrain(tmp_path / "m", SPEECH, tmp_path / "on", **{**QUICK, "size": None})
    assert again.objective == "reconstruction"
    assert same(tmp_path / "on" / "initial", tmp_path / "m")
    assert not same(tmp_path / "on", tmp_path / "m")


@pytest.mark.parametrize(
    ("model", "given", "told"),
    [
        ("mockingjay", {"mask_span": 4}, "reconstruction has no mask_span.*mask_run and filling"),
        ("wav2vec2", {"mask_run": 4}, "contrastive has no mask_run.*mask_span"),
        ("hubert", {"filling": "zero"}, "clusters has no filling"),
        ("mockingjay", {"objective": "clusters"}, "mockingjay is not trained by the objective clusters"),
        ("hubert", {"objective": "reconstruction"}, "hubert is not trained by the objective reconstruction"),
        ("mockingjay", {"objective": "contrastive"}, "no quantiser"),
        ("mockingjay", {"mask": 2.0}, "share of 2.0"),
    ],
)
def test_options_without_a_use_are_refused_before_anything_is_written(model, given, told, tmp_path):
    with pytest.raises(TrainingError, match=told) as raised:
        pretrain(model, SPEECH, tmp_path / "m", **{**QUICK, **given})
    assert raised.value.cure
    assert not (tmp_path / "m").exists()


def test_on_the_command_line(tmp_path, capsys):
    write_corpus(SPEECH, tmp_path / "speech")
    sizes = [
        "--layers",
        "1",
        "--heads",
        "2",
        "--width",
        "32",
        "--steps",
        "2",
        "--batch-seconds",
        "4",
        "--hold-out",
        "0.3",
    ]
    masks = ["--mask-run", "2", "--filling", "zero", "--threads", "1"]
    app(["pretrain", "mockingjay", str(tmp_path / "speech"), "-o", str(tmp_path / "m"), *sizes, *masks])
    told = capsys.readouterr().out
    assert "reconstruction" in told
    assert f"Next: otoscope diagnose {tmp_path / 'm'}" in " ".join(told.split())
    found = evaluate(tmp_path / "m", tmp_path / "speech", "reconstruction", cost=False)
    assert 0.6 < found.scores["reconstruction"].value < 1.2


@pytest.mark.slow
def test_minutes_of_training_learn_what_was_hidden(tmp_path):
    from otoscope.training.architectures import Size
    from otoscope.training.settings import TrainingSettings

    given = TrainingSettings(steps=250, batch_seconds=20, learning_rate=2e-3, evaluate_every=250, save_every=250)
    size = Size(layers=3, heads=4, width=96, feed_forward=256, dropout=0.0)
    outcome = pretrain("mockingjay", "embedded:train", tmp_path, size=size, settings=given, filling="zero")
    assert outcome.held_out["loss"] < 0.77  # the mean of every feature gives 0.797
    assert outcome.held_out["reconstruction"] < 0.75
