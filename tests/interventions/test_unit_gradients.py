"""Gradients of units against closed forms, autograd by hand, and what must not change."""

import math

import numpy as np
import pytest
import torch

from otoscope.errors import AudioError, EvaluationError, SurgeryError
from otoscope.interventions.losses import Loss, contrastive_loss, ctc_loss, own_loss
from otoscope.interventions.unit_gradients import FISHER, RELATIVE, unit_gradients
from otoscope.models import load
from otoscope.models.families import submodule
from otoscope.models.recogniser import Recogniser
from tests.evaluation.speaking import VOCABULARY, speech
from tests.models.small import CASES
from tests.surgery.cases import same_bits
from tests.surgery.cases import speech as noise

SLOPE = torch.linspace(-1, 1, 48, dtype=torch.float64)


def _model(name, dtype=torch.float64):
    return load(next(case for case in CASES if case.name == name).build().eval().to(dtype))


def _linear():
    """The sum over frames of a fixed linear map of what the encoder gives."""

    def of(model, utterances, samples):
        out = model.encode(samples)
        frames = [model.frontend.frames(len(one)) for one in samples]
        return torch.stack([(row[:n] @ SLOPE.to(out)).sum() for row, n in zip(out, frames, strict=True)])

    return Loss("linear", "units", of)


def _rows(result, measure):
    return {row.stream: row for row in result.rows if row.measure == measure}


def test_the_last_bias_has_a_known_gradient():
    """Of a loss that is linear in a bias, c'b a frame: g = c T."""
    model, corpus = _model("wav2vec2-group"), noise(0.3, 0.5, 0.4)
    unit = "layer.3.final_layer_norm.bias"
    bias = model.source.encoder.layers[2].final_layer_norm.bias.detach()
    result = unit_gradients(model, corpus, _linear(), [unit], batch_seconds=0.5)
    frames = np.array([model.frontend.frames(one.n_samples) for one in corpus])
    relative, fisher = _rows(result, RELATIVE)[unit], _rows(result, FISHER)[unit]
    # A frame pulls by c whatever the batch: no spread over batches.
    assert relative.value == pytest.approx(float(SLOPE.norm() / bias.norm()), rel=1e-12)
    assert (relative.low, relative.high) == pytest.approx((relative.value, relative.value))
    assert relative.n == 3
    assert fisher.value == pytest.approx(float(SLOPE.square().sum()) * (frames**2).mean(), rel=1e-12)
    assert fisher.low < fisher.value < fisher.high
    assert fisher.n == 3
    assert (fisher.layer, fisher.target) == (3, "linear")
    assert result.notes[RELATIVE]["weights"] == {unit: 48}


def test_no_norm_is_below_zero_and_the_seed_draws_the_speakers():
    """One utterance pulls a hundred times as hard as the others, so that batches tell next to nothing."""
    corpus, linear = noise(*(0.3 + 0.02 * k for k in range(9))), _linear()
    strong = corpus[0].id

    def of(model, utterances, samples):
        scale = torch.tensor([100.0 if one.id == strong else 1.0 for one in utterances], dtype=torch.float64)
        return linear.of(model, utterances, samples) * scale

    model, unit = _model("wav2vec2-group"), "layer.3.final_layer_norm.bias"
    first, again = (
        unit_gradients(model, corpus, Loss("uneven", "units", of), [unit], batch_seconds=1.0, seed=seed)
        for seed in (0, 1)
    )
    relative = _rows(first, RELATIVE)[unit]
    assert relative.n > 1
    assert relative.low == 0 < relative.value < relative.high
    assert _rows(first, FISHER)[unit].value == _rows(again, FISHER)[unit].value
    assert _rows(first, FISHER)[unit].low != _rows(again, FISHER)[unit].low


@pytest.mark.parametrize("name", ["wavlm-ctc-stable", "conformer-rotary-ctc", "parakeet-ctc", "whisper"])
def test_every_unit_by_hand(name):
    model, corpus = _model(name), noise(0.3, 0.4)
    before = {key: value.clone() for key, value in model.source.state_dict().items()}
    result = unit_gradients(model, corpus, _linear(), "sub-module", batch_seconds=30)
    relative, fisher = _rows(result, RELATIVE), _rows(result, FISHER)
    assert {f"layer.{k}.attention" for k in (1, 2, 3)} < relative.keys() == fisher.keys()
    module = list(submodule(model.family.encoder(model.source), model.family.layers))[1]
    attention = list(submodule(module, model.family.attention).parameters())
    gradients, frames = [], 0
    for utterance in corpus:
        loss = _linear().of(model, [utterance], [utterance.read()])[0]
        found = torch.autograd.grad(loss, attention, allow_unused=True)
        gradients.append(torch.cat([torch.zeros(0), *(one.flatten() for one in found if one is not None)]))
        frames += model.frontend.frames(utterance.n_samples)
    size = math.sqrt(sum(float(one.detach().square().sum()) for one in attention))
    wanted = float((gradients[0] + gradients[1]).norm()) / frames / size
    assert relative["layer.2.attention"].value == pytest.approx(wanted, rel=1e-9)
    assert relative["layer.2.attention"].low is None  # one batch
    wanted = np.mean([float(one.square().sum()) for one in gradients])
    assert fisher["layer.2.attention"].value == pytest.approx(wanted, rel=1e-9)
    assert same_bits(before, model.source.state_dict())


