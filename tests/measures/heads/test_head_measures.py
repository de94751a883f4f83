"""What all measures of heads do with utterances: means, intervals, merging, utterances that are too short, errors."""

import dataclasses

import numpy as np
import pytest
import torch

from otoscope.errors import MeasureError, StateError
from otoscope.measures.blocks.profile import RelativeProfile
from otoscope.measures.heads.category import Category, head_ranks
from otoscope.measures.heads.diagonality import Centrality, CumulativeDiagonality, Diagonality, MeanOffset
from otoscope.measures.heads.globalness import Globalness, NormalisedGlobalness
from otoscope.measures.heads.peak import BREADTH, REACH, ProfilePeak, profile_peak
from otoscope.measures.heads.verticality import NormalisedVerticality, Verticality
from otoscope.statistics import ratio_jackknife
from tests.measures.heads.given_maps import anatomy_of, capture_of, drawn_maps, silent_corpus
from tests.measures.heads.test_closed_forms import FUNCTIONS, shift

HEADS = (3, 2)
FRAMES = (4, 9, 6, 1, 5, 70, 12, 3)
SINGLE = {**FUNCTIONS, NormalisedGlobalness: None, NormalisedVerticality: None}
ALL = (*SINGLE, ProfilePeak, Category, RelativeProfile)
CORPUS = silent_corpus(len(FRAMES))
MAPS = [[drawn_maps(10 * k + layer, t, h) for layer, h in enumerate(HEADS)] for k, t in enumerate(FRAMES)]


def prepared(kind, corpus=CORPUS, seed=0):
    measure = kind()
    measure.prepare(anatomy_of(HEADS), corpus, seed)
    return measure


def seen(kind, which=(0, 1, 2, 3, 4, 5, 6, 7)):
    """A measure that saw these utterances, each by itself."""
    measure = prepared(kind)
    for k in which:
        measure.update(capture_of([CORPUS[k]], [MAPS[k]], kind.reductions))
    return measure


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_values_are_means_over_utterances_that_are_long_enough(kind):
    long_enough = [k for k, t in enumerate(FRAMES) if t >= kind.fewest_frames]
    result = seen(kind).compute()
    values = np.array([[FUNCTIONS[kind](maps)[0] for maps in MAPS[k]] for k in long_enough])
    first = {row.layer: row for row in result.rows if row.head == 0}
    value, low, high = ratio_jackknife(values, np.ones(len(values)))  # eight utterances are a group each
    for layer in (1, 2):
        row = first[layer]
        assert (row.measure, row.stream, row.n) == (kind.name, f"layer.{layer}", len(long_enough))
        assert (row.value, row.low, row.high) == pytest.approx(
            (value[layer - 1], low[layer - 1], high[layer - 1]), abs=2e-5
        )
    assert [(row.layer, row.head) for row in result.rows] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]


@pytest.mark.parametrize("kind", [Centrality, CumulativeDiagonality, NormalisedGlobalness, NormalisedVerticality])
def test_an_utterance_of_one_frame_has_no_value_and_is_counted(kind):
    result = seen(kind).compute()
    assert result.notes["too_short"] == 1
    assert result.notes["fewest_frames"] == 2
    assert {row.n for row in result.rows} == {len(FRAMES) - 1}
    only = seen(kind, [FRAMES.index(1)]).compute()
    assert only.notes["too_short"] == 1
    assert all((row.value, row.low, row.high, row.n) == (None, None, None, 0) for row in only.rows)


def as_numbers(result):
    rows = [
        [np.nan if x is None else x for x in (row.value, row.low, row.high, row.floor, row.n)] for row in result.rows
    ]
    return np.array(rows, np.float64), {name: result.arrays[name] for name in sorted(result.arrays)}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("parts", [((0, 1, 2, 3), (4, 5, 6, 7)), ((7,), (3,), (5, 0, 6, 1), (2, 4))])
def test_any_split_merges_and_survives_its_file(kind, parts):
    whole = seen(kind)
    pieces = []
    for part in parts:
        piece = prepared(kind)
        piece.load_state(seen(kind, part).state())
        pieces.append(piece)
    for piece in pieces[1:]:
        pieces[0].merge(piece)
    for name, array in whole.state().items():
        np.testing.assert_allclose(pieces[0].state()[name], array, rtol=1e-10, atol=1e-13)
    (mine, arrays), (theirs, others) = as_numbers(pieces[0].compute()), as_numbers(whole.compute())
    np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-10)
    for name in others:
        np.testing.assert_allclose(arrays[name], others[name], rtol=1e-10, atol=1e-13)
    assert pieces[0].compute().notes == whole.compute().notes


