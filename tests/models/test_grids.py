"""Grids of encoders on features: hop, receptive field and first sample, and how many frames there are."""

import numpy as np
import pytest
import torch

from otoscope.models import load
from otoscope.models.anatomy import Grid
from otoscope.speech.corpus import Corpus
from tests.models.small import CASES


def loaded(name):
    return load(next(case for case in CASES if case.name == name).build())


def noise(n, seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=n).astype(np.float32)


def lengths(model, *samples):
    corpus = Corpus.from_arrays([noise(n) for n in samples])
    return model.capture(list(corpus), [one.read() for one in corpus], ["input"]).lengths["input"]


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        # Filter-bank frame m sees samples 160 m to 160 m + 400; frame t stacks m = 2 t and 2 t + 1:
        # 320 t to 160 (2 t + 1) + 400 = 320 t + 560.
        ("bert-relative-key", Grid(320, 560, 0)),
        # Mel frame m is centred: 160 m - 200 to 160 m + 200. Three convolutions of kernel 3, stride 2 and padding 1
        # see 1 + 2 (1 + 2 + 4) = 15 of them, m = 8 t - 7 to 8 t + 7: 1280 t - 1320 to 1280 t + 1320.
        ("parakeet", Grid(1280, 2640, -1320)),
        # Mel frame m is centred: 160 m - 200 to 160 m + 200. Convolutions of kernel 3 and padding 1 with strides 1
        # and 2 see 1 + 2 (1 + 1) = 5 of them, m = 2 t - 2 to 2 t + 2: 320 t - 520 to 320 t + 520.
        ("whisper", Grid(320, 1040, -520)),
    ],
)
def test_grids_as_derived_by_hand(name, grid):
    model = loaded(name)
    assert model.frontend.grid == grid
    assert all(found == grid for found in model.anatomy.grids.values())


def changed(before, after):
    """Frames (T, d) that differ."""
    return set(torch.nonzero((before - after).abs().amax(-1) > 1e-6).flatten().tolist())


@pytest.mark.parametrize("place", [-519, -200, 0, 280, 519, 520])
def test_whisper_sees_its_field_and_no_more(place):
    """A click changes the frames in whose field it lies; on the field's very first sample the window is zero."""
    model = loaded("whisper")
    grid, at = model.anatomy.grid, 320 * 40 + place
    quiet = noise(32000)
    # Loud enough for the window's edge, too faint to lift the floor that features are clipped to.
    click = quiet + np.where(np.arange(32000) == at, 30, 0).astype(np.float32)
    corpus = Corpus.from_arrays([quiet, click])
    capture = model.capture(list(corpus), [quiet, click], ["input"])
    first = np.arange(100) * grid.hop + grid.offset
    sees = np.flatnonzero((first < at) & (at < first + grid.field))
    assert changed(capture.frames("input", 0), capture.frames("input", 1)) == set(sees.tolist())


@pytest.mark.parametrize("place", [0, 159, 160, 399, 400, 559, 560])
def test_bert_sees_its_field_and_no_more(place):
    """The same on features before they are normalised over the utterance."""
    model = loaded("bert-relative-key")
    grid, at = model.anatomy.grid, 320 * 20 + place
    quiet = noise(16000)
    click = quiet + np.where(np.arange(16000) == at, 30, 0).astype(np.float32)
    features = [
        model.frontend.extractor(x, sampling_rate=16000, return_tensors="pt", do_normalize_per_mel_bins=False)
        for x in (quiet, click)
    ]
    before, after = (found["input_features"][0] for found in features)
    first = np.arange(len(before)) * grid.hop
    sees = np.flatnonzero((first <= at) & (at < first + grid.field))
    assert changed(before, after) == set(sees.tolist())


@pytest.mark.parametrize("mel", [79, 80, 81, 87, 88])
def test_parakeet_sees_fifteen_mel_frames(mel):
    """Mel frames are normalised over the utterance, so it is one of them that is changed."""
    model = loaded("parakeet")
    grid = model.anatomy.grid
    features = torch.randn(2, 200, 80, generator=torch.Generator().manual_seed(0))
    features[1] = features[0]
    features[1, mel] += 1
    with torch.inference_mode():
        before, after = model.source.subsampling(features)
    centre = 160 * mel
    first = np.arange(len(before)) * grid.hop + grid.offset
    sees = np.flatnonzero((first <= centre - 200) & (centre + 200 <= first + grid.field))
    assert changed(before, after) == set(sees.tolist())


@pytest.mark.parametrize("k", [2, 37, 99])
def test_whisper_keeps_frames_whose_centres_are_speech(k):
    """Frame t is centred on sample 320 t: of n samples, those with 320 t < n."""
    model = loaded("whisper")
    assert [model.frontend.frames(n) for n in (320 * k, 320 * k + 1, 320 * (k + 1))] == [k, k + 1, k + 1]
    assert lengths(model, 320 * k, 320 * k + 1) == (k, k + 1)


@pytest.mark.parametrize("hops", [10, 11, 48, 49])
def test_bert_counts_frames_as_its_extractor(hops):
    """hops + 1 filter-bank frames of 400 samples; an odd one at the end has no partner."""
    model = loaded("bert-relative-key")
    counts = [400 + 160 * hops + rest for rest in (0, 1, 159)]
    for n in counts:
        out = model.frontend.extractor(noise(n), sampling_rate=16000, return_attention_mask=True)
        assert model.frontend.frames(n) == out["attention_mask"].sum() == (hops + 1) // 2
    assert lengths(model, *counts) == ((hops + 1) // 2,) * 3
