"""What plans say that they save, against treated models of every family."""

import json

import pytest

from otoscope.evaluation.part_costs import part_costs
from otoscope.models.loading import load
from otoscope.plans.estimate import estimate
from otoscope.treatments.applying import treated
from otoscope.treatments.bypass import Bypass
from otoscope.treatments.freeze import Freeze
from otoscope.treatments.learning_rate import LearningRate
from otoscope.treatments.limit_span import LimitSpan
from otoscope.treatments.prune_heads import PruneHeads
from otoscope.treatments.reinitialise import Reinitialise
from otoscope.treatments.remove_blocks import RemoveBlocks
from otoscope.treatments.replace_attention import ReplaceAttention
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import from_dict, kinds
from tests.models.small import CASES

KINDS = {case.name: case for case in CASES}
EVERY = [
    "wav2vec2-group", "wavlm-ctc-stable", "data2vec-audio", "conformer-relative", "conformer-rotary-ctc",
    "bert-relative-key", "whisper", "parakeet", "mockingjay",
]  # fmt: skip
STEPS = (
    PruneHeads("layer.2.head.0,3"), PruneHeads("layer.1.head.1"), RemoveBlocks("layer.1"), PruneHeads("layer.2"),
    Bypass("layer.3.attention"),
)  # fmt: skip


def made(name):
    model = load(KINDS[name].build(), name=name)
    costs = json.loads(json.dumps(part_costs(model)))  # as it comes back from a saved diagnosis
    return model, costs, Sizes.of(model)


@pytest.mark.parametrize("name", EVERY)
def test_savings_are_those_of_the_treated_model(name):
    model, costs, sizes = made(name)
    feed_forward = "feed_forward" if "feed_forward" in costs["layers"][1] else "feed_forward.2"
    steps = [*STEPS, Bypass(f"layer.2.{feed_forward}")]
    found = estimate(steps, costs, sizes)
    assert all(told["parameters"] < 0 for told in found)
    for count in (1, 3, len(steps)):
        after = treated(model, steps[:count])
        assert sum(told["parameters"] for told in found[:count]) == after.parameters - model.parameters
    saved = sum(told["macs_per_second"] for told in found)
    counted = [one.macs_per_second() for one in (model, after)]
    assert abs(saved - (counted[1] - counted[0])) <= 0.01 * counted[0]
    assert saved < -0.1 * counted[0]


@pytest.mark.parametrize("name", ["wavlm-ctc-stable", "conformer-relative"])
def test_parts_add_up_to_their_layer(name):
    model, costs, _ = made(name)
    counted = model.macs_per_second()
    for layer in costs["layers"]:
        branches = [one for key, one in layer.items() if key not in ("layer", "head")]
        assert sum(one["parameters"] for one in branches) < layer["layer"]["parameters"]
        assert sum(one["macs_per_second"] for one in branches) == pytest.approx(
            layer["layer"]["macs_per_second"], rel=0.01
        )
    assert sum(layer["layer"]["macs_per_second"] for layer in costs["layers"]) < counted


def test_a_model_that_was_treated_before_is_counted_from_where_it_stands():
    model, _, _ = made("wavlm-ctc-stable")
    first = treated(model, [PruneHeads("layer.2.head.0"), RemoveBlocks("layer.1")])
    costs, sizes = part_costs(first), Sizes.of(first)
    told = estimate([PruneHeads("layer.2.head.1"), RemoveBlocks("layer.2")], costs, sizes)
    again = treated(first, [PruneHeads("layer.2.head.1"), RemoveBlocks("layer.2")])
    assert sum(one["parameters"] for one in told) == again.parameters - first.parameters


def test_what_changes_no_size_says_so_and_what_is_not_known_is_absent():
    _, costs, sizes = made("wav2vec2-group")
    layer, attention = (costs["layers"][0][name]["parameters"] for name in ("layer", "attention"))
    told = estimate(
        [
            Reinitialise("layer.3"), LearningRate("layer.3", 0.5), LimitSpan("layer.1", 3),
            Freeze("layer.*", "layer.2"), Freeze("layer.1.attention"), Freeze("layer.*", "layer.2.attention"),
            Freeze("layer.2.attention.q_proj"),
        ],
        costs, sizes,
    )  # fmt: skip
    assert told == [
        {"parameters": 0, "macs_per_second": 0}, {"parameters": 0, "macs_per_second": 0}, {"parameters": 0},
        {"parameters": 0, "trained_parameters": -2 * layer}, {"parameters": 0, "trained_parameters": 0},
        {"parameters": 0, "trained_parameters": attention - layer}, {"parameters": 0},
    ]  # fmt: skip


def test_what_a_module_in_place_of_attention_costs_is_not_known():
    pytest.importorskip("otoscope.surgery.replacing")
    _, costs, sizes = made("wav2vec2-group")
    assert estimate([ReplaceAttention("layer.3", "convolution", 2)], costs, sizes) == [{}]


def test_a_treatment_that_is_there_twice_saves_once():
    _, costs, sizes = made("wav2vec2-group")
    once, twice = estimate([RemoveBlocks("layer.1")] * 2, costs, sizes)
    assert once["parameters"] < 0
    assert twice == {"parameters": 0, "macs_per_second": 0}


def test_every_treatment_has_an_estimate():
    _, costs, sizes = made("conformer-relative")
    more = {"radius": 3, "by": "uniform", "factor": 0.5}
    for kind, cls in kinds().items():
        given = {name: value for name, value in more.items() if name in cls.__dataclass_fields__}
        (told,) = estimate([from_dict({"treatment": kind, "units": "layer.1", **given})], costs, sizes)
        assert set(told) <= {"parameters", "macs_per_second", "trained_parameters"}


@pytest.mark.skipif("low-rank" not in kinds(), reason="there are no adapters")
def test_adapters_count_their_parameters():
    model, costs, sizes = made("wav2vec2-group")
    adapters = from_dict({"treatment": "low-rank", "units": "layer.1,3", "rank": 4, "targets": "query,output"})
    (told,) = estimate([adapters], costs, sizes)
    assert told["parameters"] == treated(model, [adapters]).parameters - model.parameters
