"""A client's training: an update by hand as oracle, the same from the same seed, and nothing that goes by unsaid."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from otoscope.errors import EvaluationError, FederationError, TranscriptError
from otoscope.evaluation.references import reference_of
from otoscope.federation.channels import exchanged, groups_of, is_statistic
from otoscope.federation.client import Client, LocalSettings, held_still
from otoscope.federation.partition import Share, partition
from otoscope.federation.submodels import Submodel, extract, full
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.treatments import Freeze, LearningRate, treated
from tests.federation.small import VOCABULARY, conformer, recogniser, speech, wav2vec2
from tests.models.small import CASES
from tests.training.small_ctc import tiny_encoder

SHARES = partition(speech(), "speaker")
SHARE = SHARES[0]
MODEL, CONFORMER = wav2vec2(), conformer()
# What adds the same to all scores of a frame; and what the library's Conformer has and does not use.
UNMOVED = ("k_proj.bias", "linear_k.bias", "wav2vec2_conformer.encoder.pos_conv_embed")
WIDE = dict(clip=1e9, batch_seconds=100.0)  # one batch, gradients as they are


def _state(template=MODEL) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in exchanged(template.model).items()}


def _half(template=MODEL, frozen=()) -> Submodel:
    groups = groups_of(template.model)
    return Submodel({name: tuple(range(1, group.count, 2)) for name, group in groups.items()}, frozenset(frozen))


def _train(settings=None, template=MODEL, submodel=None, round=1, seed=0, share=SHARE, state=None):
    submodel = submodel or full()
    arrays = extract(state or _state(template), submodel, groups_of(template.model))
    return Client(template, share, settings).train(arrays, submodel, round, seed)


def _same(one, other) -> bool:
    return one.delta.keys() == other.delta.keys() and all(torch.equal(one.delta[n], other.delta[n]) for n in one.delta)


def _without_dropout(template) -> Recogniser:
    made = copy.deepcopy(template.model.source)
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return Recogniser(SpeechModel(made, template.model.family, template.model.frontend, "still"), VOCABULARY)


STILL = _without_dropout(MODEL)


@pytest.mark.parametrize(("clip", "frozen"), [(1e9, True), (0.05, True), (1e9, False)])
def test_an_update_is_that_of_the_librarys_own_loss_by_hand(clip, frozen):
    """Mean over utterances of the loss by length of the transcript, and a step against the gradient, clipped."""
    source = copy.deepcopy(STILL.model.source).train()
    source.config.ctc_loss_reduction, source.config.apply_spec_augment = "mean", False
    waves = [one.read() for one in sorted(SHARE.utterances, key=lambda one: -one.n_samples)]
    texts = [reference_of(STILL, one).tokens for one in sorted(SHARE.utterances, key=lambda one: -one.n_samples)]
    labels = torch.full((3, max(map(len, texts))), -100)
    for row, text in zip(labels, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    source.wav2vec2.feature_extractor.requires_grad_(not frozen)
    source(**STILL.model.frontend.inputs(waves), labels=labels).loss.backward()
    gradients = {name: one.grad for name, one in source.named_parameters() if one.grad is not None}
    norm = float(torch.stack([one.norm() for one in gradients.values()]).norm())
    found = _train(LocalSettings(learning_rate=0.5, clip=clip, batch_seconds=100, freeze_convolutions=frozen), STILL)
    before = _state(STILL)
    for name, delta in found.delta.items():
        wanted = -0.5 * min(1.0, clip / norm) * gradients.get(name, torch.zeros_like(before[name]))
        torch.testing.assert_close(delta, wanted, rtol=1e-3, atol=2e-7)  # of weights below 1


def test_the_first_step_of_adam_is_the_learning_rate():
    found = _train(LocalSettings(optimiser="adamw", learning_rate=1e-3, **WIDE), STILL)
    moved = found.delta["lm_head.weight"].abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-3), rtol=0.01, atol=0)


@pytest.mark.parametrize(("template", "precision"), [(MODEL, "bfloat16"), (CONFORMER, "float32")])
def test_a_training_follows_from_seed_round_and_client(template, precision):
    settings = LocalSettings(batch_seconds=2.0, mask=0.2, precision=precision)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one = _train(settings, template)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    torch.manual_seed(99)
    assert _same(_train(settings, template), one)
    for other in ({"round": 2}, {"seed": 1}, {"share": Share("another name", SHARE.utterances)}):
        assert not _same(_train(settings, template, **other), one)


def test_the_order_of_a_clients_speech_does_not_count():
    turned = Share(SHARE.client, replace(SHARE.utterances, utterances=SHARE.utterances.utterances[::-1]))
    settings = LocalSettings(batch_seconds=2.0)
    assert _same(_train(settings, share=turned), _train(settings))


def test_mixed_precision_is_near_the_full_one():
    one, other = (_train(LocalSettings(precision=p, **WIDE), STILL).delta for p in ("float32", "bfloat16"))
    flat = [torch.cat([tensor.flatten() for tensor in delta.values()]) for delta in (one, other)]
    assert not torch.equal(*flat)
    assert float(torch.nn.functional.cosine_similarity(*flat, 0)) > 0.99


@pytest.mark.parametrize("template", [MODEL, CONFORMER], ids=["wav2vec2", "conformer"])
@pytest.mark.parametrize(("optimiser", "rate"), [("sgd", 10.0), ("adamw", 1e-2)])
def test_a_sub_model_sends_what_it_holds_and_keeps_what_is_frozen(template, optimiser, rate):
    groups = groups_of(template.model)
    frozen = next(s.tensor for s in groups["layer.2.attention"].slices if s.tensor.endswith("weight"))
    submodel, before = _half(template, [frozen]), _state(template)
    arrays = extract(before, submodel, groups)
    given = {name: tensor.clone() for name, tensor in arrays.items()}
    settings = LocalSettings(learning_rate=rate, optimiser=optimiser, mask=0.2)
    found = Client(template, SHARE, settings).train(arrays, submodel, 1, 0)
    assert found.delta.keys() == arrays.keys() - {frozen}
    for name, delta in found.delta.items():
        assert delta.shape == arrays[name].shape
        assert delta.dtype == torch.float32
        moved = bool((delta != 0).any())
        if name in held_still(template.model, settings):
            assert not moved, name
        elif not any(word in name for word in UNMOVED):
            assert moved, name
    for name, tensor in arrays.items():
        assert torch.equal(tensor, given[name])
    for name, tensor in exchanged(template.model).items():
        assert torch.equal(tensor, before[name])


FAMILIES = ("wavlm-group", "hubert-ctc-stable", "data2vec-audio", "unispeech-sat", "conformer-rotary-ctc",
            "bert-relative-key", "parakeet")  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_sub_models_of_every_family_are_trained(name):
    template = recogniser(load(next(case for case in CASES if case.name == name).build()))
    submodel, settings = _half(template), LocalSettings(learning_rate=1.0, rescale=True, mask=0.1)
    found = _train(settings, template, submodel)
    shapes = {n: t.shape for n, t in extract(_state(template), submodel, groups_of(template.model)).items()}
    assert {n: t.shape for n, t in found.delta.items()} == shapes
    moved = {n for n, t in found.delta.items() if bool((t != 0).any())}
    groups = {s.tensor for group in groups_of(template.model).values() for s in group.slices}
    assert {n for n in groups - moved if not any(word in n for word in ("k_proj.bias", "linear_k.bias"))} == set()
    assert not moved & held_still(template.model, settings)


def test_the_weights_of_the_template_do_not_count():
    other = wav2vec2()
    with torch.no_grad():
        for parameter in other.model.source.parameters():
            parameter.add_(1.0)
    assert _same(_train(template=other, state=_state(MODEL)), _train())


def test_a_client_learns_its_speech():
    state, losses = _state(), []
    settings = LocalSettings(epochs=2, optimiser="adamw", learning_rate=3e-3, batch_seconds=4.0)
    client = Client(MODEL, SHARE, settings)
    for round in range(1, 7):
        found = client.train(state, full(), round, 0)
        state = {name: tensor + found.delta[name] for name, tensor in state.items()}
        losses.append(found.metrics["loss"])
    assert losses[-1] < 0.6 * losses[0]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize(
    ("given", "steps", "utterances"),
    [
        (dict(epochs=1, batch_seconds=100), 1, 3),
        (dict(epochs=3, batch_seconds=100), 3, 9),
        (dict(epochs=2, batch_seconds=0.1), 6, 6),
        (dict(epochs=2, batch_seconds=0.1, steps=4), 4, 4),
        (dict(epochs=1, batch_seconds=0.1, steps=9), 3, 3),
    ],
)
def test_what_is_heard_is_counted(given, steps, utterances):
    found = _train(LocalSettings(**given))
    told = found.metrics
    assert (told["steps"], told["utterances"]) == (steps, utterances)
    assert found.weight == told["seconds"]
    whole = utterances % 3 == 0
    if whole:
        assert told["seconds"] == pytest.approx(SHARE.utterances.seconds * utterances / 3)
    assert told["peak_training_bytes"] > 2 * 4 * sum(p.numel() for p in MODEL.model.source.parameters()) * 0.9


def test_narrower_and_shorter_trainings_need_less_memory():
    whole, half = (_train(submodel=one).metrics["peak_training_bytes"] for one in (full(), _half()))
    short = _train(LocalSettings(batch_seconds=0.1)).metrics["peak_training_bytes"]
    assert half < whole
    assert short < whole


def test_every_layer_is_trained_whatever_the_configuration_says():
    template = copy.deepcopy(MODEL.model.source)
    template.config.layerdrop = template.wav2vec2.config.layerdrop = 1.0
    made = Recogniser(SpeechModel(template, MODEL.model.family, MODEL.model.frontend, "dropping"), VOCABULARY)
    assert _same(_train(template=made, state=_state()), _train())


def test_rescaling_changes_sub_models_alone():
    plain, scaled = LocalSettings(**WIDE), LocalSettings(rescale=True, **WIDE)
    assert _same(_train(plain), _train(scaled))
    assert not _same(_train(plain, submodel=_half()), _train(scaled, submodel=_half()))


def test_masks_hide_speech_from_the_client():
    assert not _same(_train(LocalSettings(mask=0.3, **WIDE), STILL), _train(LocalSettings(**WIDE), STILL))


def test_statistics_of_batch_norms_move_towards_those_of_the_clients_speech():
    found = _train(LocalSettings(**WIDE), CONFORMER)
    moved = {name: delta for name, delta in found.delta.items() if is_statistic(name)}
    assert len(moved) == 4
    for delta in moved.values():
        assert bool((delta != 0).all())
    # Momentum 0.1 from a mean of zero and a variance of one: a tenth of the way in one batch.
    assert all(float(delta.min()) > -0.1 for name, delta in moved.items() if name.endswith("running_var"))


def test_what_a_treatment_froze_stays_and_its_rates_hold():
    ready = recogniser(treated(tiny_encoder(), [Freeze("layer.1"), LearningRate("layer.2.feed_forward", factor=0.1)]))
    plain = recogniser(tiny_encoder())
    still = held_still(ready.model, LocalSettings())
    assert {name for name in still if ".layers." in name} == {
        name for name in exchanged(ready.model) if "encoder.layers.0." in name
    }
    settings = LocalSettings(**WIDE)
    found, wanted = (_train(settings, _without_dropout(one)).delta for one in (ready, plain))
    for name, delta in found.items():
        if name in still:
            assert not bool((delta != 0).any()), name
        else:
            factor = 0.1 if "layers.1.feed_forward" in name else 1.0
            scale = float(wanted[name].abs().max())
            torch.testing.assert_close(delta, factor * wanted[name], rtol=1e-3, atol=1e-3 * scale + 1e-7)


def test_frozen_batch_norms_hold_their_statistics():
    source = copy.deepcopy(CONFORMER.model.source)
    encoder = SpeechModel(source.wav2vec2_conformer, CONFORMER.model.family, CONFORMER.model.frontend, "c")
    ready = recogniser(treated(encoder, [Freeze("layer.1.convolution")]))
    still = held_still(ready.model, LocalSettings(freeze_convolutions=False))
    assert sum(is_statistic(name) for name in still) == 2
    assert not any("feature_extractor" in name for name in still)
    found = _train(LocalSettings(freeze_convolutions=False), ready).delta
    for name in still:
        assert not bool((found[name] != 0).any()), name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda a: a.pop("lm_head.bias"), "lacks 'lm_head.bias'"),
        (lambda a: a.update(other=torch.zeros(1)), "should not hold 'other'"),
        (lambda a: a.update({"lm_head.bias": torch.zeros(7)}), r"in the shape \(7,\), not \(6,\)"),
        (lambda a: a.update({"lm_head.bias": torch.full((6,), np.nan)}), "not finite"),
        (lambda a: a.update({"lm_head.bias": torch.zeros(6, dtype=torch.int64)}), "not finite"),
    ],
)
def test_other_tensors_than_those_of_the_sub_model_are_refused(change, told):
    arrays = _state()
    change(arrays)
    with pytest.raises(FederationError, match=f"What the client 's0' was sent.*{told}"):
        Client(MODEL, SHARE).train(arrays, full(), 1, 0)


def test_the_tensors_of_another_sub_model_are_refused():
    with pytest.raises(FederationError, match="in the shape"):
        Client(MODEL, SHARE).train(_state(), _half(), 1, 0)


def test_a_training_that_diverges_is_named():
    with pytest.raises(FederationError, match="client 's0' diverged in round 3"):
        _train(LocalSettings(learning_rate=1e38, epochs=3), round=3)


def test_a_model_that_is_frozen_as_a_whole_is_refused():
    parameters = [name for name, _ in MODEL.model.source.named_parameters()]
    with pytest.raises(FederationError, match="Nothing is left to train"):
        _train(submodel=Submodel({}, frozenset(parameters)))


def test_speech_that_cannot_be_trained_on_is_named_at_once():
    (first, *others) = SHARE.utterances

    def share(**change):
        return Share("s0", replace(SHARE.utterances, utterances=(replace(first, **change), *others)))

    with pytest.raises(TranscriptError, match=first.id):
        Client(MODEL, share(transcript=None))
    with pytest.raises(EvaluationError, match=f"{first.id}.*needs"):
        Client(MODEL, share(transcript="a" * 60))
    with pytest.raises(FederationError, match="no speech"):
        Client(MODEL, Share("s0", replace(SHARE.utterances, utterances=())))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (dict(epochs=0), "0 epochs"),
        (dict(steps=-1), "-1 steps"),
        (dict(batch_seconds=0.0), "batch_seconds"),
        (dict(learning_rate=float("nan")), "learning_rate"),
        (dict(clip=float("inf")), "clip"),
        (dict(mask=1.0), "mask"),
        (dict(optimiser="lamb"), "optimiser 'lamb'"),
        (dict(precision="float16"), "precision 'float16'"),
    ],
)
def test_numbers_out_of_range_are_named(given, told):
    with pytest.raises(FederationError, match=told) as error:
        LocalSettings(**given)
    assert error.value.cure
