"""Modules in place of attention: what they compute, that they begin as a bypass, and what they are refused for."""

import math

import pytest
import torch
from torch.nn import functional as F

from otoscope.errors import SurgeryError
from otoscope.models import load
from otoscope.models.families import FAMILIES, submodule
from otoscope.surgery import Bypass, Causal, CutHeads, Gate, Remove, ReplaceAttention, ReplaceMap, apply, edited
from otoscope.surgery.replacing import BY, AttentionStandIn, valid_frames
from tests.models.small import CASES
from tests.surgery.cases import differences, run, speech

CORPUS = speech(0.3, 0.45)
ONE_EACH = [next(case for case in CASES if case.family == family.name) for family in FAMILIES]
WIDTHS = {"feed-forward": 0, "convolution": 2}
_LOADED = {}


def loaded(case):
    if case.name not in _LOADED:
        _LOADED[case.name] = load(case.build().eval(), name=case.name)
    return _LOADED[case.name]


def small(name):
    return loaded(next(case for case in CASES if case.name == name))


def stand_in(model, layer=2):
    encoder = model.family.encoder(model.source)
    return submodule(submodule(encoder, model.family.layers)[layer - 1], model.family.attention)


def awake(model, edits):
    """An edited copy whose stand-ins add something."""
    made = edited(model.source, edits)
    for module in made.modules():
        if isinstance(module, AttentionStandIn):
            torch.nn.init.normal_(module.output.weight, 0, 0.3, generator=torch.Generator().manual_seed(5))
    return load(made, name=model.name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_begins_as_a_bypass_with_no_more_parameters(case):
    model = loaded(case)
    expected = run(apply(model, [Bypass("layer.1.attention"), Bypass("layer.3.attention")]), CORPUS)
    for by, width in WIDTHS.items():
        made = apply(model, [ReplaceAttention("layer.1", by, width), ReplaceAttention("layer.3.attention", by, width)])
        assert made.anatomy.heads == (0, 4, 0)
        assert made.anatomy.streams == model.anatomy.streams
        assert made.anatomy.removed == ()
        assert made.parameters <= model.parameters
        assert max(differences(expected, run(made, CORPUS)).values()) < 1e-5


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.name)
def test_padding_does_not_leak_and_the_copy_runs_by_itself(case, by):
    model = loaded(case)
    made = awake(model, [ReplaceAttention("layer.1-2", by, WIDTHS[by])])
    together = run(made, CORPUS)
    assert max(differences(run(model, CORPUS), together).values()) > 1e-3
    alone = run(made, CORPUS.subset([CORPUS[0].id]))
    for name in together.streams:
        assert torch.allclose(together.frames(name, 0), alone.frames(name, 0), atol=2e-5), name
    with torch.inference_mode():
        out = model.family.encoder(made.source)(**model.frontend.inputs([CORPUS[1].read()])).last_hidden_state
    last = "final_norm" if "final_norm" in together.streams else "layer.3"
    frames = together.lengths["input"][1]
    assert torch.allclose(together.frames(last, 1), out[0, :frames], atol=2e-5)


@pytest.mark.parametrize("name", ["wav2vec2-stable", "wavlm-group", "parakeet"])
def test_the_formulas(name):
    """Against sums written out by frame and offset."""
    states = torch.randn(2, 9, 48, generator=torch.Generator().manual_seed(1))
    valid = torch.arange(9) < torch.tensor([[9], [6]])
    model = small(name)
    found = stand_in(awake(model, [ReplaceAttention("layer.2", "feed-forward")]))
    inner, outer = found.intermediate, found.output
    hidden = states @ inner.weight.T + inner.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    assert torch.allclose(found(states)[0], hidden @ outer.weight.T + outer.bias, atol=1e-5)

    found = stand_in(awake(model, [ReplaceAttention("layer.2", "convolution", 3)]))
    gated = states @ found.gated.weight.T + found.gated.bias
    gated = gated[..., :48] * torch.sigmoid(gated[..., 48:]) * valid[..., None]
    convolved = found.depthwise.bias.expand(2, 9, 48).clone()
    for frame in range(9):
        for offset in range(-3, 4):
            if 0 <= frame + offset < 9:
                convolved[:, frame] += found.depthwise.weight[:, 0, offset + 3] * gated[:, frame + offset]
    expected = convolved @ found.output.weight.T + found.output.bias
    given = found(states, valid)
    assert torch.allclose(given[0], expected, atol=1e-5)
    assert len(given) == (3 if name == "wavlm-group" else 2)
    assert given[1] is None


