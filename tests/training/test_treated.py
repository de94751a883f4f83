"""Trainings of treated models: what is frozen, what learns faster, and folders that hold the treatments."""

import json
from dataclasses import replace

import pytest
import torch

from otoscope.errors import TrainingError
from otoscope.models.loading import load
from otoscope.models.recogniser import Recogniser, load_recogniser
from otoscope.training.ctc import Ctc, CtcSettings
from otoscope.training.ctc_head import with_ctc_head
from otoscope.training.loop import train
from otoscope.treatments import (
    Bypass,
    Freeze,
    GroupNorm,
    LearningRate,
    LimitSpan,
    PruneHeads,
    Reinitialise,
    RemoveBlocks,
    ReplaceAttention,
    record_of,
    treated,
)
from tests.models.small import CASES
from tests.training.small_ctc import HELD, QUICK, TRAIN, VOCABULARY, tiny_ctc
from tests.training.small_training import stopping_at, tree

SHORT = replace(QUICK, steps=3, save_every=2, evaluate_every=3, keep=(1,))
TREATMENTS = {
    "heads": (PruneHeads("layer.1.head.0"), PruneHeads("layer.3")),
    "spans": (LimitSpan("layer.1-2", 3),),
    "blocks": (RemoveBlocks("layer.2"),),
    "branches": (Bypass("layer.1.attention"), Bypass("layer.3.feed_forward")),
    "maps": (ReplaceAttention("layer.3", "layer", source=2),),
    "anew": (Reinitialise("layer.3", 4),),
    "training": (Freeze("layer.1"), LearningRate("layer.2", 0.1)),
}

SLOW = ("spans", "maps", "anew")  # alike others in how they are trained and stored


def _scores(recogniser):
    return recogniser.log_probabilities([u.read() for u in HELD])


