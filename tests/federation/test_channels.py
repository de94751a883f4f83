"""Groups of units that can be left out: where they lie in every family's tensors, and what travels."""

import pytest
import torch
from transformers import ParakeetEncoderConfig

from otoscope.errors import FederationError
from otoscope.federation.channels import Group, exchanged, groups_of, is_statistic, known, variables_of
from otoscope.models import load
from otoscope.surgery import CutHeads, LowRank, Remove, ReplaceAttention, ReplaceMap, apply
from otoscope.surgery.narrowing import Narrow
from tests.models.small import _PARAKEET, CASES

MODELS = {case.name: case for case in CASES}
_LOADED = {}


def loaded(name):
    if name not in _LOADED:
        _LOADED[name] = load(MODELS[name].build().eval(), name=name)
    return _LOADED[name]


@pytest.mark.parametrize("name", MODELS)
def test_units_hold_equally_much_and_no_element_twice(name):
    model = loaded(name)
    state, seen = exchanged(model), {}
    for group in groups_of(model).values():
        elements = 0
        for piece in group.slices:
            taken = seen.setdefault(piece.tensor, torch.zeros(state[piece.tensor].shape, dtype=torch.long))
            part = taken.narrow(piece.axis, piece.offset, group.count * piece.size)
            part += 1
            elements += part.numel()
        assert group.elements == elements
        assert group.elements % group.count == 0
    # Each tensor that holds anything of a unit consists of units alone: nothing is left over.
    assert all(bool((one == 1).all()) for one in seen.values())


@pytest.mark.parametrize("name", MODELS)
def test_every_branch_has_a_group_in_the_order_of_the_signal(name):
    model = loaded(name)
    twice = model.family.convolution is not None
    branches = (
        ["feed_forward.1", "attention", "convolution", "feed_forward.2"] if twice else ["attention", "feed_forward"]
    )
    groups = groups_of(model)
    assert list(groups) == [f"layer.{layer}.{branch}" for layer in (1, 2, 3) for branch in branches]
    assert {group.count for group in groups.values() if group.kind == "heads"} == {4}
    assert {group.count for group in groups.values() if group.kind == "rows"} == {64}
    assert {group.count for group in groups.values() if group.kind == "channels"} == ({48} if twice else set())


def test_a_conformers_tensors_by_hand():
    groups = groups_of(loaded("conformer-relative"))
    heads = {
        piece.tensor.rpartition("self_attn.")[2]: (piece.axis, piece.size)
        for piece in groups["layer.1.attention"].slices
    }
    assert heads == {
        "linear_q.weight": (0, 12), "linear_q.bias": (0, 12), "linear_k.weight": (0, 12), "linear_k.bias": (0, 12),
        "linear_v.weight": (0, 12), "linear_v.bias": (0, 12), "linear_out.weight": (1, 12),
        "linear_pos.weight": (0, 12), "pos_bias_u": (0, 1), "pos_bias_v": (0, 1),
    }  # fmt: skip
    channels = groups["layer.2.convolution"]
    told = [
        (piece.tensor.rpartition("conv_module.")[2], piece.axis, piece.size, piece.offset) for piece in channels.slices
    ]
    assert told == [
        ("pointwise_conv1.weight", 0, 1, 0), ("pointwise_conv1.weight", 0, 1, 48), ("depthwise_conv.weight", 0, 1, 0),
        ("batch_norm.weight", 0, 1, 0), ("batch_norm.bias", 0, 1, 0), ("batch_norm.running_mean", 0, 1, 0),
        ("batch_norm.running_var", 0, 1, 0), ("pointwise_conv2.weight", 1, 1, 0),
    ]  # fmt: skip
    assert channels.elements == 48 * (2 * 48 + 7 + 4 + 48)
    rows = groups["layer.3.feed_forward.2"]
    assert rows.elements == 64 * (48 + 1 + 48)
    assert (rows.layer, rows.kind, channels.kind) == (3, "rows", "channels")


