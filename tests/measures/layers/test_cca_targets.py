"""Further targets of CCA: other streams, other models, speakers, tables of word vectors; other folds and statistics."""

import numpy as np
import pytest
import torch

from otoscope.errors import MeasureError, StateError
from otoscope.measures.layers.cca import CCA
from otoscope.measures.layers.correlation import scatter_of
from otoscope.measures.layers.folding import Folding
from otoscope.measures.layers.frames import FrameSource, matched_stream
from otoscope.measures.layers.pasad import pasad_score
from otoscope.measures.layers.spans import SPANS, span_means
from otoscope.models.anatomy import Anatomy
from otoscope.models.capture import Capture
from otoscope.speech.tables import WordTable
from tests.measures.layers.test_cca import ANATOMY, GRIDS, WIDTHS, WORDS, capture, corpus, ids, streams_of


def passed(name, streams, other=None):
    one = corpus()[name]
    tensors = {s: torch.from_numpy(rows)[None] for s, rows in streams.items()}
    lengths = {s: (len(rows),) for s, rows in streams.items()}
    return Capture((one,), (one.read(),), tensors, lengths, GRIDS, {}, {}, other)


def computed(measure, make, folds=None):
    measure.prepare(ANATOMY, corpus(), 0)
    for name in ids():
        measure.update(make(name))
    return {row.stream: row for row in measure.compute().rows}


def from_input(name):
    """layer.1 is a turned input, the others are noise."""
    found = dict(streams_of(name))
    found["layer.1"] = found["input"] @ np.random.default_rng(5).standard_normal((90, 90)) - 3
    return found


@pytest.mark.parametrize("by", ["speaker", "row"])
def test_intra_is_one_for_a_turned_input_and_nothing_for_noise(by):
    rows = computed(CCA("intra", folding=Folding(5, by)), lambda name: passed(name, from_input(name)))
    assert set(rows) == {"layer.1", "layer.2", "final_norm"}
    assert rows["layer.1"].value > 0.999
    assert rows["layer.1"].floor < 0.3
    assert abs(rows["final_norm"].value) < 0.15
    assert rows["layer.1"].target == "intra"


