"""The conformance suite of surgery: every family's models go through every edit, and the laws hold."""

import copy
import json
import pickle
import warnings

import pytest
import torch

from otoscope.models import load
from otoscope.models.reductions import RowEntropy, WholeMap
from otoscope.surgery import CutHeads, Gate, Reset, apply, edited, fingerprint, from_dict, record, undo
from tests.models.small import CASES
from tests.surgery.cases import EDITS, differences, run, same_bits, shape_of, speech

CORPUS = speech(0.3, 0.45)
FAMILIES = {case.family: [other for other in CASES if other.family == case.family] for case in CASES}
# Every family goes through every edit, in turns on its models; all models go through all kinds of edits together.
PAIRS = [
    (case, name)
    for case in CASES
    for k, name in enumerate(EDITS)
    if name == "together" or FAMILIES[case.family][k % len(FAMILIES[case.family])] is case
]
# Two models an edit, in turns, and one model of a family for all edits together, where more is slow and breaks rarely.
FIRST = [
    next(k for k, pair in enumerate(PAIRS) if pair[0].family == family and pair[1] == "together") for family in FAMILIES
]
TURNS = {name: [k for k, pair in enumerate(PAIRS) if pair[1] == name] for name in EDITS}
OFTEN = {*FIRST, *(of[(k + step) % len(of)] for k, of in enumerate(TURNS.values()) for step in (0, len(of) // 2))}
RARE = [pair for k, pair in enumerate(PAIRS) if k not in OFTEN]  # in which conftest.py calls some tests slow


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: f"{pair[0].name}-{pair[1]}")
def pair(request):
    return request.param


_LOADED = {}


def loaded(case, seed=0):
    """A model of a case, built once; that no edit changes it is what the tests show."""
    if (case.name, seed) not in _LOADED:
        _LOADED[case.name, seed] = load(case.build(seed).eval(), name=f"{case.name}, seed {seed}")
    return _LOADED[case.name, seed]


@pytest.fixture(scope="module")
def model(pair):
    return loaded(pair[0])


@pytest.fixture(scope="module")
def before(model):
    return run(model, CORPUS)


@pytest.fixture(scope="module")
def edits(pair, model):
    return EDITS[pair[1]](model, loaded(pair[0], seed=1))


@pytest.fixture(scope="module")
def changed(model, edits):
    return apply(model, edits)


@pytest.fixture(scope="module")
def after(changed):
    return run(changed, CORPUS)


def test_an_edit_changes_its_copy_and_is_undone_bit_by_bit(pair, model, before, edits, changed, after):
    assert changed.fingerprint() != model.fingerprint()
    assert tuple(after.streams) == model.anatomy.streams
    assert max(differences(before, after).values()) > 1e-5
    untouched = pair[0].build().eval()
    back = undo(changed, model)
    for one in (model, back):
        assert same_bits(one.source.state_dict(), untouched.state_dict())
        assert shape_of(one.source) == shape_of(untouched)
    assert same_bits(run(back, CORPUS).streams, before.streams)
    assert back.fingerprint() == model.fingerprint()


def test_twice_is_once(edits, changed, after):
    again = apply(changed, edits)
    assert same_bits(again.source.state_dict(), changed.source.state_dict())
    assert shape_of(again.source) == shape_of(changed.source)
    assert fingerprint(again.source) == fingerprint(changed.source)
    assert record(again.source) == record(changed.source)
    assert same_bits(run(again, CORPUS).streams, after.streams)


def test_maps_are_those_of_the_edited_model_and_padding_does_not_leak(changed, after):
    tapped = run(changed, CORPUS, reductions=[WholeMap, RowEntropy])
    assert max(differences(after, tapped).values()) < 1e-5
    for layer, found in tapped.attention.items():
        for k, one in enumerate(found):
            frames = after.lengths["input"][k]
            names = changed.anatomy.head_names[layer - 1]
            assert one["whole-map"].shape == (len(names), frames, frames)
            assert torch.allclose(one["whole-map"].sum(-1), torch.ones(len(names), frames), atol=1e-5)
    alone = run(changed, CORPUS.subset([CORPUS[0].id]))  # the shorter one, which is padded in the batch
    for name in after.streams:
        assert torch.allclose(after.frames(name, 0), alone.frames(name, 0), atol=2e-5), name


def test_the_copy_runs_by_itself_as_it_does_through_the_tap(model, changed, after):
    encoder = model.family.encoder(changed.source)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = encoder(**model.frontend.inputs([CORPUS[1].read()]), output_hidden_states=True)
    assert len(out.hidden_states) == model.anatomy.n_layers + 1
    frames = after.lengths["input"][1]
    last = "final_norm" if "final_norm" in after.streams else f"layer.{model.anatomy.n_layers}"
    assert torch.allclose(after.frames(last, 1), out.last_hidden_state[0, :frames], atol=2e-5)
    for layer in range(1, model.anatomy.n_layers):
        assert torch.allclose(after.frames(f"layer.{layer}", 1), out.hidden_states[layer][0, :frames], atol=2e-5)


def test_a_training_step_works(model, edits):
    state = {name: value.clone() for name, value in model.source.state_dict().items()}
    changed = edited(model.source, edits).train()
    encoder = model.family.encoder(changed)
    for owner in (encoder, encoder.config):  # else a step may drop all of three layers
        if hasattr(owner, "layerdrop"):
            owner.layerdrop = 0.0
    weights = [one for one in encoder.parameters() if one.requires_grad and one.numel()]
    start = [one.detach().clone() for one in weights]
    torch.manual_seed(0)
    out = encoder(**model.frontend.inputs([one.read() for one in CORPUS])).last_hidden_state
    out.square().mean().backward()
    assert all(one.grad is None or torch.isfinite(one.grad).all() for one in weights)
    torch.optim.SGD(weights, lr=0.1).step()
    assert sum(not torch.equal(*pair) for pair in zip(start, weights, strict=True)) > len(weights) / 2
    assert same_bits(model.source.state_dict(), state)


@pytest.mark.parametrize("name", ["wavlm-ctc-stable", "parakeet-ctc"])
def test_edits_are_plain_values_and_copies_of_a_copy_compute_the_same(name):
    case = next(case for case in CASES if case.name == name)
    model, other = load(case.build().eval()), load(case.build(seed=1).eval())
    inputs = model.frontend.inputs([CORPUS[0].read()])

    def out(module):
        with torch.inference_mode():
            return model.family.encoder(module)(**inputs).last_hidden_state

    for make in EDITS.values():
        edits = make(model, other)
        changed = edited(model.source, edits)
        expected = out(changed)
        copies = [copy.deepcopy(changed), edited(model.source, [*edits, *edits], share=True)]
        if not any("parametrizations" in path for path in model.source.state_dict()):  # torch does not pickle these
            copies.append(pickle.loads(pickle.dumps(changed)))
        if not any(isinstance(edit, Reset) for edit in edits):  # to a checkpoint in memory
            stored = [from_dict(one) for one in json.loads(json.dumps([edit.to_dict() for edit in edits]))]
            assert stored == edits
            copies.append(edited(model.source, stored))
        assert all(torch.equal(out(one), expected) for one in copies)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_null_edits_are_bit_identical(case):
    model = loaded(case)
    before = run(model, CORPUS)
    for edits in ([], [Gate("layer.*", 1.0)], [Reset("layer.*", model), Reset("layer.2.head.1", model)]):
        same = apply(model, edits)
        assert same_bits(run(same, CORPUS).streams, before.streams)
        assert same_bits(same.source.state_dict(), model.source.state_dict())
        assert same.fingerprint() == model.fingerprint()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cutting_heads_equals_gating_them(case):
    model = loaded(case)
    names = ["layer.1.head.1", "layer.1.head.3", "layer.2.head.0", "layer.3"]
    cut = apply(model, [CutHeads(name) for name in names])
    gated = apply(model, [Gate(name) for name in names])
    assert cut.anatomy.head_names == ((0, 2), (1, 2, 3), ())
    assert cut.anatomy.heads == (2, 3, 0)
    assert cut.parameters < model.parameters
    found, expected = (run(one, CORPUS, reductions=[WholeMap]) for one in (cut, gated))
    assert max(differences(found, expected).values()) < 1e-5
    for layer, kept in enumerate(cut.anatomy.head_names, start=1):
        for one, whole in zip(found.attention[layer], expected.attention[layer], strict=True):
            assert torch.allclose(one["whole-map"], whole["whole-map"][list(kept)], atol=1e-5)
    assert torch.allclose(
        *(model.family.encoder(one.source)(**model.frontend.inputs([CORPUS[0].read()])).last_hidden_state
          for one in (cut, gated)), atol=1e-5,
    )  # fmt: skip


def test_a_decoder_that_shares_the_configuration_stays_as_it_was():
    model = load(next(case for case in CASES if case.name == "whisper-generation").build().eval())
    changed = apply(model, EDITS["together"](model, None))
    heard = model.source.model.encoder(**model.frontend.inputs([CORPUS[0].read()])).last_hidden_state
    one, two = (
        source.model.decoder(input_ids=torch.tensor([[1, 5, 9]]), encoder_hidden_states=heard).last_hidden_state
        for source in (model.source, changed.source)
    )
    assert torch.allclose(one, two, atol=1e-6)
