"""The conformance suite of treatments: every treatment goes through models of the families it fits, and the laws hold."""

import json

import pytest
import torch

from otoscope.models import load
from otoscope.surgery import fingerprint
from otoscope.treatments import (
    Sizes,
    fit,
    from_dict,
    kinds,
    record_of,
    save_treated,
    training_of,
    treated,
    treated_config,
    undone,
)
from tests.models.small import CASES
from tests.surgery.cases import run, same_bits, shape_of, speech
from tests.treatments.cases import PAIRS, TREATMENTS

CORPUS = speech(0.3, 0.45)
_LOADED = {}


def loaded(case):
    """A model of a case, built once; that no treatment changes it is what the tests show."""
    if case.name not in _LOADED:
        model = load(case.build().eval(), name=case.name)
        _LOADED[case.name] = model, run(model, CORPUS)
    return _LOADED[case.name]


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: f"{pair[0].name}-{pair[1]}")
def case(request):
    return request.param[0], TREATMENTS[request.param[1]][1](request.param[0].family)


@pytest.fixture(scope="module")
def model(case):
    return loaded(case[0])[0]


@pytest.fixture(scope="module")
def treatments(case):
    return case[1]


@pytest.fixture(scope="module")
def made(model, treatments):
    return treated(model, treatments)


@pytest.fixture(scope="module")
def after(made):
    return run(made, CORPUS)


def output(module, model):
    """What the encoder of a transformers model gives when it is run by itself."""
    with torch.inference_mode():
        return model.family.encoder(module)(**model.frontend.inputs([CORPUS[1].read()])).last_hidden_state


def test_every_kind_has_a_case():
    assert {one.kind for _, make in TREATMENTS.values() for one in make("wav2vec2-conformer")} == set(kinds())


def test_it_is_taken_back_bit_by_bit_and_the_original_stays(case, model, treatments, made, after):
    untouched = case[0].build().eval()
    back = undone(made, model)
    for one in (model, back):
        assert same_bits(one.source.state_dict(), untouched.state_dict())
        assert shape_of(one.source) == shape_of(untouched)
    assert record_of(back.source) is None
    assert same_bits(run(back, CORPUS).streams, loaded(case[0])[1].streams)
    changes = any(treatment.edits() for treatment in treatments)
    assert (fingerprint(made.source) != fingerprint(model.source)) == changes
    acts = any(treatment.edits() and treatment.kind != "low-rank" for treatment in treatments)  # those begin as nothing
    assert same_bits(after.streams, loaded(case[0])[1].streams) != acts
    one_less = undone(made, model, treatments[-1:])
    assert record_of(one_less.source) == record_of(treated(model, treatments[:-1]).source)


def test_twice_is_once(treatments, made, after):
    again = treated(made, treatments)
    assert again.name == made.name
    assert same_bits(again.source.state_dict(), made.source.state_dict())
    assert shape_of(again.source) == shape_of(made.source)
    assert fingerprint(again.source) == fingerprint(made.source)
    assert record_of(again.source) == record_of(made.source)
    assert same_bits(run(again, CORPUS).streams, after.streams)


def test_it_is_read_as_it_was_saved(tmp_path, model, treatments, made, after):
    save_treated(made, tmp_path / "model")
    again = load(tmp_path / "model")
    assert same_bits(again.source.state_dict(), made.source.state_dict())
    assert same_bits(run(again, CORPUS).streams, after.streams)
    assert torch.equal(output(again.source, model), output(made.source, model))
    assert fingerprint(again.source) == fingerprint(made.source)
    assert record_of(again.source) == record_of(made.source)
    assert training_of(again.source) == training_of(made.source)
    assert again.anatomy == made.anatomy
    assert fingerprint(undone(again, model).source) == fingerprint(model.source)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    weights = names & {"model.safetensors", "treated.safetensors"}
    assert len(weights) == 1
    assert {"config.json", "treatment.json", "preprocessor_config.json"} <= names
    if weights == {"model.safetensors"}:
        stock, told = type(made.source).from_pretrained(tmp_path / "model", output_loading_info=True)
        assert not any(told.values())
        assert torch.allclose(output(stock.eval(), model), output(made.source, model), atol=1e-5)
    else:
        with pytest.raises(OSError, match=r"model\.safetensors"):
            type(made.source).from_pretrained(tmp_path / "model")


