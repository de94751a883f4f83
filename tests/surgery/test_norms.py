"""Group norm and no norm in place of batch norm: their start, padding, and what is refused."""

import copy

import pytest
import torch
from torch import nn

from otoscope.errors import SurgeryError
from otoscope.models import load
from otoscope.models.families import submodule
from otoscope.surgery import GroupNorm, NoNorm, Reset, apply, edited, fingerprint
from otoscope.surgery.norms import ChannelAffine, GroupNormOverValid
from tests.models.small import CASES
from tests.surgery.cases import differences, run, speech

CONFORMERS = ["conformer-relative", "conformer-rotary-ctc", "parakeet", "parakeet-ctc"]
NAMES = {"wav2vec2-conformer": "conv_module.batch_norm", "parakeet": "conv.norm"}
CORPUS = speech(0.3, 0.5, 0.8)


def built(name, seed=0):
    """A small Conformer whose batch norms have seen something."""
    case = next(case for case in CASES if case.name == name)
    source = case.build(seed).eval()
    for one in source.modules():
        if isinstance(one, nn.BatchNorm1d):
            with torch.no_grad():
                one.running_mean.normal_()
                one.running_var.uniform_(0.3, 3.0)
                one.weight.uniform_(0.5, 1.5)
                one.bias.normal_()
    return source


def norm_of(model, layer=1):
    layers = submodule(model.family.encoder(model.source), model.family.layers)
    return submodule(layers[layer - 1], NAMES[model.family.name])


def with_statistics(mean, variance, channels, frames):
    """States (1, C, T) in which every channel has exactly this mean and biased variance over time."""
    waves = torch.stack([torch.cos(torch.arange(frames) * 2 * torch.pi * (k + 1) / frames) for k in range(channels)])
    return (mean[:, None] + waves * (2 * variance).sqrt()[:, None])[None].float()


@pytest.mark.parametrize("groups", [1, 3, 6, 12])
def test_a_group_norm_gives_what_the_batch_norm_gave_where_statistics_are_as_expected(groups):
    torch.manual_seed(0)
    old = nn.BatchNorm1d(12).eval()
    with torch.no_grad():
        old.running_mean.normal_()
        old.running_var.uniform_(0.3, 3.0)
        old.weight.normal_()
        old.bias.normal_()
    new = replaced(old, GroupNorm("layer.1", groups))
    states = with_statistics(old.running_mean, old.running_var, 12, 40)
    assert torch.allclose(new(states), old(states), atol=1e-5)
    louder = states * 2  # other statistics than expected: group norm does not follow, batch norm does
    assert not torch.allclose(new(louder), old(louder), atol=0.1)


def test_a_norm_over_frames_expects_the_mean_variance_within_a_frame():
    """Channels are equally likely +1 or -1 around their means: uncorrelated over all sixteen frames of signs."""
    means, each = torch.tensor([0.5, -1.0, 2.0, 0.0]), 4
    signs = torch.tensor([[1 if k >> c & 1 else -1 for k in range(16)] for c in range(each)]).float()
    states = (means[:, None] + signs)[None]
    old = nn.BatchNorm1d(each).eval()
    old.running_mean.copy_(means)
    old.running_var.copy_(states[0].var(1, correction=0))
    new = replaced(old, GroupNorm("layer.1", 1, "frame"))
    expected = states[0].var(0, correction=0).mean()  # the mean of the variance within a frame
    assert torch.allclose(new.weight, (expected + old.eps).sqrt() / (1 + old.eps) ** 0.5 * torch.ones(each), atol=1e-6)


def replaced(norm, edit):
    """What an edit makes of one batch norm, in the first layer of a small Parakeet."""
    case = next(case for case in CASES if case.name == "parakeet")
    source = case.build().eval()
    source.layers[0].conv.norm = norm
    made = edited(source, [edit])
    return made.layers[0].conv.norm


@pytest.mark.parametrize("name", CONFORMERS)
def test_without_norm_the_model_in_use_gives_the_same(name):
    model = load(built(name))
    folded = apply(model, [NoNorm("layer.*")])
    assert isinstance(norm_of(folded), ChannelAffine)
    assert max(differences(run(model, CORPUS), run(folded, CORPUS)).values()) < 1e-4
    assert folded.fingerprint() != model.fingerprint()


@pytest.mark.parametrize("over", ["time", "frame"])
@pytest.mark.parametrize("name", CONFORMERS)
def test_padding_does_not_reach_the_statistics(name, over):
    changed = apply(load(built(name)), [GroupNorm("layer.*", 4, over)])
    together = run(changed, CORPUS)
    assert max(differences(run(load(built(name)), CORPUS), together).values()) > 1e-3
    for k, one in enumerate(CORPUS):
        alone = run(changed, CORPUS.subset([one.id]))
        for stream in together.streams:
            assert torch.allclose(together.frames(stream, k), alone.frames(stream, 0), atol=2e-5), stream


