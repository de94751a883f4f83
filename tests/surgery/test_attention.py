"""What edits do to attention, against the same formulas on whole maps; gradients of gates; what cannot be done."""

import pytest
import torch

from otoscope.errors import SurgeryError
from otoscope.models import load
from otoscope.models.edits import BranchEdit, HeadEdits
from otoscope.models.families import submodule
from otoscope.models.reductions import ColumnMean, OffsetMean, RowEntropy, WholeMap
from otoscope.surgery import CutHeads, Gate, MeanAblate, ReplaceMap, Span, apply, edited, gates
from tests.models.small import CASES
from tests.surgery.cases import run, speech

NAMES = ("wav2vec2-group", "wavlm-ctc-stable", "conformer-relative", "conformer-rotary-ctc", "bert-relative-key",
         "whisper", "parakeet")  # fmt: skip
CORPUS = speech(2.0)  # fills Whisper's input, so that nothing is cut off its maps
LAYER = 2


def case(name):
    return next(case for case in CASES if case.name == name)


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return load(case(request.param).build().eval())


def attended(model):
    """Input and output of layer 2's attention, and the maps of layers 1 and 2."""
    seen = {}
    attention = submodule(submodule(model.encoder, model.family.layers)[LAYER - 1], model.family.attention)
    handle = attention.register_forward_hook(
        lambda module, args, kwargs, out: seen.update(given=args[0] if args else kwargs["hidden_states"], out=out[0]),
        with_kwargs=True,
    )
    capture = run(model, CORPUS, reductions=[WholeMap])
    handle.remove()
    maps = {layer: capture.attention[layer][0]["whole-map"] for layer in (1, LAYER)}
    return attention, seen["given"][0], seen["out"][0], maps, capture


@pytest.fixture(scope="module")
def original(model):
    return attended(model)


def offsets(frames):
    at = torch.arange(frames)
    return (at[:, None] - at).abs()


def banded(maps, radius):
    kept = maps * (offsets(maps.shape[-1]) <= radius)
    return kept / kept.sum(-1, keepdim=True)


def with_heads(maps, heads, changed):
    out = maps.clone()
    out[heads] = changed[heads]
    return out


# An edit of layer 2, and the map and the gates that it should compute its output with, from the original maps.
MAPS = {
    "gate": (Gate("layer.2.head.0,3", 0.25), lambda own, first: own * torch.tensor([0.25, 1, 1, 0.25])[:, None, None]),
    "zero": (Gate("layer.2"), lambda own, first: own * 0),
    "literal": (Span("layer.2.attention", 5), lambda own, first: own * (offsets(own.shape[-1]) <= 5)),
    "literal, one head": (
        Span("layer.2.head.1", 0),
        lambda own, first: with_heads(own, [1], own * torch.eye(own.shape[-1])),
    ),
    "banded": (Span("layer.2", 5, "banded"), lambda own, first: banded(own, 5)),
    "banded, two heads": (Span("layer.2.head.1-2", 2, "banded"), lambda own, first: with_heads(own, [1, 2], banded(own, 2))),
    "uniform": (ReplaceMap("layer.2", "uniform"), lambda own, first: torch.ones_like(own) / own.shape[-1]),
    "local": (ReplaceMap("layer.2", "local", width=3), lambda own, first: banded(torch.ones_like(own), 3)),
    "layer": (ReplaceMap("layer.2", "layer"), lambda own, first: first),
}  # fmt: skip
# What the tap is to report: rows that sum to one.
REPORTED = {
    "gate": lambda own: own,
    "zero": lambda own: own,
    "literal": lambda own: banded(own, 5),
    "literal, one head": lambda own: with_heads(own, [1], banded(own, 0)),
}


@pytest.mark.parametrize("name", MAPS)
def test_output_is_that_of_the_changed_map(model, original, name):
    edit, formula = MAPS[name]
    _, given, _, maps, _ = original
    changed = apply(model, [edit])
    attention, given_now, out, seen, capture = attended(changed)
    assert torch.equal(given_now, given)  # layer 1 is as it was
    used = formula(maps[LAYER], maps[1])
    _, _, value, projection = model.family.projections
    frames = used.shape[-1]
    with torch.inference_mode():
        values = getattr(attention, value)(given).view(frames, 4, -1).transpose(0, 1)
        expected = getattr(attention, projection)((used @ values).transpose(0, 1).reshape(frames, -1))
    assert torch.allclose(out, expected, atol=2e-5)
    told = REPORTED.get(name, lambda own: used)(maps[LAYER])
    assert torch.allclose(seen[LAYER], told, atol=1e-5)
    assert not capture.outside[LAYER][0].any()  # what a span cuts off is not attention on padding


