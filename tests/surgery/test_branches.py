"""Bypass and mean ablation: identities of the residual stream, means by hand."""

import pytest
import torch

from otoscope.errors import SurgeryError
from otoscope.models import load
from otoscope.surgery import Bypass, CutHeads, Gate, MeanAblate, apply, edited, mean_outputs
from otoscope.surgery.branches import BRANCHES
from otoscope.surgery.units import Parts
from tests.models.small import CASES
from tests.surgery.cases import feed_forward, run, same_bits, speech

CORPUS = speech(0.4, 0.7)


@pytest.fixture(
    scope="module", params=["wav2vec2-group", "wavlm-ctc-stable", "conformer-relative", "whisper", "parakeet"]
)
def model(request):
    return load(next(case for case in CASES if case.name == request.param).build().eval())


def test_a_bypassed_layer_hands_its_input_on(model):
    streams = run(apply(model, [Bypass("layer.1-2")]), CORPUS)
    for k in range(len(CORPUS)):
        assert torch.equal(streams.frames("layer.1", k), streams.frames("input", k))
        assert torch.equal(streams.frames("layer.2", k), streams.frames("input", k))
        assert not torch.allclose(streams.frames("layer.3", k), streams.frames("input", k), atol=1e-3)


def test_a_layer_without_branches_is_its_norms_alone(model):
    """Post-norm layers are still normed where only the branches are bypassed; pre-norm layers pass their input on."""
    parts = Parts(model.family.encoder(model.source), model.family)
    branches = [unit.name for unit in parts.units.values() if unit.layer == 1 and unit.kind in BRANCHES]
    changed = apply(model, [Bypass(unit) for unit in branches])
    streams = run(changed, CORPUS)
    layer = changed.encoder.get_submodule(model.family.layers)[0]
    given = streams.frames("input", 1)
    with torch.inference_mode():
        if model.family.name == "wav2vec2":
            expected = layer.final_layer_norm(layer.layer_norm(given))
        elif model.family.name == "wav2vec2-conformer":
            expected = layer.final_layer_norm(given)
        elif model.family.name == "parakeet":
            expected = layer.norm_out(given)
        else:
            expected = given
    assert torch.allclose(streams.frames("layer.1", 1), expected, atol=1e-6)


def test_means_are_those_of_the_valid_frames(model):
    """By hand: hooks on the model at one utterance a time, where nothing is padded."""
    ffn = f"layer.2.{feed_forward(model.family.name)}"
    found = mean_outputs(model, CORPUS, ["layer.1", "layer.2.attention", ffn, "layer.3.head.*"])
    sums, frames = {}, 0
    model = apply(model, [])  # whose hooks are its own
    layers = model.encoder.get_submodule(model.family.layers)
    seen = {}
    layers[1].get_submodule(model.family.attention).register_forward_hook(
        lambda module, args, out: seen.update(attention=out[0])
    )
    layers[1].get_submodule(model.family.feed_forwards[-1][-1]).register_forward_hook(
        lambda module, args, out: seen.update(ffn=out)
    )
    projection = layers[2].get_submodule(model.family.attention).get_submodule(model.family.projections[3])
    projection.register_forward_pre_hook(lambda module, args: seen.update(heads=args[0]))
    for utterance in CORPUS:
        capture = run(model, CORPUS.subset([utterance.id]))
        n = capture.lengths["input"][0]
        seen["layer"] = capture.streams["layer.1"] - capture.streams["input"]
        for name, value in seen.items():
            sums[name] = sums.get(name, 0) + value[0, :n].double().sum(0)
        frames += n
    means = {name: value / frames for name, value in sums.items()}
    assert torch.tensor(found["layer.1"]) == pytest.approx(means["layer"].numpy(), abs=1e-5)
    assert torch.tensor(found["layer.2.attention"]) == pytest.approx(means["attention"].numpy(), abs=1e-5)
    assert torch.tensor(found[ffn]) == pytest.approx(means["ffn"].numpy(), abs=1e-5)
    heads = torch.tensor([found[f"layer.3.head.{k}"] for k in range(4)]).flatten()
    assert heads == pytest.approx(means["heads"].numpy(), abs=1e-5)