def test_the_masked_statistics_are_those_of_torch_on_the_valid_part():
    torch.manual_seed(0)
    states, weight, bias = torch.randn(2, 6, 9), torch.randn(6), torch.randn(6)
    norm = GroupNormOverValid(6, 3, "time", 1e-5, states)
    norm.load_state_dict({"weight": weight, "bias": bias})
    valid = torch.arange(9) < torch.tensor([[9], [4]])
    for mask in (
        valid[:, None, None].expand(-1, 1, 9, -1),
        torch.where(valid, 0.0, torch.finfo(torch.float32).min)[:, None, None],
    ):
        norm.note_padding(nn.Identity(), (), {"attention_mask": mask})
        found = norm(states)
        for row, length in enumerate((9, 4)):
            expected = torch.nn.functional.group_norm(states[row : row + 1, :, :length], 3, weight, bias, 1e-5)
            assert torch.allclose(found[row, :, :length], expected[0], atol=1e-5)
    with pytest.raises(SurgeryError, match="handed 3 utterances of 9 frames, and its layer's mask is of 2 of 9"):
        norm(torch.randn(3, 6, 9))
    norm.forget_padding()
    assert torch.allclose(norm(states), torch.nn.functional.group_norm(states, 3, weight, bias, 1e-5))


def test_a_norm_over_frames_sees_no_other_frame():
    torch.manual_seed(0)
    states = torch.randn(1, 6, 5)
    norm = GroupNormOverValid(6, 2, "frame", 1e-5, states)
    expected = torch.nn.functional.group_norm(states[0].T, 2, eps=1e-5).T
    assert torch.allclose(norm(states)[0], expected, atol=1e-6)
    other = states.clone()
    other[..., 3] = 100
    assert torch.equal(norm(other)[..., :3], norm(states)[..., :3])


@pytest.mark.parametrize("edit", [GroupNorm("layer.*", 4), GroupNorm("layer.*", 4, "frame"), NoNorm("layer.*")])
def test_training_moves_no_statistics_and_the_original_is_left_alone(edit):
    source = built("parakeet-ctc")
    before = {name: value.clone() for name, value in source.state_dict().items()}
    made = edited(source, [edit]).train()
    model = load(made)
    inputs = model.frontend.inputs([one.read() for one in CORPUS])
    made(**inputs).logits.square().mean().backward()
    assert all(
        norm.weight.grad.abs().sum() > 0
        for norm in made.modules()
        if isinstance(norm, GroupNormOverValid | ChannelAffine)
    )
    assert not any("running" in name or "tracked" in name for name in made.state_dict())
    assert all(torch.equal(before[name], value) for name, value in source.state_dict().items())


def test_other_groups_are_another_model():
    source = built("parakeet")
    made = [edited(source, [GroupNorm("layer.*", 4, over)]) for over in ("time", "frame")]
    same = copy.deepcopy(made[0])
    for one in (made[1], same):
        one.load_state_dict(made[0].state_dict())
    assert fingerprint(same) == fingerprint(made[0]) != fingerprint(made[1])


def test_a_layer_is_reset_to_a_checkpoint_with_the_same_norm():
    edits = [GroupNorm("layer.*", 4)]
    model, initial = (apply(load(built("parakeet", seed)), edits) for seed in (0, 1))
    reset = apply(model, [Reset("layer.2", initial)])
    assert torch.equal(norm_of(reset, 2).weight, norm_of(initial, 2).weight)
    assert torch.equal(norm_of(reset, 1).weight, norm_of(model, 1).weight)
    assert isinstance(norm_of(reset, 2), GroupNormOverValid)


def test_what_cannot_be_replaced_is_refused():
    model = load(built("parakeet"))
    for edit, told in [
        (lambda: GroupNorm("layer.*", 7), "48 channels .* in 7 groups"),
        (lambda: GroupNorm("layer.*", 48, "frame"), "in 48 groups over frame"),
        (lambda: GroupNorm("layer.*", 0), "no number of groups"),
        (lambda: GroupNorm("layer.*", 4, "batch"), "no statistics over 'batch'"),
        (lambda: GroupNorm("layer.1.attention", 4), "of the kind 'attention'"),
    ]:
        with pytest.raises(SurgeryError, match=told):
            apply(model, [edit()])
    with pytest.raises(SurgeryError, match="was replaced already"):
        apply(model, [GroupNorm("layer.*", 4), GroupNorm("layer.2", 8)])
    with pytest.raises(SurgeryError, match="was replaced already"):
        apply(apply(model, [GroupNorm("layer.*", 4)]), [NoNorm("layer.*")])
    for name, told in [
        ("bert-relative-key", "wav2vec2-bert model has no batch norm"),
        ("whisper", "no convolution module"),
    ]:
        other = load(next(case for case in CASES if case.name == name).build().eval())
        with pytest.raises(SurgeryError, match=told):
            apply(other, [GroupNorm("layer.*", 4)])


def test_absent_or_broken_statistics_are_refused():
    source = built("parakeet")
    source.layers[1].conv.norm.running_var[3] = float("nan")
    with pytest.raises(SurgeryError, match="batch norm of layer 2 are not finite"):
        edited(source, [NoNorm("layer.*")])
    source.layers[1].conv.norm = nn.BatchNorm1d(48, track_running_stats=False)
    with pytest.raises(SurgeryError, match="layer 2 keeps no running statistics"):
        edited(source, [GroupNorm("layer.*")])
