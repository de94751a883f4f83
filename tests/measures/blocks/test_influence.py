"""Block influence and angular distance: closed forms, exactness, and a model whose layers do nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import MeasureError, StateError
from otoscope.measures.blocks.influence import BlockInfluence, angular_distance, block_influence
from otoscope.models import load
from otoscope.models.anatomy import Anatomy, Grid
from otoscope.models.capture import Capture
from otoscope.surgery import Bypass, apply
from tests.models.small import CASES
from tests.surgery.cases import run, speech

STREAMS = ("input", "layer.1", "layer.2", "layer.3")


@given(st.floats(0, np.pi), st.floats(1e-3, 1e3), st.integers(1, 9))
def test_a_known_angle_at_any_length(angle, scale, frames):
    before = np.tile([2.0, 0.0, 0.0], (frames, 1))
    after = np.tile([scale * np.cos(angle), scale * np.sin(angle), 0.0], (frames, 1))
    assert block_influence(before, after) == pytest.approx(1 - np.cos(angle), abs=1e-12)
    assert angular_distance(before, after) == pytest.approx(angle / np.pi, abs=1e-12)


@pytest.mark.parametrize("angle", [1e-4, 1e-8, 1e-12])
def test_small_angles_are_exact_where_the_arc_cosine_is_not(angle):
    before, after = np.array([[1.0, 0.0]]), np.array([[np.cos(angle), np.sin(angle)]])
    assert angular_distance(before, after) == pytest.approx(angle / np.pi, rel=1e-9)
    assert block_influence(before, after) == pytest.approx(angle**2 / 2, rel=1e-7)


def test_the_same_frames_give_exactly_zero_and_opposite_ones_the_most():
    frames = torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for function, most in ((block_influence, 2), (angular_distance, 1)):
        found = function(frames, frames)
        assert isinstance(found, torch.Tensor)
        assert found.tolist() == [0, 0]
        assert function(frames, -3 * frames).tolist() == pytest.approx([most, most])


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_lengths_that_squares_cannot_hold(size):
    assert angular_distance(np.array([[size, 0.0]]), np.array([[size, size]])) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (np.ones((3, 2)), np.ones((4, 2))),
        (np.ones(3), np.ones(3)),
        (np.ones((0, 2)), np.ones((0, 2))),
        (np.array([[0.0, 0.0]]), np.ones((1, 2))),
        (np.ones((1, 2)), np.array([[np.nan, 1.0]])),
    ],
)
def test_what_has_no_direction_is_refused(before, after):
    for function in (block_influence, angular_distance):
        with pytest.raises(MeasureError, match="shape|direction"):
            function(before, after)


def anatomy():
    grid = Grid(320, 400)
    return Anatomy("wav2vec2", STREAMS, dict.fromkeys(STREAMS, 6), dict.fromkeys(STREAMS, grid), (2, 2, 2))


def captured(corpus, streams):
    """A capture of given streams: name -> one array (T, d) an utterance."""
    lengths = [len(one) for one in streams["input"]]
    padded = {
        name: torch.stack(
            [torch.nn.functional.pad(torch.as_tensor(a), (0, 0, 0, max(lengths) - len(a))) for a in arrays]
        )
        for name, arrays in streams.items()
    }
    grids = dict.fromkeys(STREAMS, Grid(320, 400))
    samples = tuple(one.read() for one in corpus)
    return Capture(tuple(corpus), samples, padded, dict.fromkeys(STREAMS, tuple(lengths)), grids, {}, {})


def random_streams(counts, seed=0):
    draw = np.random.default_rng(seed)
    return {name: [draw.standard_normal((n, 6)) for n in counts] for name in STREAMS}


def prepared(corpus, seed=0):
    measure = BlockInfluence()
    measure.prepare(anatomy(), corpus, seed)
    return measure


def values(measure):
    return {(row.measure, row.layer, row.other): row for row in measure.compute().rows}


def test_frames_without_a_direction_on_either_side_count_nowhere():
    corpus = speech(0.1, 0.2)
    streams = random_streams((4, 6))
    streams["layer.2"][0][1] = 0
    measure = prepared(corpus)
    measure.update(captured(corpus, streams))
    found = values(measure)
    left = {name: np.concatenate([np.delete(arrays[0], 1, 0), arrays[1]]) for name, arrays in streams.items()}
    for key, (i, j) in {(2, None): (1, 2), (3, None): (2, 3)}.items():
        before, after = left[STREAMS[i]], left[STREAMS[j]]
        assert found["angular-distance", *key].value == pytest.approx(angular_distance(before, after), rel=1e-12)
        assert found["block-influence", *key].value == pytest.approx(block_influence(before, after), rel=1e-12)
        assert found["block-influence", *key].n == 9


def test_frames_of_all_utterances_weigh_the_same_and_runs_of_layers_are_named_by_the_first():
    corpus, counts = speech(0.1, 0.2, 0.3), (3, 9, 5)
    streams = random_streams(counts)
    measure = prepared(corpus)
    measure.update(captured(corpus, streams))
    found = values(measure)
    joined = {name: np.concatenate(arrays) for name, arrays in streams.items()}
    assert {key for key in found if key[0] == "block-influence"} == {("block-influence", k, None) for k in (1, 2, 3)}
    wanted = {(1, None): (0, 1), (2, None): (1, 2), (3, None): (2, 3), (1, "2"): (0, 2), (2, "2"): (1, 3)}
    assert {key[1:] for key in found if key[0] == "angular-distance"} == wanted.keys()
    for key, (i, j) in wanted.items():
        before, after = joined[STREAMS[i]], joined[STREAMS[j]]
        row = found["angular-distance", *key]
        assert row.value == pytest.approx(angular_distance(before, after), rel=1e-12)
        assert row.low < row.value < row.high
        assert row.n == sum(counts)
        assert row.stream == f"layer.{key[0]}"
        if key[1] is None:
            assert found["block-influence", *key].value == pytest.approx(block_influence(before, after), rel=1e-12)


def test_any_split_gives_the_same_and_states_are_read_back():
    corpus, counts = speech(0.1, 0.2, 0.3, 0.4), (3, 9, 5, 4)
    streams = random_streams(counts)
    whole, parts = prepared(corpus), [prepared(corpus) for _ in range(2)]
    whole.update(captured(corpus, streams))
    for part, chosen in zip(parts, ([0, 2], [1, 3]), strict=True):
        part.update(captured([corpus[k] for k in chosen], {n: [a[k] for k in chosen] for n, a in streams.items()}))
    parts[1].merge(parts[0])
    fresh = prepared(corpus)
    fresh.load_state(parts[1].state())
    for key, row in values(whole).items():
        for other in (values(parts[1])[key], values(fresh)[key]):
            assert (other.value, other.low, other.high) == pytest.approx((row.value, row.low, row.high), rel=1e-10)
    with pytest.raises(StateError):
        whole.merge(prepared(speech(0.1, 0.2, 0.3)))


def test_pieces_of_an_utterance_add_up(monkeypatch):
    corpus, streams = speech(0.1), random_streams((50,))
    whole, pieced = prepared(corpus), prepared(corpus)
    whole.update(captured(corpus, streams))
    monkeypatch.setattr("otoscope.measures.blocks.influence.PIECE", 7 * 4 * 6)
    pieced.update(captured(corpus, streams))
    for key, row in values(whole).items():
        assert values(pieced)[key].value == pytest.approx(row.value, rel=1e-12)
        assert values(pieced)[key].n == 50


def test_frames_of_zero_are_left_out_and_counted_and_others_refused():
    corpus, streams = speech(0.1, 0.2), random_streams((4, 6))
    streams["layer.2"][1][2:4] = 0
    measure = prepared(corpus)
    measure.update(captured(corpus, streams))
    found = values(measure)
    assert [found["block-influence", layer, None].n for layer in (1, 2, 3)] == [10, 8, 8]
    assert measure.compute().notes["frames_without_direction"] == {"layer.2": 2}
    kept = [k for k in range(10) if k not in (6, 7)]
    joined = {name: np.concatenate(arrays)[kept] for name, arrays in streams.items()}
    assert found["block-influence", 2, None].value == pytest.approx(
        block_influence(joined["layer.1"], joined["layer.2"])
    )
    streams["layer.1"][0][0, 0] = np.inf
    with pytest.raises(MeasureError, match="not finite"):
        measure.update(captured(corpus, streams))
    with pytest.raises(MeasureError, match="No frame has a direction"):
        prepared(corpus).compute()


def test_a_layer_that_is_passed_by_has_exactly_none():
    model = load(next(case for case in CASES if case.name == "wav2vec2-group").build().eval())
    corpus = speech(0.3, 0.4)
    edited = apply(model, [Bypass("layer.2")])
    measure = BlockInfluence()
    measure.prepare(edited.anatomy, corpus, 0)
    measure.update(run(edited, corpus, streams=measure.streams))
    found = values(measure)
    for name in ("block-influence", "angular-distance"):
        assert found[name, 2, None].value == 0
        assert found[name, 1, None].value > 0
        assert found[name, 3, None].value > 0
    # Over layers 1 and 2 it is what layer 1 does alone.
    assert found["angular-distance", 1, "2"].value == found["angular-distance", 1, None].value
