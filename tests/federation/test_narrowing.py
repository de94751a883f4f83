"""Narrowed branches compute what the original does with the rest set to zero, and keep the names of the original."""

import json

import pytest
import torch

from otoscope.errors import SurgeryError
from otoscope.models import load
from otoscope.surgery import Causal, GroupNorm, LowRank, Remove, apply, from_dict, undo
from otoscope.surgery.narrowing import Narrow, inner_units, positions
from otoscope.surgery.units import Parts
from tests.models.small import CASES
from tests.surgery.cases import differences, feed_forward, run, same_bits, speech

CORPUS = speech(0.3, 0.45)
MODELS = {case.name: case for case in CASES}
_LOADED = {}


def loaded(name):
    if name not in _LOADED:
        _LOADED[name] = load(MODELS[name].build().eval(), name=name)
    return _LOADED[name]


def parts_of(model):
    return Parts(model.family.encoder(model.source), model.family)


def emptied(model, unit, kept, last):
    """The original with the columns of a branch's last map set to zero but for those of the units that are kept."""
    twin = load(MODELS[model.name].build().eval(), name=model.name)
    tensor = dict(twin.family.encoder(twin.source).named_parameters())[last]
    gone = [k for k in range(tensor.shape[1]) if k not in kept]
    with torch.no_grad():
        tensor[:, gone] = 0
    return twin


