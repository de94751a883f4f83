"""Groups of the optimiser: every trained parameter once, with its rate and decay; one step of them by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from otoscope.training.parameter_groups import hold_frozen, parameter_groups
from otoscope.treatments import Freeze, LearningRate, treated
from tests.training.test_ctc import _model

NAMES = ("a.weight", "a.bias", "b.weight", "b.bias", "head.weight")


@given(
    factors=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.1, 0.5, 1.0, 2.0])),
    frozen=st.sets(st.sampled_from(NAMES)),
    decayed=st.sets(st.sampled_from(NAMES)),
)
def test_every_trained_parameter_is_in_the_group_of_its_rate_and_decay(factors, frozen, decayed):
    named = [(name, nn.Parameter(torch.zeros(1), requires_grad=name not in frozen)) for name in NAMES]
    groups = parameter_groups(named, decayed, 0.01, 1e-3, factors)
    place = {id(p): group for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(place) == len(NAMES) - len(frozen)
    for name, parameter in named:
        if name not in frozen:
            group = place[id(parameter)]
            assert group["lr"] == 1e-3 * factors.get(name, 1.0)
            assert group["weight_decay"] == (0.01 if name in decayed else 0.0)
    rates = [group["lr"] for group in groups]
    if any(factors.get(name, 1.0) == 1 for name in set(NAMES) - frozen):
        assert rates[0] == 1e-3


def test_without_factors_the_groups_are_those_of_the_trainer():
    from transformers import Trainer, TrainingArguments

    source = _model().source
    theirs = Trainer(
        model=source, args=TrainingArguments(weight_decay=0.01, learning_rate=1e-3, use_cpu=True, report_to=[])
    )
    decayed = theirs.get_decay_parameter_names(source)
    groups = parameter_groups(source.named_parameters(), decayed, 0.01, 1e-3, {})
    for own, other in zip(groups, theirs.create_optimizer().param_groups, strict=True):
        assert [id(p) for p in own["params"]] == [id(p) for p in other["params"]]
        assert (own["weight_decay"], own["lr"]) == (other["weight_decay"], other["lr"])


def test_what_treatments_freeze_and_slow_down():
    model = treated(_model(), [Freeze("layer.1"), LearningRate("layer.2", 0.25)]).source
    rates = hold_frozen(model)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("encoder.layers.0." not in name)
        assert (rates.get(name, 1.0) == 0.25) == ("encoder.layers.1." in name)
    assert hold_frozen(_model().source) == {}


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_first_step_of_adam_is_the_rate_times_the_factor(factor):
    named = [(name, nn.Parameter(torch.ones(1))) for name in NAMES]
    groups = parameter_groups(named, (), 0.0, 1e-2, {"b.weight": factor})
    descent = torch.optim.AdamW(groups, lr=1.0, eps=0.0)
    sum(p.sum() for _, p in named).backward()
    descent.step()
    for name, parameter in named:
        wanted = 1e-2 * (factor if name == "b.weight" else 1.0)
        assert float(1 - parameter.detach()) == pytest.approx(wanted, rel=1e-5)
