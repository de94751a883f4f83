"""Weights set to a checkpoint or drawn anew: what changes, what does not, and by which law."""

import pytest
import torch
import transformers as T

from otoscope.errors import SurgeryError
from otoscope.models import load
from otoscope.models.reductions import WholeMap
from otoscope.surgery import CutHeads, Gate, Redraw, ReplaceMap, Reset, Span, apply, edited, undo
from otoscope.surgery.units import Parts
from tests.models.small import CASES
from tests.surgery.cases import differences, run, same_bits, speech

MODELS = {case.name: case for case in CASES}


def model_of(name, seed=0):
    return load(MODELS[name].build(seed).eval(), name=f"{name}, seed {seed}")


def changed_tensors(before, after):
    one, two = before.source.state_dict(), after.source.state_dict()
    return {name for name in one if not torch.equal(one[name], two[name])}


UNITS = {
    "wav2vec2-group": ["layer.2", "layer.1.attention", "layer.3.feed_forward", "layer.2.norms", "conv.1",
                       "encoder.pos_conv_embed", "layer.1.attention.q_proj.weight"],
    "wavlm-group": ["layer.1", "layer.2.attention"],
    "conformer-relative": ["layer.2.convolution", "layer.1.feed_forward.1", "layer.3.attention"],
    "whisper": ["layer.2.feed_forward", "conv1", "layer.1"],
    "parakeet": ["layer.2.convolution", "subsampling", "layer.3.attention"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "unit"), [(name, unit) for name, units in UNITS.items() for unit in units])
def test_a_reset_sets_the_unit_and_nothing_else(name, unit):
    model, other = model_of(name), model_of(name, 1)
    with torch.no_grad():
        for value in other.source.state_dict().values():
            if value.is_floating_point():  # statistics and norms differ in a trained model
                value.add_(0.01)
    parts = Parts(model.family.encoder(model.source), model.family)
    mine = set(parts.tensors(parts.units[unit]))
    after = apply(model, [Reset(unit, other)])
    found = model.family.encoder(after.source).state_dict()
    old, new = (model.family.encoder(one.source).state_dict() for one in (model, other))
    for path in found:
        assert torch.equal(found[path], (new if path in mine else old)[path]), path
    assert len(changed_tensors(model, after)) == sum(not torch.equal(old[path], new[path]) for path in mine)


def test_a_head_is_its_rows_and_columns():
    model, other = model_of("wavlm-group"), model_of("wavlm-group", 1)
    with torch.no_grad():
        other.source.encoder.layers[1].attention.gru_rel_pos_const.fill_(7)
    after = apply(model, [Reset("layer.2.head.1", other)])
    assert changed_tensors(model, after) == {
        "encoder.layers.1.attention." + name
        for name in ("q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.weight", "q_proj.bias",
                     "k_proj.bias", "v_proj.bias", "gru_rel_pos_const")
    }  # fmt: skip
    old, new, mixed = (one.source.encoder.layers[1].attention for one in (model, other, after))
    rows = slice(12, 24)
    for projection in ("q_proj", "k_proj", "v_proj"):
        expected = getattr(old, projection).weight.clone()
        expected[rows] = getattr(new, projection).weight[rows]
        assert torch.equal(getattr(mixed, projection).weight, expected)
    expected = old.out_proj.weight.clone()
    expected[:, rows] = new.out_proj.weight[:, rows]
    assert torch.equal(mixed.out_proj.weight, expected)
    assert mixed.gru_rel_pos_const.flatten().tolist() == [3, 7, 3, 3]  # threefold, as all weights of the case


@pytest.mark.parametrize("name", ["wav2vec2-ctc", "conformer-relative", "wavlm-group", "parakeet"])
def test_a_reset_fits_heads_that_were_cut(name):
    model, other = model_of(name), model_of(name, 1)
    cuts = [CutHeads("layer.2.head.0,3"), CutHeads("layer.3")]
    one = apply(model, [*cuts, Reset("layer.2-3", other)])
    two = apply(model, [Reset("layer.2-3", other), *cuts])
    assert same_bits(one.source.state_dict(), two.source.state_dict())
    head = apply(model, [*cuts, Reset("layer.2.head.2", other)])
    assert same_bits(
        head.source.state_dict(), apply(model, [Reset("layer.2.head.2", other), *cuts]).source.state_dict()
    )


def test_checkpoints_come_in_three_forms(tmp_path):
    model, other = model_of("wav2vec2-ctc"), model_of("wav2vec2-ctc", 1)
    other.source.save_pretrained(tmp_path)
    expected = apply(model, [Reset("layer.1", other)]).source.state_dict()
    bare = other.source.wav2vec2.state_dict()
    # The vector that training masks frames with is absent from many published checkpoints.
    published = {name: value for name, value in other.source.state_dict().items() if "masked_spec_embed" not in name}
    assert len(published) == len(other.source.state_dict()) - 1
    for form in (str(tmp_path), tmp_path, other.source.state_dict(), bare, published):
        assert same_bits(apply(model, [Reset("layer.1", form)]).source.state_dict(), expected)
    stored = Reset("layer.1", tmp_path).to_dict()
    assert stored == {"edit": "reset", "units": "layer.1", "checkpoint": str(tmp_path)}
    with pytest.raises(SurgeryError, match="weights in memory cannot be stored"):
        Reset("layer.1", other).to_dict()


def test_the_copy_owns_what_was_reset():
    model, other = model_of("wav2vec2-group"), model_of("wav2vec2-group", 1)
    after = apply(model, [Reset("layer.1", other)])
    before = other.source.encoder.layers[0].attention.q_proj.weight.clone()
    with torch.no_grad():
        after.source.encoder.layers[0].attention.q_proj.weight.zero_()
    assert torch.equal(other.source.encoder.layers[0].attention.q_proj.weight, before)


