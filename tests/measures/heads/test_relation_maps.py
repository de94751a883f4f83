"""Relation maps in the stream: the tap against whole maps, means, intervals, merging, rows."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr, t

from otoscope.errors import CorpusError, MeasureError, StateError
from otoscope.measures.heads.operations import DIAGONAL
from otoscope.measures.heads.relation import concentration, relation_map, relative_relation
from otoscope.measures.heads.relation_labels import RelationLabels
from otoscope.measures.heads.relation_maps import RelationMaps
from otoscope.measures.heads.relation_rows import Score, rank_correlation
from otoscope.measures.heads.relation_sums import MOST_KEPT, LabelReader, RelationSum
from otoscope.measures.heads.verticality import verticality
from otoscope.models import load
from otoscope.models.anatomy import Anatomy, Grid
from otoscope.models.capture import Capture
from otoscope.models.reductions import WholeMap
from otoscope.speech import Corpus, Interval
from tests.models.small import CASES

GRID = Grid(320, 400)
PHONES = ("aa", "b", "s", "sil")
ANATOMY = Anatomy("made up", (), {}, {"input": GRID}, (2, 3), ((0, 1), (0, 2, 5)))
"""Two heads in one layer, and three that are left of six in the other."""


@cache
def corpus(utterances=9, unit=40, without=()):
    draw = np.random.default_rng(5)
    arrays, tiers = [], []
    for k in range(utterances):
        edges = np.cumsum(draw.integers(400 // unit, 2400 // unit, 14)) * unit
        names = draw.choice(PHONES, 13, p=[0.4, 0.3, 0.1, 0.2])
        own = [Interval(int(a), int(b), str(x)) for a, b, x in zip(edges, edges[1:], names, strict=False)]
        arrays.append(0.1 * draw.normal(size=int(edges[-1]) + 8 * unit))
        tiers.append({} if k in without else {"phone": own})
    return Corpus.from_arrays(arrays, tiers=tiers)


def frames_of(utterance):
    return (utterance.n_samples - 400) // 320 + 1


@cache
def made_up(place):
    """Maps (5 heads, T, T) of one utterance: of layer 1 the first two, of layer 2 the others; the second looks at sil."""
    one = corpus()[place]
    n = frames_of(one)
    logits = np.random.default_rng(place).normal(size=(5, n, n)) * 2
    sil = RelationLabels.choose(corpus(), "phone", 0).lay(one, GRID, n).shares()[:, 3]
    logits[1] += 3 * sil
    logits[4] -= np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    maps = np.exp(logits)
    return torch.tensor(maps / maps.sum(-1, keepdims=True))


def reduced(make, utterance, maps, tile=16):
    """What a sum gives for whole maps that are passed row by row."""
    one = make()
    one.meet(utterance, GRID)
    one.start(maps.shape[0], maps.shape[-1], maps)
    for first in range(0, maps.shape[-1], tile):
        weights = maps[:, first : first + tile]
        one.tile(first, weights.log(), weights)
    return one.finish()


def capture(places, measure, speech=None):
    speech = speech or corpus()
    layers = {1: slice(0, 2), 2: slice(2, 5)}
    attention = {
        layer: [
            {make().name: reduced(make, speech[k], made_up(k)[heads]) for make in measure.reductions} for k in places
        ]
        for layer, heads in layers.items()
    }
    return Capture(tuple(speech[k] for k in places), (), {}, {}, {}, attention, {})


@cache
def seen(places, exclude_run=False, seed=0, without=()):
    speech = corpus(without=without)
    measure = RelationMaps(exclude_run=exclude_run)
    measure.prepare(ANATOMY, speech, seed)
    for k in places:
        measure.update(capture((k,), measure, speech))
    return measure


EVERY = tuple(range(9))


def fine(utterance, kept):
    """Labels at the rate of 40 samples, in which all edges and those of frames lie, eight to a frame."""
    out = np.full(utterance.n_samples, len(kept.labels))
    for x in utterance.tiers["phone"]:
        out[x.start : x.end] = kept.labels.index(x.label)
    return out[60 : 40 + 320 * frames_of(utterance) : 40]


@cache
def whole(place, exclude_run):
    """P' and P_U of one utterance, from maps that were repeated to the rate of the labels."""
    kept = RelationLabels.choose(corpus(), "phone", 0)
    repeated = made_up(place).numpy().repeat(8, -1).repeat(8, -2) / 8
    return relation_map(repeated, fine(corpus()[place], kept), 5, exclude_run)


