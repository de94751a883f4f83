"""What replaced maps save, and what is trained, against treated models and what fine-tuning trains of them."""

import json
from functools import cache

import pytest

from otoscope.evaluation.part_costs import part_costs
from otoscope.models.loading import load
from otoscope.plans.estimate import estimate
from otoscope.training.parameter_groups import hold_frozen, parameter_groups
from otoscope.treatments.applying import treated
from otoscope.treatments.bypass import Bypass
from otoscope.treatments.freeze import Freeze
from otoscope.treatments.low_rank import LowRank
from otoscope.treatments.prune_heads import PruneHeads
from otoscope.treatments.remove_blocks import RemoveBlocks
from otoscope.treatments.replace_attention import ReplaceAttention
from otoscope.treatments.sizes import Sizes
from tests.models.small import CASES

KINDS = {case.name: case for case in CASES}
EVERY = [
    "wav2vec2-group", "wavlm-ctc-stable", "data2vec-audio", "conformer-relative", "conformer-rotary-ctc",
    "bert-relative-key", "bert-relative-ctc", "whisper", "parakeet", "mockingjay",
]  # fmt: skip
STEPS = {
    "layer": (ReplaceAttention("layer.2", "layer"), ReplaceAttention("layer.3", "layer", source=1)),
    "first": (ReplaceAttention("layer.1-3", "first"),),
    "uniform": (ReplaceAttention("layer.1", "uniform"), ReplaceAttention("layer.2-3", "local", width=2)),
    "pruned": (
        PruneHeads("layer.2-3.head.0"), ReplaceAttention("layer.3", "layer"), ReplaceAttention("layer.2-3", "local", 4),
    ),
    "gone": (ReplaceAttention("layer.1", "uniform"), RemoveBlocks("layer.2"), PruneHeads("layer.1.head.3")),
}  # fmt: skip


@cache
def made(name):
    model = load(KINDS[name].build(), name=name)
    costs = json.loads(json.dumps(part_costs(model)))
    return model, costs, Sizes.of(model)


# One kind of steps a model, in turns; the others are slow.
PAIRS = [
    pytest.param(name, called, marks=[pytest.mark.slow] * (k % len(STEPS) != j), id=f"{name}-{called}")
    for k, name in enumerate(EVERY)
    for j, called in enumerate(STEPS)
]


@pytest.mark.parametrize(("name", "called"), PAIRS)
def test_savings_are_those_of_the_treated_model(name, called):
    model, costs, sizes = made(name)
    steps, whole = STEPS[called], model.macs_per_second()
    found = estimate(steps, costs, sizes)
    after = treated(model, steps)
    told = {key: sum(one[key] for one in found) for key in ("parameters", "macs_per_second")}
    assert told["parameters"] == after.parameters - model.parameters
    assert told["parameters"] < 0
    assert abs(told["macs_per_second"] - (after.macs_per_second() - whole)) <= 0.001 * whole


def test_queries_and_keys_go():
    """Of 4 d^2 + 4 d parameters of attention, 2 d^2 + 2 d are left."""
    model, _, _ = made("wav2vec2-group")
    width = 48
    saved = model.parameters - treated(model, [ReplaceAttention("layer.2", "layer")]).parameters
    assert saved == 2 * width**2 + 2 * width


def test_a_map_that_went_before_is_not_saved_again():
    model, _, _ = made("parakeet")
    first = treated(model, [ReplaceAttention("layer.2", "layer"), ReplaceAttention("layer.3", "uniform")])
    costs, sizes = part_costs(first), Sizes.of(first)
    steps = [ReplaceAttention("layer.2", "uniform"), ReplaceAttention("layer.3", "layer", source=1)]
    found = estimate(steps, costs, sizes)
    assert [one["parameters"] for one in found] == [0, 0]
    counted = [treated(first, steps[:k]).macs_per_second() for k in range(3)]
    assert [one["macs_per_second"] for one in found] == pytest.approx(
        [counted[1] - counted[0], counted[2] - counted[1]], rel=1e-3
    )
    assert found[0]["macs_per_second"] < 0 < found[1]["macs_per_second"]


def test_a_diagnosis_without_the_costs_of_maps_leaves_them_open():
    _, costs, sizes = made("wav2vec2-group")
    costs = {name: cost for name, cost in costs.items() if name != "maps"}
    assert estimate([ReplaceAttention("layer.2", "uniform")], costs, sizes) == [{}]
    assert estimate([RemoveBlocks("layer.2")], costs, sizes)[0]["parameters"] < 0


def trained(model, treatments):
    """Parameters in the groups of the optimiser that fine-tuning makes for a treated copy."""
    module = treated(model, treatments).source
    rates = hold_frozen(module)
    groups = parameter_groups(module.named_parameters(), (), 0.0, 1e-3, rates)
    return sum(one.numel() for group in groups for one in group["params"])


TRAINED = {
    "one by one": (Freeze("layer.1"), Freeze("layer.2")),
    "overlapping": (Freeze("layer.1-2"), Freeze("layer.2.attention"), Freeze("layer.*", "layer.3.attention")),
    "what is left": (
        PruneHeads("layer.1,3.head.0"), RemoveBlocks("layer.2"), ReplaceAttention("layer.3", "layer", source=1),
        Freeze("layer.1,3"),
    ),
    "of a bypassed branch": (Bypass("layer.3.attention"), Freeze("layer.3"), Freeze("layer.1.attention")),
    "of the holder": (ReplaceAttention("layer.1", "uniform"), Freeze("layer.1"), Freeze("layer.2")),
    "adapters": (Freeze("layer.1.attention"), LowRank("layer.1", 2), LowRank("layer.2-3", 3, targets="output")),
    "adapters without maps": (PruneHeads("layer.1"), ReplaceAttention("layer.3", "uniform"), LowRank("layer.*", 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", ["wav2vec2-ctc", "wavlm-ctc-stable", "conformer-relative", "parakeet-ctc"])
@pytest.mark.parametrize("what", TRAINED)
def test_trained_parameters_are_those_that_fine_tuning_trains(name, what):
    model, costs, sizes = made(name)
    steps = TRAINED[what]
    found = estimate(steps, costs, sizes)
    for k, (step, told) in enumerate(zip(steps, found, strict=True)):
        if isinstance(step, Freeze | LowRank):
            assert told["trained_parameters"] == trained(model, steps[: k + 1]) - trained(model, steps[:k])


def test_what_is_trained_is_open_where_sizes_do_not_tell():
    _, costs, sizes = made("wav2vec2-ctc")
    told = estimate(
        [Freeze("*"), Freeze("layer.1.attention.q_proj"), LowRank("layer.1", 2, targets="feed_forward"), Freeze("layer.2")],
        costs, sizes,
    )  # fmt: skip
    assert told == [{"parameters": 0}, {"parameters": 0}, {}, {"parameters": 0}]


def test_what_goes_with_its_adapters_is_not_known():
    _, costs, sizes = made("wav2vec2-ctc")
    told = estimate([LowRank("layer.1", 2), RemoveBlocks("layer.1"), RemoveBlocks("layer.2")], costs, sizes)
    assert told[1] == {}
    assert told[2]["parameters"] < 0
