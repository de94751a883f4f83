"""The report of segmentation says what the rows and arrays say."""

import numpy as np
import pytest

from otoscope.diagnosis.result import table_of
from otoscope.measures.measure import Row
from otoscope.reporting.segmentation import segmentation_panel
from otoscope.reporting.values import rows_by_measure

NAME = "head-segmentation"


def _row(target, value, **more):
    return Row(NAME, target=target, value=value, low=value - 0.1, high=value + 0.1, **more)


def _panel(label="undecided", arrays=None):
    rows = [
        _row("r-value", 0.4, stream="mfcc"),
        _row("precision", 0.9, stream="mfcc"),
        _row("r-value", 0.5, stream="input"),
        _row("r-value", 0.6, stream="layer.1", layer=1),
        _row("r-value", 0.7, stream="layer.1", layer=1, head=2),
        _row("r-value", 0.2, stream="layer.2", layer=2, head=0),
        _row("best-head", 0.7, stream="layer.1", layer=1, head=2, floor=0.3),
        _row("best-head-less-mfcc", 0.3, stream="layer.1", layer=1, head=2, other="mfcc", label=label),
        _row("best-head-less-layer", 0.1, stream="layer.1", layer=1, head=2, other="layer.1", label=label),
    ]
    return segmentation_panel(rows_by_measure(table_of(rows)), arrays or {})


def test_nothing_gives_no_panel():
    assert segmentation_panel({}, {}) is None


@pytest.mark.parametrize(
    ("label", "says"), [("pass", "it is better"), ("fail", "it is worse"), ("undecided", "neither is shown")]
)
def test_the_best_head_in_words(label, says):
    best, mfcc, layer = _panel(label).sentences
    assert "Head 1.2" in best
    assert "0.700 [0.600, 0.800]" in best
    assert "0.300" in best
    assert "MFCC is 0.300 [0.200, 0.400]" in mfcc
    assert "(layer.1) is 0.100" in layer
    assert says in mfcc
    assert says in layer


def test_r_values_stand_at_their_layers():
    (figure,) = _panel().figures
    named = {trace.get("name"): trace for trace in figure.data if "name" in trace}
    assert named["MFCC"]["y"] == [0.4, 0.4]
    frames, heads = named["frames of the layer"], named["rows of a head&#x27;s map"]
    assert (frames["x"], frames["y"]) == ([0, 1], [0.5, 0.6])
    assert (heads["x"], heads["y"]) == ([1, 2], [0.7, 0.2])
    assert figure.layout["xaxis"]["ticktext"] == ["in", "1", "2"]


def test_precision_stands_over_recall_and_settings_that_find_nothing_are_left_out():
    curve = np.array([[0.8, 0.1], [0.5, 0.6], [0.0, 0.0]])
    _, figure = _panel(arrays={f"{NAME}-head": curve}).figures
    (trace,) = figure.data
    assert trace["x"] == [0.1, 0.6]
    assert trace["y"] == [0.8, 0.5]


def test_a_model_without_heads_still_has_its_frames():
    rows = rows_by_measure(table_of([_row("r-value", 0.5, stream="input")]))
    panel = segmentation_panel(rows, {})
    assert panel.sentences == []
    assert len(panel.figures) == 1