def test_intra_shares_the_scatter_of_the_input():
    """Borrowed moments give the same as moments with a target of its own."""
    shared, apart = CCA("intra"), CCA("intra", folding=Folding(5, "row"))
    for measure in (shared, apart):
        measure.prepare(ANATOMY, corpus(), 0)
        for name in ids():
            measure.update(passed(name, from_input(name)))
    everything = list(range(5))
    a, floor = shared.source.pooled("layer.2", "input", everything)
    b, _ = apart.source.pooled("layer.2", "input", everything)
    x = np.concatenate([from_input(name)["layer.2"].astype(np.float32) for name in ids()]).astype(float)
    y = np.concatenate([from_input(name)["input"].astype(np.float32) for name in ids()]).astype(float)
    for found in (a, b):
        np.testing.assert_allclose(found.sxy, (x - x.mean(0)).T @ (y - y.mean(0)), atol=1e-6)
        np.testing.assert_allclose(found.syy, (y - y.mean(0)).T @ (y - y.mean(0)), rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(floor.syy, a.syy)


def other_anatomy(layers=4):
    widths = {"input": 7, **{f"layer.{k}": 7 for k in range(1, layers + 1)}}
    return Anatomy("small", tuple(widths), widths, dict.fromkeys(widths, GRIDS["input"]), (2,) * layers)


def test_inter_compares_streams_of_the_same_depth():
    """layer.1 of two layers stands beside layer.2 of four."""
    mix = np.random.default_rng(6).standard_normal((90, 7))

    def make(name):
        streams = from_input(name)
        other = {
            s: np.random.default_rng(int(name) + 50).standard_normal((len(streams["input"]), 7)) for s in OTHER.streams
        }
        other["layer.2"] = streams["layer.1"] @ mix
        return passed(name, streams, passed(name, other))

    OTHER = other_anatomy()
    measure = CCA("inter", other=(OTHER, "another"))
    rows = computed(measure, make)
    assert measure.streams_of_other == ("input", "layer.2", "layer.4")
    assert {s: (row.target, row.other) for s, row in rows.items()} == {
        "input": ("another", "input"), "layer.1": ("another", "layer.2"), "layer.2": ("another", "layer.4"),
        "final_norm": ("another", "layer.4"),
    }  # fmt: skip
    assert rows["layer.1"].value > 0.99
    assert abs(rows["layer.2"].value) < 0.2
    with pytest.raises(StateError, match="were not captured"):
        measure.update(passed(ids()[0], from_input(ids()[0])))
    with pytest.raises(MeasureError, match="needs another model"):
        CCA("inter")


@pytest.mark.parametrize(("layers", "found"), [(1, "layer.1"), (2, "layer.1"), (3, "layer.2"), (24, "layer.12")])
def test_layers_match_by_relative_depth(layers, found):
    assert matched_stream("layer.1", ANATOMY, other_anatomy(layers)) == found
    assert matched_stream("input", ANATOMY, other_anatomy(layers)) == "input"
    assert matched_stream("final_norm", ANATOMY, other_anatomy(layers)) == f"layer.{layers}"


def test_models_of_another_frame_rate_are_refused():
    slow = Anatomy(
        "slow",
        ("input", "layer.1"),
        {"input": 3, "layer.1": 3},
        dict.fromkeys(("input", "layer.1"), GRIDS["conv.1"]),
        (1,),
    )
    with pytest.raises(MeasureError, match="frame every 80 samples"):
        CCA("inter", other=(slow, "slow")).prepare(ANATOMY, corpus(), 0)


def test_speakers_are_known_on_other_utterances():
    offsets = np.random.default_rng(7).standard_normal((6, 90))
    many = corpus(60, 6)

    def make(one, speaks):
        rng = np.random.default_rng(int(one.id))
        n = 40
        streams = {s: rng.standard_normal((n, WIDTHS[s])) for s in GRIDS}
        if speaks:
            streams["layer.1"] += offsets[int(str(one.speaker)[1:])]
        tensors = {s: torch.from_numpy(rows)[None] for s, rows in streams.items()}
        return Capture((one,), (one.read(),), tensors, dict.fromkeys(GRIDS, (n,)), GRIDS, {}, {})

    measure = CCA("speaker")
    measure.prepare(ANATOMY, many, 0)
    for one in many:
        measure.update(make(one, True))
    result = measure.compute()
    rows = {row.stream: row for row in result.rows}
    assert rows["layer.1"].value > 0.95
    assert abs(rows["layer.2"].value) < 0.4
    assert rows["layer.1"].n == 60
    assert result.notes["folds_by"] == "utterance"
    assert result.notes["labels"] == 6
    folds = measure.source.folds
    for speaker in many.speakers:
        assert len({int(folds.rows(u.id, 1)[0]) for u in many if u.speaker == speaker}) == 5
    alone = many.subset(lambda u: u.speaker == "s1")
    with pytest.raises(MeasureError, match="two labels"):
        CCA("speaker").prepare(ANATOMY, alone, 0)


def table(words=WORDS, seed=8):
    values = np.random.default_rng(seed).standard_normal((len(words), 3))
    return WordTable(tuple(words), values, ("a", "b", "c"))


def test_a_layer_that_holds_the_words_holds_their_vectors():
    measure = CCA("glove", table=table(("never", *WORDS)))
    rows = computed(measure, lambda name: capture((name,), "word"))
    assert measure.name == "cca-glove"
    assert rows["layer.2"].value > 0.999
    assert abs(rows["final_norm"].value) < 0.2
    word = CCA("word")
    word.prepare(ANATOMY, corpus(), 0)
    assert word.source.key == measure.source.key, "a table that has all words needs no state of its own"


def test_words_without_a_vector_are_left_out_and_named():
    measure = CCA("semantic", table=table(WORDS[1:]))
    computed(measure, lambda name: capture((name,), "word"))
    notes = measure.compute().notes
    assert notes["labels_without_vector"] == [WORDS[0]]
    assert notes["labels"] == 3
    assert notes["rows_left_out"] == sum(x.label == WORDS[0] for u in corpus() for x in u.tiers["word"])
    with pytest.raises(MeasureError, match="not in the table"):
        CCA("glove", table=table(("never",))).prepare(ANATOMY, corpus(), 0)
    with pytest.raises(MeasureError, match="needs a table"):
        CCA("glove")


@pytest.mark.parametrize("target", ["phone", "word"])
def test_rows_may_be_dealt_into_folds_one_by_one(target):
    measure = CCA(target, folding=Folding(4, "row"))
    rows = computed(measure, lambda name: capture((name,), target))
    assert rows["layer.2"].value > 0.999
    source = measure.source
    labels, folds = [], []
    for one in corpus():
        found = source.labels.segments(one)
        labels += found.labels.tolist()
        folds += source.folds.rows(one.id, len(found.labels)).tolist()
    counts = np.zeros((len(source.labels), 4))
    np.add.at(counts, (labels, folds), 1)
    assert np.ptp(counts, axis=1).max() <= 1, "every label has as many rows in each fold, up to one"
    assert measure.compute().notes["folds_by"] == "row"


@pytest.mark.parametrize("statistic", ["mean", "svcca"])
def test_other_statistics_come_of_the_same_directions(statistic):
    names = {"mean": "mean-cca-phone", "svcca": "svcca-phone"}
    measure = CCA("phone", statistic=statistic)
    rows = computed(measure, lambda name: capture((name,)))
    assert measure.name == names[statistic]
    assert rows["layer.2"].value > 0.99
    assert abs(rows["final_norm"].value) < 0.15
    with pytest.raises(MeasureError, match="no statistic"):
        CCA("phone", statistic="max")


def stored(measure, stream, target):
    """Rows, one-hot labels and folds as the source has dealt them."""
    source, x, y, fold = measure.source, [], [], []
    for name in ids():
        found = source.labels.segments(corpus()[name])
        frames = streams_of(name, target)[stream].astype(np.float32)
        spans = SPANS[target](found.starts, found.ends, 320, len(frames))
        x.append(span_means(frames, *spans))
        y.append(np.eye(len(source.labels))[found.labels])
        fold.append(source.folds.rows(name, len(found.labels)))
    return np.concatenate(x), np.concatenate(y), np.concatenate(fold)


def test_the_released_code_s_convention_is_rotated_through_all_folds():
    measure = CCA("phone", statistic="pasad", folding=Folding(4, "row"))
    rows = computed(measure, lambda name: capture((name,)))
    assert measure.name == "pasad-cca-phone"
    x, y, fold = stored(measure, "layer.1", "phone")
    pairs = [(a, b) for a in (1e-11, 1e-10, 1e-9) for b in (1e-11, 1e-10, 1e-9)]
    expected = []
    for test in range(4):
        dev = (test + 1) % 4
        train = scatter_of(x[~np.isin(fold, [test, dev])], y[~np.isin(fold, [test, dev])])
        on = {f: scatter_of(x[fold == f], y[fold == f]) for f in (test, dev)}
        best = max(pairs, key=lambda eps: pasad_score(train, on[dev], eps=eps))
        expected.append(pasad_score(train, on[test], eps=best))
    assert rows["layer.1"].value == pytest.approx(np.mean(expected), abs=1e-6)
    assert rows["layer.2"].value > 0.99
    assert abs(rows["final_norm"].value) < 0.3


def test_r_squared_is_that_of_ridge_regression():
    measure = CCA("intra", statistic="r2")
    rows = computed(measure, lambda name: passed(name, from_input(name)))
    assert measure.name == "r2-intra"
    assert rows["layer.1"].value > 0.999
    assert rows["layer.1"].ceiling == 1
    assert rows["final_norm"].value < 0.05
    assert rows["layer.1"].floor < 0.1


def test_spans_of_words():
    centre = CCA("word", span="word-centre")
    rows = computed(centre, lambda name: capture((name,), "word"))
    assert centre.name == "cca-word-centre"
    assert rows["layer.2"].value > 0.999


def test_sources_of_one_key_become_one():
    mel, intra = (CCA(target) for target in ("mel", "intra"))
    for measure in (mel, intra):
        measure.prepare(ANATOMY, corpus(), 0)
    apart = {}
    for measure in (mel, intra):
        for name in ids():
            measure.update(passed(name, from_input(name)))
        apart[measure.name] = measure.compute().rows
    both = FrameSource(ANATOMY, corpus(), 0, Folding(), ["mel"])
    both.absorb(FrameSource(ANATOMY, corpus(), 0, Folding(), ["input"]))
    for name in ids():
        both.update(passed(name, from_input(name)))
    for measure in (mel, intra):
        measure.source, measure.shared = both, True
        assert measure.state() == {}
        for found, expected in zip(measure.compute().rows, apart[measure.name], strict=True):
            assert (found.stream, found.n) == (expected.stream, expected.n)
            assert (found.value, found.floor) == pytest.approx((expected.value, expected.floor), abs=1e-9)


def test_what_was_computed_is_forgotten_when_more_is_seen():
    measure = CCA("phone")
    measure.prepare(ANATOMY, corpus(), 0)
    for name in ids()[:-1]:
        measure.update(capture((name,)))
    before = measure.compute().rows
    measure.update(capture(ids()[-1:]))
    assert measure.compute().rows != before


def test_folds_that_are_none_are_refused():
    for wrong in ({"count": 1}, {"by": "frame"}):
        with pytest.raises(MeasureError, match="cannot be dealt"):
            Folding(**wrong)
