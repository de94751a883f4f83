"""Low-rank adapters: they begin without effect, are what their formula says in every family, and fold into weights."""

import pickle
import sys

import pytest
import torch

from otoscope.errors import MissingPackageError, SurgeryError
from otoscope.interventions.weights import weight_importance
from otoscope.models import load
from otoscope.models.families import FAMILIES, submodule
from otoscope.surgery import CutHeads, Gate, LowRank, Redraw, Remove, Reset, Span, apply, edited, fingerprint
from otoscope.surgery.low_rank import TARGETS, linear_maps, merged_module
from otoscope.surgery.units import Parts
from tests.models.small import CASES
from tests.surgery.cases import differences, run, same_bits, speech

CORPUS = speech(0.3, 0.45)
ONE_EACH = [next(case for case in CASES if case.family == family.name) for family in FAMILIES]
EVERY = ",".join(TARGETS)
_LOADED = {}


def loaded(case, seed=0):
    if (case.name, seed) not in _LOADED:
        model = load(case.build(seed).eval(), name=case.name)
        _LOADED[case.name, seed] = model
    return _LOADED[case.name, seed]


def small(name, seed=0):
    return loaded(next(case for case in CASES if case.name == name), seed)


def adapters(module):
    return {path: one for path, one in module.named_modules() if hasattr(one, "base_layer")}


def learnt(model, edits):
    """An edited copy whose adapters change something."""
    made = edited(model.source, edits)
    draw = torch.Generator().manual_seed(7)
    for one in adapters(made).values():
        weight = one.lora_B["default"].weight
        torch.nn.init.normal_(weight, 0, 0.5, generator=draw)
    return load(made.eval(), name=model.name)


def folded_by_hand(model, made):
    """The original with W + alpha / rank B A written into its state dict."""
    state, new = dict(model.source.state_dict()), dict(made.source.state_dict())
    for path, one in adapters(made.source).items():
        rank, alpha, *_ = one.made_by
        product = new[f"{path}.lora_B.default.weight"] @ new[f"{path}.lora_A.default.weight"]
        state[f"{path}.weight"] = state[f"{path}.weight"] + alpha / rank * product
    twin = next(case for case in CASES if case.name == model.name).build().eval()
    twin.load_state_dict(state)
    return load(twin)


def encode(module, model):
    return model.family.encoder(module)(**model.frontend.inputs([CORPUS[1].read()])).last_hidden_state


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_new_adapters_change_nothing_and_learnt_ones_are_a_change_of_weights(case):
    model = loaded(case)
    edits = [LowRank("layer.1-2", 4, 6.0, EVERY)]
    fresh = apply(model, edits)
    before = run(model, CORPUS)
    assert same_bits(run(fresh, CORPUS).streams, before.streams)
    count = len(adapters(fresh.source))
    assert count == 2 * (4 + 2 * len(model.family.feed_forwards))
    assert fresh.parameters - model.parameters == sum(
        4 * (one.in_features + one.out_features) for one in adapters(fresh.source).values()
    )

    made = learnt(model, edits)
    after = run(made, CORPUS)
    assert max(differences(before, after).values()) > 1e-2
    expected = folded_by_hand(model, made)
    assert max(differences(run(expected, CORPUS), after).values()) < 1e-4

    # The copy by itself, which does not go through the tap, and the folded one, which knows nothing of adapters.
    folded = merged_module(made.source)
    assert not adapters(folded)
    assert folded.state_dict().keys() == model.source.state_dict().keys()
    with torch.inference_mode():
        plain, own, other = (encode(one, model) for one in (model.source, made.source, folded))
    assert (plain - own).abs().max() > 1e-2
    assert torch.allclose(own, other, atol=1e-4)
    for name, value in expected.source.state_dict().items():
        assert torch.allclose(folded.state_dict()[name], value, atol=1e-6), name


@pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.name)
def test_every_target_has_an_effect_and_every_adapter_a_gradient(case):
    model = loaded(case)
    with torch.inference_mode():
        before = encode(model.source, model)
        for target in TARGETS:
            made = learnt(model, [LowRank("layer.2", 2, alpha=400.0, targets=target)])
            assert (encode(made.source, model) - before).abs().max() > 1e-4, target
    made = learnt(model, [LowRank("layer.2", 2, targets=EVERY)])
    encode(made.source, model).square().mean().backward()
    lost = [
        name
        for path, one in adapters(made.source).items()
        for name, value in one.named_parameters()
        if "lora_" in name and not (value.grad is not None and value.grad.any())
        and not path.endswith("k_proj")  # a shift of all keys by the same does not change a softmax
    ]  # fmt: skip
    assert not lost


