import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import AudioError, OtoscopeError
from otoscope.speech import read_corpus
from otoscope.speech.audio import MIN_SAMPLES, RATE, from_array, probe, read_source, resampled_length


@given(st.integers(0, 10**9), st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 96000]))
def test_resampled_length_is_the_nearest_integer(frames, rate):
    length = resampled_length(frames, rate)
    assert isinstance(length, int)
    assert abs(length * rate - frames * RATE) * 2 <= rate


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_header_promises_exactly_what_is_read(audio, rate, channels):
    for extra in (0, 1, 7):
        n = rate // 4 + extra
        data = np.random.default_rng(1).normal(size=(n, channels)) * 0.1
        source = probe(audio(f"x{extra}.wav", data, rate))
        samples = read_source(source).samples
        assert samples.shape == (source.n_samples,)
        assert samples.dtype == np.float32


def test_resampling_keeps_a_sine(audio):
    for rate in (8000, 44100):
        t = np.arange(rate) / rate
        samples = read_source(probe(audio("sine.wav", 0.5 * np.sin(2 * np.pi * 440 * t), rate))).samples
        expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
        np.testing.assert_allclose(samples[800:-800], expected[800:-800], atol=1e-3)


def test_channels_are_averaged(audio, noise):
    left, right = noise(8000, 1), noise(8000, 2)
    path = audio("x.wav", np.stack([left, right], 1), subtype="FLOAT")
    np.testing.assert_allclose(read_source(probe(path)).samples, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("flac", {}),
        ("wav", {"subtype": "PCM_24"}),
        ("ogg", {}),
        ("opus", {"format": "OGG", "subtype": "OPUS"}),
    ],
)
def test_formats(audio, ending, options):
    source = probe(audio(f"x.{ending}", 16001, **options))
    assert source.n_samples == 16001
    assert len(read_source(source).samples) == 16001


def test_clipped_samples_are_counted_before_averaging(audio):
    data = np.zeros((1000, 2), np.float32)
    data[10:13, 0] = 1.0
    data[500, 1] = -1.0
    recording = read_source(probe(audio("x.flac", data)))
    assert recording.clipped == 4
    assert abs(recording.samples[11] - 0.5) < 1e-4


def test_missing_file(tmp_path):
    with pytest.raises(AudioError, match="No recording at") as caught:
        probe(tmp_path / "none.wav")
    assert caught.value.cure
    assert isinstance(caught.value, OtoscopeError | ValueError)


@pytest.mark.parametrize("content", [b"", b"this is no audio at all", b"RIFF\x00\x00"])
def test_unreadable_file(tmp_path, content):
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"x\.wav"):
        probe(path)


@pytest.mark.parametrize(("n", "says"), [(0, "empty"), (1, "only 1 sample"), (MIN_SAMPLES - 1, "only 399")])
def test_too_short(audio, n, says):
    with pytest.raises(AudioError, match=says):
        probe(audio("x.wav", n))


def test_shortest(audio):
    assert probe(audio("x.wav", MIN_SAMPLES)).n_samples == MIN_SAMPLES


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(audio, noise, value):
    data = noise(16000)
    data[8000] = value
    source = probe(audio("x.wav", data, subtype="FLOAT"))
    with pytest.raises(AudioError, match=r"1 sample\(s\) that are NaN or infinite, the first at 0.500 s"):
        read_source(source)


def test_truncated_file(audio):
    path = audio("x.flac", 160000)
    source = probe(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=r"x\.flac"):
        read_source(source)


def test_headers_only_are_read_with_the_corpus(audio, monkeypatch, tmp_path):
    audio("x.wav")

    def refuse(*args, **options):
        raise AssertionError("samples were decoded")

    monkeypatch.setattr(soundfile, "read", refuse)
    assert len(read_corpus(tmp_path)) == 1


def test_integers_have_their_full_scale():
    data = np.arange(-500, 500, dtype=np.int16) * 32
    np.testing.assert_allclose(from_array(data, RATE, "x").samples, data / 32768, atol=1e-7)


@pytest.mark.parametrize(
    ("array", "rate", "says"),
    [
        (np.zeros((1000, 2)), RATE, "shape"),
        (np.zeros(10), RATE, "only 10"),
        (np.zeros(1000, np.uint8), RATE, "uint8"),
        (np.zeros(1000, complex), RATE, "complex"),
        (np.zeros(1000), 0, "rate"),
        (np.full(1000, np.nan), RATE, "NaN"),
    ],
)
def test_bad_arrays(array, rate, says):
    with pytest.raises(AudioError, match=says):
        from_array(array, rate, "x")