def last_map(model, unit):
    return next(
        path for path, (axis, _) in inner_units(parts_of(model), parts_of(model).units[unit]).axes.items() if axis
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_narrow_feed_forward_is_one_whose_other_rows_are_not_let_out(name):
    model = loaded(name)
    unit, kept = f"layer.2.{feed_forward(model.family.name)}", (0, 3, 17, 63)
    narrow = apply(model, [Narrow(unit, kept)])
    expected = emptied(model, unit, kept, last_map(model, unit))
    assert max(differences(run(narrow, CORPUS), run(expected, CORPUS)).values()) < 1e-5
    assert narrow.macs_per_second() < model.macs_per_second()
    # A row is a row of d + 1 and a column of d; nothing else goes.
    assert model.parameters - narrow.parameters == 60 * (2 * 48 + 1)
    assert list(narrow.source.state_dict()) == list(model.source.state_dict())


@pytest.mark.parametrize("name", ["conformer-relative", "conformer-rotary-ctc", "parakeet", "parakeet-ctc"])
def test_a_narrow_convolution_is_one_whose_other_channels_are_not_let_out(name):
    model, kept = loaded(name), (1, 2, 30, 47)
    narrow = apply(model, [Narrow("layer.1.convolution", kept)])
    expected = emptied(model, "layer.1.convolution", kept, last_map(model, "layer.1.convolution"))
    assert max(differences(run(narrow, CORPUS), run(expected, CORPUS)).values()) < 1e-5
    assert narrow.macs_per_second() < model.macs_per_second()


def test_a_norm_over_channels_is_one_over_those_that_are_left():
    model, kept = loaded("bert-relative-key"), [0, 5, 6, 40]
    narrow = apply(model, [Narrow("layer.2.convolution", tuple(kept))])
    module = model.family.encoder(model.source).encoder.layers[1].conv_module
    small = model.family.encoder(narrow.source).encoder.layers[1].conv_module
    states = torch.randn(2, 9, 48, generator=torch.Generator().manual_seed(0))
    normed = module.layer_norm(states).transpose(1, 2)
    through, gate = (module.pointwise_conv1(normed)[:, half : half + 48] for half in (0, 48))
    gated = (through * torch.sigmoid(gate))[:, kept]
    filtered = torch.stack(
        [
            torch.nn.functional.conv1d(
                torch.nn.functional.pad(gated[:, k : k + 1], (6, 0)), module.depthwise_conv.weight[c : c + 1]
            )[:, 0]
            for k, c in enumerate(kept)
        ],
        dim=1,
    )
    mean, deviation = filtered.mean(1, keepdim=True), filtered.var(1, correction=0, keepdim=True)
    norm = module.depthwise_layer_norm
    out = (filtered - mean) / (deviation + norm.eps).sqrt() * norm.weight[kept, None] + norm.bias[kept, None]
    expected = module.pointwise_conv2.weight[:, kept, 0] @ torch.nn.functional.silu(out)
    assert torch.allclose(small(states), expected.transpose(1, 2), atol=1e-5)


def test_it_sets_what_is_left_is_undone_bit_by_bit_and_is_stored_as_plain_values():
    model = loaded("conformer-relative")
    edits = [Narrow("layer.1.feed_forward.*", (3, 1, 2)), Narrow("layer.2-3.convolution", tuple(range(0, 48, 2)))]
    changed = apply(model, edits)
    again = apply(changed, edits)
    assert same_bits(again.source.state_dict(), changed.source.state_dict())
    assert again.fingerprint() == changed.fingerprint() != model.fingerprint()
    back = undo(changed, model)
    assert same_bits(back.source.state_dict(), model.source.state_dict())
    assert back.fingerprint() == model.fingerprint()
    stored = [from_dict(one) for one in json.loads(json.dumps([edit.to_dict() for edit in edits]))]
    assert stored == edits
    assert edits[0].kept == (1, 2, 3)
    assert same_bits(apply(model, stored).source.state_dict(), changed.source.state_dict())


def test_numbers_stay_those_of_the_original():
    model = loaded("wav2vec2-group")
    once = apply(model, [Narrow("layer.2.feed_forward", (5, 9, 20))])
    twice = apply(once, [Narrow("layer.2.feed_forward", (9, 20))])
    at_once = apply(model, [Narrow("layer.2.feed_forward", (9, 20))])
    assert same_bits(twice.source.state_dict(), at_once.source.state_dict())
    parts = parts_of(twice)
    assert inner_units(parts, parts.units["layer.2.feed_forward"]).kept == (9, 20)
    assert same_bits(
        undo(twice, model, [Narrow("layer.2.feed_forward", (9, 20))]).source.state_dict(), once.source.state_dict()
    )
    with pytest.raises(SurgeryError, match=r"layer\.2\.feed_forward has no row or channel 6; it has 3, from 5 to 20"):
        apply(once, [Narrow("layer.2.feed_forward", (6,))])


def test_adapters_lose_their_part_with_the_maps_that_they_stand_beside():
    model = loaded("wav2vec2-group")
    kept = (0, 7, 40)
    adapted = apply(model, [LowRank("layer.1", 4, targets="feed_forward")])
    with torch.no_grad():
        for name, value in adapted.source.named_parameters():
            if "lora_B" in name:
                value.normal_(generator=torch.Generator().manual_seed(1))
    narrow = apply(adapted, [Narrow("layer.1.feed_forward", kept)])
    branch = adapted.source.encoder.layers[0].feed_forward
    states = torch.randn(5, 48, generator=torch.Generator().manual_seed(0))
    inner = torch.nn.functional.gelu(branch.intermediate_dense(states))
    inner[:, [k for k in range(64) if k not in kept]] = 0
    small = narrow.source.encoder.layers[0].feed_forward
    assert torch.allclose(small(states), branch.output_dense(inner), atol=1e-5)
    assert (small.intermediate_dense.out_features, small.output_dense.in_features) == (3, 3)


@pytest.mark.parametrize("over", ["time", "frame"])
def test_groups_of_a_group_norm_lose_as_many_channels_each(over):
    model = loaded("conformer-relative")
    normed = apply(model, [GroupNorm("layer.*", 4, over), Causal("layer.1")])
    parts = parts_of(normed)
    inner = inner_units(parts, parts.units["layer.1.convolution"])
    assert inner.kept == tuple(range(12))
    assert sorted({blocks for _, blocks in inner.axes.values()}) == [4, 8]
    narrow = apply(normed, [Narrow("layer.1.convolution", (2, 3, 11))])
    norm = narrow.source.encoder.layers[0].conv_module.batch_norm
    whole = normed.source.encoder.layers[0].conv_module.batch_norm
    channels = [group * 12 + k for group in range(4) for k in (2, 3, 11)]
    assert torch.equal(norm.weight, whole.weight[channels])
    states = torch.randn(1, 48, 6, generator=torch.Generator().manual_seed(0))
    grouped = states[:, channels].view(1, 4, 3, 6)
    axes = (2, 3) if over == "time" else (2,)
    variance, mean = torch.var_mean(grouped, axes, correction=0, keepdim=True)
    expected = ((grouped - mean) / (variance + norm.eps).sqrt()).view(1, 12, 6) * norm.weight[:, None] + norm.bias[
        :, None
    ]
    assert torch.allclose(norm(states[:, channels]), expected, atol=1e-5)
    run(narrow, CORPUS)


def test_a_narrowed_model_trains():
    model = loaded("conformer-rotary-ctc")
    narrow = apply(model, [Narrow("layer.*.convolution", (0, 1)), Narrow("layer.*.feed_forward.*", (5,))])
    encoder = model.family.encoder(narrow.source).train()
    encoder.layerdrop = encoder.config.layerdrop = 0.0
    encoder(**model.frontend.inputs([CORPUS[0].read()])).last_hidden_state.square().mean().backward()
    module = encoder.encoder.layers[0].conv_module
    assert module.pointwise_conv1.weight.grad.shape == (4, 48, 1)
    assert module.batch_norm.running_mean.shape == (2,)
    assert module.batch_norm.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("units", "kept", "told"),
    [
        ("layer.1.feed_forward", (), "is to keep nothing"),
        ("layer.1.feed_forward", (1, 1), "twice"),
        ("layer.1.feed_forward", (-1,), "no numbers of rows"),
        ("layer.1.feed_forward", (True,), "no numbers of rows"),
        ("layer.1.feed_forward", (64,), r"has no row or channel 64; it has 64, from 0 to 63"),
        ("layer.1.attention", (0,), "of the kind 'attention'"),
        ("layer.9.feed_forward", (0,), "matches no unit"),
    ],
)
def test_what_does_not_fit_is_refused(units, kept, told):
    with pytest.raises(SurgeryError, match=told):
        apply(loaded("wav2vec2-group"), [from_dict({"edit": "narrow", "units": units, "kept": kept})])


def test_a_branch_that_is_gone_cannot_be_narrowed_but_may_have_been():
    model, edit = loaded("wav2vec2-group"), Narrow("layer.1.feed_forward", (0,))
    gone = apply(model, [Remove("layer.1.feed_forward")])
    with pytest.raises(SurgeryError, match="was taken out"):
        apply(gone, [edit])
    assert apply(model, [edit, Remove("layer.1.feed_forward"), edit]).anatomy.removed == ("layer.1.feed_forward",)


def test_positions_are_those_of_every_block():
    assert positions(5, [1, 4], 1, 2).tolist() == [2, 3, 8, 9]
    assert positions(3, [0, 2], 2).tolist() == [0, 2, 3, 5]