def test_what_layers_of_a_wavlm_share_belongs_to_no_group():
    model = loaded("wavlm-ctc-stable")
    told = {piece.tensor for group in groups_of(model).values() for piece in group.slices}
    shared = [name for name in exchanged(model) if "rel_attn_embed" in name or "gru_rel_pos_linear" in name]
    assert len(shared) == 1 + 3 * 2
    assert not told & set(shared)
    assert any(name.endswith("gru_rel_pos_const") for name in told)


def test_heads_that_share_anything_are_no_units():
    config = ParakeetEncoderConfig(**(_PARAKEET | {"num_key_value_heads": 2}))
    torch.manual_seed(0)
    grouped = load(type(MODELS["parakeet"].build())(config).eval())
    assert not [one for one in groups_of(grouped).values() if one.kind == "heads"]
    lent = apply(loaded("hubert-group"), [ReplaceMap("layer.3", "layer", source=2)])
    assert [name for name, one in groups_of(lent).items() if one.kind == "heads"] == ["layer.1.attention"]


def test_edited_models_have_groups_of_what_is_left():
    model = loaded("conformer-relative")
    edits = [
        CutHeads("layer.1.head.0,2"),
        CutHeads("layer.2"),
        Remove("layer.2.convolution"),
        ReplaceAttention("layer.3", "feed-forward"),
        Narrow("layer.3.feed_forward.1", (4, 8)),
    ]
    groups = groups_of(apply(model, edits))
    assert groups["layer.1.attention"].count == 2
    assert groups["layer.3.feed_forward.1"].count == 2
    assert not {"layer.2.attention", "layer.2.convolution", "layer.3.attention"} & set(groups)
    adapted = groups_of(apply(model, [LowRank("layer.1.attention", 4)]))["layer.1.attention"]
    told = {(piece.tensor.rpartition("self_attn.")[2], piece.axis) for piece in adapted.slices}
    assert {("linear_q.base_layer.weight", 0), ("linear_q.lora_B.default.weight", 0)} <= told
    assert not any("linear_q.lora_A" in name for name, _ in told)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_and_running_statistics_travel_and_nothing_else(name):
    model = loaded(name)
    travels = exchanged(model)
    weights = dict(model.source.named_parameters())
    assert set(weights) == {one for one in travels if not is_statistic(one)}
    norms = [path for path, one in model.source.named_modules() if isinstance(one, torch.nn.BatchNorm1d)]
    wanted = {f"{path}.{kind}" for path in norms for kind in ("running_mean", "running_var")}
    assert {one for one in travels if is_statistic(one)} == wanted
    assert all(not one.requires_grad and one.is_floating_point() for one in travels.values())
    some = next(iter(weights))
    assert travels[some].data_ptr() == weights[some].data_ptr()


def test_edits_add_nothing_that_travels_and_a_tied_tensor_travels_once():
    model = loaded("whisper-generation")
    assert "proj_out.weight" in model.source.state_dict()
    assert "proj_out.weight" not in exchanged(model)
    edited = apply(model, [ReplaceMap("layer.1", "uniform")])
    assert list(exchanged(edited)) == list(exchanged(model))


def test_weights_of_maps_are_the_variables():
    found = variables_of(loaded("wavlm-ctc-stable"))
    assert len(found) == 3 * (4 + 1 + 2)
    assert found["wavlm.encoder.layers.0.feed_forward.output_dense.weight"] == 48 * 64
    assert not [name for name in found if "lm_head" in name or "embed" in name or "norm" in name or "bias" in name]
    assert len(variables_of(loaded("parakeet"))) == 3 * (5 + 4 + 3)


def test_an_unknown_group_is_refused_with_the_nearest():
    groups = {"layer.1.attention": Group("layer.1.attention", 1, "heads", 4, (), 0)}
    known({"layer.1.attention": 0.5}, groups)
    with pytest.raises(
        FederationError, match=r"'layer\.1\.atention' is no group.*nearest names are layer\.1\.attention"
    ):
        known({"layer.1.atention": 0.5}, groups)
