from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.signal import find_peaks

from otoscope.errors import CorpusError, MeasureError
from otoscope.measures.layers import segmentation
from otoscope.measures.layers.boundaries import boundary_scores
from otoscope.measures.layers.segmentation import WordSegmentation
from otoscope.measures.rows import Segment
from otoscope.models.anatomy import Grid
from otoscope.speech import Corpus, Interval
from tests.measures.layers.test_cca import ANATOMY, capture, corpus, ids, streams_of


def region_by_region(reference, hypothesis, tolerance):
    """Hits from search regions that are cut at midpoints, in whole milliseconds."""
    reference = sorted(set(reference))
    hits = 0
    for i, r in enumerate(reference):
        low, high = r - tolerance, r + tolerance
        if i:
            low = max(low, (reference[i - 1] + r) / 2 + 0.25)  # the midpoint itself is the earlier one's
        if i + 1 < len(reference):
            high = min(high, (reference[i + 1] + r) / 2)
        hits += any(low <= h <= high for h in hypothesis)
    return hits


times = st.lists(st.integers(0, 300), max_size=12)


@given(times.filter(len), times, st.integers(0, 60))
@example([100, 120], [110, 120], 20)  # as near to both: the earlier one's, so both are hit
@settings(max_examples=150)
def test_hits_are_one_to_one_in_regions_cut_at_midpoints(reference, hypothesis, tolerance):
    found = boundary_scores(np.array(reference) / 1000, np.array(hypothesis) / 1000, tolerance / 1000)
    hits, n, f = region_by_region(reference, hypothesis, tolerance), len(set(reference)), len(hypothesis)
    assert found["recall"] == pytest.approx(hits / n)
    assert found["precision"] == pytest.approx(hits / f if f else 0)
    assert found["over_segmentation"] == pytest.approx(f / n - 1)
    assert found["f1"] == pytest.approx(2 * hits / (f + n))
    assert found["r_value"] <= 1 + 1e-12


def test_closed_forms():
    true = [0.1, 0.4, 0.9]
    assert boundary_scores(true, true, 0.0) == {
        "precision": 1, "recall": 1, "f1": 1, "over_segmentation": 0, "r_value": 1
    }  # fmt: skip
    nothing = boundary_scores(true, [], 0.02)
    assert nothing["precision"] == nothing["recall"] == nothing["f1"] == 0
    assert nothing["r_value"] == pytest.approx(1 - np.sqrt(2) / 2)
    # Every boundary twice: a scorer that counts from either side would give precision 1.
    twice = boundary_scores(true, true * 2, 0.02)
    assert (twice["precision"], twice["recall"], twice["over_segmentation"]) == (0.5, 1, 1)
    assert twice["r_value"] == pytest.approx(1 - (1 + 1 / np.sqrt(2)) / 2)
    # Exactly the tolerance away is a hit, whatever the rounding of the times.
    assert boundary_scores(np.arange(1, 40) * 0.06, np.arange(1, 40) * 0.06 + 0.02, 0.02)["recall"] == 1
    # One found boundary between two true ones hits one of them.
    assert boundary_scores([0.10, 0.12], [0.11], 0.02)["recall"] == 0.5


def test_utterances_are_counted_together():
    true, found = (
        [np.array([0.1, 0.2]), np.array([]), np.array([0.3])],
        [np.array([0.1]), np.array([0.5]), np.array([])],
    )
    scores = boundary_scores(true, found, 0.02)
    assert scores["recall"] == pytest.approx(1 / 3)
    assert scores["precision"] == pytest.approx(1 / 2)
    assert boundary_scores([torch.from_numpy(t) for t in true], found, 0.02) == scores
    assert boundary_scores(torch.tensor([0.5]), torch.tensor([0.5]), 0.02)["f1"] == 1


@pytest.mark.parametrize(
    ("reference", "hypothesis", "tolerance", "message"),
    [
        ([], [0.1], 0.02, "no true boundary"),
        ([[0.1], [0.2]], [[0.1]], 0.02, "2 utterances cannot be compared with those of 1"),
        ([0.1], [np.nan], 0.02, "finite times"),
        (np.zeros((2, 2)), [0.1], 0.02, r"shape \(2, 2\)"),
        ([0.1], [0.1], -0.01, "tolerance of -0.01"),
        ([0.1], [0.1], float("nan"), "tolerance of nan"),
    ],
)
def test_boundaries_that_cannot_be_scored_are_refused(reference, hypothesis, tolerance, message):
    with pytest.raises(MeasureError, match=message):
        boundary_scores(reference, hypothesis, tolerance)


