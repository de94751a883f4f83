"""Layers and branches that are taken out: what is left computes as if they were bypassed, and keeps its names."""

import copy
import pickle

import pytest
import torch

from otoscope.errors import SurgeryError
from otoscope.models import load
from otoscope.models.absent import AbsentBranch, AbsentLayer
from otoscope.models.reductions import RowEntropy, WholeMap
from otoscope.surgery import (
    Bypass,
    CutHeads,
    Gate,
    Redraw,
    Remove,
    ReplaceMap,
    Span,
    apply,
    edited,
    gates,
    record,
    undo,
    units,
)
from otoscope.surgery.units import Parts
from tests.models.small import CASES
from tests.surgery.cases import differences, feed_forward, run, same_bits, speech

CORPUS = speech(0.3, 0.45)
MODELS = {case.name: case for case in CASES}
PLACES = ["layer.1", "layer.1-2", "layer.3", "layer.1.attention", "layer.2,1.attention", "feed_forward", "convolution"]
PAIRS = [(case, PLACES[(k + step) % 7]) for k, case in enumerate(CASES) for step in (0, 3)]


def loaded(name):
    return load(MODELS[name].build().eval(), name=name)


@pytest.mark.parametrize(("case", "place"), PAIRS, ids=lambda one: one if isinstance(one, str) else one.name)
def test_what_is_left_computes_as_if_it_was_bypassed(case, place):
    model = load(case.build().eval())
    if place == "convolution" and model.family.convolution is None:
        place = "feed_forward"
    units = {"feed_forward": f"layer.2.{feed_forward(case.family)}", "convolution": "layer.1.convolution"}.get(
        place, place
    )
    removed, bypassed = apply(model, [Remove(units)]), apply(model, [Bypass(units)])
    assert removed.parameters < bypassed.parameters
    assert removed.macs_per_second() < bypassed.macs_per_second()
    found, expected = run(removed, CORPUS), run(bypassed, CORPUS)
    for name in found.streams:
        for k in range(2):
            assert torch.equal(found.frames(name, k), expected.frames(name, k)), name
    tapped = run(removed, CORPUS, reductions=[WholeMap, RowEntropy])
    assert max(differences(found, tapped).values()) < 1e-5
    assert set(tapped.attention) == {1, 2, 3}
    for layer, maps in tapped.attention.items():
        assert maps[0]["whole-map"].shape[0] == removed.anatomy.heads[layer - 1]
    inputs = model.frontend.inputs([CORPUS[1].read()])
    by_itself = model.family.encoder(removed.source)(**inputs).last_hidden_state
    assert torch.allclose(by_itself, model.family.encoder(bypassed.source)(**inputs).last_hidden_state, atol=1e-5)


def test_names_and_numbers_stay_those_of_the_original():
    model = loaded("wavlm-group")
    made = apply(model, [CutHeads("layer.3.head.0"), Remove("layer.2"), Remove("layer.1.feed_forward")])
    anatomy = made.anatomy
    assert anatomy.streams == tuple(name for name in model.anatomy.streams if name != "layer.2")
    assert (anatomy.n_layers, anatomy.layers) == (3, (1, 3))
    assert anatomy.heads == (4, 0, 3)
    assert anatomy.head_names == ((0, 1, 2, 3), (), (1, 2, 3))
    assert anatomy.removed == ("layer.1.feed_forward", "layer.2")
    assert "2 of 3 layers" in str(made)
    named = units(made)
    assert not [name for name in named if name.startswith(("layer.2", "layer.1.feed_forward"))]
    assert {"layer.1", "layer.1.attention", "layer.3.head.1", "layer.3.feed_forward"} <= set(named)
    assert set(gates(made.source)) == {3}
    for pattern, told in {
        "layer.2": "names layer.2, which was taken out",
        "layer.2.head.1": "names layer.2, which was taken out",
        "layer.2.attention.q_proj.weight": "names layer.2, which was taken out",
        "layer.1.feed_forward": "names layer.1.feed_forward, which was taken out",
        "layer.3.head.0": "a head that was cut",
        "layer.4": "matches no unit",
    }.items():
        with pytest.raises(SurgeryError, match=told):
            apply(made, [Redraw(pattern, seed=1)])
    # What stands for all layers stands for those that are left.
    apply(made, [Gate("layer.*", 0.5), Redraw("layer.*", seed=1), Span("layer.*", 3)])


