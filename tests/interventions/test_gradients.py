"""Gradient importance against gates and finite differences, attribution against what it has to sum to."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from otoscope.errors import CheckpointError, EvaluationError, HeadError
from otoscope.evaluation import CTCLoss
from otoscope.evaluation.clusters import fit_clusters, mfcc_features
from otoscope.evaluation.masked_prediction import write_prediction_head
from otoscope.evaluation.reconstruction import Reconstruction
from otoscope.evaluation.self_supervised import ContrastiveLoss, MaskedPredictionLoss
from otoscope.interventions.attribution import NAME, Attributor, attribution_importance, choose
from otoscope.interventions.gradients import BY_FRAME, SUMMED, gradient_importance
from otoscope.interventions.losses import Loss, contrastive_loss, ctc_loss, own_loss, prediction_loss
from otoscope.interventions.scoring import scores_of_variants
from otoscope.models import load
from otoscope.models.recogniser import Recogniser
from otoscope.models.reductions import WholeMap
from otoscope.surgery import CutHeads, Gate, apply, gates
from tests.evaluation.speaking import VOCABULARY, speech
from tests.models.small import CASES
from tests.surgery.cases import speech as noise

CORPUS = speech(seconds=(0.7, 0.9, 0.5), transcripts=("A cat", "the cats", "it's"))
WEIGHTS = 0.2 * torch.randn(100, generator=torch.Generator().manual_seed(5))


def _case(name):
    return next(case for case in CASES if case.name == name)


def _model(name, dtype=torch.float64):
    return load(_case(name).build().eval().to(dtype))


def _output_loss():
    """A loss of any encoder: a fixed weighting of what it gives, frame by frame, through a curve."""

    def of(model, utterances, samples):
        out = model.encode(samples)
        frames = [model.frontend.frames(len(one)) for one in samples]
        weights = WEIGHTS[: out.shape[-1]].to(out)
        return torch.stack([torch.tanh(row[:n] @ weights).sum() for row, n in zip(out, frames, strict=True)])

    return Loss("output", "units", of)


def _of(result, name):
    return {(row.layer, row.head): row.value for row in result.rows if row.measure == name}


@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm-ctc-stable", "conformer-rotary-ctc", "bert-relative-key",
                                  "whisper", "parakeet"])  # fmt: skip
def test_the_summed_form_is_the_derivative_by_a_gate(name):
    model, corpus = _model(name), noise(0.3)
    found = _of(gradient_importance(model, corpus, _output_loss()), SUMMED)
    utterance = corpus[0]
    frames = model.frontend.frames(utterance.n_samples)

    @torch.no_grad()
    def value(edits):
        return float(_output_loss().of(apply(model, edits), [utterance], [utterance.read()])[0])

    for layer, head in ((1, 0), (2, 3), (3, 1)):
        unit, step = f"layer.{layer}.head.{head}", 1e-3
        slope = (value([Gate(unit, 1 + step)]) - value([Gate(unit, 1 - step)])) / (2 * step)
        assert found[layer, head] * frames == pytest.approx(abs(slope), rel=1e-4, abs=1e-9)
        assert found[layer, head] > 0


def test_both_forms_by_hand_in_padded_batches():
    """Gates of one utterance by autograd; frame by frame from the outputs of heads and their gradient."""
    model = _model("wav2vec2-ctc")
    recogniser = Recogniser(model, VOCABULARY)
    found = gradient_importance(model, CORPUS, ctc_loss(recogniser), batch_seconds=30)
    by_frame, summed, frames = {}, {}, 0
    for utterance in CORPUS:
        edited = apply(model, [Gate("layer.*", 1.0)])
        opened = {layer: gate.requires_grad_() for layer, gate in gates(edited.source).items()}
        inside = {}
        for layer in opened:
            projection = edited.encoder.encoder.layers[layer - 1].attention.out_proj
            projection.register_forward_pre_hook(
                lambda m, args, layer=layer, inside=inside: inside.update({layer: args[0]})
            )
        loss = ctc_loss(recogniser).of(edited, [utterance], [utterance.read()])[0]
        slopes = torch.autograd.grad(loss, list(opened.values()), retain_graph=True)
        outer = torch.autograd.grad(loss, [inside[layer] for layer in opened])
        n = model.frontend.frames(utterance.n_samples)
        frames += n
        for layer, slope, gradient in zip(opened, slopes, outer, strict=True):
            product = (gradient * inside[layer]).detach().view(n, 4, 12).sum(-1)
            for head in range(4):
                key = (layer, head)
                summed[key] = summed.get(key, 0) + abs(float(slope[head]))
                by_frame[key] = by_frame.get(key, 0) + float(product[:, head].abs().sum())
    for name, wanted in ((SUMMED, summed), (BY_FRAME, by_frame)):
        for key, value in _of(found, name).items():
            assert value == pytest.approx(wanted[key] / frames, rel=1e-5)
    for row in found.rows:
        assert row.n == frames
        assert row.target == "ctc-loss"
        assert row.low <= row.value <= row.high


def test_silence_behind_the_utterance_is_no_frame_of_it():
    """Whisper's window holds 100 frames whatever is said; frame by frame those of the utterance count."""
    model, corpus = _model("whisper"), noise(0.5, 0.8)
    found = _of(gradient_importance(model, corpus, _output_loss()), BY_FRAME)
    wanted, silent, total = np.zeros(4), np.zeros(4), 0
    for utterance in corpus:
        n, seen = model.frontend.frames(utterance.n_samples), {}
        projection = model.encoder.layers[1].self_attn.out_proj
        hook = projection.register_forward_pre_hook(lambda m, args, seen=seen: seen.update(states=args[0]))
        loss = _output_loss().of(model, [utterance], [utterance.read()])[0]
        hook.remove()
        (gradient,) = torch.autograd.grad(loss, seen["states"])
        products = (gradient * seen["states"]).detach()[0].view(100, 4, -1).sum(-1).abs().numpy()
        wanted, silent, total = wanted + products[:n].sum(0), silent + products[n:].sum(0), total + n
    assert [found[2, head] for head in range(4)] == pytest.approx((wanted / total).tolist(), rel=1e-6)
    assert (silent > 0).all()


