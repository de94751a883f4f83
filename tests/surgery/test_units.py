"""Names of a model's parts: what they match, and what is said where they match nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import SurgeryError
from otoscope.models import load
from otoscope.surgery import CutHeads, Gate, apply, from_dict, gates, record, undo, units
from otoscope.surgery.units import Parts
from tests.models.small import CASES

MODELS = {case.name: case for case in CASES}


def parts(name):
    source = MODELS[name].build()
    model = load(source)
    return Parts(model.family.encoder(source), model.family)


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_has_one_name_and_every_layer_its_parts(name):
    found = parts(name)
    kinds = [unit.kind for unit in found.units.values()]
    assert kinds.count("layer") == kinds.count("attention") == kinds.count("norms") == 3
    assert kinds.count("head") == 12
    assert kinds.count("feed_forward") == 3 * len(found.family.feed_forwards)
    assert kinds.count("convolution") == (3 if found.family.convolution else 0)
    assert kinds.count("conv") == (7 if found.family.conv_layers else 0)
    state = found.encoder.state_dict()
    named = [path for unit in found.units.values() if unit.paths[0] in state for path in unit.paths]
    assert sorted(named) == sorted(state)
    for number in (1, 2, 3):
        whole = found.tensors(found.units[f"layer.{number}"])
        below = [
            set(found.tensors(unit))
            for unit in found.units.values()
            if unit.layer == number and unit.kind in ("attention", "feed_forward", "convolution", "norms")
        ]
        assert set().union(*below) == set(whole)
        assert sum(map(len, below)) == len(whole)


def test_names_are_the_same_words_in_every_family():
    for name in MODELS:
        found = parts(name)
        query = found.family.projections[0]
        assert f"layer.3.attention.{query}.weight" in found.units
        assert len(found.find("layer.*.attention")) == 3


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("layer.2", ["layer.2"]),
        ("layer.*", ["layer.1", "layer.2", "layer.3"]),
        ("layer.2-3", ["layer.2", "layer.3"]),
        ("layer.1,3.attention", ["layer.1.attention", "layer.3.attention"]),
        ("layer.2.head.1-2", ["layer.2.head.1", "layer.2.head.2"]),
        ("layer.1.head.0,2-3", ["layer.1.head.0", "layer.1.head.2", "layer.1.head.3"]),
        ("conv.7", ["conv.7"]),
        ("layer.1.attention.?_proj.weight", None),
        ("layer.1.attention.*_proj.bias", [f"layer.1.attention.{k}_proj.bias" for k in ("k", "v", "q", "out")]),
        ("encoder.pos_conv_embed", ["encoder.pos_conv_embed"]),
        ("layer.1.feed_forward.*.weight",
         [f"layer.1.feed_forward.{k}_dense.weight" for k in ("intermediate", "output")]),
    ],
)  # fmt: skip
def test_patterns(pattern, expected):
    found = parts("wav2vec2-group")
    if expected is None:
        with pytest.raises(SurgeryError, match="matches no unit"):
            found.find(pattern)
    else:
        assert [unit.name for unit in found.find(pattern)] == expected


def test_both_factors_of_the_weight_norm_belong_to_the_positions():
    found = parts("wav2vec2-group")
    names = {path.rpartition(".")[2] for path in found.tensors(found.units["encoder.pos_conv_embed"])}
    assert names == {"bias", "original0", "original1"}


def test_batch_norm_statistics_belong_to_the_convolution():
    found = parts("conformer-relative")
    names = {path.rpartition(".")[2] for path in found.tensors(found.units["layer.1.convolution"])}
    assert {"running_mean", "running_var", "num_batches_tracked"} <= names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("layer.9", r"matches no unit of this wav2vec2 model of 3 layers with 4 heads.*layer\.1"),
        ("layer.2.haed.1", r"nearest names are .*layer\.2\.head\.1"),
        ("layer.2.head.4", r"layer\.2\.head\."),
        ("layer.2-4", r"'layer\.2-4' matches no unit"),
        ("layer.3-2", "range 3-2.*is empty"),
        ("layer.1-99999999999", "matches no unit"),
        ("layer." + "9" * 5000, "matches no unit"),
        ("nonsense!", "matches no unit"),
        ("", "matches no unit"),
    ],
)
def test_a_name_that_matches_nothing_lists_the_nearest(name, near):
    source = MODELS["wav2vec2-group"].build()
    before = {key: value.clone() for key, value in source.state_dict().items()}
    with pytest.raises(SurgeryError, match=near):
        apply(load(source), [Gate("layer.1.head.0"), Gate(name)])
    assert all(torch.equal(value, before[key]) for key, value in source.state_dict().items())


@given(st.text(alphabet="layerhdconv.*0123456789,-()[", max_size=20))
def test_any_text_is_found_or_refused(text):
    try:
        found = WAVE.find(text)
    except SurgeryError:
        return
    assert found


WAVE = parts("data2vec-audio")


def test_a_head_that_was_cut_can_be_cut_again_and_nothing_else():
    cut = apply(load(MODELS["wav2vec2-group"].build()), [CutHeads("layer.1.head.2")])
    assert "layer.1.head.2" not in units(cut)
    assert "layer.1.head.3" in units(cut)
    assert apply(cut, [CutHeads("layer.1.head.2,3")]).anatomy.head_names[0] == (0, 1)
    with pytest.raises(SurgeryError, match="was cut from this model"):
        apply(cut, [Gate("layer.1.head.2", 0.5)])
    # A name that stands for all heads stands for those that are left.
    apply(cut, [Gate("layer.1.head.*", 0.5)])


def test_an_edit_of_a_head_that_is_cut_later_is_repeated_and_taken_back():
    model = load(MODELS["wav2vec2-group"].build())
    gate, open_again, cut = Gate("layer.1.head.1-2", 0.5), Gate("layer.1.head.2", 1.0), CutHeads("layer.1.head.1")
    once = apply(model, [gate, open_again, cut])
    again = apply(once, [gate])
    assert gates(again.source)[1].tolist() == [1, 0.5, 1]  # heads 0, 2 and 3
    assert record(again.source)[0] == (open_again, cut, gate)
    for taken, left in (([open_again], [1, 0.5, 1]), ([gate], [1, 1, 1]), ([cut], [1, 0.5, 0.5, 1])):
        assert gates(undo(again, model, taken).source)[1].tolist() == left
    with pytest.raises(SurgeryError, match="was cut from this model"):
        apply(again, [Gate("layer.1.head.1-2", 0.25)])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"edit": "amputate", "units": "layer.1"}, "no edit 'amputate'.*bypass"),
        ({"units": "layer.1"}, "no edit None"),
        ({"edit": "gate", "units": "layer.1", "strength": 2}, "takes no 'strength'.*units, value"),
        ({"edit": "span", "units": "layer.1"}, "lacks a value.*radius"),
    ],
)
def test_stored_edits_that_are_none(values, told):
    with pytest.raises(SurgeryError, match=told):
        from_dict(values)
