"""The measure of block patterns: rows, merging, what cannot be tested, and faults planted in a model."""

import dataclasses
import functools

import numpy as np
import pytest

from otoscope.errors import MeasureError, StateError
from otoscope.measures.blocks.abnormality import FLOORS, TESTS, judge
from otoscope.measures.blocks.degenerate import PATTERNS
from otoscope.measures.blocks.pattern import BlockPattern
from otoscope.measures.blocks.position import BINS
from otoscope.measures.blocks.summary import block_summary, part, uniform_observation
from otoscope.models import load
from otoscope.speech.corpus import Corpus
from otoscope.statistics import jackknife, ratio_jackknife
from otoscope.surgery.applying import apply
from otoscope.surgery.attention import ReplaceMap
from tests.measures.blocks.blocks_of import planted, sound, summed
from tests.measures.heads.given_maps import anatomy_of, capture_of, drawn_maps, silent_corpus
from tests.models.small import CASES

FRAMES = (4, 9, 6, 1, 5, 70, 12, 3)
HEADS = (3, 2)
CORPUS = silent_corpus(len(FRAMES))
MAPS = [[drawn_maps(10 * k + layer, t, h) for layer, h in enumerate(HEADS)] for k, t in enumerate(FRAMES)]


def prepared(corpus=CORPUS, heads=HEADS, seed=0):
    measure = BlockPattern()
    measure.prepare(anatomy_of(heads), corpus, seed)
    return measure


def seen(which=(0, 1, 2, 3, 4, 5, 6, 7)):
    measure = prepared()
    for k in which:
        measure.update(capture_of([CORPUS[k]], [MAPS[k]], measure.reductions))
    return measure


@functools.cache
def result():
    return seen().compute()


def rows_of(found, measure, **where):
    return [
        row for row in found.rows
        if row.measure == measure and all(getattr(row, key) == value for key, value in where.items())
    ]  # fmt: skip


def test_rows_and_their_order():
    counts = {name: len(rows_of(result(), name)) for name in BlockPattern.yields}
    assert counts == {
        "position-profile": 2 * BINS, "block-summary": 2 * len(FLOORS), "neighbour-deviation": 2, "trend-residual": 0,
        "degenerate-pattern": 2 * len(PATTERNS), "abnormality": 2,
    }  # fmt: skip
    assert len(result().rows) == sum(counts.values())
    assert {(row.stream, row.layer, row.head, row.other) for row in result().rows} == {
        ("layer.1", 1, None, None),
        ("layer.2", 2, None, None),
    }
    assert {row.n for row in result().rows} == {len(FRAMES) - 1}
    assert [row.target for row in rows_of(result(), "position-profile", layer=2)] == [str(b + 1) for b in range(BINS)]


def test_numbers_are_means_over_utterances():
    long_enough = [k for k, t in enumerate(FRAMES) if t > 1]
    for layer in (1, 2):
        by_utterance = [block_summary(MAPS[k][layer - 1]) for k in long_enough]
        for row in rows_of(result(), "block-summary", layer=layer):
            if row.target in by_utterance[0]:
                values = np.array([one[row.target] for one in by_utterance])
                expected = [float(x) for x in ratio_jackknife(values, np.ones(len(values)))]
                assert [row.value, row.low, row.high] == pytest.approx(expected, abs=2e-5)
                floors = [part("summary", uniform_observation(FRAMES[k])) for k in long_enough]
                assert row.floor == pytest.approx(np.mean(floors, 0)[list(FLOORS).index(row.target)], abs=1e-9)
        lengths = np.stack([part("profile", uniform_observation(FRAMES[k])) for k in long_enough])
        row = rows_of(result(), "block-summary", layer=layer, target="between-utterance-variance")[0]
        assert row.floor == pytest.approx(lengths.var(0, ddof=1).sum(), abs=1e-9)
    for row in rows_of(result(), "position-profile"):
        assert row.floor == 1 / BINS
        assert row.low <= row.value <= row.high
    assert sum(row.value for row in rows_of(result(), "position-profile", layer=1)) == pytest.approx(1)


