"""Mockingjay: its features by other means, its layers by the formula, its frames on the time axis, its storage."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import savgol_filter
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForPreTraining
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from otoscope.errors import AudioError, CaptureError, CheckpointError, ModelError
from otoscope.models import load
from otoscope.models.anatomy import Grid
from otoscope.models.mockingjay import (
    MockingjayConfig,
    MockingjayFeatureExtractor,
    MockingjayForPreTraining,
    MockingjayModel,
)
from otoscope.models.mockingjay.features import deltas, log_mel_power
from otoscope.models.mockingjay.modelling import sinusoids, stack_frames
from otoscope.speech.corpus import Corpus
from tests.models.small import _MOCKINGJAY, CASES

CASE = next(case for case in CASES if case.name == "mockingjay-pretraining")


def noise(n, seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=n).astype(np.float32)


@pytest.mark.parametrize("n", [1000, 16000, 16079])
def test_mel_features_are_those_of_the_librarys_own_spectrogram(n):
    filters = mel_filter_bank(201, 80, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    assert (filters.sum(0) > 0).all()
    power = spectrogram(
        noise(n).astype(np.float64), window_function(400, "hann"), 400, 160, 400, power=2.0, center=True,
        pad_mode="reflect", mel_filters=filters, mel_floor=0.0,
    )  # fmt: skip
    found = log_mel_power(noise(n))
    assert found.shape == (1 + n // 160, 80)
    assert np.allclose(found, np.log(power.T + 1e-6), atol=1e-5)


@given(st.integers(9, 40), st.integers(0, 2**31))
def test_deltas_are_a_savitzky_golay_slope(frames, seed):
    values = np.random.default_rng(seed).normal(size=(frames, 3))
    assert np.allclose(deltas(values), savgol_filter(values, 9, 1, deriv=1, axis=0, mode="interp"), atol=1e-12)


def test_a_straight_line_has_its_slope_everywhere():
    assert np.allclose(deltas(np.arange(12.0)[:, None] * [2, -0.5]), [[2, -0.5]] * 12)


@pytest.mark.parametrize(("size", "order"), [(80, 0), (160, 1), (240, 2)])
def test_features_are_normalised_bands_and_slopes(size, order):
    found = MockingjayFeatureExtractor(feature_size=size).features(noise(8000))
    assert found.shape == (51, size)
    assert found.dtype == np.float32
    assert np.allclose(found.mean(0), 0, atol=1e-5)
    assert np.allclose(found.std(0), 1, atol=1e-4)
    plain = MockingjayFeatureExtractor(feature_size=size, normalise=False).features(noise(8000))
    expected = [log_mel_power(noise(8000))]
    for _ in range(order):
        expected.append(deltas(expected[-1]))
    assert np.allclose(plain, np.concatenate(expected, 1), atol=1e-4)


def test_silence_gives_zeros_and_no_noise_blown_up():
    assert not MockingjayFeatureExtractor().features(np.zeros(4000, np.float32)).any()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: MockingjayFeatureExtractor(feature_size=100), "100 numbers a frame"),
        (lambda: MockingjayFeatureExtractor(sampling_rate=8000), "8000 samples a second"),
        (lambda: MockingjayFeatureExtractor()(noise(4000), sampling_rate=44100), "44100"),
        (lambda: MockingjayFeatureExtractor().features(noise(1279)), "Deltas of 8 mel frames"),
        (lambda: MockingjayFeatureExtractor().features(noise(1)), r"shape \(1,\)"),
        (lambda: MockingjayFeatureExtractor().features(np.zeros((2, 4000))), "one channel"),
    ],
)
def test_what_gives_no_features_is_named(make, told):
    with pytest.raises(AudioError, match=told) as raised:
        make()
    assert raised.value.cure


def test_positions_are_sines_and_cosines_in_turns():
    found = sinusoids(3000, 6, torch.zeros(1))
    for position in (0, 1, 17, 2999):
        for j in range(6):
            angle = position / 10000 ** (2 * (j // 2) / 6)
            expected = math.sin(angle) if j % 2 == 0 else math.cos(angle)
            assert float(found[position, j]) == pytest.approx(expected, abs=1e-6)


def test_stacking_lays_frames_side_by_side_and_drops_what_is_left():
    features = torch.arange(2 * 7 * 2.0).view(2, 7, 2)
    found = stack_frames(features, 3)
    assert found.shape == (2, 2, 6)
    assert found[0].tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


def by_the_formula(model, features):
    """Hidden states and reconstruction of one utterance (T, d), written out in double precision."""
    state = {name: value.double() for name, value in model.state_dict().items()}
    config = model.config

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + config.layer_norm_eps).sqrt()
        return centred / scale * state[f"{name}.weight"] + state[f"{name}.bias"]

    frames = len(features) // config.frame_stack
    x = features[: frames * config.frame_stack].double().reshape(frames, -1)
    x = norm(
        linear(x, "mockingjay.input_projection") + sinusoids(frames, config.hidden_size, x), "mockingjay.layer_norm"
    )
    states = [x]
    size = config.hidden_size // config.num_attention_heads
    for k in range(config.num_hidden_layers):
        at = f"mockingjay.layers.{k}"
        heads = []
        for h in range(config.num_attention_heads):
            q, k_, v = (linear(x, f"{at}.attention.{p}_proj")[:, h * size : (h + 1) * size] for p in "qkv")
            heads.append(torch.softmax(q @ k_.T / math.sqrt(size), -1) @ v)
        x = norm(x + linear(torch.cat(heads, -1), f"{at}.attention.out_proj"), f"{at}.layer_norm")
        inner = linear(x, f"{at}.feed_forward.intermediate_dense")
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        x = norm(x + linear(inner, f"{at}.feed_forward.output_dense"), f"{at}.final_layer_norm")
        states.append(x)
    head = F.gelu(linear(x, "reconstruction_head.dense"))
    return states, linear(norm(head, "reconstruction_head.layer_norm"), "reconstruction_head.output")


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_model_computes_the_formula(implementation):
    model = CASE.build().eval()
    model.set_attn_implementation(implementation)
    features = torch.randn(31, 160, generator=torch.Generator().manual_seed(0))
    states, reconstruction = by_the_formula(model, features)
    with torch.inference_mode():
        out = model(features[None], output_hidden_states=True)
    assert out.reconstruction.shape == (1, 10, 480)
    assert torch.allclose(out.reconstruction[0].double(), reconstruction, atol=1e-4)
    assert len(out.hidden_states) == 4
    for found, expected in zip(out.hidden_states, states, strict=True):
        assert torch.allclose(found[0].double(), expected, atol=1e-4)


def test_eager_attention_hands_on_maps_whose_rows_sum_to_one():
    model = CASE.build().eval()
    model.set_attn_implementation("eager")
    features, mask = torch.randn(2, 30, 160), torch.ones(2, 30, dtype=torch.bool)
    mask[1, 20:] = False
    with torch.inference_mode():
        out = model(features, attention_mask=mask, output_attentions=True)
    assert [tuple(one.shape) for one in out.attentions] == [(2, 4, 10, 10)] * 3
    for maps in out.attentions:
        assert torch.allclose(maps.sum(-1), torch.ones(2, 4, 10), atol=1e-5)
        assert maps[1, :, :, 6:].max() == 0  # the seventh stack holds two frames of padding


def test_the_loss_is_over_the_named_frames_alone():
    model = CASE.build().eval()
    features, labels = torch.randn(1, 12, 160), torch.randn(1, 4, 480)
    where = torch.tensor([[False, True, False, True]])
    with torch.inference_mode():
        out = model(features, labels=labels, mask_time_indices=where)
        expected = (out.reconstruction - labels)[0, [1, 3]].abs().mean()
        assert model(features).loss is None
    assert float(out.loss) == pytest.approx(float(expected), rel=1e-5)


def test_the_large_model_has_the_published_sizes():
    config = MockingjayConfig()
    with torch.device("meta"):
        model = MockingjayForPreTraining(config)
    assert sum(p.numel() for p in model.mockingjay.layers.parameters()) == 12 * 7_087_872
    assert model.mockingjay.input_projection.in_features == 480
    assert (config.num_hidden_layers, config.num_attention_heads, config.frame_stack) == (12, 12, 3)


def test_it_is_stored_and_found_as_any_model_of_the_library(tmp_path):
    model = CASE.build().eval()
    model.save_pretrained(tmp_path)
    MockingjayFeatureExtractor(normalise=False).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is MockingjayConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is MockingjayModel
    again = AutoModelForPreTraining.from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert AutoFeatureExtractor.from_pretrained(tmp_path).normalise is False
    ready = load(tmp_path)
    assert type(ready.source) is MockingjayForPreTraining
    assert ready.frontend.description["normalised"] is False


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ModelError, match="width 50 does not divide into 4 heads"):
        MockingjayModel(MockingjayConfig(**{**_MOCKINGJAY, "hidden_size": 50}))


def test_a_preprocessor_of_other_features_is_refused(tmp_path):
    CASE.write(tmp_path)
    MockingjayFeatureExtractor(feature_size=80).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="takes 160 features a mel frame, and its preprocessor gives 80"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("size", "stack", "grid"),
    [
        # Mel frame m sees 160 m - 200 to 160 m + 200, its delta frames m - 4 to m + 4. Stack t holds m = 3 t to 3 t + 2:
        # 480 t - 840 to 480 t + 320 + 840.
        (160, 3, Grid(480, 2000, -840)),
        (80, 3, Grid(480, 720, -200)),
        (240, 1, Grid(160, 2960, -1480)),
    ],
)
def test_the_grid_as_derived_by_hand(size, stack, grid):
    model = load(MockingjayModel(MockingjayConfig(**_MOCKINGJAY, input_size=size, frame_stack=stack)))
    assert model.frontend.grid == grid
    assert all(found == grid for found in model.anatomy.grids.values())
    assert model.describe()["hop_ms"] == 10 * stack


@pytest.mark.parametrize("place", [-839, -200, 0, 479, 1159, 1160])
def test_a_frame_sees_its_field_and_no_more(place):
    """A click changes the frames in whose field it lies; features are not normalised, so that it changes no others."""
    model = load(CASE.build(), feature_extractor=MockingjayFeatureExtractor(normalise=False))
    grid, at = model.anatomy.grid, 480 * 15 + place
    quiet = noise(16000)
    click = quiet + np.where(np.arange(16000) == at, 30, 0).astype(np.float32)
    corpus = Corpus.from_arrays([quiet, click])
    capture = model.capture(list(corpus), [quiet, click], ["input"])
    before, after = (capture.frames("input", k) for k in (0, 1))
    changed = set(torch.nonzero((before - after).abs().amax(-1) > 1e-6).flatten().tolist())
    first = np.arange(len(before)) * grid.hop + grid.offset
    assert changed == set(np.flatnonzero((first < at) & (at < first + grid.field)).tolist())


@pytest.mark.parametrize("n", [1280, 1599, 1600, 16000, 16159, 16160])
def test_whole_stacks_are_counted(n):
    model = load(CASE.build())
    corpus = Corpus.from_arrays([noise(n)])
    lengths = model.capture(list(corpus), [noise(n)], ["input"]).lengths["input"]
    assert lengths == (model.frontend.frames(n),) == ((1 + n // 160) // 3,)


@pytest.mark.parametrize(("n", "told"), [(700, "fewer than two frames"), (1279, "less than the 9 mel frames")])
def test_an_utterance_that_is_too_short_is_named(n, told):
    model = load(CASE.build())
    corpus = Corpus.from_arrays([noise(n)])
    with pytest.raises(AudioError, match=f"Utterance.*{told}"):
        model.capture(list(corpus), [noise(n)])


def test_weights_that_are_not_finite_are_told():
    source = CASE.build()
    with torch.no_grad():
        source.mockingjay.layers[1].attention.v_proj.bias[0] = float("nan")
    corpus = Corpus.from_arrays([noise(8000)])
    with pytest.raises(CaptureError, match="not finite"):
        load(source).capture(list(corpus), [noise(8000)])