def test_what_is_mean_ablated_gives_its_mean_everywhere(model):
    means = mean_outputs(model, CORPUS, ["layer.1", "layer.2.attention", "layer.3.head.1"])
    changed = apply(model, [MeanAblate("layer.1", means), MeanAblate("layer.2.attention", means)])
    streams = run(changed, CORPUS)
    update = streams.frames("layer.1", 0) - streams.frames("input", 0)
    assert torch.allclose(update, torch.tensor(means["layer.1"]).expand_as(update), atol=1e-5)
    seen = {}
    one = apply(model, [MeanAblate("layer.3.head.1", means)])
    layers = one.encoder.get_submodule(model.family.layers)
    attention = layers[2].get_submodule(model.family.attention)
    getattr(attention, model.family.projections[3]).register_forward_pre_hook(
        lambda module, args: seen.update(heads=args[0])
    )
    run(one, CORPUS)
    heads = seen["heads"].unflatten(-1, (4, -1))
    assert torch.allclose(heads[:, :, 1], torch.tensor(means["layer.3.head.1"]).expand_as(heads[:, :, 1]))
    assert not torch.allclose(heads[:, :1, 0], heads[:, 1:2, 0])


def test_a_mean_does_not_hang_on_how_utterances_are_batched(model):
    one, two = (mean_outputs(model, CORPUS, "layer.2", batch_seconds=seconds)["layer.2"] for seconds in (0.1, 30.0))
    assert one == pytest.approx(two, abs=1e-5)


def test_means_name_the_heads_of_the_original(model):
    cut = apply(model, [CutHeads("layer.1.head.0,2")])
    whole, left = (mean_outputs(one, CORPUS, "layer.1.head.*") for one in (model, cut))
    assert sorted(left) == ["layer.1.head.1", "layer.1.head.3"]
    for name, mean in left.items():
        assert mean == pytest.approx(whole[name], abs=1e-5)


def test_a_mean_of_a_gated_head_is_taken_before_its_gate(model):
    """For the gate multiplies what replaces the head's output as it multiplied the output."""
    gated = apply(model, [Gate("layer.3.head.1", 0.25), Gate("layer.3.head.2", 0.0)])
    whole, found = (mean_outputs(one, CORPUS, "layer.3.head.*") for one in (model, gated))
    for head in (0, 1, 3):
        assert found[f"layer.3.head.{head}"] == pytest.approx(whole[f"layer.3.head.{head}"], abs=1e-5)
    assert set(found["layer.3.head.2"]) == {0.0}


def test_a_bypass_and_a_mean_of_the_same_unit(model):
    means = mean_outputs(model, CORPUS, "layer.2")
    one = apply(model, [Bypass("layer.2"), MeanAblate("layer.2", means)])
    assert same_bits(run(one, CORPUS).streams, run(apply(model, [MeanAblate("layer.2", means)]), CORPUS).streams)


def test_the_librarys_recording_sees_the_edit_on_a_model_that_was_recorded_before(model):
    encoder, inputs = model.family.encoder(model.source), model.frontend.inputs([CORPUS[0].read()])
    with torch.inference_mode():
        encoder(**inputs, output_hidden_states=True)  # installs the library's hooks, which the copy inherits
        copy = model.family.encoder(edited(model.source, [Bypass("layer.1")]))
        states = copy(**inputs, output_hidden_states=True).hidden_states
    assert torch.equal(states[1], states[0])


def test_units_that_cannot_be_bypassed(model):
    for unit in ("layer.1.head.0", "layer.1.norms", f"layer.1.attention.{model.family.projections[0]}"):
        with pytest.raises(SurgeryError, match=f"{unit} is of the kind"):
            apply(model, [Bypass(unit)])


def test_a_corpus_without_speech():
    with pytest.raises(SurgeryError, match="no frame to take a mean over"):
        mean_outputs(load(CASES[0].build()), CORPUS.subset([]), "layer.1")
