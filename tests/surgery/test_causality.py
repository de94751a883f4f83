"""Layers that do not look ahead."""

import pytest
import torch

from otoscope.errors import SurgeryError
from otoscope.models import load
from otoscope.models.families import submodule
from otoscope.models.reductions import WholeMap
from otoscope.surgery import Causal, GroupNorm, apply, edited
from otoscope.surgery.causality import CausalConvolution, hide_future
from tests.models.small import CASES
from tests.surgery.cases import run, speech

CORPUS = speech(1.0, 1.3)
CONFORMERS = ["conformer-relative", "conformer-rotary-ctc", "parakeet", "parakeet-ctc"]


def built(name):
    return next(case for case in CASES if case.name == name).build().eval()


@pytest.mark.parametrize("over", ["time", "frame"])
@pytest.mark.parametrize("name", CONFORMERS)
def test_a_frame_does_not_depend_on_later_ones(name, over):
    """What enters layer 1 is changed from one frame on: earlier frames of the layers' outputs stay as they were."""
    model = apply(load(built(name)), [Causal("layer.*"), GroupNorm("layer.*", 4, over)])
    layers = submodule(model.encoder, model.family.layers)
    first = 6

    def shifted(module, args, kwargs):
        states = args[0].clone()
        states[:, first:] += torch.randn(states.shape[-1])  # a shift of all channels alike would be normed away
        return (states, *args[1:]), kwargs

    plain = run(model, CORPUS)
    handle = layers[0].register_forward_pre_hook(shifted, with_kwargs=True)
    changed = run(model, CORPUS)
    handle.remove()
    for layer in range(1, model.anatomy.n_layers + 1):
        for k in range(len(CORPUS)):
            one, other = plain.frames(f"layer.{layer}", k), changed.frames(f"layer.{layer}", k)
            early = torch.allclose(one[:first], other[:first], atol=1e-5)
            assert early == (over == "frame")  # a group norm over time looks ahead
            assert not torch.allclose(one[first:], other[first:], atol=1e-3)


@pytest.mark.parametrize("name", CONFORMERS)
def test_maps_hold_nothing_above_the_diagonal(name):
    found = run(apply(load(built(name)), [Causal("layer.2-3")]), CORPUS, reductions=[WholeMap])
    for layer, maps in found.attention.items():
        for one in maps:
            above = one["whole-map"].triu(1).sum((1, 2))
            assert bool((above > 0).all()) if layer == 1 else bool((above < 1e-6).all())


def test_the_convolution_is_the_original_one_moved_back_by_half_its_kernel():
    torch.manual_seed(0)
    original = torch.nn.Conv1d(6, 6, 5, padding=2, groups=6)
    states = torch.randn(2, 6, 12)
    found = CausalConvolution(original)(states)
    assert torch.allclose(found[..., 2:], original(states)[..., :-2], atol=1e-6)
    assert torch.allclose(found[..., 0], (original.weight[:, 0, -1] * states[..., 0] + original.bias), atol=1e-6)


def test_masks_of_both_kinds_and_none_hide_the_future():
    states = torch.zeros(2, 3, 4)
    mask = torch.tensor([[True, True, True], [True, True, False]])[:, None, None].expand(-1, 1, 3, -1)
    expected = mask & torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
    lowest = torch.finfo(torch.float32).min
    _, found = hide_future(None, (states,), {"attention_mask": mask, "other": 1})
    assert torch.equal(found["attention_mask"], expected)
    assert found["other"] == 1
    additive = torch.zeros(2, 1, 3, 3).masked_fill(~mask, lowest)
    _, found = hide_future(None, (), {"hidden_states": states, "attention_mask": additive})
    assert torch.equal(found["attention_mask"], torch.zeros(2, 1, 3, 3).masked_fill(~expected, lowest))
    _, found = hide_future(None, (states,), {})
    assert torch.equal(found["attention_mask"], torch.ones(3, 3, dtype=torch.bool).tril().expand(2, 1, -1, -1))


@pytest.mark.parametrize("name", ["whisper", "wav2vec2-group", "bert-relative-key"])
def test_layers_without_a_symmetric_convolution_are_refused(name):
    with pytest.raises(SurgeryError, match="Layer 1 of this .* has no convolution over as many frames on either side"):
        edited(built(name), [Causal("layer.*")])
