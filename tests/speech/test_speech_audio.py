import struct
import sys

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


WAVS = [{}, {"subtype": "FLOAT"}, {"format": "WAVEX", "subtype": "PCM_24"}, {"format": "RF64"}]


@pytest.mark.parametrize("options", [*WAVS, {"endian": "BIG"}, {"subtype": "IMA_ADPCM"}])
def test_half_a_wav(audio, options):
    path = audio("x.wav", 16000, **options)
    assert abs(probe(path).n_samples - 16000) <= 320
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"x\.wav breaks off after \d+ of the \d+ bytes .* Fetch it again"):
        probe(path)
    # Less than a frame of 20 ms is not missed, neither here nor when it is read.
    if not options:
        path.write_bytes(content[:-100])
        assert read_source(probe(path)).samples.shape == (15950,)
        path.write_bytes(content[:-641])
        with pytest.raises(AudioError, match="breaks off"):
            probe(path)


def test_a_wav_that_breaks_off_in_its_header(audio):
    path = audio("x.wav")
    content = path.read_bytes()
    for n in range(1, content.index(b"data") + 8):
        path.write_bytes(content[:n])
        with pytest.raises(AudioError, match=r"x\.wav"):
            probe(path)
    path.write_bytes(content[: content.index(b"data") + 8])
    with pytest.raises(AudioError, match="breaks off after 0 of the 32000"):
        probe(path)


@pytest.mark.parametrize("size", [0x7FFFF000, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("before", [b"", b"LIST\x03\x00\x00\x00abc\x00"])
def test_a_wav_from_a_pipe_does_not_know_its_size(audio, size, before):
    path = audio("x.wav")
    content = path.read_bytes()
    place = content.index(b"data")
    path.write_bytes(content[:place] + before + b"data" + struct.pack("<I", size) + content[place + 8 :])
    assert probe(path).n_samples == 16000


def test_a_wav_of_size_nought_is_what_libsndfile_says(audio):
    path = audio("x.wav")
    content = bytearray(path.read_bytes())
    place = content.index(b"data")
    content[place + 4 : place + 8] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"is empty \(0 samples\)"):
        probe(path)


def test_chunks_behind_the_sound_are_no_part_of_it(audio):
    path = audio("x.wav", 16001)
    path.write_bytes(path.read_bytes() + b"LIST\x04\x00\x00\x00abcd")
    assert probe(path).n_samples == 16001


def test_no_bytes_at_all(tmp_path):
    path = tmp_path / "x.wav"
    path.touch()
    with pytest.raises(AudioError, match=r"x\.wav is empty \(0 bytes\)\. Fetch it again"):
        probe(path)


def test_permission_denied(audio, monkeypatch):
    path = audio("x.flac")

    def refuse(self, mode):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(AudioError, match=r"x\.flac may not be read: permission denied\. Allow yourself") as caught:
        probe(path)
    assert "Convert" not in str(caught.value)


def test_a_name_too_long_for_the_file_system(tmp_path):
    with pytest.raises(AudioError, match=r"\(\d{4} characters\) cannot be opened: File name too long\. Correct"):
        probe(tmp_path / ("x" * 5000))


def test_a_name_that_the_locale_cannot_write(audio, monkeypatch):
    path = audio("ü.wav")
    source = probe(path)
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    for read, held in ((probe, path), (read_source, source)):
        with pytest.raises(AudioError, match=r"xfc\.wav' cannot be opened: .*\(ascii\)\. Use a UTF-8 locale") as caught:
            read(held)
        assert str(caught.value).isascii()


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