def test_variance_between_utterances_is_that_of_their_profiles():
    measure = prepared(silent_corpus(6))
    draw = np.random.default_rng(0)
    frames = 12
    shifts = draw.integers(0, 4, size=6)
    maps = [[np.stack([np.roll(np.eye(frames), int(by), 1)] * h) for h in HEADS] for by in shifts]
    for k, one in enumerate(maps):
        measure.update(capture_of([silent_corpus(6)[k]], [one], measure.reductions))
    profiles = np.stack([[one[0][0].trace(d) / frames for d in range(1 - frames, frames)] for one in maps])
    row = rows_of(measure.compute(), "block-summary", layer=1, target="between-utterance-variance")[0]
    assert row.value == pytest.approx(profiles.var(0, ddof=1).sum(), abs=1e-6)
    assert row.floor == pytest.approx(0, abs=1e-12)  # all utterances are of one length
    without = np.array([np.delete(profiles, k, 0).var(0, ddof=1).sum() for k in range(6)])
    assert (row.low, row.high) == pytest.approx([float(end) for end in jackknife(row.value, without)], abs=1e-5)


def as_numbers(found):
    return np.array(
        [[np.nan if x is None else x for x in (row.value, row.low, row.high, row.floor, row.n)] for row in found.rows],
        np.float64,
    )


@pytest.mark.parametrize("parts", [((0, 1, 2, 3), (4, 5, 6, 7)), ((7,), (3,), (5, 0, 6, 1), (2, 4))])
def test_any_split_merges_and_survives_its_file(parts):
    pieces = []
    for one in parts:
        piece = prepared()
        piece.load_state(seen(one).state())
        pieces.append(piece)
    for piece in pieces[1:]:
        pieces[0].merge(piece)
    for name, array in seen().state().items():
        np.testing.assert_allclose(pieces[0].state()[name], array, rtol=1e-10, atol=1e-13)
    found = pieces[0].compute()
    np.testing.assert_allclose(as_numbers(found), as_numbers(result()), rtol=1e-6, atol=1e-9)
    assert found.notes == result().notes
    assert [row.label for row in found.rows] == [row.label for row in result().rows]


def test_a_batch_is_its_utterances():
    together = prepared()
    together.update(capture_of(list(CORPUS), MAPS, together.reductions))
    assert all(np.array_equal(together.state()[name], array) for name, array in seen().state().items())


def test_the_state_does_not_grow():
    before, after = prepared().state(), seen().state()
    assert {name: array.shape for name, array in before.items()} == {name: array.shape for name, array in after.items()}


def test_states_of_other_corpora_are_refused():
    with pytest.raises(StateError, match="different corpora or seeds"):
        prepared().merge(prepared(silent_corpus(30), seed=5))
    with pytest.raises(StateError):
        prepared().load_state({})


def test_a_capture_without_its_sums_or_with_bad_ones_is_refused():
    with pytest.raises(MeasureError, match="No attention was captured for block-summary"):
        prepared().update(capture_of([CORPUS[0]], [MAPS[0]], ()))
    capture = capture_of([CORPUS[1]], [MAPS[1]], BlockPattern.reductions)
    capture.attention[2][0]["block-map"][0] = float("nan")
    measure = prepared()
    with pytest.raises(MeasureError, match="layer 2 .*not finite"):
        measure.update(capture)
    assert not any(array.any() for array in measure.state().values())


def test_short_utterances_are_counted():
    assert result().notes["too_short"] == 1
    assert result().notes["groups"] == len(FRAMES) - 1
    measure = prepared()
    measure.update(capture_of([CORPUS[0]], [[drawn_maps(0, 2, h) for h in HEADS]], measure.reductions))
    assert (measure.too_short, measure.mean.n) == (0, 1)  # two frames are enough


def test_few_utterances_have_numbers_and_no_verdict():
    found = seen([0, 1, 2]).compute()
    assert {row.measure for row in found.rows} == {"position-profile", "block-summary"}
    assert found.notes["untested"].startswith("3 groups")
    alone = seen([0]).compute()
    assert all(row.low is None and row.value is not None for row in rows_of(alone, "position-profile"))
    assert rows_of(alone, "block-summary", target="between-utterance-variance")[0].value is None


def test_two_blocks_cannot_be_held_against_each_other():
    assert set(result().notes["not_tested"]) == {"neighbour-deviation", "trend-residual"}


