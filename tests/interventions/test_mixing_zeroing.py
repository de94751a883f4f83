"""Value zeroing against zeroed values in a whole pass; rollout by hand; words; what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import CorpusError, MeasureError
from otoscope.interventions.mixing import zeroing
from otoscope.interventions.mixing.rollout import rollout
from otoscope.interventions.mixing.single import mix, value_zeroing
from otoscope.interventions.mixing.sublayers import attention_sublayers
from otoscope.interventions.mixing.zeroing import zeroing_distances
from otoscope.models import load
from otoscope.models.families import submodule
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Interval
from otoscope.surgery import Gate, apply
from tests.models.small import CASES

WORDS = (Interval(700, 2400, "one"), Interval(2400, 4200, "two"), Interval(4200, 4300, "uh"), Interval(5000, 7000, "sil"),
         Interval(7000, 7900, "three"))  # fmt: skip


def case(name):
    return next(case for case in CASES if case.name == name)


def one(seconds=0.5, words=WORDS):
    wave = 0.1 * np.random.default_rng(0).normal(size=int(16000 * seconds)).astype(np.float32)
    return Corpus.from_arrays([wave], tiers=[{"word": words}])[0]


def zeroed(model, utterance, layer, span):
    """The layer's output with the values of a span zeroed by a hook in a whole pass: cosine distances, (frames,)."""
    module = list(submodule(model.encoder, model.family.layers).children())[layer - 1]
    value = getattr(submodule(module, model.family.attention), model.family.projections[2])
    last = layer == model.anatomy.n_layers and "final_norm" in model.anatomy.streams
    stream = "final_norm" if last else f"layer.{layer}"

    def take_out(module, args, given):
        given = given.clone()
        given[:, span[0] : span[1]] = 0
        return given

    samples = utterance.read()
    whole = model.capture([utterance], [samples], [stream]).frames(stream, 0).double()
    handle = value.register_forward_hook(take_out)
    altered = model.capture([utterance], [samples], [stream]).frames(stream, 0).double()
    handle.remove()
    return 1 - torch.nn.functional.cosine_similarity(whole, altered, dim=-1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_distances_are_those_of_values_zeroed_in_a_whole_pass(case):
    model = load(case.build())
    utterance = one()
    frames = model.frontend.frames(utterance.n_samples)
    for sublayer in attention_sublayers(model, utterance):
        found = zeroing_distances(sublayer)
        assert found.shape == (frames, frames)
        for j in (0, frames // 2, frames - 1):
            expected = zeroed(model, utterance, sublayer.layer, (j, j + 1))
            assert torch.allclose(found[:, j], expected, rtol=2e-3, atol=1e-6 * float(expected.max()) + 2e-11)


@pytest.mark.parametrize("name", ["wav2vec2-group", "whisper", "conformer-relative"])
def test_a_span_is_zeroed_at_once_and_rows_sum_to_one(name):
    model = load(case(name).build())
    utterance = one()
    spans = [(2, 6), (6, 7), (10, 20)]
    (sublayer, *_) = attention_sublayers(model, utterance)
    found = zeroing_distances(sublayer, spans)
    for k, span in enumerate(spans):
        expected = zeroed(model, utterance, 1, span)
        assert torch.allclose(found[:, k], expected, rtol=2e-3, atol=1e-6 * float(expected.max()))
    mixing = value_zeroing(model, utterance)
    distances = zeroing_distances(sublayer).numpy()
    np.testing.assert_allclose(mixing.maps[0], distances / distances.sum(1, keepdims=True), atol=1e-6)


def test_many_at_a_time_are_as_one_by_one(monkeypatch):
    (sublayer, *_) = attention_sublayers(load(case("wavlm-group").build()), one())
    whole = zeroing_distances(sublayer)
    monkeypatch.setattr(zeroing, "MOST_NUMBERS", 1)
    np.testing.assert_allclose(zeroing_distances(sublayer), whole, rtol=1e-3, atol=1e-9)


def test_words_have_the_frames_that_begin_in_them():
    model = load(case("wav2vec2-group").build())
    found = value_zeroing(model, one(), spans="word")
    # The short "uh" has no frame of its own, and a pause is no word.
    assert found.labels == ("one", "two", "three")
    np.testing.assert_array_equal(found.spans, [[3, 8], [8, 14], [22, 24]])
    (sublayer, *_) = attention_sublayers(model, one())
    distances = zeroing_distances(sublayer, [tuple(map(int, span)) for span in found.spans])
    for pool, reduce in (("mean", np.mean), ("max", np.max)):
        rows = np.stack([reduce(distances[a:b].numpy(), axis=0) for a, b in found.spans])
        maps = value_zeroing(model, one(), spans="word", pool=pool).maps
        np.testing.assert_allclose(maps[0], rows / rows.sum(1, keepdims=True), atol=1e-6)


def test_maps_of_words_are_means_over_takers_of_sums_over_givers():
    model = load(case("wav2vec2-group").build())
    words, frames = mix(model, one(), ["attention"], spans="word"), mix(model, one(), ["attention"])
    maps, spans = frames["attention"].maps[2].astype(float), words["attention"].spans
    rows = np.array([[maps[a:b, c:d].sum(1).mean() for c, d in spans] for a, b in spans])
    np.testing.assert_allclose(words["attention"].maps[2], rows / rows.sum(1, keepdims=True), atol=1e-6)


def test_where_attention_hands_on_nothing_every_frame_stands_for_itself():
    model = apply(load(case("wav2vec2-group").build()), [Gate("layer.2", 0.0)])
    maps = value_zeroing(model, one()).maps
    np.testing.assert_array_equal(maps[1], np.eye(maps.shape[1]))
    assert (maps[0] != np.eye(maps.shape[1])).any()


def test_attention_is_the_mean_of_heads():
    model = load(case("wavlm-group").build())
    found = mix(model, one(), ["attention", "attention-rollout"])
    expected = [sublayer.maps.mean(0).numpy() for sublayer in attention_sublayers(model, one())]
    np.testing.assert_allclose(found["attention"].maps, expected, atol=1e-6)
    np.testing.assert_allclose(
        found["attention-rollout"].maps, rollout(np.stack(expected).astype(np.float64)), atol=1e-6
    )


@pytest.mark.parametrize("name", ["wavlm-group", "whisper", "parakeet"])
def test_half_precision_does_for_norms_and_is_refused_for_value_zeroing(name):
    half = load(case(name).build().to(torch.bfloat16))
    whole, rounded = (mix(model, one(), ["norm"])["norm"].maps for model in (load(case(name).build()), half))
    assert np.abs(whole - rounded).max() < 0.005
    with pytest.raises(MeasureError, match=r"in bfloat16 .* float32"):
        value_zeroing(half, one())


def maps_of(layers, t, seed):
    maps = np.random.default_rng(seed).uniform(size=(layers, t, t)) ** 4
    return maps / maps.sum(-1, keepdims=True)


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 100))
def test_rollout_by_hand(layers, t, seed):
    maps = maps_of(layers, t, seed)
    rolled = np.eye(t)
    plain = np.eye(t)
    found, without = rollout(maps), rollout(maps, residual=False)
    for k, one_map in enumerate(maps):
        rolled = (0.5 * one_map + 0.5 * np.eye(t)) @ rolled
        plain = one_map @ plain
        np.testing.assert_allclose(found[k], rolled, atol=1e-12)
        np.testing.assert_allclose(without[k], plain, atol=1e-12)
    np.testing.assert_allclose(found.sum(-1), 1)


