"""Forest plots: an axis that is linear near zero and logarithmic beyond, and changes in words."""

import itertools
import math

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.reporting.forest import NEAREST, Mark, Scale, change, forest


def row(value, low=None, high=None, **more):
    return {"value": value, "low": low, "high": high} | more


@given(st.floats(1e-6, 10), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_the_axis_keeps_order_and_sign(near, one, other):
    scale = Scale("ctc-loss", near, -1e3, 1e3)
    assert scale(0) == 0
    assert scale(-one) == -scale(one)
    assert (scale(one) <= scale(other)) == (one <= other) or math.isclose(one, other, rel_tol=1e-9)


def test_it_is_linear_near_zero_and_logarithmic_beyond():
    scale = Scale("ctc-loss", 0.1, -1, 100)
    assert scale(0.002) == pytest.approx(2 * scale(0.001), rel=1e-3)
    assert scale(100) - scale(10) == pytest.approx(math.log(10), rel=1e-3)


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("ctc-loss", [0.5, -0.02], ["0", "+0.1"]),
        ("wer", [0.5, 0.01], ["0", "+10"]),
        ("ctc-loss", [0.0], ["0"]),
        ("ctc-loss", [-3.0], ["0", "−1"]),
    ],
)
def test_ticks_are_powers_of_ten_in_the_unit_of_readers(metric, values, expected):
    scale = Scale.of(metric, [row(value) for value in values])
    axis = scale.axis()
    assert set(expected) <= set(axis["ticktext"])
    places = sorted(axis["tickvals"])
    apart = NEAREST * (scale(scale.high) - scale(scale.low))
    assert all(b - a >= apart for a, b in itertools.pairwise(places))
    assert axis["range"][0] <= min(places)
    assert max(places) <= axis["range"][1]


def test_ticks_stand_where_their_numbers_are():
    scale = Scale.of("wer", [row(0.5, 0.4, 0.6)], near=0.004)
    axis = scale.axis()
    at = dict(zip(axis["ticktext"], axis["tickvals"], strict=True))
    assert at["+10"] == pytest.approx(scale(0.1))
    assert at["0"] == 0


def test_the_axis_holds_all_intervals_and_both_sides_of_zero():
    scale = Scale.of("ctc-loss", [row(0.5, 0.2, 0.9), row(-0.1, -0.3, 0.1), row(None)])
    assert scale.low < -0.3
    assert scale.high > 0.9
    above = Scale.of("ctc-loss", [row(5.0, 4.0, 6.0)])
    assert above.low < 0 < above.high


@pytest.mark.parametrize(
    ("metric", "found", "expected"),
    [
        ("wer", row(-0.008, -0.012, -0.003), "−0.8 [−1.2, −0.3]"),
        ("ctc-loss", row(0.05, 0.01, 0.09), "+0.050 [+0.010, +0.090]"),
        ("probe-phone", row(0.0), "0.0"),
        ("wer", row(None), "–"),
        ("wer", row(-0.00001, -0.1, 0.1), "0.0 [−10.0, +10.0]"),
    ],
)
def test_changes_have_signs(metric, found, expected):
    assert change(found, metric) == expected


def test_marks_without_values_are_left_away_and_thresholds_drawn():
    marks = [
        Mark(0, row(0.2, 0.1, 0.4), "layer.1", "#000000"),
        Mark(1, row(None), "layer.2", "#000000"),
        Mark(2, row(0.3), "<layer.3>", "#111111", "x", ("critical",)),
    ]
    scale = Scale.of("ctc-loss", [mark.row for mark in marks])
    figure = forest("figure-f", "label", marks, ["1", "2", "<3>"], scale, thresholds=[0.15])
    go.Figure(figure.plotly())
    assert [trace["y"] for trace in figure.data] == [[0], [2]]
    assert figure.data[0]["x"] == [scale(0.2)]
    bars = figure.data[0]["error_x"]
    assert bars["array"] == [pytest.approx(scale(0.4) - scale(0.2))]
    assert bars["arrayminus"] == [pytest.approx(scale(0.2) - scale(0.1))]
    assert figure.data[1]["error_x"]["array"] == [0.0]
    assert figure.layout["shapes"][0]["x0"] == scale(0.15)
    assert figure.layout["yaxis"]["ticktext"] == ["1", "2", "&lt;3&gt;"]
    assert figure.data[1]["hovertext"] == ["<b>&lt;layer.3&gt;</b><br>+0.300<br>critical"]


def test_of_many_lines_no_two_names_are_written_over_each_other():
    figure = forest("f", "f", [], [str(k) for k in range(48)], Scale.of("wer", []), line=5)
    assert len(figure.layout["yaxis"]["tickvals"]) == 16
    assert figure.height == 56 + 5 * 48