@pytest.mark.parametrize("kind", ALL)
def test_a_batch_is_its_utterances(kind):
    together = prepared(kind)
    together.update(capture_of(list(CORPUS), MAPS, kind.reductions))
    alone = seen(kind).state()
    assert all(np.array_equal(together.state()[name], array, equal_nan=True) for name, array in alone.items())


@pytest.mark.parametrize("kind", ALL)
def test_states_of_other_corpora_or_shapes_are_refused(kind):
    with pytest.raises(StateError, match="different corpora or seeds"):
        prepared(kind).merge(prepared(kind, silent_corpus(30), seed=5))
    with pytest.raises(StateError):
        prepared(kind).load_state({})


@pytest.mark.parametrize("kind", ALL)
def test_a_capture_without_its_sums_is_refused(kind):
    for capture in (
        capture_of([CORPUS[0]], [MAPS[0]], ()),
        dataclasses.replace(capture_of([CORPUS[0]], [MAPS[0]], kind.reductions), attention={}),
    ):
        with pytest.raises(MeasureError, match=f"No attention was captured for .*{CORPUS[0].id}"):
            prepared(kind).update(capture)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
def test_sums_that_are_not_finite_are_refused(kind, spoilt):
    capture = capture_of([CORPUS[1]], [MAPS[1]], kind.reductions)
    for found in capture.attention[2]:
        for one in found.values():
            one[..., -1] = torch.tensor(spoilt)
    measure = prepared(kind)
    with pytest.raises(MeasureError, match=r"attention of layer 2 for utterance .* (not finite|sum to one)"):
        measure.update(capture)
    for state in measure.state().values():
        assert not state.any()


@pytest.mark.parametrize("kind", [Verticality, Diagonality, ProfilePeak, RelativeProfile])
def test_rows_that_do_not_sum_to_one_are_refused(kind):
    capture = capture_of([CORPUS[1]], [MAPS[1]], kind.reductions)
    for one in capture.attention[1][0].values():
        one *= 0.9
    with pytest.raises(MeasureError, match="layer 1 .*rows that do not sum to one"):
        prepared(kind).update(capture)


def test_ranks_are_over_all_heads_of_the_model():
    result = seen(Category).compute()
    means = [
        np.concatenate([np.mean([FUNCTIONS[kind](maps[layer]) for maps in MAPS], 0) for layer in range(2)])
        for kind in (Globalness, Verticality, Diagonality)
    ]
    ranks = result.arrays["category-ranks"]
    assert ranks.shape == (3, 2, 3)
    assert (ranks[:, 1, 2] == 0).all()  # layer 2 has two heads
    there = np.array([[True, True, True], [True, True, False]])
    assert np.array_equal(ranks[:, there], head_ranks(*means))
    assert sorted(ranks[0][there]) == [1, 2, 3, 4, 5]
    for row, three in zip(result.rows, ranks[:, there].T, strict=True):
        assert row.label == ("global", "vertical", "diagonal")[int(three.argmin())]
        assert row.value == sorted(three)[1] - three.min()


def test_the_peak_is_that_of_the_mean_profile():
    """Two utterances shifted by 3 outweigh one shifted by -5, and uniform attention tells nothing."""
    corpus = silent_corpus(4)
    measure = prepared(ProfilePeak, corpus)
    uniform = np.full((20, 20), 1 / 20)
    maps = [[np.stack([shift(20, by), uniform, np.eye(20)]), np.stack([uniform] * 2)] for by in (3, -5, 3, 3)]
    measure.update(capture_of(list(corpus), maps, measure.reductions))
    result = measure.compute()
    rows = {(row.measure, row.layer, row.head): row for row in result.rows}
    assert len(rows) == 10
    assert [rows["peak-offset", 1, head].value for head in range(3)] == [3, 0, 0]
    # 17 queries reach key q + 3, one the last key from two frames away, one from one and one from none.
    assert rows["peak-mass", 1, 0].value == pytest.approx(0.75 * 18 / 20, abs=1e-6)
    assert rows["peak-mass", 1, 2].value == pytest.approx(1, abs=1e-6)
    near, far = (20 + 2 * 19) / 400, (18 + 17 + 16) / 400
    assert rows["peak-mass", 1, 1].value == pytest.approx(near, abs=1e-6)
    assert [rows["peak-mass", 1, head].floor for head in range(3)] == pytest.approx([far, near, near])
    assert (rows["peak-offset", 1, 0].low, rows["peak-offset", 1, 0].high) == (-5, 3)
    assert (rows["peak-offset", 1, 2].low, rows["peak-offset", 1, 2].high) == (0, 0)
    # Without any one of the four the peak stays, so that the interval is that of a mean.
    _, low, high = ratio_jackknife(np.array([0.9, 0, 0.9, 0.9]), np.ones(4))
    assert (rows["peak-mass", 1, 0].low, rows["peak-mass", 1, 0].high) == pytest.approx(
        (float(low), float(high)), abs=1e-6
    )
    assert rows["peak-mass", 1, 1].high - rows["peak-mass", 1, 1].low < 1e-6