@pytest.mark.parametrize("exclude_run", [False, True])
def test_sums_equal_the_pure_function_on_repeated_maps(exclude_run):
    reader = LabelReader(RelationLabels.choose(corpus(), "phone", 0))
    for place in EVERY[:3]:
        found = reduced(lambda: RelationSum("x", reader, exclude_run), corpus()[place], made_up(place))
        expected, uniform = whole(place, exclude_run)
        assert torch.allclose(found[0], torch.tensor(expected), atol=1e-12)
        assert ((found[0].numpy() == 0) >= (uniform == 0)).all()
        assert not torch.allclose(found[1], found[0], atol=1e-3)


@pytest.mark.parametrize("exclude_run", [False, True])
def test_maps_and_concentrations_are_of_means_over_utterances(exclude_run):
    measure = seen(EVERY, exclude_run)
    result = measure.compute()
    p, uniform = (np.mean([whole(k, exclude_run)[one] for k in EVERY], axis=0) for one in (0, 1))
    expected = relative_relation(p, uniform)
    found = result.arrays[f"{measure.name}.map"]
    assert found.dtype == np.float32
    assert np.allclose(found[0, :2], expected[:2], rtol=1e-5, atol=1e-5, equal_nan=True)
    assert np.allclose(found[1], expected[2:], rtol=1e-5, atol=1e-5, equal_nan=True)
    assert np.isnan(found[0, 2]).all()  # a head that is not there
    assert np.allclose(result.arrays[f"{measure.name}.uniform"], uniform, atol=1e-6)
    ending = "-exclude-run" if exclude_run else ""
    rows = [row for row in result.rows if row.measure == f"concentration-phone{ending}"]
    c = concentration(expected[:, :4, :4])  # without the rest
    places = [(1, 0), (1, 1), (2, 0), (2, 2), (2, 5)]
    assert [(row.layer, row.head, row.target) for row in rows] == [(*p, x) for p in places for x in PHONES]
    assert np.allclose([row.value for row in rows], c.ravel(), atol=1e-9)
    extremes = [row for row in result.rows if row.measure == f"relation-phone{ending}"]
    which = np.abs(c).argmax(-1)
    assert [row.label for row in extremes] == [PHONES[k] for k in which]
    assert np.allclose([row.value for row in extremes], c[np.arange(5), which], atol=1e-9)
    assert all(row.low < row.value < row.high for row in extremes)


def test_the_head_that_looks_at_silence_is_found_and_permuted_labels_do_not_show_it():
    result = seen(EVERY).compute()
    rows = {(row.measure, row.layer, row.head, row.target): row for row in result.rows}
    silence = rows["concentration-phone", 1, 1, "sil"]
    assert silence.label == "focus"
    assert silence.low > 1 > silence.floor
    assert rows["relation-phone", 1, 1, "phone"].label == "sil"
    assert rows["concentration-phone", 1, 1, "aa"].label == "neglect"
    assert rows["operation-phone", 1, 1, "phone"].label == "attends silence"
    assert rows["operation-phone", 2, 5, "phone"].label == "stays near"
    assert rows["concentration-phone", 1, 0, "aa"].label is None
    assert result.notes["operation_kept_with_a_group_left_out"]["1.1"] == 1


def test_the_floor_is_the_concentration_of_permuted_labels():
    kept, found = RelationLabels.choose(corpus(), "phone", 0), []
    for k in EVERY:
        shares = kept.lay(corpus()[k], GRID, frames_of(corpus()[k]), permuted=True).shares()
        found.append(relation_map(made_up(k).numpy(), shares, 5))
    relative = relative_relation(*(np.mean([one[k] for one in found], axis=0) for k in (0, 1)))
    expected = concentration(relative[:, :4, :4])
    rows = seen(EVERY).compute().rows
    floors = [row.floor for row in rows if row.measure == "concentration-phone"]
    assert np.allclose(floors, expected.ravel(), atol=1e-9)
    for row, own in zip([row for row in rows if row.measure == "relation-phone"], expected, strict=True):
        assert row.floor == pytest.approx(own.max() if row.value >= 0 else own.min(), abs=1e-9)


