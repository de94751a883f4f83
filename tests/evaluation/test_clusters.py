"""Cluster targets: planted clusters are found, frames go to the nearest, cepstra lie on the model's frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import CaptureError, MeasureError
from otoscope.evaluation.clusters import Clusters, cepstra, fit_clusters, mfcc_features, stream_features
from otoscope.models.anatomy import Grid
from otoscope.models.loading import load
from otoscope.speech.cepstra import CEPSTRA
from otoscope.speech.corpus import Corpus
from otoscope.speech.mel import log_mel
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES

GRID = Grid(320, 400)


def _planted(seed=0, utterances=20):
    draw = np.random.default_rng(seed)
    centres = 10 * draw.standard_normal((5, 4)) * [1, 10, 0.1, 1]
    truth = {f"u{k}": draw.integers(0, 5, 60) for k in range(utterances)}
    noise = 0.1 * np.array([1, 10, 0.1, 1])
    found = {name: (centres[labels] + noise * draw.standard_normal((60, 4))).astype(np.float32)
             for name, labels in truth.items()}  # fmt: skip
    return found, truth


def test_planted_clusters_are_found_whatever_the_scale_of_a_dimension():
    features, truth = _planted()
    clusters = fit_clusters(features.items(), 5, 0, "mfcc")
    pairs = {
        (int(a), int(b)) for name in truth for a, b in zip(truth[name], clusters.assign(features[name]), strict=True)
    }
    assert len(pairs) == 5  # one to one
    assert len({b for _, b in pairs}) == 5


def test_the_order_of_the_utterances_does_not_count_and_the_seed_does():
    features, _ = _planted()
    one = fit_clusters(features.items(), 5, 0, "mfcc")
    other = fit_clusters(reversed(list(features.items())), 5, 0, "mfcc")
    np.testing.assert_array_equal(one.centres, other.centres)
    assert not np.array_equal(one.centres, fit_clusters(features.items(), 5, 1, "mfcc").centres)


@given(st.integers(0, 999), st.integers(1, 20), st.integers(2, 9))
def test_a_frame_goes_to_the_nearest_centre(seed, frames, count):
    draw = np.random.default_rng(seed)
    clusters = Clusters(draw.standard_normal((count, 3)), draw.standard_normal(3), draw.uniform(0.1, 5, 3), "mfcc")
    features = 3 * draw.standard_normal((frames, 3))
    standard = (features - clusters.mean) / clusters.scale
    distance = np.linalg.norm(standard[:, None] - clusters.centres[None], axis=-1)
    np.testing.assert_array_equal(clusters.assign(features), distance.argmin(1))


@pytest.mark.parametrize(("count", "told"), [(1, "part nothing"), (0, "part nothing"), (61, "60 frames for 61")])
def test_numbers_of_clusters_that_cannot_be_are_refused(count, told):
    with pytest.raises(MeasureError, match=told):
        fit_clusters([("u", np.zeros((60, 2)))], count, 0, "mfcc")


def _cepstra_by_hand(samples, frames):
    """The definition, term by term: a cosine transform, its mean taken off, slopes over five mel frames."""
    mel = np.asarray(log_mel(samples), np.float64)
    n = mel.shape[1]
    basis = np.cos(np.pi * np.arange(CEPSTRA)[:, None] * (np.arange(n) + 0.5) / n) * np.sqrt(2 / n)
    basis[0] /= np.sqrt(2)
    own = mel @ basis.T
    own -= own.mean(0)

    def slopes(x):
        at = [np.clip(np.arange(len(x)) + k, 0, len(x) - 1) for k in range(-2, 3)]
        return np.stack([np.polyfit(np.arange(-2, 3), x[[a[t] for a in at]], 1)[0] for t in range(len(x))])

    first = slopes(own)
    every = np.concatenate([own, first, slopes(first)], 1)
    centres = [320 * k + 200 for k in range(frames)]
    return every[[int(np.abs(np.arange(len(every)) * 160 - centre).argmin()) for centre in centres]]


def test_cepstra_are_those_of_the_definition():
    samples = small_speech(1)[0].read()
    frames = (len(samples) - 400) // 320 + 1
    np.testing.assert_allclose(cepstra(samples, GRID, frames), _cepstra_by_hand(samples, frames), atol=2e-5)


@pytest.mark.parametrize("grid", [GRID, Grid(320, 560), Grid(1280, 2800, -1400)])
@pytest.mark.parametrize("k", [5, 9, 14])
def test_frame_k_is_at_the_centre_of_what_frame_k_sees(grid, k):
    samples = np.zeros(16 * grid.hop + grid.field + 8000, np.float32)
    samples += 1e-6 * np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32)
    centre = grid.offset + k * grid.hop + grid.field // 2
    samples[centre] = 1.0
    energy = cepstra(samples, grid, 16)[:, 0]
    assert energy.argmax() == k


def test_a_constant_signal_has_the_same_cepstra_everywhere_but_at_its_borders():
    found = cepstra(np.zeros(16000, np.float32), GRID, 49)
    assert found.shape == (49, 39)
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_the_level_does_not_count():
    samples = small_speech(1)[0].read()
    np.testing.assert_allclose(cepstra(samples, GRID, 40), cepstra(samples / 4, GRID, 40), atol=1e-4)


@pytest.mark.parametrize("name", ["hubert-group", "bert-relative-key"])
def test_features_have_the_frames_of_the_model(name):
    model, corpus = load(next(case for case in CASES if case.name == name).build()), small_speech(3)
    found = mfcc_features(corpus.utterances, model)
    for utterance in corpus:
        assert found[utterance.id].shape == (model.frontend.frames(utterance.n_samples), 39)


def test_features_of_a_stream_are_those_of_a_capture_of_each_utterance():
    model, corpus = load(next(case for case in CASES if case.name == "hubert-group").build()), small_speech(4)
    found = stream_features(corpus.utterances, model, "layer.2", model.anatomy.grid)
    for utterance in corpus:
        alone = model.capture([utterance], [utterance.read()], ("layer.2",)).frames("layer.2", 0)
        np.testing.assert_allclose(found[utterance.id], alone.numpy(), atol=1e-5)


def test_streams_that_do_not_lie_on_the_frames_are_refused():
    model = load(next(case for case in CASES if case.name == "hubert-group").build())
    corpus = Corpus.from_arrays([np.zeros(8000)])
    for stream, grid in (("conv.3", model.anatomy.grid), ("layer.1", Grid(640, 400))):
        with pytest.raises(CaptureError, match="other frames"):
            stream_features(corpus.utterances, model, stream, grid)
    with pytest.raises(CaptureError, match="no stream"):
        stream_features(corpus.utterances, model, "layer.9", model.anatomy.grid)