def passed(measure, names=None):
    measure.prepare(ANATOMY, corpus(), seed=0)
    for name in names or ids():
        measure.update(capture((name,), "word"))
    return measure


def test_a_layer_that_holds_the_words_shows_where_they_change():
    result = passed(WordSegmentation()).compute()
    rows = {(r.stream, r.target): r for r in result.rows}
    assert {t for _, t in rows} == {"f1", "precision", "recall", "r-value", "f1-40ms"}
    tiers = [u.tiers["word"] for u in corpus()]
    # A word that follows itself changes nothing in the layer.
    changes = [a.label != b.label for words in tiers for a, b in pairwise(words)]
    assert rows["layer.2", "f1"].n == result.notes["boundaries"] == len(changes)
    assert rows["layer.2", "precision"].value == 1
    assert rows["layer.2", "recall"].value == pytest.approx(np.mean(changes))
    for row in result.rows:
        assert row.measure == "word-segmentation"
        assert row.low <= row.value <= row.high <= row.ceiling == 1
        assert row.floor < 0.75
    noise = rows["final_norm", "f1"]
    assert noise.value == pytest.approx(noise.floor, abs=0.12)
    assert rows["layer.2", "f1"].low > noise.high
    assert result.notes["utterances"] == 12
    assert result.notes["folds_by"] == "speaker"
    assert len(result.notes["settings"]["layer.2"]) == 5


