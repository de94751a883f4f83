"""Treatments as plain values, and what is refused before a model is touched."""

import pytest

from otoscope.errors import SurgeryError, TreatmentError
from otoscope.models import load
from otoscope.surgery import Gate, apply
from otoscope.treatments import (
    Bypass,
    Freeze,
    GroupNorm,
    LearningRate,
    LimitSpan,
    PruneHeads,
    Reinitialise,
    RemoveBlocks,
    ReplaceAttention,
    Sizes,
    fit,
    from_dict,
    record_of,
    training_of,
    treated,
    undone,
)
from tests.models.small import CASES

HEADS = tuple(range(4))
SIZES = Sizes("wav2vec2", 48, (HEADS,) * 3)


def loaded(name="wav2vec2-group"):
    return load(next(case for case in CASES if case.name == name).build().eval(), name=name)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"treatment": "prune-head", "units": "layer.1"}, "no treatment 'prune-head'.*Did you mean prune-heads"),
        ({"treatment": "amputate", "units": "layer.1"}, "no treatment 'amputate'.*bypass, freeze"),
        ({"units": "layer.1"}, "no treatment None"),
        ({"treatment": "limit-span", "units": "layer.1", "radios": 3}, "takes no 'radios'.*Did you mean radius"),
        ({"treatment": "limit-span", "units": "layer.1"}, "lacks 'radius'"),
        ({"treatment": "limit-span", "units": "layer.1", "radius": -1}, "radius of a span is -1"),
        ({"treatment": "limit-span", "units": "layer.1", "radius": 2, "form": "soft"}, "no form 'soft'"),
        ({"treatment": "replace-attention", "units": "layer.1", "by": "magic"}, "not replaced by 'magic'"),
        ({"treatment": "group-norm", "groups": 0}, "0 is no number of groups"),
        ({"treatment": "learning-rate", "units": "layer.1", "factor": 0.0}, r"cannot be multiplied by 0\.0"),
        ({"treatment": "learning-rate", "units": "layer.1", "factor": float("nan")}, "multiplied by nan"),
        ({"treatment": "freeze", "units": " "}, "names no unit"),
        ({"treatment": "freeze", "units": "layer.3-2"}, "range 3-2.*is empty"),
    ],
)
def test_values_that_are_none(values, told):
    with pytest.raises((SurgeryError, TreatmentError), match=told):
        from_dict(values)


@pytest.mark.parametrize(
    ("treatments", "told"),
    [
        ([PruneHeads("layer.9.head.1")], r"matches no unit of this wav2vec2 model of 3 layers with 4 heads.*layer\."),
        ([PruneHeads("layer.1.head.7")], r"nearest names are .*layer\.1\.head"),
        ([PruneHeads("layer.1.feed_forward")], "of the kind 'feed_forward'"),
        ([RemoveBlocks("layer.1.attention")], "of the kind 'attention'"),
        ([RemoveBlocks("layer.*")], "No layer of the model would be left"),
        ([RemoveBlocks("layer.1-2"), Bypass("layer.3")], "No layer of the model would be left"),
        ([RemoveBlocks("layer.2"), PruneHeads("layer.2.head.1")], "layer.2, which was taken out|layer.2.head.1, which"),
        ([RemoveBlocks("layer.2"), RemoveBlocks("layer.2-3")], "layer.2, which was taken out"),
        ([RemoveBlocks("layer.2"), Freeze("layer.2.attention.q_proj")], "which was taken out|matches no unit"),
        ([Bypass("layer.2.attention"), LimitSpan("layer.2.head.0", 3)], "which was taken out"),
        ([Bypass("layer.2.attention"), LimitSpan("layer.2", 3)], "without heads"),
        ([Bypass("layer.2.attention"), ReplaceAttention("layer.2", "uniform")], "has no heads"),
        ([PruneHeads("layer.1.head.1"), LimitSpan("layer.1.head.1", 3)], "a head that was cut"),
        ([ReplaceAttention("layer.1", "layer")], "not made before its own|not there"),
        ([ReplaceAttention("layer.2", "layer", source=3)], "not made before its own"),
        ([ReplaceAttention("layer.2", "first")], "is one layer"),
        ([RemoveBlocks("layer.1"), ReplaceAttention("layer.3", "layer", source=1)], "layer 1, which is not there"),
        (
            [ReplaceAttention("layer.3", "layer", source=1), RemoveBlocks("layer.1")],
            "uses the attention map of layer 1",
        ),
        ([PruneHeads("layer.1.head.0"), ReplaceAttention("layer.2", "layer")], "Prune the same heads"),
        ([GroupNorm()], "no batch norm.*wav2vec2-conformer, parakeet"),
        ([Bypass("layer.1.convolution")], "matches no unit"),
        ([Bypass("layer.1.feed_forward.2")], "matches no unit"),
        ([Freeze("layr.3")], r"matches no unit.*layer\.3"),
        ([Freeze("*", but="layer.7")], "matches no unit"),
        ([LearningRate("layer.5", 2.0)], "matches no unit"),
        ([Reinitialise("nonsense!")], "matches no unit"),
    ],
)
def test_what_does_not_fit_is_refused_with_and_without_the_model(treatments, told):
    with pytest.raises((SurgeryError, TreatmentError), match=told):
        fit(treatments, SIZES)
    model = loaded()
    with pytest.raises((SurgeryError, TreatmentError), match=told):
        treated(model, treatments)