def test_sums_over_edited_maps_equal_those_of_the_whole_map(model):
    changed = apply(model, [Span("layer.1", 4), Span("layer.2", 3, "banded"), ReplaceMap("layer.3", "local", width=2)])
    capture = run(changed, CORPUS, reductions=[WholeMap, RowEntropy, ColumnMean, OffsetMean])
    for found in capture.attention.values():
        maps = found[0]["whole-map"].double()
        assert torch.allclose(found[0]["row-entropy"], -torch.special.xlogy(maps, maps).sum(-1).mean(-1), atol=1e-5)
        assert torch.allclose(found[0]["column-mean"], maps.mean(1), atol=1e-6)
        frames = maps.shape[-1]
        profile = torch.stack([maps.diagonal(d, -2, -1).sum(-1) / frames for d in range(1 - frames, frames)], -1)
        assert torch.allclose(found[0]["offset-mean"], profile, atol=1e-6)


def test_a_value_bias_goes_with_its_head():
    """A gate of zero takes the value bias too; all heads gated leave the output projection's bias."""
    model = load(case("wav2vec2-group").build().eval())
    attention, _, out, _, _ = attended(apply(model, [Gate("layer.2")]))
    assert attention.v_proj.bias.abs().max() > 0.01
    assert torch.allclose(out, attention.out_proj.bias.expand_as(out), atol=1e-7)


@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm-group", "parakeet"])
def test_gates_have_gradients(name):
    """dL/dg of a head by finite differences, through the model that transformers runs."""
    model = load(case(name).build().double().eval(), dtype=torch.float64)
    module = edited(model.source, [Gate("layer.*", 1.0)])
    inputs = {
        k: v.double() if v.is_floating_point() else v
        for k, v in model.frontend.inputs([CORPUS[0].read()[:8000]]).items()
    }
    weigh = torch.randn(48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(copy_):
        return (model.family.encoder(copy_)(**inputs).last_hidden_state @ weigh).mean()

    held = gates(module)
    assert sorted(held) == [1, 2, 3]
    for gate in held.values():
        gate.requires_grad_()
    loss(module).backward()
    step = 1e-3
    with torch.no_grad():
        for layer, head in [(1, 0), (2, 3), (3, 1)]:
            up, down = (loss(edited(module, [Gate(f"layer.{layer}.head.{head}", 1 + s)])) for s in (step, -step))
            assert held[layer].grad[head] == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-3, abs=1e-7)
            assert held[layer].grad[head] != 0


