import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import AudioError
from otoscope.speech import log_mel
from otoscope.speech.mel import hertz_to_mel, mel_filters, mel_to_hertz


def reference(samples: np.ndarray) -> np.ndarray:
    """The same features in float64 by torch's centred transform and transformers' filters."""
    import torch
    from transformers.audio_utils import mel_filter_bank

    x = torch.from_numpy(samples.astype(np.float64))
    x = x / x.abs().max() * 0.999
    x = torch.cat([x[:1], x[1:] - 0.97 * x[:-1]])
    window = torch.hann_window(400, periodic=True, dtype=torch.float64)
    spectrum = torch.stft(x, 2048, 160, 400, window, center=True, pad_mode="constant", return_complex=True).abs()
    filters = mel_filter_bank(1025, 80, 50.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    mel = filters.T @ spectrum.numpy()
    decibels = 10 * np.log10(np.maximum(1e-10, mel**2))
    decibels = np.maximum(decibels, decibels.max() - 80)
    return decibels.T / 80 + 1


def test_filters_against_transformers():
    from transformers.audio_utils import mel_filter_bank

    theirs = mel_filter_bank(1025, 80, 50.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(mel_filters(), theirs.T, atol=1e-8)


@pytest.mark.parametrize("n", [1, 159, 160, 400, 3333, 16000])
def test_against_reference(noise, n):
    samples = noise(n, n)
    features = log_mel(samples)
    assert features.shape == (1 + n // 160, 80)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, reference(samples), atol=2e-5)


def test_wide_dynamic_range_against_reference(noise):
    samples = noise(16000) * np.geomspace(1e-7, 1, 16000).astype(np.float32)
    np.testing.assert_allclose(log_mel(samples), reference(samples), atol=1e-4)


@given(st.floats(1e-3, 1e3))
def test_loudness_does_not_count(scale):
    samples = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    np.testing.assert_allclose(log_mel(samples * np.float32(scale)), log_mel(samples), atol=1e-4)


def test_a_sine_lands_in_its_band():
    frequency = 1000.0
    samples = np.sin(2 * np.pi * frequency * np.arange(16000) / 16000)
    band = log_mel(samples)[50].argmax()
    lowest, highest = hertz_to_mel(np.array([50.0, 8000.0]))
    centres = mel_to_hertz(np.linspace(lowest, highest, 82))[1:-1]
    assert abs(centres[band] - frequency) == np.abs(centres - frequency).min()


def test_range_and_silence(noise):
    features = log_mel(noise(16000))
    assert features.max() - features.min() <= 1 + 1e-6
    np.testing.assert_allclose(log_mel(np.zeros(1600, np.float32)), -0.25, atol=1e-6)


def test_frames_are_centred():
    samples = np.zeros(16000, np.float32)
    samples[8000] = 1
    assert log_mel(samples).mean(1).argmax() == 50


@given(st.floats(0, 8000))
def test_scale_is_inverted(hertz):
    value = np.array([hertz])
    np.testing.assert_allclose(mel_to_hertz(hertz_to_mel(value)), value, atol=1e-6)


def test_scale_has_slaneys_knee():
    np.testing.assert_allclose(hertz_to_mel(np.array([0.0, 500, 1000, 6400])), [0, 7.5, 15, 42])


def test_input_is_left_alone_and_bad_input_refused(noise):
    samples = noise(1000)
    kept = samples.copy()
    log_mel(samples)
    np.testing.assert_array_equal(samples, kept)
    for bad in (np.zeros(0), np.zeros((2, 800))):
        with pytest.raises(AudioError, match="shape"):
            log_mel(bad)


def test_a_tensor_gives_a_tensor(noise):
    import torch

    samples = noise(3333)
    expected = log_mel(samples)
    tensor = torch.from_numpy(samples.copy()).requires_grad_()
    features = log_mel(tensor)
    assert isinstance(features, torch.Tensor)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    np.testing.assert_array_equal(features.numpy(), expected)
    np.testing.assert_array_equal(tensor.detach().numpy(), samples)
    assert log_mel(tensor.bfloat16()).shape == expected.shape
    np.testing.assert_array_equal(log_mel(tensor.detach().double()).numpy(), expected)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (np.array([0.0, np.nan, np.inf]), r"2 sample\(s\) that are NaN or infinite, the first at 0\.000 s\. Repair"),
        (np.array([0.0, 1e300]), r"1 sample\(s\) that are NaN or infinite"),
        (np.zeros(400, complex), "complex.* Give samples that are real"),
        (np.zeros(400, bool), "bool"),
        (np.zeros((1, 400)), r"shape \(1, 400\)\. Give"),
        (np.zeros(()), r"shape \(\)\. Give"),
        (np.zeros(0), r"shape \(0,\)\. Give"),
    ],
)
def test_samples_that_have_no_features(kind, samples, says):
    import torch

    with pytest.raises(AudioError, match=says):
        log_mel(samples if kind == "numpy" else torch.from_numpy(samples))


def test_integers_have_features(noise):
    samples = (noise(1600) * 30000).astype(np.int16)
    np.testing.assert_allclose(log_mel(samples), log_mel(samples.astype(np.float32)))