def test_the_peak_of_one_utterance_equals_the_pure_function_and_has_no_interval():
    corpus = silent_corpus(1)
    measure = prepared(ProfilePeak, corpus)
    long = [np.stack([shift(300, by) for by in (-100, 99, 130)]), drawn_maps(0, 300, 2, sharpness=6.0)]
    measure.update(capture_of(list(corpus), [long], measure.reductions))
    rows = measure.compute().rows
    for layer in (0, 1):
        offset, mass = profile_peak(long[layer])
        mine = [row for row in rows if row.layer == layer + 1]
        assert [row.value for row in mine if row.measure == "peak-offset"] == offset.tolist()
        assert [row.value for row in mine if row.measure == "peak-mass"] == pytest.approx(mass.tolist(), abs=1e-6)
    assert [row.value for row in rows[:2]] == [-100, 99]
    assert rows[2].value < REACH + BREADTH  # at 130 nothing is looked for; what is clipped at the end lies nearer
    assert all(row.low is None and row.high is None for row in rows)


def test_the_peaks_interval_is_that_of_its_seed():
    ends = [[(row.low, row.high) for row in seen(ProfilePeak).compute().rows] for _ in range(2)]
    assert ends[0] == ends[1]
    with pytest.raises(MeasureError, match="No utterance"):
        prepared(ProfilePeak).compute()


FLOORED = (Diagonality, CumulativeDiagonality, Centrality, MeanOffset)


@pytest.mark.parametrize("kind", FLOORED)
def test_the_floor_is_what_uniform_attention_has_in_utterances_of_these_lengths(kind):
    rows = seen(kind).compute().rows
    lengths = [t for t in FRAMES if t >= kind.fewest_frames]
    expected = np.mean([FUNCTIONS[kind](np.full((t, t), 1 / t)) for t in lengths])
    assert {row.floor for row in rows} == {rows[0].floor}
    assert rows[0].floor == pytest.approx(expected, abs=1e-12)
    assert all(row.floor is None for row in seen(kind, [FRAMES.index(1)]).compute().rows) == (kind.fewest_frames > 1)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_the_floor_is_the_mean_over_permutations_of_the_keys(kind, wavlm_maps):
    """Of numbers without a floor none would be right: permuted keys leave some alone, and move others by chance alone."""
    corpus = silent_corpus(len(wavlm_maps))
    measure = kind()
    measure.prepare(anatomy_of(tuple(len(maps) for maps in wavlm_maps[0])), corpus, 0)
    measure.update(capture_of(list(corpus), wavlm_maps, kind.reductions))
    floor = measure.compute().rows[0].floor
    if kind not in FLOORED:
        assert floor is None
        return
    draw = np.random.default_rng(0)
    heads = [maps for one in wavlm_maps for maps in one[:1]]
    drawn = [np.mean([FUNCTIONS[kind](draw.permuted(maps, axis=-1))[0] for maps in heads]) for _ in range(400)]
    error = np.std(drawn, ddof=1) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn) - floor) < 4 * error
    together = [
        np.mean([FUNCTIONS[kind](maps[..., draw.permutation(maps.shape[-1])])[0] for maps in heads]) for _ in range(400)
    ]
    assert abs(np.mean(together) - floor) < 4 * np.std(together, ddof=1) / np.sqrt(len(together))
    real = np.mean([FUNCTIONS[kind](maps)[0] for maps in heads])
    assert 0 < error < abs(real - floor)  # else anything would do


@pytest.fixture(scope="module")
def wavlm_maps():
    """Maps of a small model: utterance by utterance, layer 1 first."""
    from otoscope.models.loading import load
    from otoscope.models.reductions import WholeMap
    from tests.diagnosis.small_speech import small_speech
    from tests.models.small import CASES

    model = load(next(case for case in CASES if case.name == "wavlm-group").build())
    corpus = small_speech(3)
    captures = [model.capture([one], [one.read()], (), [WholeMap]).attention for one in corpus]
    return [[found[layer][0][WholeMap.name].double().numpy() for layer in sorted(found)] for found in captures]
