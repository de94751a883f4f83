"""Contributions by norm: vectors sum to what modules give, norms by hand, linearised norms, what is refused."""

import numpy as np
import pytest
import torch

from otoscope.errors import MeasureError
from otoscope.interventions.mixing.norms import contribution_norms, head_contribution_norms, norms_of
from otoscope.interventions.mixing.single import mix, norm_based
from otoscope.interventions.mixing.sublayers import attention_sublayers
from otoscope.models import load
from otoscope.models.families import submodule
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Gate, ReplaceMap, Span, apply
from tests.models.small import CASES

POST_NORM = {"wav2vec2-group", "wav2vec2-ctc", "wav2vec2-pretraining", "hubert-group", "wavlm-group", "unispeech-sat",
             "data2vec-audio", "data2vec-audio-ctc", "mockingjay", "mockingjay-pretraining"}  # fmt: skip


def case(name):
    return next(case for case in CASES if case.name == name)


def one(seconds=0.5, seed=0):
    draw = np.random.default_rng(seed)
    return Corpus.from_arrays([0.1 * draw.normal(size=int(16000 * seconds)).astype(np.float32)])[0]


def vectors(sublayer):
    """Every vector sum_h A^h[i, j] f^h(x_j), (T, T, d)."""
    return torch.einsum("hij,jhd->ijd", sublayer.maps, sublayer.transformed)


def by_the_library(source, model, utterance):
    """What each attention module gives in the library's own model, without otoscope's attention."""
    source = source.eval()
    encoder = model.family.encoder(source)
    found = []

    def note(module, args, kwargs, given):
        found.append(given[0] if isinstance(given, tuple) else given)

    handles = [
        submodule(layer, model.family.attention).register_forward_hook(note, with_kwargs=True)
        for layer in submodule(encoder, model.family.layers)
    ]
    with torch.inference_mode():
        encoder(**model.frontend.inputs([utterance.read()]))
    for handle in handles:
        handle.remove()
    return [given[0] for given in found]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_vectors_sum_to_what_the_librarys_module_gives(case):
    source = case.build()
    model = load(source)
    utterance = one()
    expected = by_the_library(case.build(), model, utterance)
    seen = list(attention_sublayers(model, utterance))
    assert [sublayer.layer for sublayer in seen] == [1, 2, 3]
    for sublayer, given in zip(seen, expected, strict=True):
        total = vectors(sublayer).sum(1) + sublayer.bias
        scale = float(given.abs().max())
        assert float((total - given).abs().max()) < 1e-5 * max(scale, 1)
        assert float((sublayer.output - given).abs().max()) < 1e-5 * max(scale, 1)
        assert torch.allclose(sublayer.maps.sum(-1), torch.ones(()), atol=1e-5)
        assert (sublayer.norm is not None) == (case.name in POST_NORM)


@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm-group", "wav2vec2-stable", "conformer-relative", "whisper"])
def test_norms_and_ratios_by_hand(name):
    source = case(name).build().requires_grad_(False)
    for sublayer in attention_sublayers(load(source), one()):
        n = sublayer.frames
        made = vectors(sublayer)[:n].double()
        own = sublayer.residual[:n].double()
        expected = {"attention": made}
        expected["residual"] = made.clone()
        expected["residual"][range(n), range(n)] += own
        if sublayer.norm is not None:
            norm = sublayer.norm
            spread = (own + sublayer.output[:n]).std(-1, unbiased=False, keepdim=True)
            centred = expected["residual"] - expected["residual"].mean(-1, keepdim=True)
            expected["norm"] = centred / torch.sqrt(spread**2 + norm.eps)[:, None] * norm.weight.double()
            # The linearised norm is exact: with its biases the vectors sum to what the norm gives.
            bias = sublayer.bias.double() - sublayer.bias.double().mean()
            rest = bias / torch.sqrt(spread**2 + norm.eps) * norm.weight.double() + norm.bias.double()
            whole = norm((sublayer.residual + sublayer.output)[:n]).double()
            assert torch.allclose(expected["norm"].sum(1) + rest, whole, atol=1e-4)
        for through, parts in expected.items():
            lengths, ratio = norms_of(sublayer, through)
            by_hand = parts.norm(dim=-1)
            assert torch.allclose(lengths.double(), by_hand, rtol=1e-4, atol=1e-5 * float(by_hand.max()))
            kept = parts[range(n), range(n)]
            mixed = (parts.sum(1) - kept).norm(dim=-1)
            assert torch.allclose(ratio.double(), mixed / (mixed + kept.norm(dim=-1)), atol=1e-4)
        furthest, _ = norms_of(sublayer)
        last = list(expected)[-1]
        assert torch.equal(furthest, norms_of(sublayer, last)[0])


def test_heads_that_work_against_each_other_hand_on_nothing():
    maps = torch.softmax(torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(0)), -1).repeat(2, 1, 1)
    handed = torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(1))
    against = torch.cat([handed, -handed], 1)
    assert float(contribution_norms(maps, against).abs().max()) < 1e-6
    alone = head_contribution_norms(maps, against)
    assert torch.allclose(alone[0], alone[1])
    assert torch.allclose(alone[0], maps[0] * handed[:, 0].norm(dim=-1))
    found = contribution_norms(maps.numpy(), torch.cat([handed, handed], 1).numpy())
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, 2 * alone[0], rtol=1e-5)