def test_granularities_add_up_and_scale():
    """Fisher sums over tensors; a loss of twice the size pulls twice as strongly, and has four times the information."""
    model, corpus = _model("wav2vec2-ctc"), speech(seconds=(0.7, 0.9), transcripts=("A cat", "the cats"))
    loss = ctc_loss(Recogniser(model, VOCABULARY))
    blocks, tensors = (unit_gradients(model, corpus, loss, one, [2]) for one in ("block", "tensor"))
    whole = _rows(blocks, FISHER)["layer.2"].value
    assert whole > 0
    assert sum(row.value for row in _rows(tensors, FISHER).values()) == pytest.approx(whole, rel=1e-9)
    doubled = Loss("twice", "nats", lambda *given: 2 * loss.of(*given))
    twice = unit_gradients(model, corpus, doubled, "block", [2])
    assert _rows(twice, FISHER)["layer.2"].value == pytest.approx(4 * whole, rel=1e-9)
    one, two = (_rows(found, RELATIVE)["layer.2"].value for found in (blocks, twice))
    assert two == pytest.approx(2 * one, rel=1e-9)


def test_frozen_weights_count_and_the_users_model_stays_as_it_is():
    model, corpus = _model("wav2vec2-group", torch.float32), noise(0.3, 0.4)
    free = unit_gradients(model, corpus, _linear())
    for parameter in model.source.parameters():
        parameter.requires_grad_(False)
    model.source.train()
    frozen = unit_gradients(model, corpus, _linear())
    assert [row.value for row in frozen.rows] == [row.value for row in free.rows]
    assert not any(one.requires_grad for one in model.source.parameters())
    assert all(one.grad is None for one in model.source.parameters())
    assert model.source.training
    assert {row.stream for row in frozen.rows} == {"layer.1", "layer.2", "layer.3"}


def test_a_loss_of_the_whole_model_reaches_the_same_weights():
    """The contrastive loss runs the model under its head, not the view that is examined."""
    model = _model("wav2vec2-pretraining", torch.float32)
    result = unit_gradients(model, noise(1.0, 1.2), contrastive_loss())
    assert all(row.value > 0 for row in result.rows)
    assert own_loss(model, noise(1.0)).name == result.rows[0].target


def test_weights_of_zero_have_no_relative_norm():
    model = _model("wav2vec2-group")
    with torch.no_grad():
        model.source.encoder.layers[2].final_layer_norm.bias.zero_()
    unit = "layer.3.final_layer_norm.bias"
    result = unit_gradients(model, noise(0.3, 0.4), _linear(), [unit])
    assert _rows(result, RELATIVE)[unit].value is None
    assert _rows(result, FISHER)[unit].value > 0


@pytest.mark.parametrize(
    ("of", "units", "error", "told"),
    [
        (None, "layer.1.head.0", SurgeryError, "not those of whole tensors"),
        (None, "layer.9", SurgeryError, "matches no unit"),
        (lambda m, u, s: m.encode(s).sum((1, 2)).detach(), "layer.1", EvaluationError, "No gradient flows"),
        (lambda m, u, s: m.encode(s).sum(), "layer.1", EvaluationError, "has the shape"),
        (lambda m, u, s: (m.encode(s) * math.inf).sum((1, 2)), "layer.1", EvaluationError, "is not finite"),
    ],
)
def test_what_is_refused(of, units, error, told):
    loss = _linear() if of is None else Loss("own", "units", of)
    with pytest.raises(error, match=told):
        unit_gradients(_model("wav2vec2-group"), noise(0.3, 0.4), loss, units)


def test_speech_that_is_absent_or_too_short_is_refused():
    model = _model("wav2vec2-group")
    with pytest.raises(EvaluationError, match="holds no utterance"):
        unit_gradients(model, noise(), _linear())
    with pytest.raises(AudioError):
        unit_gradients(model, noise(0.01), _linear())