def test_a_dead_head_has_none_and_layers_can_be_brought_to_one():
    source = _case("hubert-group").build().eval()
    with torch.no_grad():
        source.encoder.layers[1].attention.out_proj.weight[:, 24:36] = 0
    model = load(source)
    plain = gradient_importance(model, noise(0.5, 0.6), _output_loss())
    normed = gradient_importance(model, noise(0.5, 0.6), _output_loss(), by_layer=True)
    for name in (BY_FRAME, SUMMED):
        values, shares = _of(plain, name), _of(normed, name)
        assert values[2, 2] == 0
        assert all(value > 0 for key, value in values.items() if key != (2, 2))
        for layer in (1, 2, 3):
            norm = math.sqrt(sum(values[layer, head] ** 2 for head in range(4)))
            assert [shares[layer, h] for h in range(4)] == pytest.approx([values[layer, h] / norm for h in range(4)])
    dead = next(row for row in plain.rows if (row.layer, row.head) == (2, 2))
    assert dead.low is None
    assert dead.high is None


def test_layers_without_heads_have_no_rows_and_user_models_are_left_alone():
    model = apply(load(_case("wav2vec2-group").build().eval()), [CutHeads("layer.2"), CutHeads("layer.3.head.0")])
    hooks = [len(one._forward_pre_hooks) for one in model.source.modules()]
    found = gradient_importance(model, noise(0.5), _output_loss())
    assert sorted(_of(found, BY_FRAME)) == [(1, 0), (1, 1), (1, 2), (1, 3), (3, 1), (3, 2), (3, 3)]
    assert [len(one._forward_pre_hooks) for one in model.source.modules()] == hooks
    assert all(parameter.grad is None for parameter in model.source.parameters())