def test_a_training_step_moves_what_it_should(model, treatments):
    made = treated(model, treatments).source.train()
    encoder = model.family.encoder(made)
    for owner in (encoder, encoder.config):  # else a step may drop all of three layers
        for name in ("layerdrop", "encoder_layerdrop"):
            if hasattr(owner, name):
                setattr(owner, name, 0.0)
    asked = training_of(made)
    named = dict(made.named_parameters())
    assert asked.frozen | set(asked.rates) <= set(named)
    start = {name: one.detach().clone() for name, one in named.items()}
    torch.manual_seed(0)
    encoder(**model.frontend.inputs([one.read() for one in CORPUS])).last_hidden_state.square().mean().backward()
    groups = [
        {"params": [one], "lr": 0.5 * asked.rates.get(name, 1.0)}
        for name, one in named.items()
        if name not in asked.frozen and one.grad is not None
    ]
    torch.optim.SGD(groups).step()
    moved = {name for name, one in named.items() if not torch.equal(one, start[name])}
    assert not moved & asked.frozen
    trained = [
        name for name, one in named.items() if one.grad is not None and one.grad.any() and name not in asked.frozen
    ]
    assert trained
    for name in trained:
        step = start[name] - named[name].detach()
        assert torch.allclose(step, 0.5 * asked.rates.get(name, 1.0) * named[name].grad, atol=1e-5)
    assert all(torch.isfinite(one).all() for one in named.values())
    assert same_bits(model.source.state_dict(), loaded_state(model))


def loaded_state(model):
    case = next(case for case in CASES if case.name == model.name)
    return case.build().state_dict()


def test_layers_and_heads_keep_their_names(model, treatments, made):
    before, now = model.anatomy, made.anatomy
    assert [name for name in before.streams if name in now.streams] == list(now.streams)
    assert set(before.streams) - set(now.streams) == {name for name in now.removed if name.count(".") == 1}
    assert now.n_layers == before.n_layers
    assert all(set(left) <= set(there) for left, there in zip(now.head_names, before.head_names, strict=True))
    sizes = fit(treatments, Sizes.of(model))
    assert sizes == Sizes.of(made) == Sizes.of_description(made.describe())
    assert sizes.heads == now.heads


def test_it_is_plain_values(treatments):
    stored = json.loads(json.dumps([one.to_dict() for one in treatments]))
    assert [from_dict(one) for one in stored] == treatments
    assert all(one.kind in str(one) and one.units in str(one) for one in treatments)


def test_a_configuration_gives_the_same_structure(model, treatments, made):
    fresh = treated_config(model.source.config, treatments, seed=1, model_class=type(model.source))
    state = made.source.state_dict()
    assert {name: one.shape for name, one in fresh.state_dict().items()} == {k: v.shape for k, v in state.items()}
    again = load(fresh.eval())
    assert again.anatomy == made.anatomy
    assert record_of(fresh).treatments == record_of(made.source).treatments
    twin = treated_config(model.source.config, treatments, seed=1, model_class=type(model.source))
    assert same_bits(twin.state_dict(), fresh.state_dict())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_treatment_is_bit_identical(case):
    model, before = loaded(case)
    same = treated(model, ())
    assert same.name == model.name
    assert record_of(same.source) is None
    assert same_bits(same.source.state_dict(), model.source.state_dict())
    assert shape_of(same.source) == shape_of(model.source)
    assert same_bits(run(same, CORPUS).streams, before.streams)
    assert same.fingerprint() == model.fingerprint()