@pytest.mark.parametrize(
    "treatments",
    [
        [PruneHeads("layer.1.head.1"), PruneHeads("layer.1.head.1-2")],
        [ReplaceAttention("layer.2-3", "layer", source=1), RemoveBlocks("layer.2")],
        [ReplaceAttention("layer.3", "layer", source=1), RemoveBlocks("layer.3")],
        [Freeze("encoder.pos_conv_embed"), Freeze("conv.*"), Freeze("layer.1.attention.q_proj.weight")],
        [Freeze("layer.2"), RemoveBlocks("layer.2")],
        [LimitSpan("layer.2", 2), LimitSpan("layer.2", 4)],
    ],
)
def test_what_fits(treatments):
    model = loaded()
    made = treated(model, treatments)
    assert fit(treatments, SIZES) == Sizes.of(made)
    assert set(record_of(made.source).treatments) == set(treatments)


def test_the_later_treatment_of_the_same_thing_holds():
    model = loaded()
    made = treated(model, [LimitSpan("layer.2", 2), LimitSpan("layer.2", 4), LearningRate("layer.*", 0.5)])
    assert made.source.encoder.layers[1].attention.otoscope_heads.radius.tolist() == [4] * 4
    made = treated(made, [LearningRate("layer.3", 2.0), Freeze("layer.3.feed_forward")])
    asked = training_of(made.source)
    rates = {name: rate for name, rate in asked.rates.items() if name.startswith("encoder.layers.2.")}
    assert set(rates.values()) == {2.0}
    assert asked.rates["encoder.layers.0.attention.q_proj.weight"] == 0.5
    assert asked.frozen == {name for name in rates if ".feed_forward." in name}


def test_parameters_are_named_as_in_the_whole_model():
    model = loaded("parakeet-ctc")
    asked = training_of(treated(model, [Freeze("*", but="layer.2")]).source)
    encoder = {name for name, _ in model.source.named_parameters() if name.startswith("encoder.")}
    assert asked.frozen == {name for name in encoder if not name.startswith("encoder.layers.1.")}
    assert training_of(model.source).frozen == frozenset()


def test_taking_back_needs_the_original():
    model, other = loaded(), loaded("wav2vec2-ctc")
    made = treated(model, [RemoveBlocks("layer.2"), PruneHeads("layer.1.head.0")])
    with pytest.raises(TreatmentError, match="was not treated"):
        undone(model, model)
    with pytest.raises(TreatmentError, match="fingerprints differ"):
        undone(made, other)
    with pytest.raises(TreatmentError, match="has not been through the treatment: remove-blocks layer.1"):
        undone(made, model, [RemoveBlocks("layer.1")])
    back = undone(made, model, [RemoveBlocks("layer.2")])
    assert back.anatomy.heads == (3, 4, 4)


def test_a_treated_model_says_what_it_is():
    model = loaded()
    made = treated(model, [LimitSpan("layer.2", 8)])
    assert made.name == "wav2vec2-group (treated)"
    assert treated(model, [LimitSpan("layer.2", 8)], name="short").name == "short"
    assert str(LimitSpan("layer.2", 8)) == "limit-span layer.2 (radius 8)"
    assert record_of(made.source).name == "wav2vec2-group"
    assert Sizes.of(apply(model, [Gate("layer.1")])) == SIZES