def test_losses_are_those_of_the_metrics():
    recogniser = Recogniser(_model("wav2vec2-ctc", torch.float32), VOCABULARY)
    metric = CTCLoss().values(recogniser, CORPUS)
    samples = [one.read() for one in CORPUS]
    found = ctc_loss(recogniser).of(recogniser.model, CORPUS.utterances, samples)
    assert found.tolist() == pytest.approx(metric.numerator.tolist(), rel=1e-5)
    model, corpus = _model("wav2vec2-pretraining", torch.float32), noise(0.5, 0.7)
    found = contrastive_loss(seed=3).of(model, corpus.utterances, [one.read() for one in corpus])
    wanted = ContrastiveLoss(seed=3).values(model, corpus).numerator
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-5)
    assert own_loss(model, corpus).name == "contrastive-loss"
    assert own_loss(recogniser, CORPUS).name == "ctc-loss"


def test_reconstruction_is_a_metric_of_variants_and_a_loss():
    model, corpus = _model("mockingjay-pretraining", torch.float32), noise(0.5, 0.7)
    loss = own_loss(model, corpus)
    found = loss.of(model, corpus.utterances, [one.read() for one in corpus])
    assert found.tolist() == pytest.approx(Reconstruction().values(model, corpus).numerator.tolist(), rel=1e-5)
    assert all(value > 0 for value in _of(gradient_importance(model, corpus, loss), BY_FRAME).values())
    edits = [Gate("layer.2.head.1")]
    scores = scores_of_variants(model, corpus, {"gated": edits}, Reconstruction())
    assert (scores.after["gated"].numerator == Reconstruction().values(apply(model, edits), corpus).numerator).all()
    with pytest.raises(HeadError, match="no head that reconstructs"):
        gradient_importance(_model("wav2vec2-group"), corpus, loss)


def test_masked_prediction_has_a_loss_where_its_head_is_stored(tmp_path):
    corpus = noise(0.5, 0.7, 0.6)
    model = load(_case("hubert-group").write(tmp_path))
    with pytest.raises(HeadError, match="no head, and so no loss of its own"):
        own_loss(model, corpus)
    with pytest.raises(CheckpointError):
        prediction_loss(model, corpus)
    clusters = fit_clusters(mfcc_features(corpus.utterances, model).items(), 4, 0, "mfcc")
    torch.manual_seed(0)
    write_prediction_head(torch.nn.Linear(48, 4), clusters, tmp_path)
    loss = own_loss(model, corpus)
    assert loss.name == "masked-prediction-loss"
    found = loss.of(model, corpus.utterances, [one.read() for one in corpus])
    assert found.tolist() == pytest.approx(MaskedPredictionLoss().values(model, corpus).numerator.tolist(), rel=1e-5)
    assert all(value > 0 for value in _of(gradient_importance(model, corpus, loss), BY_FRAME).values())


def test_losses_that_cannot_be_used_are_refused():
    model, corpus = _model("wav2vec2-group"), noise(0.5, 0.6)
    whole = _output_loss()
    twice = Loss("twice", "units", lambda m, u, s: whole.of(m, u, s) + whole.of(m, u, s))
    with pytest.raises(EvaluationError, match="runs every utterance once"):
        gradient_importance(model, corpus, twice)
    mean = Loss("mean", "units", lambda m, u, s: whole.of(m, u, s).mean())
    with pytest.raises(EvaluationError, match=r"has the shape \(\)"):
        gradient_importance(model, corpus, mean)
    cut = Loss("cut", "units", lambda m, u, s: whole.of(m, u, s).detach())
    with pytest.raises(EvaluationError, match="No gradient flows"):
        gradient_importance(model, corpus, cut)
    with pytest.raises(EvaluationError, match="reaches layer 1"):
        Attributor(model, cut).layers(corpus[0])
    with pytest.raises(EvaluationError, match="holds no utterance"):
        gradient_importance(model, corpus.subset([]), whole)
    with pytest.raises(HeadError, match="no quantiser"):
        gradient_importance(model, corpus, contrastive_loss())
    with pytest.raises(EvaluationError, match="0 steps"):
        Attributor(model, whole, 0)