def test_what_is_frozen_stays_frozen():
    source = MODELS["wav2vec2-group"].build().eval()
    source.encoder.layers[0].requires_grad_(False)
    changed = edited(source, [Redraw("layer.1-2", 1)])
    assert not any(one.requires_grad for one in changed.encoder.layers[0].parameters())
    assert all(one.requires_grad for one in changed.encoder.layers[1].parameters())


def test_checkpoints_that_do_not_fit_are_refused():
    model = model_of("wav2vec2-group")
    before = {name: value.clone() for name, value in model.source.state_dict().items()}
    small = dict(model.source.state_dict())
    small["encoder.layers.1.feed_forward.output_dense.weight"] = torch.zeros(48, 32)
    fewer = {name: value for name, value in before.items() if "layers.2" not in name}
    for checkpoint, told in [
        (small, r"'encoder\.layers\.1\.feed_forward\.output_dense\.weight' has the shape \(48, 32\) in the state dict"),
        (fewer, r"state dict has no 'encoder\.layers\.2"),
        ({"weight": torch.zeros(1)}, "with or without the prefix"),
        (model_of("hubert-group"), "family hubert, and the model of wav2vec2"),
    ]:
        with pytest.raises(SurgeryError, match=told):
            apply(model, [Reset("layer.*", checkpoint)])
    assert same_bits(model.source.state_dict(), before)


@pytest.mark.parametrize("name", UNITS)
def test_draws_are_the_librarys_own_and_hang_on_the_seed(name, tmp_path):
    # A model that was loaded from a folder, on which the library's own initialiser does nothing.
    model = load(MODELS[name].write(tmp_path))
    type_ = type(model.family.encoder(model.source))
    state = torch.get_rng_state()
    one, same, other = (apply(model, [Redraw("layer.2", seed)]) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert same_bits(one.source.state_dict(), same.source.state_dict())
    assert changed_tensors(one, other)
    assert all("layers.1." in path for path in changed_tensors(model, one) | changed_tensors(one, other))
    torch.manual_seed(5)
    fresh = type_(model.family.encoder(model.source).config).state_dict()
    found = model.family.encoder(one.source).state_dict()
    drawn = [path for path in found if path.startswith(f"{model.family.layers}.1.")]
    assert drawn
    assert all(torch.equal(found[path], fresh[path]) for path in drawn)
    # The law of a linear map is that of the configuration: a normal one of its initializer_range.
    weight = found[f"{model.family.layers}.1.{model.family.attention}.{model.family.projections[0]}.weight"]
    config = model.family.encoder(model.source).config
    spread = getattr(config, "initializer_range", None) or config.init_std
    assert weight.std() == pytest.approx(spread, rel=0.1)


def test_a_draw_that_changes_nothing_is_refused():
    model = model_of("wav2vec2-group")
    drawn = apply(model, [Redraw("layer.2", 3)])
    assert same_bits(apply(drawn, [Redraw("layer.2", 3)]).source.state_dict(), drawn.source.state_dict())
    plain = load(edited(drawn.source, []))
    del plain.source.otoscope_record  # the same weights, by another way
    with pytest.raises(SurgeryError, match="changes none of its tensors"):
        apply(plain, [Redraw("layer.2", 3)])
    with pytest.raises(SurgeryError, match=r"layer\.2\.norms.*changes none"):
        apply(drawn, [Redraw("layer.2.norms", 4)])


def test_heads_that_share_keys_are_gated_but_not_taken_apart():
    config = MODELS["parakeet"].config()
    config.num_key_value_heads = 2
    model, corpus = load(T.ParakeetEncoder(config).eval()), speech(0.5)
    for edit in (CutHeads("layer.1.head.0"), Redraw("layer.1.head.0"), Reset("layer.1.head.0", model)):
        with pytest.raises(SurgeryError, match=r"layer 1 share keys and values.*Gate them"):
            apply(model, [edit])
    changed = apply(model, [Gate("layer.1.head.0"), Span("layer.2", 2), ReplaceMap("layer.3", "layer", source=1)])
    fused, tapped = run(changed, corpus), run(changed, corpus, reductions=[WholeMap])
    assert max(differences(fused, tapped).values()) < 1e-5
    assert len(changed_tensors(model, apply(model, [Redraw("layer.2.attention")]))) > 4


def test_undo_takes_back_some_edits_and_is_refused_without_the_original():
    model, corpus = model_of("wav2vec2-ctc"), speech(0.3)
    gate, draw, cut = Gate("layer.1.head.0", 0.5), Redraw("layer.2", 1), CutHeads("layer.3.head.1")
    all_three = apply(model, [gate, draw, cut])
    assert all_three.name.endswith("(edited)")
    left = undo(all_three, model, [draw])
    expected = apply(model, [gate, cut])
    assert same_bits(left.source.state_dict(), expected.source.state_dict())
    assert max(differences(run(left, corpus), run(expected, corpus)).values()) == 0
    later = apply(apply(model, [gate]), [cut])
    assert same_bits(undo(later, model).source.state_dict(), model.source.state_dict())
    with pytest.raises(SurgeryError, match="fingerprints differ"):
        undo(all_three, model_of("wav2vec2-ctc", 1))
    head = load(MODELS["wav2vec2-ctc"].build().eval())
    with torch.no_grad():
        head.source.lm_head.bias.add_(1)
    with pytest.raises(SurgeryError, match="fingerprints differ"):
        undo(all_three, head)
    with pytest.raises(SurgeryError, match="was not edited"):
        undo(model, model)
    with pytest.raises(SurgeryError, match="has not been through"):
        undo(all_three, model, [Gate("layer.2")])