def test_focus_and_neglect_lie_beyond_both_zero_and_the_floor():
    low = np.array([0.1, 0.1, -0.1, -0.9, -0.9, -0.9, np.nan, 0.1])
    high = np.array([0.3, 0.3, 0.3, -0.2, -0.2, 0.1, np.nan, 0.3])
    floor = np.array([0.05, 0.2, -0.5, -0.1, -0.3, 0.5, 0.0, np.nan])
    assert Score(low, low, high, floor).sides().tolist() == [1, 0, 0, -1, 0, 0, 0, 1]


def test_a_head_stays_near_up_to_100_ms_from_its_query():
    """At 20 ms a frame that is five frames, and not six."""
    measure = RelationMaps()
    measure.prepare(Anatomy("made up", (), {}, {"input": GRID}, (2,), ((0, 1),)), corpus(), 0)
    for one in corpus():
        own = torch.eye(frames_of(one), dtype=torch.float64)
        maps = torch.stack([own.roll(5, 1), own.roll(6, 1)])
        sums = {make().name: reduced(make, one, maps) for make in measure.reductions}
        measure.update(Capture((one,), (), {}, {}, {}, {1: [sums]}, {}))
    near, far = (row.label for row in measure.compute().rows if row.measure == "operation-phone")
    assert near == DIAGONAL
    assert far != DIAGONAL


def test_a_reader_forgets_what_it_has_kept_long():
    kept = RelationLabels.choose(corpus(), "phone", 0)
    reader, one = LabelReader(kept), corpus()[0]
    for frames in range(2, 2 * MOST_KEPT):
        real, permuted = reader(one, GRID, frames)
        assert real.frames == permuted.frames == frames
    assert np.array_equal(reader(one, GRID, 2)[0].shares(), kept.lay(one, GRID, 2).shares())
    assert len(reader._kept) <= MOST_KEPT


def test_the_relation_to_verticality_is_spearmans():
    (row,) = [row for row in seen(EVERY).compute().rows if row.measure == "relation-verticality-phone"]

    def value(places):
        p, uniform = (np.mean([whole(k, False)[one] for k in places], axis=0) for one in (0, 1))
        extremes = np.abs(concentration(relative_relation(p, uniform)[:, :4, :4])).max(-1)
        return spearmanr(np.mean([verticality(made_up(k).numpy()) for k in places], axis=0), extremes).statistic

    left = np.array([value([k for k in EVERY if k != j]) for j in EVERY])
    assert row.value == pytest.approx(value(EVERY), abs=1e-9)
    assert (row.low, row.high) == pytest.approx(around(row.value, left), abs=1e-9)
    assert row.n == 5
    assert row.label in ("positive", "negative", "undecided")
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4.0)))
    assert np.isnan(rank_correlation(np.arange(2.0), np.arange(2.0)))
    assert rank_correlation(np.array([1, 2, 2, 4.0]), np.array([1, 3, 3, np.nan])) == pytest.approx(1)


def around(value, left):
    """The delete-one jackknife of nine groups."""
    half = t.ppf(0.975, 8) * np.sqrt(8 / 9 * ((left - left.mean()) ** 2).sum())
    return value - half, value + half


def test_an_interval_leaves_out_one_group_at_a_time():
    measure = seen(EVERY)
    (row,) = [
        r for r in measure.compute().rows
        if (r.measure, r.layer, r.head, r.target) == ("concentration-phone", 2, 2, "b")
    ]  # fmt: skip

    def value(places):
        p, uniform = (np.mean([whole(k, False)[one] for k in places], axis=0) for one in (0, 1))
        return concentration(relative_relation(p, uniform)[3, :4, :4])[1]

    left = np.array([value([k for k in EVERY if k != j]) for j in EVERY])
    assert row.value == pytest.approx(value(EVERY), abs=1e-9)
    assert (row.low, row.high) == pytest.approx(around(row.value, left), abs=1e-9)


@given(data=st.data())
@settings(max_examples=6)
def test_any_order_and_split_merges_to_the_same(data):
    order = data.draw(st.permutations(EVERY))
    cut = data.draw(st.integers(0, 9))
    parts = []
    for places in (order[:cut], order[cut:]):
        part = RelationMaps(exclude_run=True)
        part.prepare(ANATOMY, corpus(), 0)
        if places:
            part.update(capture(tuple(places), part))
        parts.append(part)
    parts[0].merge(parts[1])
    for name, array in seen(EVERY, exclude_run=True).state().items():
        assert np.allclose(parts[0].state()[name], array, rtol=1e-12, atol=1e-15)


