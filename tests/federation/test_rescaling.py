"""What is left of a branch gives, in training, on average over all choices what the whole of it gives."""

import copy
from itertools import combinations

import pytest
import torch

from otoscope.federation.channels import groups_of
from otoscope.federation.rescaling import rescale
from otoscope.federation.submodels import Submodel, full, narrow
from otoscope.models.families import submodule
from tests.federation.small import conformer, wav2vec2

MODELS = {"wav2vec2": wav2vec2().model, "conformer": conformer(positions="rotary").model}
FIRST = {"wav2vec2": "wav2vec2.encoder.layers.0", "conformer": "wav2vec2_conformer.encoder.layers.0"}


def _narrowed(model, kept, scaled=True):
    """The source of a sub-model, in training mode without dropout."""
    made = narrow(MODELS[model], Submodel(kept)).source
    if scaled:
        rescale(made, Submodel(kept), groups_of(MODELS[model]))
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return made.train()


def _output(source, path, given):
    extra = (source.wav2vec2_conformer.encoder.embed_positions(given),) if path.endswith("self_attn") else ()
    kwargs = {"relative_position_embeddings": extra[0]} if extra else {}
    with torch.no_grad():
        out = submodule(source, path)(given, **kwargs)
    return out[0] if isinstance(out, tuple) else out


def _given(width=32):
    return torch.randn(2, 9, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("model", "group", "branch"),
    [
        ("wav2vec2", "layer.1.attention", "attention"),
        ("conformer", "layer.1.attention", "self_attn"),
        ("wav2vec2", "layer.1.feed_forward", "feed_forward"),
        ("conformer", "layer.1.feed_forward.2", "ffn2"),
    ],
)
def test_the_mean_over_all_choices_is_the_whole(model, group, branch):
    path, count = f"{FIRST[model]}.{branch}", groups_of(MODELS[model])[group].count
    if count == 4:
        choices = list(combinations(range(4), 2))
    else:  # each unit is in 3 of 4 choices
        choices = [tuple(k for k in range(count) if k % 4 != left) for left in range(4)]
    whole = _output(_narrowed(model, {}), path, _given())
    parts = [_output(_narrowed(model, {group: units}), path, _given()) for units in choices]
    torch.testing.assert_close(torch.stack(parts).mean(0), whole, rtol=1e-4, atol=1e-5)
    plain = [_output(_narrowed(model, {group: units}, scaled=False), path, _given()) for units in choices]
    assert float((torch.stack(plain).mean(0) - whole).abs().max()) > 1e-3


def test_channels_of_a_convolution_are_scaled_where_they_are_added():
    made = _narrowed("conformer", {"layer.1.convolution": tuple(range(0, 32, 4))}).eval()
    path = f"{FIRST['conformer']}.conv_module"
    before = _output(made, path, _given())
    submodule(made, f"{path}.pointwise_conv2").train()
    torch.testing.assert_close(_output(made, path, _given()), 4 * before)


@pytest.mark.parametrize("kept", [{}, {"layer.1.attention": (0, 2), "layer.1.feed_forward": tuple(range(5))}])
def test_nothing_is_scaled_in_use_nor_where_nothing_was_left_out(kept):
    scaled, plain = (_narrowed("wav2vec2", kept, one).eval() for one in (True, False))
    for branch in ("attention", "feed_forward"):
        path = f"{FIRST['wav2vec2']}.{branch}"
        assert torch.equal(_output(scaled, path, _given()), _output(plain, path, _given()))
    if not kept:
        same = _narrowed("wav2vec2", full().kept)
        assert not any(module._forward_pre_hooks for module in same.modules() if isinstance(module, torch.nn.Linear))


def test_a_scaled_model_is_copied_with_its_scales():
    made = _narrowed("wav2vec2", {"layer.1.feed_forward": tuple(range(16))})
    again = copy.deepcopy(made)
    path = f"{FIRST['wav2vec2']}.feed_forward"
    assert torch.equal(_output(again, path, _given()), _output(made, path, _given()))