@pytest.mark.parametrize(("name", "layer"), [("wav2vec2-stable", 1), ("wavlm-group", 3), ("conformer-relative", 2)])
def test_attributions_of_a_layer_sum_to_what_its_maps_gain(name, layer):
    model, utterance = _model(name), noise(0.3)[0]
    fine, coarse = (Attributor(model, _output_loss(), steps).layers(utterance, [layer]) for steps in (30, 3))
    samples = utterance.read()
    with torch.no_grad():
        whole = float(_output_loss().of(model, [utterance], [samples])[0])
        without = float(_output_loss().of(apply(model, [Gate(f"layer.{layer}", 0.0)]), [utterance], [samples])[0])
    gained = without - whole
    assert fine[layer].gained == pytest.approx(gained, rel=1e-6)
    assert abs(gained) > 1e-3
    # The sum takes the left end of each step, so that its error is as one over their number.
    error = [float(one[layer].totals.sum()) - gained for one in (fine, coarse)]
    assert abs(error[0]) < abs(error[1]) / 7
    assert abs(error[0]) < 0.1 * abs(gained)


def test_an_attribution_by_its_definition():
    """Of a map that is held and scaled by hand, with derivatives by autograd at every weight."""
    model, utterance = _model("wav2vec2-group"), noise(0.4)[0]
    layer, steps = 2, 5
    found = Attributor(model, _output_loss(), steps).layers(utterance)[layer]
    maps = model.capture([utterance], [utterance.read()], reductions=[WholeMap]).attention[layer][0]["whole-map"]
    total = torch.zeros_like(maps, dtype=torch.float64)
    attention = model.encoder.encoder.layers[layer - 1].attention
    kept = {}
    hooks = [attention.v_proj.register_forward_hook(lambda m, a, out: kept.update(value=out))]
    hooks.append(attention.out_proj.register_forward_pre_hook(lambda m, args: (kept["used"](),)))
    for step in range(steps):
        scaled = (maps.to(model.source.dtype) * step / steps).requires_grad_()

        def used(scaled=scaled):
            values = kept["value"].detach().view(-1, 4, 12).transpose(0, 1)
            return (scaled @ values).transpose(0, 1).reshape(1, -1, 48)

        kept["used"] = used
        loss = _output_loss().of(model, [utterance], [utterance.read()])[0]
        total += torch.autograd.grad(-loss, scaled)[0]
    for hook in hooks:
        hook.remove()
    wanted = maps.double() * total / steps
    assert found.peaks == pytest.approx(wanted.amax((1, 2)).numpy(), rel=1e-4)
    assert found.totals == pytest.approx(wanted.sum((1, 2)).numpy(), rel=1e-4, abs=1e-7)


def test_importance_by_attribution_is_the_mean_of_peaks():
    model, corpus = _model("hubert-group", torch.float32), noise(0.3, 0.35, 0.4, 0.3)
    corpus = replace(corpus, utterances=tuple(replace(u, speaker=f"s{k % 2}") for k, u in enumerate(corpus)))
    result = attribution_importance(model, corpus, _output_loss(), most=3, steps=2)
    chosen = choose(corpus, 3, 0)
    assert len(chosen) == 3
    assert [u.id for u in choose(corpus, 3, 1)] != [u.id for u in chosen]
    attributor = Attributor(model, _output_loss(), 2)
    peaks = np.mean([attributor.layers(one, [2])[2].peaks for one in chosen], axis=0)
    assert [row.value for row in result.rows if row.layer == 2] == pytest.approx(peaks.tolist())
    assert all(row.measure == NAME and row.n == 3 and row.low <= row.value <= row.high for row in result.rows)
    assert set(result.notes[NAME]["summed_to"]) == {"layer.1", "layer.2", "layer.3"}
    with pytest.raises(EvaluationError, match="0 utterances"):
        attribution_importance(model, corpus.subset([]), _output_loss())