def test_what_is_padding_is_read_from_every_form_of_mask():
    valid = torch.arange(5) < torch.tensor([[5], [3]])
    boolean = valid[:, None, None]
    square = boolean & boolean.transpose(2, 3)  # Parakeet's, whose rows of padding see nothing
    additive = torch.zeros(2, 1, 5, 5).masked_fill(~boolean, torch.finfo(torch.float32).min)
    causal = boolean & torch.ones(5, 5, dtype=torch.bool).tril()
    for mask in (valid, valid.long(), boolean, square, additive, causal):
        assert torch.equal(valid_frames(mask), valid)
    assert valid_frames(None) is None
    with pytest.raises(SurgeryError, match="what is padding"):
        valid_frames(torch.ones(5))


def test_wavlm_hands_its_position_embedding_on():
    model = small("wavlm-ctc-stable")
    made = apply(model, [ReplaceAttention("layer.1", "feed-forward")])
    assert not hasattr(stand_in(made, 1), "rel_attn_embed")
    own, before = stand_in(made, 2).rel_attn_embed, stand_in(model, 1).rel_attn_embed
    assert torch.equal(own.weight, before.weight)
    every = apply(model, [ReplaceAttention("layer.*", "convolution", 1)])
    assert every.anatomy.heads == (0, 0, 0)
    assert run(every, CORPUS).streams.keys() == run(model, CORPUS).streams.keys()


@pytest.mark.parametrize("by", BY)
def test_all_of_it_learns_once_the_last_map_has_left_zero(by):
    made = edited(small("hubert-ctc-stable").source, [ReplaceAttention("layer.2", by, WIDTHS[by])])
    found = stand_in(load(made))
    assert not found.output.weight.any()
    assert not found.output.bias.any()
    states, target = torch.randn(2, 8, 48), torch.randn(2, 8, 48)
    optimiser = torch.optim.SGD(found.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = F.mse_loss(found(states)[0], target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(one.grad.any() for one in found.parameters())
    assert losses[-1] < losses[0]


def test_weights_follow_from_the_seed_and_the_layer_and_stay_once_trained():
    model = small("wav2vec2-group")

    def weights(*edits):
        made = edited(model.source, edits)
        return [submodule(made, f"encoder.layers.{k}.attention.intermediate").weight for k in (0, 1)]

    first, again, other = (weights(ReplaceAttention("layer.1-2", "feed-forward", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].abs().max() <= 48**-0.5

    trained = awake(model, [ReplaceAttention("layer.2", "feed-forward")])
    same = apply(trained, [ReplaceAttention("layer.2", "feed-forward")])
    assert torch.equal(stand_in(same).output.weight, stand_in(trained).output.weight)
    anew = apply(trained, [ReplaceAttention("layer.2", "convolution", 1)])
    assert not stand_in(anew).output.weight.any()
    assert anew.fingerprint() != same.fingerprint()


def test_heads_that_were_cut_or_gated_before_do_not_matter():
    model = small("conformer-relative")
    edits = [CutHeads("layer.2"), Gate("layer.1.head.0"), ReplaceAttention("layer.1-2", "feed-forward")]
    expected = run(apply(model, edits[-1:]), CORPUS)
    assert max(differences(expected, run(apply(model, edits), CORPUS)).values()) == 0


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (lambda: [ReplaceAttention("layer.2", "convolution")], "sees one frame"),
        (lambda: [ReplaceAttention("layer.2", "pooling")], "pooling"),
        (lambda: [ReplaceAttention("layer.2", "convolution", -1)], "-1"),
        (lambda: [ReplaceAttention("layer.2", "feed-forward", seed=True)], "True"),
        (lambda: [ReplaceAttention("layer.2", "convolution", 24)], "more parameters.*23 frames at most"),
        (lambda: [Causal("layer.2"), ReplaceAttention("layer.2", "convolution", 2)], "look ahead"),
        (lambda: [ReplaceMap("layer.3", "layer", source=2), ReplaceAttention("layer.2", "feed-forward")], "layer 2"),
        (lambda: [Remove("layer.2.attention"), ReplaceAttention("layer.2", "feed-forward")], "without attention"),
        (lambda: [ReplaceAttention("layer.2", "feed-forward"), CutHeads("layer.2")], "without attention"),
        (lambda: [ReplaceAttention("layer.2.feed_forward.1", "feed-forward")], "on which this edit does not act"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(edits, message):
    with pytest.raises(SurgeryError, match=f"(?s){message}"):
        apply(small("conformer-relative"), edits())


def test_the_widest_convolution_that_is_allowed_is_no_larger_than_the_attention():
    model = small("whisper")  # whose attention has the fewest biases
    made = apply(model, [ReplaceAttention("layer.2", "convolution", 23)])
    assert 0 <= model.parameters - made.parameters < 2 * 48 + 1