@pytest.mark.parametrize("name", ["wavlm-ctc-stable", "whisper", "conformer-relative"])
def test_dropout_acts_in_training_on_the_adapter_alone(name):
    model = small(name)
    made = learnt(model, [LowRank("layer.2.attention", 4, targets="query", dropout=0.5)]).source
    one = next(iter(adapters(made).values()))
    states = torch.randn(3, 5, 48)
    assert torch.equal(one.eval()(states), one(states))
    heard = one.train()(states), one(states)
    assert not torch.equal(*heard)
    base = one.base_layer(states)
    assert all(torch.isfinite(value - base).all() for value in heard)
    assert torch.allclose(one.eval()(states), base + 4.0 * states @ one.lora_A["default"].weight.T
                          @ one.lora_B["default"].weight.T, atol=1e-4)  # fmt: skip


def test_dropout_is_not_left_out_by_the_attention_of_wavlm():
    model = small("wavlm-group")
    made = learnt(model, [LowRank("layer.2.attention", 4, targets="query", dropout=0.9)]).source
    encoder = model.family.encoder(made)
    encoder.config.layerdrop = 0.0
    for one in adapters(made).values():  # the adapter alone is in training
        one.train()
    with torch.no_grad():
        assert not torch.equal(encode(made, model), encode(made, model))


def test_cutting_heads_of_an_adapted_attention_equals_gating_them():
    for name in ("wav2vec2-stable", "wavlm-group", "conformer-relative", "parakeet", "whisper"):
        made = learnt(small(name), [LowRank("layer.1-2", 4, targets="query,key,value,output")])
        heads = ("layer.1.head.1", "layer.2")
        cut = apply(made, [CutHeads(one) for one in heads])
        gated = apply(made, [Gate(one) for one in heads])
        assert cut.anatomy.head_names == ((0, 2, 3), (), (0, 1, 2, 3))
        assert max(differences(run(cut, CORPUS), run(gated, CORPUS)).values()) < 1e-4
        parts = Parts(cut.encoder, cut.family)
        query = getattr(parts.attention(1), cut.family.projections[0])
        assert query.out_features == len(query.weight) == len(query.lora_B["default"].weight) == 36
        folded = load(merged_module(cut.source))
        assert max(differences(run(cut, CORPUS), run(folded, CORPUS)).values()) < 1e-4
        # and heads that were cut before have no adapter
        before = learnt(small(name), [CutHeads("layer.1.head.1"), LowRank("layer.1", 4, targets="query,output")])
        assert before.anatomy.head_names[0] == (0, 2, 3)
        assert (
            max(differences(run(before, CORPUS), run(apply(before, [Gate("layer.1.head.0", 1.0)]), CORPUS)).values())
            < 1e-5
        )


def test_a_unit_that_is_reset_loses_what_its_adapters_learnt():
    name = "parakeet-ctc"
    model, other = small(name), small(name, seed=1)
    made = learnt(model, [LowRank("layer.*", 4, targets=EVERY)])
    for edit in (
        Reset("layer.*", other),
        Reset("layer.2", other),
        Redraw("layer.2", seed=4),
        Reset("layer.1.head.2", other),
    ):
        found = load(merged_module(apply(made, [edit]).source))
        expected = apply(load(merged_module(made.source)), [edit])
        state = expected.source.state_dict()
        assert all(torch.allclose(value, state[path], atol=1e-6) for path, value in found.source.state_dict().items())
    back = apply(made, [Reset("layer.*", model)])
    assert max(differences(run(model, CORPUS), run(back, CORPUS)).values()) < 1e-6


def test_units_keep_their_names():
    model = small("wavlm-ctc-stable")
    made = apply(model, [LowRank("layer.2", 4, targets=EVERY)])
    before, now = (Parts(one.encoder, one.family).units for one in (model, made))
    assert set(before) <= set(now)
    assert all(".lora_" in name for name in set(now) - set(before))
    parts = Parts(made.encoder, made.family)
    assert list(parts.tensors(parts.units["layer.2.attention.q_proj.weight"])) == [
        "encoder.layers.1.attention.q_proj.base_layer.weight"
    ]
    assert len(parts.tensors(parts.units["layer.2.attention.q_proj"])) == 4