def test_later_edits_of_the_same_thing_hold():
    model = load(case("wav2vec2-group").build().eval())
    changed = apply(
        model, [Gate("layer.1", 0.0), Gate("layer.1.head.2", 0.5), Span("layer.2", 3), Span("layer.2.head.0", 1)]
    )
    found = gates(changed.source)
    assert found[1].tolist() == [0, 0, 0.5, 0]
    edits = [one for one in changed.source.modules() if isinstance(one, HeadEdits)]
    assert edits[1].radius.tolist() == [1, 3, 3, 3]


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        (lambda: [ReplaceMap("layer.1", "layer")], "layer 0, which is not made before"),
        (lambda: [ReplaceMap("layer.2", "layer", source=3)], "layer 3, which is not made before"),
        (lambda: [ReplaceMap("layer.2", "first")], "is one layer"),
        (lambda: [ReplaceMap("layer.2", "neighbour")], "No map is called 'neighbour'"),
        (lambda: [ReplaceMap("layer.2", "layer"), CutHeads("layer.1.head.0")], "Cut the same heads from both"),
        (lambda: [ReplaceMap("layer.1", "uniform"), ReplaceMap("layer.2", "layer")], "itself replaced"),
        (lambda: [ReplaceMap("layer.2.head.1", "uniform")], "of the kind 'head'"),
        (lambda: [Span("layer.1", -1)], "radius of a span is -1"),
        (lambda: [Span("layer.1", True)], "whole number of frames"),
        (lambda: [Span("layer.1", 2, "soft")], "no form 'soft'"),
        (lambda: [Gate("layer.1", float("nan"))], "A gate is nan"),
        (lambda: [Gate("layer.1.feed_forward")], "of the kind 'feed_forward'"),
        (lambda: [MeanAblate("layer.1", {"layer.2": [0.0] * 48})], "no mean for layer.1"),
        (lambda: [MeanAblate("layer.1", {"layer.1": [0.0] * 5})], "has 5 values, and what it replaces has 48"),
        (lambda: [MeanAblate("layer.1.head.0", {"layer.1.head.0": [0.0] * 48})], "has 48 values.*has 12"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(edits, told):
    source = case("wav2vec2-group").build().eval()
    with pytest.raises((SurgeryError, TypeError), match=told):
        apply(load(source), edits())
    assert not any(isinstance(one, HeadEdits | BranchEdit) for one in source.modules())


def test_shared_maps_are_refused_under_gradient_checkpointing():
    module = edited(case("wav2vec2-ctc").build(), [ReplaceMap("layer.2-3", "first")]).train()
    for layer in module.wav2vec2.encoder.layers:
        layer.gradient_checkpointing = True
    with pytest.raises(SurgeryError, match="gradient checkpointing"):
        module.wav2vec2(torch.randn(1, 8000))


def test_a_borrowed_map_carries_gradients_to_its_source():
    module = edited(case("wav2vec2-group").build().eval(), [ReplaceMap("layer.1-3", "first")])
    module(
        torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    ).last_hidden_state.square().mean().backward()
    first, second = (module.encoder.layers[k].attention.q_proj.weight.grad for k in (0, 1))
    assert first.abs().max() > 0
    assert second is None


@pytest.mark.parametrize("name", ["wav2vec2-group", "parakeet"])
def test_layer_drop_is_off_where_maps_are_borrowed(name):
    """A source that is dropped would leave no map; both families' models are made to drop every second layer."""
    source = case(name).build()
    changed = edited(source, [ReplaceMap("layer.2-3", "first")]).train()
    inputs = load(source).frontend.inputs([CORPUS[0].read()[:8000]])
    for _ in range(6):  # with LayerDrop, all of these succeed once in 64 times at most
        changed(**inputs)
    assert source.config.layerdrop == 0.5
    assert changed.config.layerdrop == 0.0


@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm-group", "conformer-relative"])
@pytest.mark.parametrize("edit", [Span("layer.2", 30), ReplaceMap("layer.2", "uniform"), Gate("layer.2", 0.5)])
def test_weights_are_dropped_in_training_and_only_there(name, edit):
    """Whichever way the map is computed: as many zeros in the context as dropping alone can make."""
    module = edited(case(name).build().eval(), [edit])
    attention = submodule(module.encoder.layers[1], "self_attn" if "conformer" in name else "attention")
    given = torch.randn(1, 1, 48, generator=torch.Generator().manual_seed(0))  # one frame: dropped, nothing is left
    if isinstance(attention.dropout, float):
        attention.dropout = 0.5
    else:
        attention.dropout.p = 0.5
    seen = []
    projection = attention.linear_out if "conformer" in name else attention.out_proj
    projection.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    others = {}
    if "wavlm" in name:
        others = {"position_bias": torch.zeros(4, 1, 1)}
    elif "conformer" in name:
        others = {"relative_position_embeddings": torch.zeros(1, 1, 48)}
    torch.manual_seed(0)
    for training in (False, True):
        attention.train(training)
        for _ in range(25):
            attention(given, **others)
    whole, dropped = torch.cat(seen[:25]).view(25, 4, 12), torch.cat(seen[25:]).view(25, 4, 12)
    assert torch.equal(whole, whole[:1].expand_as(whole))
    gone = (dropped == 0).all(-1)
    assert 25 < gone.sum() < 75  # of 100 heads, each dropped with probability one half
    assert torch.allclose(dropped[~gone], 2 * whole[~gone], rtol=1e-5)


@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm-group", "parakeet"])
def test_maps_of_a_model_in_half_precision_are_taken_in_float32(name):
    model = load(case(name).build().to(torch.bfloat16).eval())
    changed = apply(model, [Gate("layer.1.head.0", 0.5), Span("layer.2", 4), ReplaceMap("layer.3", "layer", source=1)])
    capture = run(changed, speech(0.5), reductions=[WholeMap])
    assert capture.streams["layer.3"].dtype == torch.bfloat16
    for found in capture.attention.values():
        rows = found[0]["whole-map"].double().sum(-1)
        assert torch.allclose(rows, torch.ones_like(rows), atol=1e-5)


@pytest.mark.parametrize("name", ["wav2vec2-ctc", "wavlm-group", "conformer-relative", "whisper", "parakeet"])
def test_another_attention_function_does_not_leave_the_edit_out(name):
    model = load(case(name).build().eval())
    module = edited(model.source, [Gate("layer.2.head.1"), Gate("layer.3")])
    encoder, inputs = model.family.encoder(module), model.frontend.inputs([CORPUS[0].read()[:8000]])
    with torch.inference_mode():
        expected = encoder(**inputs).last_hidden_state
        module.set_attn_implementation("eager")
        if name == "wavlm-group":  # whose attention goes through no function
            assert torch.equal(encoder(**inputs).last_hidden_state, expected)
            return
        with pytest.raises(SurgeryError, match="layer 2 was edited, and the model now runs 'eager' attention"):
            encoder(**inputs)
        module.set_attn_implementation("otoscope")
        assert torch.equal(encoder(**inputs).last_hidden_state, expected)


def test_attention_on_silence_beyond_the_speech_is_told_apart():
    """Of a uniform map over all frames of Whisper's window, those beyond the speech get their share."""
    model = load(case("whisper").build().eval())
    capture = run(apply(model, [ReplaceMap("layer.2", "uniform")]), speech(0.5), reductions=[WholeMap])
    spoken, window = capture.lengths["layer.2"][0], model.frontend.attended(8000)
    assert spoken < window / 2
    assert capture.outside[2][0].tolist() == pytest.approx([1 - spoken / window] * 4, abs=1e-6)
    short = run(
        apply(model, [ReplaceMap("layer.2", "uniform"), Span("layer.2", 3)]), speech(0.5), reductions=[WholeMap]
    )
    # Of the last query before the silence three keys lie in it, of the one before two, and so on.
    assert short.outside[2][0].tolist() == pytest.approx([(3 + 2 + 1) / window / spoken] * 4, abs=1e-6)


def test_a_map_is_lent_on():
    """Layer 3 uses the map of layer 2, which uses that of layer 1."""
    model = load(case("wav2vec2-group").build().eval())
    changed = apply(model, [ReplaceMap("layer.3", "layer"), ReplaceMap("layer.2", "layer")])
    maps = [run(changed, CORPUS, reductions=[WholeMap]).attention[layer][0]["whole-map"] for layer in (1, 2, 3)]
    assert torch.allclose(maps[0], maps[1], atol=1e-6)
    assert torch.allclose(maps[0], maps[2], atol=1e-6)
    encoder = changed.encoder
    lending = {id(one.lending): one.lending for one in encoder.modules() if isinstance(one, HeadEdits)}
    assert [one.made for one in lending.values()] == [{}]  # nothing is kept for a later pass


@pytest.mark.parametrize("name", ["conformer-relative", "bert-relative-key", "parakeet"])
@pytest.mark.parametrize("edits", [[], [Gate("layer.*", 1.0)]], ids=["bare", "gated"])
def test_training_mode_in_a_copy_that_shares_weights_leaves_batch_statistics_alone(name, edits):
    model = load(case(name).build().eval())
    before = {key: value.clone() for key, value in model.source.state_dict().items()}
    copy_ = edited(model.source, edits, share=True).train()
    encoder = model.family.encoder(copy_)
    for owner in (encoder, encoder.config):
        if hasattr(owner, "layerdrop"):
            owner.layerdrop = 0.0
    encoder(**model.frontend.inputs([speech(0.4)[0].read()]))
    after, own = model.source.state_dict(), copy_.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    counted = [key for key in own if key.endswith("num_batches_tracked")]
    assert all(int(own[key]) == 1 for key in counted)
    assert bool(counted) == any("running_mean" in key for key in before)
    shared = [key for key in own if "running" not in key and "tracked" not in key]
    assert all(own[key].data_ptr() == after[key].data_ptr() for key in shared)


def test_a_copy_that_shares_weights_shares_no_edits():
    model = load(case("wav2vec2-group").build().eval())
    one = edited(model.source, [Gate("layer.1.head.0", 0.5)])
    two = edited(one, [Gate("layer.1.head.0", 0.25), Span("layer.1", 2)], share=True)
    assert gates(one)[1].tolist() == [0.5, 1, 1, 1]
    assert gates(two)[1].tolist() == [0.25, 1, 1, 1]
    assert two.encoder.layers[0].attention.q_proj.weight is one.encoder.layers[0].attention.q_proj.weight
    assert (one.encoder.layers[0].attention.otoscope_heads.radius > 1000).all()
