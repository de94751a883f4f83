"""What the report shows of the pattern of blocks, of abnormal ones and of changes of their attention."""

import plotly.graph_objects as go
import pytest

from otoscope.reporting.abnormal import VERDICT_COLOURS, abnormal_panel, block_lines, p_value
from otoscope.reporting.block_pictures import block_pictures, positions
from otoscope.reporting.block_scalars import scalar_figures, summaries
from otoscope.reporting.page import render_page, render_template
from otoscope.reporting.values import rows_by_measure
from tests.reporting.synthetic_blocks import INTERVENTIONS, synthetic_blocks
from tests.reporting.synthetic_diagnosis import SyntheticDiagnosis, frame, synthetic


@pytest.fixture(scope="module")
def diagnosis():
    return synthetic_blocks(6)


@pytest.fixture(scope="module")
def rows(diagnosis):
    return rows_by_measure(diagnosis.table)


def of(*found):
    return rows_by_measure(frame(list(found)))


def test_the_position_profile_stands_below_the_relative_one(rows):
    pictures = block_pictures(rows, 20.0, {3: "harmful"})
    assert [picture.verdict for picture in pictures] == ["", "", "harmful", "", "", ""]
    shares = positions(rows)
    for layer, picture in enumerate(pictures, 1):
        go.Figure(picture.figure.plotly())
        bars = [trace for trace in picture.figure.data if trace["type"] == "bar"]
        assert len(bars) == 1
        assert bars[0]["x"][0] == 2.5
        assert bars[0]["x"][-1] == 97.5
        assert sum(bars[0]["y"]) == pytest.approx(1)
        assert bars[0]["y"] == [row["value"] for row in shares[layer]]
        # One axis for all, so that blocks can be compared.
        assert picture.figure.layout["yaxis2"]["range"] == pictures[0].figure.layout["yaxis2"]["range"]
        assert picture.figure.layout["yaxis2"]["domain"][1] < picture.figure.layout["yaxis"]["domain"][0]
        assert dict(picture.numbers)["mean offset"].endswith("frames")


def test_without_positions_the_picture_is_that_of_the_relative_profile():
    for picture in block_pictures(rows_by_measure(synthetic(3, 2).table), 20.0, {}):
        assert all(trace["type"] == "scatter" for trace in picture.figure.data)
        assert (picture.verdict, picture.numbers) == ("", ())


def test_positions_are_in_the_order_of_their_bins():
    place = {"measure": "position-profile", "layer": 2}
    found = of(*(place | {"target": str(k), "value": k / 100} for k in (10, 2, 1)), place | {"target": "3"})
    assert [row["target"] for row in positions(found)[2]] == ["1", "2", "10"]


def test_numbers_of_a_block_are_told_in_their_units():
    place = {"measure": "block-summary", "layer": 1}
    found = of(
        place | {"target": "mean-offset", "value": -0.84}, place | {"target": "self-mass", "value": 0.061},
        place | {"target": "unheard-of", "value": 1.0}, place | {"target": "diagonality", "value": None},
    )  # fmt: skip
    assert summaries(found) == {1: [("own frame", "6 %"), ("mean offset", "−0.8 frames")]}


def test_numbers_over_depth_mark_abnormal_blocks(rows):
    figures = scalar_figures(rows, [3, 5])
    assert len(figures) == 9
    for figure in figures:
        go.Figure(figure.plotly())
        assert figure.data[-1]["x"] == [1, 2, 3, 4, 5, 6]
        diamonds = [k for k, symbol in enumerate(figure.data[-1]["marker"]["symbol"], 1) if symbol == "diamond"]
        assert diamonds == [3, 5]
    near = next(figure for figure in figures if figure.title == "near")
    own = next(row for row in rows["block-summary"] if row["target"] == "local-mass")
    assert near.data[-1]["y"][0] == pytest.approx(100 * own["value"])
    assert "z = " in near.data[-1]["hovertext"][0]
    assert scalar_figures(of({"measure": "block-summary", "layer": 1, "target": "diagonality", "value": 1.0})) == []


def test_a_line_a_block_with_reasons_deviation_and_the_farthest_residual(rows):
    lines = {line.layer: line for line in block_lines(rows)}
    assert list(lines) == [1, 2, 3, 4, 5, 6]
    assert (lines[1].pattern, lines[1].reasons, lines[1].p) == ("normal", "", "1.000")
    assert (lines[3].pattern, lines[3].reasons, lines[3].p) == ("abnormal", "uniform", "0.002")
    assert lines[3].deviation == "0.0900 [0.0810, 0.0990]"
    assert lines[3].residual == "mean offset, z = 6.1 [5.7, 6.5]"
    assert lines[3].verdicts == (("harmful", ("WER", "CTC loss")),)
    assert lines[3].decided[0] == "without its attention: −0.8 [−1.2, −0.4] points"
    assert lines[1].decided == ("", "")


def test_the_farthest_residual_may_lie_below():
    place = {"measure": "trend-residual", "layer": 1}
    found = of(
        {"measure": "abnormality", "layer": 1, "label": "normal", "value": 1.0},
        place | {"target": "diagonality", "value": -9.0}, place | {"target": "self-mass", "value": 3.0},
        place | {"target": "mean-offset"},
    )  # fmt: skip
    (line,) = block_lines(found)
    assert line.residual == "diagonality, z = −9.0"
    assert (line.deviation, line.verdicts) == ("–", ())


