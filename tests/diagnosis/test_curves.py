"""Curves along the streams: depth, peaks, and differences with their intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from otoscope.diagnosis.curves import FOLDS, UNPAIRED, Curve, Depth, curves, difference, titles
from otoscope.diagnosis.result import table_of
from tests.diagnosis.side_by_side import diagnosis, folded, row, streams_of


def only(found) -> Curve:
    (curve,) = found.values()
    return curve


def of(made) -> Curve:
    return only(curves(made.table, made.arrays))


def test_depth_goes_from_the_waveform_to_the_output():
    depth = Depth(4, 2)
    streams = ["conv.1", "conv.2", "input", "layer.1", "layer.3", "layer.4", "final_norm"]
    assert [depth(one) for one in streams] == [-1.0, -0.5, 0.0, 0.25, 0.75, 1.0, 1.0]
    assert depth("mixer") is None
    about = {"layers": 4, "streams": ["conv.1", "conv.2"]}
    assert Depth.of(diagnosis([row("cca-phone", "layer.2", 0.5)], model=about)) == depth
    # A model that lost layers names those that are left as they were.
    assert Depth.of(diagnosis([row("cca-phone", "layer.9", 0.5)], model={"layers": 4})).layers == 9


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_matched_layers_are_the_nearest_in_depth(layers, others, data):
    mine, theirs = Depth(layers, 7), Depth(others, 7)
    number = data.draw(st.integers(1, layers))
    found = mine.matched(f"layer.{number}", theirs)
    nearest = min(abs(k / others - number / layers) for k in range(1, others + 1))
    assert abs(theirs(found) - number / layers) == pytest.approx(nearest, abs=1e-12)
    for stream in ("input", "final_norm", "conv.3"):
        assert mine.matched(stream, theirs) == stream
    assert mine.matched(f"layer.{number}", mine) == f"layer.{number}"


def test_curves_leave_out_what_is_no_number_of_a_stream():
    rows = [
        row("cca-phone", "input", 0.5), row("cca-phone", "layer.1", None), row("cca-phone", "layer.2", math.nan),
        row("globalness", "layer.1", 0.5, head=0), row("relative-profile", "layer.1", 0.5, target="-3"),
        row("probe", "", 0.5, target="all"), *(row("cka", "input", 0.5, other=other) for other in ("input", "layer.1")),
        row("cca-inter", "layer.1", 0.5, other="layer.2", target="other"),
    ]  # fmt: skip
    rows[5].stream = None
    found = curves(table_of(rows))
    assert {key: list(curve.rows) for key, curve in found.items()} == {
        ("cca-inter", ""): ["layer.1"],
        ("cca-phone", "phone"): ["input"],
    }


def test_scores_of_all_streams_together_are_taken_on_request():
    together = row("probe-weighted-phone", "input", 0.7)
    together.stream = None
    table = table_of([row("cca-phone", "input", 0.5), together])
    assert list(curves(table)) == [("cca-phone", "phone")]
    (whole,) = curves(table, whole=True)[("probe-weighted-phone", "phone")].rows
    assert whole == "all streams"


def test_several_targets_of_a_measure_are_curves_of_their_own():
    found = curves(table_of([row("awd", "input", 0.5, target=target) for target in ("pooled", "dtw")]))
    assert list(titles(found).values()) == ["awd (pooled)", "awd (dtw)"]


def test_the_best_is_the_lowest_where_the_ceiling_lies_below():
    values = {"input": 0.3, "layer.1": 0.1, "layer.2": 0.2}
    error = only(curves(table_of([row("abx", s, v, floor=0.5, ceiling=0.0) for s, v in values.items()])))
    assert error.low_is_good
    assert error.best() == "layer.1"
    assert error.above_floor() is True
    score = only(curves(table_of([row("cca-phone", s, v, floor=0.05) for s, v in values.items()])))
    assert not score.low_is_good
    assert score.best() == "input"


@pytest.mark.parametrize(("floor", "above"), [(0.1, True), (0.29, False), (None, None)])
def test_a_peak_is_held_against_its_floor(floor, above):
    assert only(curves(table_of([row("cca-phone", "input", 0.3, floor=floor)]))).above_floor() is above


def test_a_paired_difference_is_the_corrected_t_of_the_folds():
    base = np.array([0.4, 0.5, 0.6, 0.7, 0.8])
    lead = np.array([0.1, 0.12, 0.11, 0.09, 0.08])
    a, b = of(folded({"layer.1": base})), of(folded({"layer.1": base + lead}))
    found = difference(a, "layer.1", b, "layer.1")
    half = student.ppf(0.975, 4) * lead.std(ddof=1) * math.sqrt(1 / 5 + 1 / 3)
    assert found.pairing == FOLDS
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    apart = difference(a, "layer.1", b, "layer.1", paired=False)
    assert apart.pairing == UNPAIRED
    assert apart.low < 0 < found.low  # the folds differ widely, and alike


def test_an_unpaired_difference_of_even_intervals_adds_their_squares():
    a = only(curves(table_of([row("cca-phone", "input", 0.3, 0.03)])))
    b = only(curves(table_of([row("cca-phone", "input", 0.5, 0.04)])))
    found = difference(a, "input", b, "input")
    assert (found.low, found.high) == pytest.approx((0.15, 0.25))
    a = only(curves(table_of([row("cca-phone", "input", 0.3, low=0.3, high=0.33)])))
    b = only(curves(table_of([row("cca-phone", "input", 0.5, low=0.46, high=0.5)])))
    found = difference(a, "input", b, "input")  # b may be lower and a higher, and nothing else
    assert (found.low, found.high) == pytest.approx((0.15, 0.2))


def test_unpaired_intervals_cover_the_difference_of_independent_scores():
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(1000):
        ends = []
        for true in (0.3, 0.5):
            found = rng.normal(true, 0.02)
            ends.append(only(curves(table_of([row("cca-phone", "input", found, 1.96 * 0.02)]))))
        found = difference(ends[0], "input", ends[1], "input")
        inside += found.low <= 0.2 <= found.high
    assert 0.93 <= inside / 1000 <= 0.97


def test_without_an_interval_there_is_none_of_the_difference():
    a = only(curves(table_of([row("cca-phone", "input", 0.3, low=None)])))
    b = only(curves(table_of([row("cca-phone", "input", 0.5)])))
    found = difference(a, "input", b, "input")
    assert found.value == pytest.approx(0.2)
    assert found.pairing is None
    assert np.isnan([found.low, found.high]).all()


def test_folds_that_are_undefined_in_one_only_are_not_paired():
    base = np.array([0.4, 0.5, 0.6, 0.7, 0.8])
    a, b = of(folded({"layer.1": base})), of(folded({"layer.1": base + 0.1}))
    b.scores["layer.1"][0] = np.nan
    assert difference(a, "layer.1", b, "layer.1").pairing == UNPAIRED


def test_streams_as_good_as_the_best_are_those_whose_lead_comes_and_goes():
    best = np.array([0.4, 0.5, 0.6, 0.7, 0.8])
    scores = {
        "layer.1": best,
        "layer.2": best - np.array([0.02, 0.021, 0.02, 0.019, 0.02]),
        "layer.3": best - np.array([0.3, -0.28, 0.1, -0.1, 0.03]),
    }
    assert of(folded(scores)).as_good() == (["layer.3"], FOLDS)
    # Without the folds the intervals are far too wide to tell any of them.
    made = folded(scores)
    assert only(curves(made.table)).as_good() == (["layer.2", "layer.3"], UNPAIRED)
    lone = only(curves(table_of([row("cca-phone", s, 0.5, low=None) for s in streams_of(2)])))
    assert lone.as_good() == ([], None)


def test_of_errors_the_worse_is_the_higher():
    low = np.array([0.1, 0.12, 0.11, 0.1, 0.13])
    made = folded({"layer.1": low, "layer.2": low + np.array([0.1, 0.11, 0.1, 0.09, 0.1])}, "abx")
    made.table = made.table.with_columns(floor=0.5, ceiling=0.0)
    curve = of(made)
    assert curve.best() == "layer.1"
    assert curve.as_good() == ([], FOLDS)


def test_scores_of_folds_are_not_taken_where_a_stream_has_two_rows():
    """Two targets share an array of scores: which line is whose cannot be told."""
    rows = [row("awd", s, 0.5, target=t) for s in ("input", "layer.1") for t in ("pooled", "pooled-within")]
    made = diagnosis(rows, arrays={"awd.scores": np.random.default_rng(0).random((4, 5))})
    found = curves(made.table, made.arrays)
    assert [curve.scores for curve in found.values()] == [{}, {}]