def test_shapes_that_disagree_are_refused():
    with pytest.raises(MeasureError, match="do not fit"):
        contribution_norms(torch.ones(2, 5, 5), torch.ones(5, 3, 4))


def test_a_frame_that_is_handed_much_counts_for_more_than_its_weight():
    """Doubling one frame's vector doubles its length wherever it is attended to."""
    maps = torch.softmax(torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(2)), -1)
    handed = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(3))
    before = contribution_norms(maps, handed)
    handed[2] *= 2
    after = contribution_norms(maps, handed)
    assert torch.allclose(after[:, 2], 2 * before[:, 2], rtol=1e-5)
    assert torch.equal(after[:, [0, 1, 3, 4, 5]], before[:, [0, 1, 3, 4, 5]])


def test_gates_are_seen_and_what_is_gated_hands_on_nothing():
    model = load(case("wav2vec2-group").build())
    half = apply(model, [Gate("layer.2.head.1", 0.5)])
    whole, gated = (list(attention_sublayers(one_model, one()))[1] for one_model in (model, half))
    assert torch.allclose(gated.transformed[:, 1], 0.5 * whole.transformed[:, 1], atol=1e-6)
    assert torch.allclose(gated.transformed[:, 0], whole.transformed[:, 0], atol=1e-6)
    closed = apply(model, [Gate("layer.2", 0.0)])
    found = norm_based(closed, one(), through="residual")
    np.testing.assert_array_equal(found.maps[1], np.eye(found.maps.shape[1]))
    assert not found.ratio[1].any()
    assert found.ratio[0].all()


def test_edits_that_values_do_not_tell_are_refused():
    model = load(case("wav2vec2-group").build())
    with pytest.raises(MeasureError, match="attention of layer 2 of .* is off by"):
        norm_based(apply(model, [Span("layer.2", 1)]), one())
    with pytest.raises(MeasureError, match="uses another layer's attention map"):
        norm_based(apply(model, [ReplaceMap("layer.2", "layer")]), one())
    found = norm_based(apply(model, [Span("layer.2", 1, "banded"), ReplaceMap("layer.3", "uniform")]), one())
    apart = np.abs(np.subtract.outer(*[np.arange(found.maps.shape[1])] * 2))
    assert not found.maps[1][apart > 1].any()


def test_a_norm_is_refused_where_none_follows():
    for name in ("wav2vec2-stable", "whisper", "conformer-relative"):
        with pytest.raises(MeasureError, match=r"No norm follows the attention of layer 1"):
            norm_based(load(case(name).build()), one(), through="norm")
    with pytest.raises(MeasureError, match="cannot go through 'everything'"):
        norm_based(load(case("whisper").build()), one(), through="everything")
    with pytest.raises(MeasureError, match="needs what each frame keeps"):
        mix(load(case("whisper").build()), one(), ["norm-rollout"], through="attention")


def test_too_many_frames_are_refused_by_the_name_of_the_limit():
    with pytest.raises(MeasureError, match="24 x 24 frames .* max_frames is 20"):
        norm_based(load(case("wav2vec2-group").build()), one(), max_frames=20)
    with pytest.raises(MeasureError, match="100 x 100 frames"):  # Whisper computes on its whole input
        norm_based(load(case("whisper").build()), one(), max_frames=50)


def test_silence_behind_an_utterance_is_left_out_and_told():
    found = norm_based(load(case("whisper").build()), one())
    assert found.maps.shape == (3, 25, 25)
    assert (found.outside > 0).all()
    np.testing.assert_allclose(found.maps.sum(-1), 1, atol=1e-6)
    assert not norm_based(load(case("wav2vec2-group").build()), one()).outside.any()


def test_other_passes_between_two_layers_do_not_show():
    """The convolution of a Conformer reads the length of the utterance that is passing."""
    model = load(case("conformer-relative").build())
    expected = norm_based(model, one(0.5)).maps
    walks = [attention_sublayers(model, one(0.5)), attention_sublayers(model, one(0.8, seed=1))]
    for first, _ in zip(*walks, strict=True):
        rerun = first.rerun(first.output[None])
        model.capture([one(0.3)], [one(0.3).read()])
        assert torch.equal(first.rerun(first.output[None]), rerun)
        lengths = norms_of(first)[0].double().numpy()
        np.testing.assert_allclose(lengths / lengths.sum(1, keepdims=True), expected[first.layer - 1], atol=1e-6)


@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm-ctc-stable", "conformer-rotary-ctc", "parakeet", "whisper"])
def test_a_rerun_that_changes_nothing_gives_the_layers_output(name):
    model = load(case(name).build())
    capture = model.capture([one()], [one().read()])
    for sublayer in attention_sublayers(model, one()):
        last = sublayer.layer == 3 and "final_norm" in capture.streams
        expected = capture.frames("final_norm" if last else f"layer.{sublayer.layer}", 0)
        found = sublayer.rerun(sublayer.output[: sublayer.frames][None])[0]
        assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