def test_metrics_that_disagree_are_told_apart():
    place = {"measure": "block-verdict", "layer": 2}
    found = of(
        place | {"target": "wer", "label": "undecided"},
        place | {"target": "ctc-loss", "label": "needed", "other": "local", "value": 0.2, "low": 0.1, "high": 0.3},
    )
    (line,) = block_lines(found)
    assert line.verdicts == (("undecided", ("WER",)), ("needed", ("CTC loss",)))
    assert line.decided == ("", "a local window: +0.200 [+0.100, +0.300] nats per token")
    panel = abnormal_panel(found, {})
    assert panel is not None
    assert panel.patterns == {2: "undecided"}


def test_p_values():
    assert [p_value(value) for value in (0.0, 0.0009, 0.001, 0.05, None)] == [
        "< 0.001",
        "< 0.001",
        "0.001",
        "0.050",
        "–",
    ]


def test_one_forest_an_intervention_with_its_margin_and_verdicts(diagnosis, rows):
    panel = abnormal_panel(rows, diagnosis.provenance["notes"])
    assert panel is not None
    wer, loss = panel.changes
    assert (wer.title, loss.title) == ("WER, points", "CTC loss, nats per token")
    assert len(wer.figures) == len(INTERVENTIONS)
    assert wer.columns[0] == "without its attention"
    for changes, margin in ((wer, 0.002), (loss, 0.02)):
        for figure in changes.figures:
            go.Figure(figure.plotly())
            assert sum(len(trace["x"]) for trace in figure.data) == 6
            # The scale puts the margin on the side of the worse.
            assert figure.layout["shapes"][0]["x0"] > 0, margin
        assert len({tuple(figure.layout["xaxis"]["range"]) for figure in changes.figures}) == 1
    harmful = next(trace for trace in wer.figures[0].data if trace["marker"]["color"] == VERDICT_COLOURS["harmful"])
    assert harmful["y"] == [2]
    assert harmful["marker"]["symbol"] == ["x"]
    assert wer.lines[2][:2] == (3, "harmful")
    assert wer.lines[2][2][0] == "−0.8 [−1.2, −0.4]"


def test_the_margin_of_an_accuracy_lies_left_of_zero():
    place = {"measure": "block-intervention", "target": "probe-phone", "other": "bypass"}
    notes = {"block-intervention": {"metrics": {"probe-phone": {"criterion": {"margin": 0.01}}}}}
    panel = abnormal_panel(of(*(place | {"layer": k, "value": -0.1 * k} for k in (1, 2))), notes)
    assert panel is not None
    (figure,) = panel.changes[0].figures
    assert figure.layout["shapes"][0]["x0"] < 0
    assert panel.changes[0].title == "phone probe accuracy, points"


def test_the_control_is_told_in_its_own_words_or_by_its_number(rows):
    panel = abnormal_panel(rows, {})
    assert panel is not None
    assert panel.changes[0].control.startswith("Of 4 normal blocks the same rule would call 25 [5, 70] % harmful")
    told = abnormal_panel(rows, {"block-control": {"says": {"wer": "By wer nothing is said."}}})
    assert told is not None
    assert told.changes[0].control == "By wer nothing is said."
    assert told.changes[1].control.startswith("Of 4 normal")


def test_what_is_missing_leaves_its_part_away():
    assert abnormal_panel({}, {}) is None
    panel = abnormal_panel(of({"measure": "abnormality", "layer": 1, "label": "normal", "value": None}), {})
    assert panel is not None
    assert (panel.scalars, panel.changes, panel.lines[0].p) == ([], [], "–")
    nothing = {"measure": "block-intervention", "layer": 1, "target": "wer", "other": "bypass", "value": None}
    assert abnormal_panel(of(nothing), {}) is None


def test_the_section_is_written_and_its_words_escaped():
    found = of(
        {"measure": "abnormality", "layer": 1, "label": "abnormal", "target": "<b>", "value": 0.01},
        {"measure": "block-intervention", "layer": 1, "target": "<i>", "other": "<u>", "value": 0.1},
        {"measure": "block-verdict", "layer": 1, "target": "<i>", "label": "<s>"},
    )
    panel = abnormal_panel(found, {})
    text = render_template("abnormal.html", {"abnormal": panel, "verdict_colours": VERDICT_COLOURS})
    assert "&lt;b&gt;" in text
    for raw in ("<i>", "<u>", "<s>"):
        assert raw not in text
    assert render_template("abnormal.html", {"abnormal": None, "verdict_colours": {}}).strip() == ""


@pytest.mark.parametrize("layers", [1, 2, 24])
def test_the_page_is_written_for_models_of_any_depth(layers):
    page = render_page(synthetic_blocks(layers))
    assert page.count('id="figure-block-change-wer-bypass"') == 1
    assert page.count('id="figure-criticality-block"') == 1
    for name in ("abnormal", "criticality", "cheap"):
        assert page.count(f'id="{name}"') == 1


def test_a_diagnosis_without_these_measures_has_none_of_these_sections():
    page = render_page(synthetic(2, 2))
    for name in ("abnormal", "criticality", "cheap"):
        assert f'id="{name}"' not in page
    assert "holds no block measure" in render_page(SyntheticDiagnosis(frame([])))


def test_verdicts_alone_are_a_block_measure():
    page = render_page(
        SyntheticDiagnosis(frame([{"measure": "abnormality", "layer": 1, "label": "normal", "value": 1.0}]))
    )
    assert "holds no block measure" not in page
    assert ">normal</b>" in page