def test_it_is_repeated_and_taken_back():
    model = loaded("conformer-relative")
    edits = [Gate("layer.2", 0.5), Remove("layer.2"), Remove("layer.1.convolution")]
    made = apply(model, edits)
    assert made.fingerprint() != model.fingerprint()
    again = apply(made, edits)
    assert same_bits(run(again, CORPUS).streams, run(made, CORPUS).streams)
    assert record(again.source) == record(made.source)
    back = undo(again, model, edits[1:])
    assert same_bits(run(back, CORPUS).streams, run(apply(model, edits[:1]), CORPUS).streams)
    assert undo(made, model).fingerprint() == model.fingerprint()


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ([Remove("layer.*")], "every layer"),
        ([Remove("layer.1-2"), Remove("layer.3")], "every layer"),
        ([Remove("layer.1.head.0")], "of the kind 'head'"),
        ([Remove("layer.2.convolution")], "matches no unit"),
        ([Remove("layer.1.attention"), Gate("layer.1")], "without attention"),
        ([Remove("layer.1.attention"), CutHeads("layer.1")], "without attention"),
        ([Remove("layer.1.attention"), ReplaceMap("layer.1", "uniform")], "no attention any more"),
        ([ReplaceMap("layer.3", "layer", source=1), Remove("layer.1")], "uses the attention map of layer 1"),
        ([Remove("layer.1.attention"), ReplaceMap("layer.2", "layer")], "no attention any more"),
    ],
)
def test_what_cannot_be_taken_out(edits, told):
    model = loaded("wav2vec2-group")
    with pytest.raises(SurgeryError, match=told):
        apply(model, edits)


@pytest.mark.parametrize("name", ["wavlm-group", "wavlm-ctc-stable"])
@pytest.mark.parametrize("place", ["layer.1", "layer.1.attention", "layer.2,1", "layer.1-3.attention"])
def test_the_position_embedding_that_wavlm_shares_is_handed_on(name, place):
    model = loaded(name)
    encoder = model.family.encoder(model.source)
    made = edited(model.source, [Remove(place)])
    parts = Parts(model.family.encoder(made), model.family)
    there = parts.attentions()
    holders = [layer for layer, attention in there.items() if hasattr(attention, "rel_attn_embed")]
    assert holders == list(there)[:1]
    if there:
        kept = there[holders[0]].rel_attn_embed.weight
        assert torch.equal(kept, encoder.encoder.layers[0].attention.rel_attn_embed.weight)
    # LayerDrop of one half would pass by the layer that now holds it.
    made.train()
    for seed in range(8):
        torch.manual_seed(seed)
        model.family.encoder(made)(**model.frontend.inputs([CORPUS[0].read()]))
    assert encoder.config.layerdrop == 0.5
    assert not hasattr(encoder.encoder.layers[1].attention, "rel_attn_embed")


def test_a_reset_of_the_layer_that_holds_it_leaves_it_alone():
    model = loaded("wavlm-group")
    kept = model.source.encoder.layers[0].attention.rel_attn_embed.weight
    after = apply(model, [Remove("layer.1"), Redraw("layer.2", seed=1)])
    before = apply(model, [Redraw("layer.2", seed=1), Remove("layer.1")])
    assert torch.equal(after.source.encoder.layers[1].attention.rel_attn_embed.weight, kept)
    assert same_bits(after.source.state_dict(), before.source.state_dict())


def test_it_trains_with_checkpoints_and_copies():
    model = loaded("hubert-ctc-stable")
    made = edited(model.source, [Remove("layer.2"), Remove("layer.3.attention")]).train()
    made.config.layerdrop = 0.0
    absent = [one for one in made.modules() if isinstance(one, AbsentLayer | AbsentBranch)]
    assert [len(list(one.parameters())) for one in absent] == [0, 0]
    made.config.apply_spec_augment = False
    inputs = model.frontend.inputs([CORPUS[0].read()])

    def gradients(module):
        module.zero_grad()
        torch.manual_seed(0)  # of dropout
        module(**inputs).logits.square().mean().backward()
        return {name: one.grad.clone() for name, one in module.named_parameters() if one.grad is not None}

    plain = gradients(made)
    getattr(made, "activation_checkpointing_enable", made.gradient_checkpointing_enable)()
    checkpointed = gradients(made)
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-6) for name in plain)
    made.eval()
    expected = made(**inputs).logits
    assert torch.equal(copy.deepcopy(made)(**inputs).logits, expected)


def test_a_copy_is_pickled():
    model = loaded("whisper")
    made = edited(model.source, [Remove("layer.2"), Remove("layer.1.feed_forward")])
    again = pickle.loads(pickle.dumps(made))
    inputs = model.frontend.inputs([CORPUS[0].read()])
    assert record(again) == record(made)
    heard = (model.family.encoder(one)(**inputs).last_hidden_state for one in (again, made))
    assert torch.equal(*heard)
