"""Segmentation by heads: counts against the pure functions, the choice of settings, parts, merging, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import CorpusError, MeasureError, StateError
from otoscope.measures.heads.boundary_tallies import ALPHAS, BETAS, HeadTallies, tallies, true_boundaries
from otoscope.measures.heads.head_segmentation import HeadSegmentation, scores
from otoscope.measures.heads.kernel_gram import KernelGram, kernel_gram_boundaries
from otoscope.measures.layers.boundaries import boundary_scores, scores_of
from otoscope.models import load
from otoscope.models.anatomy import Grid
from otoscope.models.reductions import WholeMap
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Interval
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES

GRIDS = {
    "wave": Grid(320, 400),
    "centred": Grid(320, 400, -200),
    "stacked": Grid(480, 720),
    "mel": Grid(160, 400, -200),
}


def case(name):
    return next(case for case in CASES if case.name == name)


@settings(max_examples=12)
@given(st.sampled_from(sorted(GRIDS)), st.integers(3, 40), st.integers(0, 1000))
def test_counts_are_those_of_the_pure_functions(name, t, seed):
    grid, draw = GRIDS[name], np.random.default_rng(seed)
    features = np.cumsum(draw.standard_normal((t, 4)) * draw.uniform(0.1, 1, (t, 1)), axis=0)
    n_samples = t * grid.hop
    true = np.unique(draw.integers(1, n_samples, size=5))
    found = tallies(torch.tensor(features), grid, true, n_samples)
    repeat = grid.hop // 160
    scale = KernelGram(torch.tensor(features)).scale
    for a, b in ((0, 3), (2, 5), (4, 9), (6, 15)):
        at = kernel_gram_boundaries(features, ALPHAS[a] * scale, BETAS[b], repeat=repeat)
        # The middle of frame t is the middle of what the frame sees.
        seconds = ((at - 0.5) * grid.hop + grid.offset + grid.field / 2) / 16000
        expected = boundary_scores(true / 16000, seconds, 0.02)
        hits, number, even = found[a, b]
        assert number == len(at)
        assert hits == round(expected["recall"] * len(true))
        spaced = np.floor(np.arange(1, number + 1) * n_samples / (number + 1)) / 16000
        assert even == round(boundary_scores(true / 16000, spaced, 0.02)["recall"] * len(true))


@pytest.mark.parametrize("name", GRIDS)
def test_planted_phones_are_found_on_every_grid(name):
    """Frames that are the phone at their middle find its boundaries."""
    grid = GRIDS[name]
    true = np.cumsum([1600, 2400, 1920, 2880, 1600])
    t = int((true[-1] + 1600 - grid.offset - grid.field) // grid.hop)
    middles = grid.offset + grid.field // 2 + np.arange(t) * grid.hop
    phones = np.eye(6)[np.searchsorted(true, middles)]
    found = scores(tallies(torch.tensor(phones), grid, true, int(true[-1]) + 1600), np.asarray(len(true)))
    assert found["r-value"].max() == 1


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
def test_scores_are_those_of_boundary_scores(hits, more, true):
    found = scores(np.array([[hits, hits + more, 0]]), np.asarray(true))
    expected = scores_of(hits, hits + more, true)
    for name, told in (("r-value", "r_value"), ("precision", "precision"), ("recall", "recall"), ("f1", "f1")):
        assert float(found[name][0]) == pytest.approx(expected[told])


def test_the_three_published_values_of_the_r_value():
    found = scores(np.array([[10, 10], [8, 10], [10, 20]]), np.asarray(10))["r-value"]
    np.testing.assert_allclose(found, [1, 0.82929, 0.14645], atol=1e-5)


def test_frames_that_are_all_alike_find_nothing():
    assert not tallies(torch.ones(20, 3), GRIDS["wave"], np.array([3200]), 6400).any()


def test_true_boundaries_leave_out_the_ends_and_count_once():
    (utterance,) = Corpus.from_arrays(
        [np.zeros(8000, np.float32)],
        tiers=[{"phone": (Interval(0, 1000, "a"), Interval(1000, 3000, "b"), Interval(4000, 8000, "sil"))}],
    )
    np.testing.assert_array_equal(true_boundaries(utterance, "phone"), [1000, 3000, 4000])
    assert not len(true_boundaries(utterance, "word"))


def observed(name="wav2vec2-group", corpus=None, parts=None, batch=4, **options):
    """A measure that has seen a corpus, in parts that are merged."""
    corpus = corpus or small_speech()
    model = load(case(name).build())
    ids = [u.id for u in corpus]
    merged = None
    for part in parts or [ids]:
        measure = HeadSegmentation(**options)
        measure.prepare(model.anatomy, corpus, 0)
        for k in range(0, len(part), batch):
            some = [corpus[i] for i in part[k : k + batch]]
            measure.update(model.capture(some, [u.read() for u in some], measure.streams, measure.reductions))
        if merged is None:
            merged = measure
        else:
            merged.merge(measure)
    return merged


@pytest.fixture(scope="module")
def whole():
    return observed()


@pytest.mark.parametrize("name", ["wavlm-group", "whisper", "parakeet"])
def test_counts_of_a_model_are_those_of_its_maps_and_streams(name):
    corpus = small_speech(3)
    model = load(case(name).build())
    measure = observed(name, corpus)
    expected = np.zeros_like(measure.counts)
    for utterance in corpus:
        capture = model.capture([utterance], [utterance.read()], measure.streams, [WholeMap])
        group, true = measure.group_of[utterance.id], true_boundaries(utterance, "phone")
        sources = [capture.frames(s, 0) for s in measure.streams]
        sources += [rows for layer in sorted(capture.attention) for rows in capture.attention[layer][0]["whole-map"]]
        for k, frames in enumerate(sources, start=1):
            expected[group, k] += tallies(frames, model.anatomy.grid, true, utterance.n_samples)
    # Rounding of padded batches may move a curve by a frame here and there.
    assert np.abs(measure.counts[:, 1:] - expected[:, 1:]).sum() < 0.01 * expected.sum()
    assert measure.counts[:, 0].any()


def test_parts_in_any_order_merge_to_the_whole():
    corpus = small_speech(4)
    ids = [u.id for u in corpus]
    parts = observed(corpus=corpus, parts=[ids[2:], ids[:1], ids[1:2]], batch=1)
    single = observed(corpus=corpus, batch=1)
    for key, array in single.state().items():
        np.testing.assert_array_equal(array, parts.state()[key])
    loaded = HeadSegmentation()
    loaded.prepare(load(case("wav2vec2-group").build()).anatomy, corpus, 0)
    loaded.load_state({key: array.copy() for key, array in parts.state().items()})
    assert [vars(row) for row in loaded.compute().rows] == [vars(row) for row in single.compute().rows]


def test_rows_name_every_head_stream_and_the_model(whole):
    result = whole.compute()
    assert {r.target for r in result.rows if r.head is None} == {"r-value", "precision", "recall", "f1"}
    heads = [r for r in result.rows if r.target == "r-value" and r.head is not None]
    assert [(r.layer, r.head) for r in heads] == [(layer, head) for layer in (1, 2, 3) for head in range(4)]
    assert [r.stream for r in result.rows if r.target == "r-value" and r.head is None] == [
        "mfcc", "input", "layer.1", "layer.2", "layer.3",
    ]  # fmt: skip
    for row in result.rows:
        if not row.target.startswith("best-head-less"):
            assert row.low is None or row.low <= row.value <= row.high <= 1
        assert row.n == int(whole.boundaries[1:].sum())
    (best,) = [r for r in result.rows if r.target == "best-head"]
    twin = next(r for r in heads if (r.layer, r.head) == (best.layer, best.head))
    assert (best.value, best.low, best.floor) == (twin.value, twin.low, twin.floor)
    less = {r.target: r for r in result.rows if r.target.startswith("best-head-less")}
    mfcc = next(r for r in result.rows if r.stream == "mfcc" and r.target == "r-value")
    assert less["best-head-less-mfcc"].value == pytest.approx(best.value - mfcc.value)
    assert less["best-head-less-mfcc"].other == "mfcc"
    for row in less.values():
        expected = "pass" if row.low > 0 else "fail" if row.high < 0 else "undecided"
        assert row.label == expected
    assert result.notes["utterances_validation"] + result.notes["utterances_test"] == 12
    assert result.notes["state_bytes"] == whole.counts.nbytes
    curve = result.arrays["head-segmentation-head"]
    assert curve.shape == (len(BETAS), 2)
    beta = BETAS.index(result.notes["settings"][f"{best.layer}.{best.head}"][1])
    at_best = {r.target: r.value for r in result.rows if (r.layer, r.head) == (best.layer, best.head)}
    np.testing.assert_allclose(curve[beta], [at_best["precision"], at_best["recall"]])


def test_mfcc_finds_the_tones_and_beats_its_floor(whole):
    mfcc = next(r for r in whole.compute().rows if r.stream == "mfcc" and r.target == "r-value")
    assert mfcc.value > 0.8
    assert mfcc.value > mfcc.floor + 0.1


def test_no_speaker_is_in_both_parts(whole):
    speakers = {u.id: u.speaker for u in small_speech()}
    sides = {(speakers[u], group == 0) for u, group in whole.group_of.items()}
    assert len(sides) == 4
    assert {validated for _, validated in sides} == {True, False}


def planted():
    """A measure whose counts are set by hand: 100 boundaries in validation, 100 in each of two test groups."""
    measure = HeadSegmentation()
    measure.prepare(load(case("wav2vec2-group").build()).anatomy, small_speech(), 0)
    measure.counts = np.zeros((3, *measure.counts.shape[1:]), np.int32)
    measure.counts[...] = [10, 100, 5]
    measure.boundaries, measure.utterances = np.array([100, 100, 100]), np.array([1, 1, 1])
    return measure


def test_settings_and_head_are_chosen_on_validation_alone():
    measure = planted()
    first = 1 + len(measure.streams)
    measure.counts[0, first + 5, 3, 7, 0] = 90  # the best of all in validation: layer 2, head 1
    measure.counts[1:, first + 5, 3, 7, 0] = [40, 60]
    measure.counts[0, first + 2, 1, 1, 0] = 80
    measure.counts[1:, first + 2, 1, 1, 0] = 95  # better in the test, and not to be taken
    measure.counts[1:, first + 5, 0, 0, 0] = 99  # likewise
    result = measure.compute()
    (best,) = [r for r in result.rows if r.target == "best-head"]
    assert (best.layer, best.head) == (2, 1)
    assert best.value == pytest.approx(scores_of(100, 200, 200)["r_value"])
    assert result.notes["settings"]["2.1"] == [ALPHAS[3], BETAS[7]]
    other = next(r for r in result.rows if (r.layer, r.head, r.target) == (1, 2, "r-value"))
    assert other.value == pytest.approx(scores_of(190, 200, 200)["r_value"])
    assert other.floor == pytest.approx(scores_of(10, 200, 200)["r_value"])


@pytest.mark.parametrize(("head", "mfcc", "told"), [(90, 50, "pass"), (50, 90, "fail"), ((30, 90), 60, "undecided")])
def test_the_sign_of_head_against_mfcc(head, mfcc, told):
    measure = planted()
    first = 1 + len(measure.streams)
    measure.counts[0, :, 2, 2, 0] = 70
    measure.counts[0, first, 2, 2, 0] = 75
    measure.counts[1:, first, 2, 2, 0] = head
    measure.counts[1:, 0, 2, 2, 0] = mfcc
    row = next(r for r in measure.compute().rows if r.target == "best-head-less-mfcc")
    assert row.label == told


def test_refusals():
    anatomy = load(case("wav2vec2-group").build()).anatomy
    with pytest.raises(MeasureError, match="no part to validate on"):
        HeadSegmentation(most=1)
    with pytest.raises(CorpusError, match="phone"):
        HeadSegmentation().prepare(anatomy, small_speech(tiers=False), 0)
    with pytest.raises(MeasureError, match=r"in 0 utterances of at most 0\.5 s"):
        HeadSegmentation(longest=0.5).prepare(anatomy, small_speech(), 0)
    with pytest.raises(StateError, match="not prepared"):
        HeadSegmentation().compute()
    fresh = HeadSegmentation()
    fresh.prepare(anatomy, small_speech(), 0)
    with pytest.raises(MeasureError, match="has seen 0 boundaries"):
        fresh.compute()
    other = HeadSegmentation()
    other.prepare(anatomy, small_speech(), 1)
    with pytest.raises(StateError, match="prepared with different"):
        other.merge(fresh)
    model = load(case("wav2vec2-group").build())
    utterance = next(u for u in small_speech() if u.id in fresh.group_of)
    capture = model.capture([utterance], [utterance.read()], fresh.streams)
    with pytest.raises(MeasureError, match="sees no attention of layer 1"):
        fresh.update(capture)
    spoilt = replace(capture, streams={s: torch.full_like(x, torch.nan) for s, x in capture.streams.items()})
    with pytest.raises(MeasureError, match="not finite"):
        fresh.update(spoilt)


def test_only_some_utterances_are_looked_at():
    corpus = small_speech()
    measure = observed(corpus=corpus, most=5)
    result = measure.compute()
    assert int(measure.utterances.sum()) == 5
    assert result.notes["left_out"] == {"too_long": 0, "without_boundaries": 0, "not_drawn": 7}
    sums = HeadTallies({})
    sums.meet(corpus[0], GRIDS["wave"])
    sums.start(2, 4, torch.zeros(1))
    sums.tile(0, torch.zeros(2, 4, 4), torch.full((2, 4, 4), 0.25))
    assert sums.finish().numel() == 0