@pytest.mark.parametrize(
    "treatments",
    [pytest.param(some, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, some in TREATMENTS.items()],
)
def test_every_folder_of_the_run_holds_the_treated_model(treatments, tmp_path):
    made = tiny_ctc(treatments=treatments, layers=3)
    heads, before = made.recogniser.model.anatomy.head_names, _scores(made.recogniser)
    train(made, TRAIN, HELD, SHORT, tmp_path)
    for place in ("initial", "step-1", "."):
        read = load_recogniser(tmp_path / place)
        assert record_of(read.model.source).treatments == treatments
        assert read.model.anatomy.head_names == heads
        assert read.vocabulary == VOCABULARY
        assert not [path for path in (tmp_path / place).iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
        if place == "initial":
            for one, other in zip(_scores(read), before, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    trained = Recogniser(load(made.model), VOCABULARY)
    for one, other, start in zip(_scores(read), _scores(trained), before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
        assert not torch.allclose(one, start, atol=1e-3)
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["treatments"] == [
        treatment.to_dict() for treatment in treatments
    ]


@pytest.mark.parametrize("name", ["training", pytest.param("branches", marks=pytest.mark.slow)])
def test_an_interrupted_training_of_a_treated_model_ends_as_the_unbroken_one(name, tmp_path):
    made = {"treatments": TREATMENTS[name], "layers": 3}
    train(tiny_ctc(**made), TRAIN, HELD, SHORT, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tiny_ctc(**made), TRAIN, HELD, SHORT, tmp_path / "broken", report=stopping_at(3))
    train(tiny_ctc(**made), TRAIN, HELD, SHORT, tmp_path / "broken", resume=True)
    one, other = (load(tmp_path / place).source.state_dict() for place in ("whole", "broken"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_is_taken_up_only_with_the_same_treatments(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_ctc(treatments=[LimitSpan("layer.1", 3)]), TRAIN, HELD, SHORT, tmp_path, report=stopping_at(1))
    before = tree(tmp_path)
    with pytest.raises(TrainingError, match="was begun with treatments"):
        train(tiny_ctc(treatments=[LimitSpan("layer.1", 4)]), TRAIN, HELD, SHORT, tmp_path, resume=True)
    assert tree(tmp_path) == before


def _steps_of(made, tmp_path):
    """How far each parameter went in one step of Adam."""
    before = {name: value.detach().clone() for name, value in made.model.named_parameters()}
    one = replace(QUICK, steps=1, warmup=0.0, hold=1.0, weight_decay=0.0, keep=(), clip=1e9)
    train(made, TRAIN, HELD, one, tmp_path)
    return {name: (value.detach() - before[name]).abs().max() for name, value in made.model.named_parameters()}


def test_frozen_layers_stay_and_others_learn_at_their_own_rate(tmp_path):
    given = CtcSettings(mask=0.0, freeze_convolutions=False)
    treatments = [Freeze("layer.1"), LearningRate("layer.2", 0.25), LearningRate("layer.3", 2.0)]
    plain = _steps_of(tiny_ctc(given, layers=3), tmp_path / "plain")
    slowed = _steps_of(tiny_ctc(given, treatments, layers=3), tmp_path / "slowed")
    for name, step in plain.items():
        factor = next((f for k, f in enumerate((0.0, 0.25, 2.0)) if f".layers.{k}." in name), 1.0)
        if step > 0.99e-3:  # the first step of Adam is the rate, where the gradient is not tiny
            assert float(slowed[name]) == pytest.approx(factor * 1e-3, rel=0.01), name
        elif not factor:
            assert slowed[name] == 0, name
    assert sum(step > 0.99e-3 for name, step in plain.items() if ".layers." in name) > 20


def test_frozen_layers_stay_frozen_when_the_encoder_is_opened(tmp_path):
    made = tiny_ctc(CtcSettings(open_at=1), [Freeze("layer.1")])
    before = {name: value.detach().clone() for name, value in made.model.named_parameters()}
    train(made, TRAIN, HELD, replace(SHORT, keep=()), tmp_path)
    moved = {name for name, value in made.model.named_parameters() if not torch.equal(value, before[name])}
    assert not any(".layers.0." in name for name in moved)
    assert any(".layers.1." in name for name in moved)


FAMILIES = {
    "wavlm-group": (RemoveBlocks("layer.1"), PruneHeads("layer.2.head.1")),
    "conformer-relative": (GroupNorm(groups=4), PruneHeads("layer.1.head.0,2")),
    "bert-relative-key": (LimitSpan("layer.2", 2), Bypass("layer.1.convolution")),
    "parakeet": (GroupNorm(groups=4), RemoveBlocks("layer.3")),
}


@pytest.mark.parametrize(("name", "treatments"), FAMILIES.items(), ids=FAMILIES)
def test_a_head_is_put_on_a_treated_encoder_of_every_kind_and_trained(name, treatments, tmp_path):
    ready = treated(load(next(case for case in CASES if case.name == name).build()), treatments)
    source = with_ctc_head(ready, VOCABULARY, 0)
    model = load(source)
    made = Ctc(Recogniser(model, VOCABULARY), CtcSettings(mask=0.05, mask_span=2))
    assert record_of(made.model).treatments == treatments
    train(made, TRAIN, HELD, replace(SHORT, steps=2, evaluate_every=2), tmp_path)
    read = load_recogniser(tmp_path)
    assert record_of(read.model.source).treatments == treatments
    for one, other in zip(_scores(read), _scores(Recogniser(load(made.model), VOCABULARY)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_a_phone_loss_hears_its_own_layer_where_others_were_taken_out():
    from tests.diagnosis.small_speech import PHONES
    from tests.training.test_ctc import _batch

    def heard(treatments, layer):
        ready = treated(tiny_ctc(layers=3).recogniser.model, treatments)
        made = Ctc(Recogniser(ready, VOCABULARY), CtcSettings(0.0, phone_layer=layer), phones=PHONES).eval()
        with torch.no_grad(), made._listening(True) as states:
            made.model(**{k: v for k, v in _batch(made, TRAIN[:2]).items() if k in ("input_values", "attention_mask")})
        return states[0]

    assert torch.equal(heard([], 1), heard([RemoveBlocks("layer.2")], 1))
    assert not torch.equal(heard([RemoveBlocks("layer.2")], 1), heard([RemoveBlocks("layer.2")], 3))
    with pytest.raises(TrainingError, match="no layer 2 for a phone loss"):
        heard([RemoveBlocks("layer.2")], 2)