def test_rollout_of_identities_and_of_uniform_maps():
    np.testing.assert_allclose(rollout(np.stack([np.eye(4)] * 3))[-1], np.eye(4))
    uniform = np.full((6, 4, 4), 0.25)
    # What is left of a frame itself halves with every layer.
    np.testing.assert_allclose(rollout(uniform)[-1], 0.5**6 * np.eye(4) + (1 - 0.5**6) / 4)
    tensor = rollout(torch.tensor(uniform))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(tensor, rollout(uniform))


def test_refusals():
    with pytest.raises(MeasureError, match=r"not \(L, T, T\)"):
        rollout(np.eye(3))
    with pytest.raises(MeasureError, match="do not sum to one"):
        rollout(np.ones((2, 3, 3)))
    model = load(case("wav2vec2-group").build())
    for options, told in (
        ({"methods": ["norms"]}, "No method is called 'norms'"),
        ({"spans": "phone"}, "No span is called 'phone'"),
        ({"pool": "sum"}, "No pooling is called 'sum'"),
    ):
        with pytest.raises(MeasureError, match=told):
            mix(model, one(), **options)
    with pytest.raises(MeasureError, match="no word in which a frame begins"):
        value_zeroing(model, one(words=(Interval(0, 100, "sil"), Interval(330, 350, "uh"))), spans="word")
    bare = Corpus.from_arrays([one().read()])[0]
    with pytest.raises(CorpusError, match="no tier 'word'"):
        value_zeroing(model, bare, spans="word")