def test_a_block_without_heads_has_no_rows():
    heads = (2, 0, 2)
    measure = prepared(heads=heads)
    for k, frames in enumerate(FRAMES):
        maps = [drawn_maps(k + layer, frames, h) for layer, h in enumerate(heads)]
        capture = capture_of([CORPUS[k]], [[maps[0], maps[2]]], measure.reductions)
        first, last = capture.attention[1], capture.attention[2]
        nothing = [{name: one[:0] for name, one in found.items() if name != "block-map"} for found in first]
        nothing = [{**one, "block-map": first[0]["block-map"] * 0} for one in nothing]
        measure.update(dataclasses.replace(capture, attention={1: first, 2: nothing, 3: last}))
    found = measure.compute()
    assert found.notes["without_heads"] == [2]
    assert {row.layer for row in found.rows} == {1, 3}
    with pytest.raises(MeasureError, match="No block of the model has a head"):
        prepared(heads=(0, 0))


def test_groups_are_of_speakers_where_there_are_enough():
    for speakers, by in ((10, "speaker"), (9, "utterance")):
        corpus = Corpus.from_arrays(
            [np.zeros(800, np.float32)] * 30, speakers=[f"s{k % speakers}" for k in range(30)]
        )  # fmt: skip
        measure = prepared(corpus)
        together = measure.group_of[corpus[0].id] == measure.group_of[corpus[speakers].id]
        assert measure.by_speaker == together == (by == "speaker")


def test_faults_are_found_through_the_tap():
    maps = planted("copy", 4, planted("uniform", 1, sound(blocks=6)))
    corpus = silent_corpus(len(maps))
    measure = prepared(corpus, heads=(2,) * 6)
    measure.update(capture_of(list(corpus), maps, measure.reductions))
    found = measure.compute()
    labels = {row.layer: (row.label, row.target) for row in rows_of(found, "abnormality")}
    assert labels[5] == ("abnormal", "neighbour-copy")
    assert labels[2][0] == "abnormal"
    assert "uniform" in labels[2][1]
    assert [layer for layer, (label, _) in labels.items() if label == "normal"] == [1, 3, 4, 6]
    assert found.notes["not_held_against"] == [2, 5]
    assert [row.label for row in rows_of(found, "degenerate-pattern", layer=2, target="uniform")] == ["yes"]
    assert all(row.value < 0.05 for row in rows_of(found, "abnormality", label="abnormal"))
    assert all(row.value > 0.05 for row in rows_of(found, "abnormality", label="normal"))


def test_every_test_has_its_row():
    maps = planted("self", 3, sound())
    corpus, heads = silent_corpus(len(maps)), (2,) * len(maps[0])
    measure = prepared(corpus, heads)
    measure.update(capture_of(list(corpus), maps, measure.reductions))
    found, told = measure.compute(), judge(summed(maps), resamples=10)
    for name in ("neighbour-deviation", "trend-residual", "degenerate-pattern"):
        rows = rows_of(found, name)
        assert len(rows) == len(heads) * len({row.target for row in rows})
        for row in rows:
            test = TESTS.index(row.target or name)
            assert row.value == pytest.approx(told.value[row.layer - 1, test], rel=1e-3, abs=1e-5)
            assert row.low <= row.value <= row.high
            if name == "degenerate-pattern":
                assert row.label == ("yes" if told.found[row.layer - 1, test] else "no")


def examined(model, corpus):
    measure = BlockPattern()
    measure.prepare(model.anatomy, corpus, 0)
    for utterance in corpus:
        measure.update(model.capture([utterance], [utterance.read()], (), measure.reductions))
    return {row.layer: row.target for row in rows_of(measure.compute(), "abnormality")}


@pytest.mark.parametrize("name", ["wav2vec2-stable", "wavlm-group"])
def test_faults_planted_in_a_model_are_found_and_an_untouched_one_is_normal(name):
    model = load(next(case for case in CASES if case.name == name).build().eval())
    draw = np.random.default_rng(0)
    corpus = Corpus.from_arrays([draw.normal(0, 0.1, 6000 + 900 * k).astype(np.float32) for k in range(6)])
    assert examined(model, corpus) == {1: None, 2: None, 3: None}
    assert examined(apply(model, [ReplaceMap("layer.2", "uniform")]), corpus) == {1: None, 2: "uniform", 3: None}
    assert examined(apply(model, [ReplaceMap("layer.3", "layer", source=2)]), corpus) == {
        1: None, 2: None, 3: "neighbour-copy",
    }  # fmt: skip