@pytest.mark.parametrize("setting", [("cosine", 2, 0.4), ("euclidean", 3, 0.0), ("euclidean", 1, 1.0)])
def test_equals_one_stretch_after_the_other(monkeypatch, setting):
    """With one setting only, everything is the score of that setting over all stretches."""
    distance, width, prominence = setting
    for name, value in zip(("DISTANCES", "WIDTHS", "PROMINENCES"), setting, strict=True):
        monkeypatch.setattr(segmentation, name, (value,))
    monkeypatch.setattr(segmentation, "SETTINGS", (setting,))
    frames = [streams_of(u.id, "word")["layer.1"].astype(np.float32) for u in corpus()]
    spans = [(u.tiers["word"][0].start, u.tiers["word"][-1].end) for u in corpus()]
    frames = [x[a // 320 : -(-b // 320)].astype(float) for x, (a, b) in zip(frames, spans, strict=True)]
    whole = np.concatenate(frames)
    curves = []
    for x in frames:
        z = (x - whole.mean(axis=0)) / whole.std(axis=0)
        steps = np.linalg.norm(z[1:] - z[:-1], axis=1)
        if distance == "cosine":
            steps = 1 - (z[1:] * z[:-1]).sum(1) / np.linalg.norm(z[1:], axis=1) / np.linalg.norm(z[:-1], axis=1)
        curves.append(np.array([steps[i : i + width].mean() for i in range(len(steps) - width + 1)]))
    deviation = np.concatenate(curves).std()
    true, found = [], []
    for u, curve, (a, b) in zip(corpus(), curves, spans, strict=True):
        peaks = find_peaks(curve, prominence=prominence * deviation)[0]
        at = (a // 320 + peaks + (width + 1) / 2) * 0.02
        found.append(at[(at > a / 16000 + 0.0399) & (at < b / 16000 - 0.0399)])
        true.append(np.array([x.start for x in u.tiers["word"][1:]]) / 16000)
    expected = boundary_scores(true, found, 0.02)
    rows = {r.target: r.value for r in passed(WordSegmentation()).compute().rows if r.stream == "layer.1"}
    for target, name in {"f1": "f1", "precision": "precision", "recall": "recall", "r-value": "r_value"}.items():
        assert rows[target] == pytest.approx(expected[name], abs=1e-12)
    assert rows["f1-40ms"] == pytest.approx(boundary_scores(true, found, 0.04)["f1"], abs=1e-12)


def test_the_setting_is_chosen_on_the_other_folds():
    """Two settings, two folds of one group: each is perfect on one fold and finds nothing on the other."""
    hits = np.array([[[10], [0]], [[0], [10]]])
    value, chosen = segmentation._held_out({20: hits, 40: hits}, np.full((2, 2, 1), 10), np.full((2, 1), 10))
    assert chosen == [1, 0]
    assert value["f1"] == value["recall"] == 0
    hits = np.array([[[8], [8]], [[6], [6]]])
    value, chosen = segmentation._held_out({20: hits, 40: hits + 1}, np.full((2, 2, 1), 10), np.full((2, 1), 10))
    assert chosen == [0, 0]
    assert (value["f1"], value["f1-40ms"]) == (0.8, 0.9)


def test_pauses_and_unknown_words_end_a_stretch():
    told = [(0, 3200, "one"), (3200, 6400, "two"), (6500, 9600, "three"), (12000, 14000, "two"),
            (14000, 15000, "<unk>"), (15000, 18000, "one"), (18000, 20000, "two")]  # fmt: skip
    words = tuple(Interval(*word) for word in told)
    assert list(segmentation._stretches(words)) == [
        (0, 0, 9600, [3200, 6450]), (3, 12000, 14000, []), (5, 15000, 20000, [18000])
    ]  # fmt: skip
    # A frame between two words is no pause yet, a sample more is one.
    pair = [Interval(0, 3200, "one"), Interval(3520, 6400, "two")]
    assert list(segmentation._stretches(tuple(pair))) == [(0, 0, 6400, [3360])]
    pair[1] = Interval(3521, 6400, "two")
    assert [cuts for *_, cuts in segmentation._stretches(tuple(pair))] == [[], []]
    assert list(segmentation._stretches(())) == []
    assert list(segmentation._stretches(words[4:5])) == []


def test_a_sample_holds_as_much_as_it_should():
    whole, part = WordSegmentation(), WordSegmentation(most_seconds=4)
    for measure in (whole, part):
        measure.prepare(ANATOMY, corpus(), seed=0)
    names = {one.utterance for one in part.segments}
    assert names < {one.utterance for one in whole.segments}
    lengths = [corpus()[name].seconds for name in names]
    assert sum(lengths) >= 4 > sum(lengths) - max(lengths)


def test_split_and_merged_parts_give_the_same():
    whole = passed(WordSegmentation()).compute()
    a, b = passed(WordSegmentation(), ids()[5:]), passed(WordSegmentation(), ids()[:5])
    a.merge(b)
    assert a.compute().rows == whole.rows


def test_without_words_that_meet_there_is_no_number():
    with pytest.raises(MeasureError, match="1 folds leave none"):
        WordSegmentation(folds=1)
    tiers = [{"word": (Interval(0, 4000, "one"),)}] * 2
    alone = Corpus.from_arrays([np.ones(8000)] * 2, tiers=tiers, name="alone")
    with pytest.raises(MeasureError, match="finds 0 boundaries between words in 2 utterances of corpus alone"):
        WordSegmentation().prepare(ANATOMY, alone, seed=0)
    with pytest.raises(CorpusError, match="no tier 'word'"):
        WordSegmentation().prepare(ANATOMY, Corpus.from_arrays([np.ones(8000)], name="bare"), seed=0)
    with pytest.raises(MeasureError, match="fewer than two folds"):
        passed(WordSegmentation(), ids()[:1]).compute()


@pytest.mark.parametrize(("grid", "middle"), [(Grid(320, 400), 320), (Grid(320, 400, -200), 160)])
def test_peaks_lie_between_frames_and_away_from_the_ends(grid, middle):
    """Steps of one stretch of twelve frames, the last of which it hardly touches: into frame 5 and frame 10."""
    measure = WordSegmentation()
    one = Segment("u", None, 0, 3200, 3200 + 12 * 320 - 319, "")
    frames = np.repeat(np.arange(3.0), (5, 5, 2))[:, None] * np.array([[1.0, -2.0]])
    measure._grids = {"layer.1": grid}
    measure.sequences = lambda stream: [frames]
    curves = measure._curves("layer.1", (one,), np.array([0]))
    plain = curves[segmentation.SETTINGS.index(("euclidean", 1, 0.0)) // len(segmentation.PROMINENCES)]
    # The other step is within 40 ms of the end.
    assert plain.at.tolist() == [3200 + 4 * 320 + middle]
    assert plain.stretch.tolist() == [0]
