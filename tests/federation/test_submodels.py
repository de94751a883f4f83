"""Sub-models: what clients hold, and the mean of what they learnt, against naive loops over every element."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import FederationError
from otoscope.federation.channels import Group, Slice, exchanged, groups_of
from otoscope.federation.submodels import (
    Contribution,
    Submodel,
    check_contribution,
    extract,
    full,
    narrow,
    scatter_aggregate,
)
from otoscope.models import load
from otoscope.surgery import CutHeads, apply
from otoscope.surgery.narrowing import Narrow
from tests.models.small import CASES
from tests.surgery.cases import differences, run, same_bits, speech

MODELS = {case.name: case for case in CASES}
_LOADED = {}

# A made-up model: two heads of two rows, four channels of which each is two rows, six rows, and what belongs to nobody.
GROUPS = {
    "layer.1.attention": Group(
        "layer.1.attention", 1, "heads", 2, (Slice("q", 0, 2), Slice("u", 1), Slice("out", 1, 2)), 4 * 3 + 2 + 5 * 4
    ),
    "layer.1.convolution": Group(
        "layer.1.convolution", 1, "channels", 4,
        (Slice("gated", 0), Slice("gated", 0, 1, 4), Slice("norm.running_var", 0)), 8 * 2 + 4,
    ),
    "layer.2.feed_forward": Group(
        "layer.2.feed_forward", 2, "rows", 6, (Slice("first", 0), Slice("second", 1)), 6 * 2 + 3 * 6
    ),
}  # fmt: skip
SHAPES = {
    "q": (4, 3), "u": (1, 2), "out": (5, 4), "gated": (8, 2), "norm.running_var": (4,), "first": (6, 2),
    "second": (3, 6), "embedding": (2, 3), "scale": (),
}  # fmt: skip


def loaded(name):
    if name not in _LOADED:
        _LOADED[name] = load(MODELS[name].build().eval(), name=name)
    return _LOADED[name]


def drawn(seed, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def client(name, submodel, seed, weight=1.0):
    held = extract(drawn(0), submodel, GROUPS)
    shapes = {key: tuple(value.shape) for key, value in held.items() if key not in submodel.frozen}
    return Contribution(name, weight, submodel, drawn(seed, shapes))


def units_of(group):
    return st.sets(st.integers(0, group.count - 1), min_size=1).map(lambda found: tuple(sorted(found)))


submodels = st.tuples(  # made in the tests: checks of annotations draw random numbers, which strategies must not
    st.fixed_dictionaries({}, optional={name: units_of(group) for name, group in GROUPS.items()}),
    st.frozensets(st.sampled_from(["q", "first", "embedding", "scale"]), max_size=2),
)
cohorts = st.lists(st.tuples(submodels, st.floats(0.125, 8.0)), min_size=1, max_size=4)


def contributions(cohort):
    return [client(f"c{k}", Submodel(*parts), k + 1, weight) for k, (parts, weight) in enumerate(cohort)]


def held_by(one, name):
    """By loops: element of the server's tensor -> element of the client's, for what the client trained."""
    if name in one.submodel.frozen:
        return {}
    axis, indices = None, None
    for group, units in one.submodel.kept.items():
        for piece in GROUPS[group].slices:
            if piece.tensor == name:
                axis = piece.axis
                indices = (indices or []) + [
                    piece.offset + unit * piece.size + k for unit in units for k in range(piece.size)
                ]
    found = {}
    for place in range(max(torch.Size(SHAPES[name]).numel(), 1)):
        index = list(torch.unravel_index(torch.tensor(place), SHAPES[name])) if SHAPES[name] else []
        index = [int(one) for one in index]
        theirs = list(index)
        if axis is not None:
            if index[axis] not in indices:
                continue
            theirs[axis] = indices.index(index[axis])
        found[tuple(index)] = tuple(theirs)
    return found


@settings(max_examples=40)
@given(cohorts, st.sampled_from(["coverage", "cohort"]))
def test_every_element_is_the_mean_over_those_that_held_it(cohort, denominator):
    given_ = contributions(cohort)
    found = scatter_aggregate(drawn(0), given_, GROUPS, denominator)
    for name, shape in SHAPES.items():
        places = [held_by(one, name) for one in given_]
        delta, covered = found.delta[name], found.covered[name].expand(shape)
        assert delta.dtype == torch.float32
        for place in range(max(torch.Size(shape).numel(), 1)):
            index = tuple(int(one) for one in torch.unravel_index(torch.tensor(place), shape)) if shape else ()
            there = [(one, held[index]) for one, held in zip(given_, places, strict=True) if index in held]
            assert bool(covered[index]) == bool(there)
            counted = given_ if denominator == "cohort" else [one for one, _ in there]
            expected = sum(one.weight * float(one.delta[name][theirs]) for one, theirs in there)
            expected /= sum(one.weight for one in counted) if there else 1.0
            assert float(delta[index]) == pytest.approx(expected, rel=1e-6, abs=1e-7)
            if not there:
                assert float(delta[index]) == 0.0


@settings(max_examples=40)
@given(st.lists(st.floats(0.125, 8.0), min_size=1, max_size=5), st.sampled_from(["coverage", "cohort"]))
def test_of_whole_models_it_is_federated_averaging_bit_for_bit(weights, denominator):
    given_ = [client(f"c{k}", full(), k + 1, weight) for k, weight in enumerate(weights)]
    found = scatter_aggregate(drawn(0), given_, GROUPS, denominator)
    for name in SHAPES:
        total, weight = torch.zeros(SHAPES[name], dtype=torch.float64), 0.0
        for one in given_:
            total += one.weight * one.delta[name].double()
            weight += one.weight
        assert torch.equal(found.delta[name], (total / weight).float())
        assert bool(found.covered[name].all())


@settings(max_examples=30)
@given(cohorts, st.randoms(use_true_random=False))
def test_the_order_of_answers_does_not_matter(cohort, random):
    given_ = contributions(cohort)
    shuffled = list(given_)
    random.shuffle(shuffled)
    one, other = (scatter_aggregate(drawn(0), answers, GROUPS) for answers in (given_, shuffled))
    assert same_bits(one.delta, other.delta)
    assert same_bits(one.covered, other.covered)


def test_the_order_of_answers_does_not_matter_where_sums_lose_digits():
    answers = [Contribution(name, 1.0, full(), {"w": torch.tensor([value])})
               for name, value in (("a", 3.0), ("b", 1e17), ("c", -1e17))]  # fmt: skip
    found = {
        float(scatter_aggregate({"w": torch.zeros(1)}, order, {}).delta["w"])
        for order in itertools.permutations(answers)
    }
    assert found == {0.0}  # 3 is lost beside 1e17, whoever was first


@given(submodels)
def test_what_was_extracted_is_put_back_where_it_was(parts):
    server, submodel = drawn(0), Submodel(*parts)
    held = extract(server, submodel, GROUPS)
    one = Contribution("a", 3.0, submodel, {name: held[name] for name in held if name not in submodel.frozen})
    back = scatter_aggregate(server, [one], GROUPS)
    for name, value in server.items():
        covered = back.covered[name].expand(value.shape)
        assert torch.equal(back.delta[name], torch.where(covered, value, 0.0))
    assert same_bits(extract(back.delta, submodel, GROUPS), {
        name: value if name not in submodel.frozen else torch.zeros_like(value) for name, value in held.items()
    })  # fmt: skip
    assert same_bits(server, drawn(0))


def test_halves_of_a_gated_unit_are_taken_together():
    held = extract({"gated": torch.arange(16.0).view(8, 2)}, Submodel({"layer.1.convolution": (1, 3)}), GROUPS | {
        "layer.1.convolution": Group("layer.1.convolution", 1, "channels", 4, GROUPS["layer.1.convolution"].slices[:2], 16)
    })  # fmt: skip
    assert held["gated"][:, 0].tolist() == [2.0, 6.0, 10.0, 14.0]


def half(groups, offset=0):
    return Submodel({name: tuple(range(offset % group.count, group.count, 2)) for name, group in groups.items()})


@pytest.mark.parametrize("name", MODELS)
def test_a_narrow_copy_holds_what_is_extracted(name):
    model = loaded(name)
    before = {key: value.clone() for key, value in model.source.state_dict().items()}
    groups = groups_of(model)
    for submodel in (half(groups), half(groups, 1), full()):
        small = narrow(model, submodel)
        assert same_bits(exchanged(small), extract(exchanged(model), submodel, groups))
        assert list(groups_of(small)) == list(groups)
        assert small.name == model.name
    assert same_bits(model.source.state_dict(), before)


@pytest.mark.parametrize("name", ["wav2vec2-ctc", "wavlm-ctc-stable", "conformer-rotary-ctc", "parakeet-ctc"])
def test_a_narrow_copy_has_the_outputs_and_gradients_of_the_original_without_the_rest(name):
    model, corpus = loaded(name), speech(0.3, 0.45)
    groups = groups_of(model)
    submodel = half(groups, 1)
    small = narrow(model, submodel)
    source = copy.deepcopy(model.source)
    weights = dict(source.named_parameters())
    with torch.no_grad():  # what is left out is not let into the residual stream
        for group in groups.values():
            piece = group.slices[-1] if group.kind != "heads" else next(one for one in group.slices if one.axis == 1)
            size = piece.size
            for unit in sorted(set(range(group.count)) - set(submodel.kept[group.name])):
                weights[piece.tensor].narrow(piece.axis, unit * size, size).zero_()
    masked = load(source, name=name)
    assert max(differences(run(small, corpus), run(masked, corpus)).values()) < 2e-5
    for one in (small, masked):
        encoder = one.family.encoder(one.source)
        encoder(**one.frontend.inputs([corpus[0].read()])).last_hidden_state.square().mean().backward()
    whole = {key: value.grad for key, value in masked.source.named_parameters() if value.grad is not None}
    expected = extract(whole, submodel, {
        key: Group(group.name, group.layer, group.kind, group.count,
                   tuple(piece for piece in group.slices if piece.tensor in whole), 0)
        for key, group in groups.items()
    })  # fmt: skip
    found = {key: value.grad for key, value in small.source.named_parameters() if value.grad is not None}
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert torch.allclose(value, expected[key], atol=1e-5 + 1e-4 * float(expected[key].abs().max())), key


def test_numbers_are_those_of_the_model_at_hand():
    model = loaded("wav2vec2-ctc")
    edited = apply(model, [CutHeads("layer.1.head.0"), Narrow("layer.1.feed_forward", (10, 20, 30))])
    submodel = Submodel({"layer.1.attention": (0, 2), "layer.1.feed_forward": (1,)})
    small = narrow(edited, submodel)
    assert small.anatomy.head_names[0] == (1, 3)
    weight = "wav2vec2.encoder.layers.0.feed_forward.intermediate_dense.weight"
    assert torch.equal(small.source.state_dict()[weight], model.source.state_dict()[weight][20:21])


def test_frozen_tensors_are_run_and_not_trained():
    model = loaded("wav2vec2-ctc")
    name = "wav2vec2.encoder.layers.0.attention.q_proj.weight"
    small = narrow(model, Submodel({"layer.1.attention": (1, 2)}, frozenset([name])))
    parameters = dict(small.source.named_parameters())
    assert [key for key, value in parameters.items() if not value.requires_grad] == [name]
    assert parameters[name].shape == (24, 48)
    assert all(value.requires_grad for value in model.source.parameters())
    with pytest.raises(FederationError, match="'nothing' is no parameter"):
        narrow(model, Submodel({}, frozenset(["nothing"])))


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ({"layer.1.atention": (0,)}, "nearest names are layer.1.attention"),
        ({"layer.1.attention": ()}, r"keeps no heads of layer\.1\.attention"),
        ({"layer.1.attention": (1, 0)}, "from 0 to 1, ascending"),
        ({"layer.1.attention": (0, 0)}, "from 0 to 1, ascending"),
        ({"layer.2.feed_forward": (0, 6)}, "which has 6"),
        ({"layer.2.feed_forward": (-1, 2)}, "from 0 to 5"),
    ],
)
def test_a_submodel_that_does_not_fit_is_refused(kept, told):
    with pytest.raises(FederationError, match=told):
        extract(drawn(0), Submodel(kept), GROUPS)


def test_a_state_without_a_tensor_is_refused():
    state = {name: value for name, value in drawn(0).items() if name != "out"}
    with pytest.raises(FederationError, match="has no 'out'"):
        extract(state, Submodel({"layer.1.attention": (0,)}), GROUPS)


PART = Submodel({"layer.1.attention": (1,)}, frozenset(["first"]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda one: one.delta.pop("scale"), "client 'a' sent lacks 'scale'"),
        (lambda one: one.delta.update(first=torch.zeros(6, 2)), "should not hold 'first'"),
        (lambda one: one.delta.update(q=torch.zeros(4, 3)), r"sent 'q' in the shape \(4, 3\), not \(2, 3\)"),
        (lambda one: one.delta["q"].fill_(float("nan")), "'q' that are not finite"),
        (lambda one: one.delta["scale"].fill_(float("inf")), "'scale' that are not finite"),
        (lambda one: one.delta.update(scale=torch.tensor(1)), "'scale' that are not finite"),
        (lambda one: object.__setattr__(one, "weight", 0.0), "has the weight 0.0"),
        (lambda one: object.__setattr__(one, "weight", float("nan")), "has the weight nan"),
    ],
)
def test_a_contribution_that_is_not_what_was_asked_for_is_refused(change, told):
    one = client("a", PART, 1)
    check_contribution(one, drawn(0), GROUPS)
    change(one)
    for call in (
        lambda: check_contribution(one, drawn(0), GROUPS),
        lambda: scatter_aggregate(drawn(0), [one, client("b", full(), 2)], GROUPS),
    ):
        with pytest.raises(FederationError, match=told):
            call()


def test_nobody_the_same_client_twice_and_unknown_denominators_are_refused():
    one = client("a", full(), 1)
    with pytest.raises(FederationError, match="No client contributed"):
        scatter_aggregate(drawn(0), [], GROUPS)
    with pytest.raises(FederationError, match="'a' contributed twice"):
        scatter_aggregate(drawn(0), [one, client("b", full(), 2), one], GROUPS)
    with pytest.raises(FederationError, match="no denominator 'mean'"):
        scatter_aggregate(drawn(0), [one], GROUPS, "mean")


def test_half_precision_is_summed_in_double():
    """Sums in half precision would lose the small one, and in single precision the last bits of the large one."""
    server = {"w": torch.zeros(2)}
    deltas = [torch.tensor([2048.0, 1.0], dtype=torch.float16), torch.tensor([1.0, 1e-3], dtype=torch.float16)]
    given_ = [Contribution(f"c{k}", 1.0, full(), {"w": one}) for k, one in enumerate(deltas)]
    found = scatter_aggregate(server, given_, {}).delta["w"]
    assert found.tolist() == torch.stack(deltas).double().mean(0).float().tolist()
    assert found[0] == 1024.5