def test_head_importance_counts_what_was_learnt():
    made = learnt(small("hubert-group"), [LowRank("layer.2", 4)])
    folded = load(merged_module(made.source))
    rows, expected = weight_importance(made).rows, weight_importance(folded).rows
    assert [row.value for row in rows] == pytest.approx([row.value for row in expected], rel=1e-6)
    assert rows[4].value != pytest.approx(weight_importance(small("hubert-group")).rows[4].value, rel=1e-3)


def test_weights_follow_from_the_seed_and_the_map_and_stay_once_trained():
    model = small("wav2vec2-group")

    def factors(seed):
        return [
            one.lora_A["default"].weight
            for one in adapters(edited(model.source, [LowRank("layer.1", seed=seed)])).values()
        ]

    state = torch.random.get_rng_state()
    first, again, other = factors(1), factors(1), factors(2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].abs().max() <= 48**-0.5

    made = learnt(model, [LowRank("layer.1")])
    same = apply(made, [LowRank("layer.1")])
    assert same_bits(same.source.state_dict(), made.source.state_dict())
    lower = apply(made, [LowRank("layer.1", 2)])
    assert {one.r["default"] for one in adapters(lower.source).values()} == {2}
    assert max(differences(run(model, CORPUS), run(lower, CORPUS)).values()) < 1e-6
    # alpha is in no weight, and changes what the model gives
    one, two = (edited(model.source, [LowRank("layer.1", alpha=alpha)]) for alpha in (8.0, 16.0))
    assert fingerprint(one) != fingerprint(two)


def test_an_adapted_copy_pickles_and_is_edited_further():
    made = learnt(small("parakeet"), [LowRank("layer.2", 4, targets=EVERY)])
    again = pickle.loads(pickle.dumps(apply(made, [Span("layer.2", 3), Gate("layer.2.head.1", 0.5)]).source))
    expected = load(merged_module(made.source))
    changed = apply(expected, [Span("layer.2", 3), Gate("layer.2.head.1", 0.5)])
    assert max(differences(run(changed, CORPUS), run(load(again), CORPUS)).values()) < 1e-4


def test_linear_maps_are_found_once():
    model = small("wav2vec2-group")
    made = edited(model.source, [LowRank("layer.1", 2, targets="feed_forward")])
    layer = submodule(made, "encoder.layers.0")
    assert [path for path, _ in linear_maps(layer.feed_forward)] == ["intermediate_dense", "output_dense"]
    assert [path for path, _ in linear_maps(layer.feed_forward.output_dense)] == [""]
    assert linear_maps(None) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [LowRank("layer.1", 0)], "rank of an adapter is 0"),
        (lambda: [LowRank("layer.1", alpha=0.0)], "alpha"),
        (lambda: [LowRank("layer.1", alpha=float("nan"))], "alpha"),
        (lambda: [LowRank("layer.1", dropout=1.0)], "dropout"),
        (lambda: [LowRank("layer.1", seed=-1)], "seed"),
        (lambda: [LowRank("layer.1", targets="querry")], "Did you mean query"),
        (lambda: [LowRank("layer.1", targets="")], "commas"),
        (lambda: [LowRank("layer.1", 49)], "48 at most"),
        (lambda: [LowRank("layer.1.feed_forward")], "no linear map called query or value"),
        (lambda: [Remove("layer.1.attention"), LowRank("layer.1")], "no linear map called query or value"),
        (lambda: [CutHeads("layer.1"), LowRank("layer.1")], "no linear map called query or value"),
        (lambda: [LowRank("layer.1.head.0")], "on which this edit does not act"),
        (lambda: [LowRank("layer.9")], "matches no unit"),
    ],
)
def test_what_cannot_be_done_is_refused(make, message):
    with pytest.raises(SurgeryError, match=message):
        apply(small("wav2vec2-group"), make())


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "otoscope.models.adapter", raising=False)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingPackageError, match=r"otoscope\[adapters\]"):
        apply(small("wav2vec2-group"), [LowRank("layer.1")])