def test_a_state_reads_back_and_says_how_large_it_is():
    measure, again = seen(EVERY), RelationMaps()
    again.prepare(ANATOMY, corpus(), 0)
    size = sum(array.nbytes for array in again.state().values())
    again.load_state(measure.state())
    first, second = measure.compute(), again.compute()
    assert first.rows == second.rows
    assert first.notes == second.notes
    # 9 groups of 6 places for a head each and once for permuted labels, 5 by 5 labels.
    assert size == first.notes["state_bytes"]
    assert abs(size - 8 * 25 * (6 * 10 + 10)) < 1200
    with pytest.raises(StateError):
        again.load_state({name: array for name, array in measure.state().items() if name != "near.sums"})


def test_what_does_not_fit_is_refused():
    with pytest.raises(StateError, match="different corpora or seeds"):
        seen(EVERY[:2]).merge(seen(EVERY[2:], seed=1))
    with pytest.raises(StateError, match="cannot be merged"):
        seen(EVERY[:2]).merge(seen(EVERY[2:], exclude_run=True))
    with pytest.raises(MeasureError, match="seen no utterance"):
        seen(()).compute()
    with pytest.raises(CorpusError, match="no tier"):
        RelationMaps("word").prepare(ANATOMY, corpus(), 0)
    measure = RelationMaps()
    measure.prepare(ANATOMY, corpus(), 0)
    lacking = capture((0,), measure)
    del lacking.attention[1][0]["relation-phone"]
    with pytest.raises(MeasureError, match="relation-phone"):
        measure.update(lacking)


def test_utterances_without_labels_are_counted_and_no_part_of_the_means():
    some = seen(EVERY, without=(2, 7))
    result = some.compute()
    assert result.notes["utterances_without_labels"] == 2
    assert {row.n for row in result.rows if row.head is not None} == {7}
    left = [whole(k, False) for k in EVERY if k not in (2, 7)]
    expected = relative_relation(*(np.mean([one[k] for one in left], axis=0) for k in (0, 1)))
    assert np.allclose(result.arrays["relation-phone.map"][1], expected[2:], rtol=1e-5, atol=1e-5)


def test_one_utterance_has_no_interval():
    result = seen((0,)).compute()
    assert all(row.low is None and row.high is None for row in result.rows)
    assert {row.label for row in result.rows if row.measure == "concentration-phone"} == {None}


FAMILIES = ("wav2vec2-group", "wavlm-ctc-stable", "conformer-relative", "bert-relative-key", "whisper", "parakeet")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tap_of_real_models_in_padded_batches_equals_whole_maps(name):
    model = load(next(case for case in CASES if case.name == name).build())
    speech, grid = corpus(), model.anatomy.grid
    measures = [RelationMaps(), RelationMaps(exclude_run=True)]
    for measure in measures:
        measure.prepare(model.anatomy, speech, 0)
    batch = [speech[0], speech[1]]
    together = [measure.reductions[0] for measure in measures] + [WholeMap]
    found = model.capture(batch, [one.read() for one in batch], (), together)
    kept = measures[0].labels
    for layer, sums in found.attention.items():
        for k, one in enumerate(batch):
            maps = sums[k]["whole-map"].double()
            maps = maps / maps.sum(-1, keepdim=True)
            laid = kept.lay(one, grid, maps.shape[-1])
            expected, uniform = relation_map(maps, laid.shares(), 5)
            assert torch.allclose(sums[k]["relation-phone"][0], expected, atol=1e-6), layer
            assert np.allclose(laid.uniform(False), uniform, atol=1e-12)
            # Frame edges and those of labels are multiples of 40 samples: repeated maps have runs.
            times = grid.hop // 40
            repeated = maps.repeat_interleave(times, -1).repeat_interleave(times, -2) / times
            out = np.full(one.n_samples, 4)
            for x in one.tiers["phone"]:
                out[x.start : x.end] = PHONES.index(x.label)
            first = grid.offset + (grid.field - grid.hop) // 2
            middles = first + 20 + 40 * np.arange(repeated.shape[-1])
            labels = out[np.clip(middles, 0, one.n_samples - 1)]
            expected, _ = relation_map(repeated, labels, 5, exclude_run=True)
            assert torch.allclose(sums[k]["relation-phone-exclude-run"][0], expected, atol=1e-6), layer
    for k, one in enumerate(batch):
        alone = model.capture([one], [one.read()], (), together[:1])
        for layer, sums in alone.attention.items():
            both = sums[0]["relation-phone"], found.attention[layer][k]["relation-phone"]
            assert torch.allclose(*both, atol=2e-6)
