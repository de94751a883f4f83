"""What the report shows of critical and ambient units, and of the cheap scores beside them."""

import math

import plotly.graph_objects as go
import pytest

from otoscope.diagnosis.metric_words import score_name
from otoscope.reporting.cheap import MOST, cheap_panel
from otoscope.reporting.criticality import LETTERS, criticality_panel, granularity, mode_order
from otoscope.reporting.forest import Scale
from otoscope.reporting.page import render_template
from otoscope.reporting.values import rows_by_measure
from tests.reporting.synthetic_blocks import CHURN, MODES, PARTS, synthetic_blocks
from tests.reporting.synthetic_diagnosis import frame


@pytest.fixture(scope="module")
def diagnosis():
    return synthetic_blocks(6)


@pytest.fixture(scope="module")
def rows(diagnosis):
    return rows_by_measure(diagnosis.table)


@pytest.fixture(scope="module")
def panel(diagnosis, rows):
    return criticality_panel(rows, diagnosis.provenance["notes"])


def of(*found):
    return rows_by_measure(frame(list(found)))


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("layer.12", "block"), ("layer.1.convolution", "sub-module"), ("layer.1.feed_forward.2", "sub-module"),
        ("layer.1.norms", "sub-module"), ("layer.1.feed_forward.2.weight", "tensor"), ("conv.4", "tensor"),
    ],
)  # fmt: skip
def test_sizes_of_units(unit, size):
    assert granularity(unit) == size


def test_modes_have_an_order():
    assert sorted(["mean", "other", "bypass", "rewind:b", "re-initialise"], key=mode_order) == [
        "re-initialise", "rewind:b", "bypass", "mean", "other",
    ]  # fmt: skip


def test_blocks_stand_against_modes_and_finer_units_against_parts(panel, rows):
    blocks, parts = panel.grids
    assert (blocks.title, parts.title) == ("Blocks", "Sub-modules")
    assert blocks.choices == ["CTC loss", "WER"]
    assert len(parts.choices) == len(parts.data) == len(MODES)
    assert [len(blocks.data[0]["y"]), len(blocks.data[0]["x"])] == [6, len(MODES)]
    assert parts.data[0]["x"] == list(PARTS)
    for grid in panel.grids:
        go.Figure(grid.plotly())
        assert [trace["visible"] for trace in grid.data] == [True] + [False] * (len(grid.data) - 1)
    shares = {
        (row["stream"], row["other"]): row["value"]
        for row in rows["criticality-normalised"]
        if row["target"] == "ctc-loss"
    }
    assert blocks.data[0]["z"][2][1] == shares["layer.3", MODES[1]]
    assert parts.data[2]["z"][4][0] == shares["layer.5.attention", MODES[2]]


def test_labels_are_letters_and_words_not_colours_alone(panel, rows):
    labels = {(row["stream"], row["other"]): row["label"] for row in rows["criticality"] if row["target"] == "ctc-loss"}
    cells = panel.grids[0].data[0]
    for i, layer in enumerate(cells["y"]):
        for j, mode in enumerate(MODES):
            label = labels[f"layer.{layer}", mode]
            assert cells["text"][i][j].endswith(f" {LETTERS[label]}")
            assert cells["hovertext"][i][j].endswith(label)
    # Only one metric labels; cells of another show the number alone.
    assert all(text.replace(".", "").isdigit() for line in panel.grids[0].data[1]["text"] for text in line)


def test_one_forest_a_mode_with_thresholds_of_that_mode(panel):
    loss, parts, wer = panel.forests
    assert [one.title for one in panel.forests] == [
        "CTC loss (nats per token), blocks", "CTC loss (nats per token), sub-modules", "WER (points), blocks",
    ]  # fmt: skip
    assert [name for name, _ in parts.parts] == list(PARTS)
    assert len({colour for _, colour in parts.parts}) == len(PARTS)
    for forests in panel.forests:
        assert len(forests.figures) == len(MODES)
        assert len({tuple(figure.layout["xaxis"]["range"]) for figure in forests.figures}) == 1
        for figure in forests.figures:
            go.Figure(figure.plotly())
    ambient = {figure.title: [shape["x0"] for shape in figure.layout["shapes"]] for figure in loss.figures}
    assert ambient["mean output"][0] > ambient["bypassed"][0] > 0
    scale = Scale("ctc-loss", 0.02, -1, 1)
    assert ambient["bypassed"] == [pytest.approx(scale(0.02)), pytest.approx(scale(0.5 * 5.2))]
    assert loss.figures[0].note == "all +5.200"
    assert wer.figures[0].note == "all +80.0"


def test_thresholds_of_an_accuracy_lie_left_of_zero():
    found = [
        {"measure": "criticality", "stream": f"layer.{k}", "layer": k, "target": "probe-phone", "other": "bypass"}
        | {"value": -0.1 * k, "low": -0.1 * k - 0.01, "high": -0.1 * k + 0.01, "ceiling": -0.5, "label": "intermediate"}
        for k in (1, 2)
    ]  # fmt: skip
    notes = {"criticality": {"thresholds": {"critical": 0.5}, "tolerance": {"probe-phone": {"bypass": 0.01}}}}
    panel = criticality_panel(of(*found), notes)
    assert panel is not None
    assert [shape["x0"] < 0 for shape in panel.forests[0].figures[0].layout["shapes"]] == [True, True]
    assert "less than 1 points" in panel.thresholds
    assert panel.grids == []  # without shares there is nothing to colour


def test_the_rule_is_told_with_its_numbers(panel):
    assert "Labels go by CTC loss" in panel.thresholds
    assert "less than 0.02 to 0.03 nats per token" in panel.thresholds
    assert "more than 50 %" in panel.thresholds


def test_what_was_not_finite_is_told():
    found = [
        {
            "measure": "criticality",
            "stream": "layer.1",
            "layer": 1,
            "target": "ctc-loss",
            "other": "bypass",
            "value": 0.2,
        }
        | {"low": 0.1, "high": 0.3, "ceiling": 2.0, "label": "intermediate"}
    ]
    told = {
        "counted_as_chance": {"ctc-loss": {"bypass": {"layer.2": 3}}},
        "not_finite": {"wer": {"re-initialise": "x"}},
    }
    text = criticality_panel(of(*found), {"criticality": told}).thresholds
    assert "Where a reset of layer.2 leaves no finite value, that with all units reset is counted." in text
    assert text.endswith("values are not finite: re-initialised.")


def test_without_notes_the_page_has_no_thresholds_and_says_so(rows):
    panel = criticality_panel(rows, {})
    assert panel is not None
    assert "less than the stated tolerance, critical where by more than the stated share" in panel.thresholds
    assert not any(figure.layout["shapes"] for one in panel.forests for figure in one.figures)
    assert criticality_panel(rows, {"criticality": None}).forests


def test_draws_span_from_the_least_to_the_greatest(panel, rows):
    (trace,) = panel.draws.data
    spread = [row for row in rows["criticality-spread"] if row["target"] == "ctc-loss" and row["stream"] == "layer.1"]
    scale = Scale.of("ctc-loss", [])
    assert len(trace["x"]) == 6
    assert trace["error_x"]["array"][0] > 0
    assert trace["error_x"]["arrayminus"][0] > 0
    assert f"deviation {spread[0]['value']:.3f}" in trace["hovertext"][0]
    assert math.isfinite(scale(1.0))


def test_module_criticality_of_zero_has_a_place_on_a_logarithmic_axis():
    found = of(
        *(
            {"measure": "module-criticality", "stream": f"layer.{k}", "layer": k, "target": "ctc-loss", "value": value}
            for k, value in ((1, 0.0), (2, 5.0), (3, None), (4, 500.0))
        )
    )
    panel = criticality_panel(found, {})
    assert panel is not None
    go.Figure(panel.module.plotly())
    assert panel.module.data[0]["x"] == [0.5, 5.0, 500.0]
    assert "μ = 0" in panel.module.data[0]["hovertext"][0]
    assert panel.module.layout["yaxis"]["ticktext"] == ["1", "2", "4"]
    assert panel.forests == panel.grids == []


def test_units_outside_of_layers_have_lines_of_their_own():
    place = {"target": "ctc-loss", "other": "re-randomise"}
    units = [("layer.1.attention.q_proj.weight", 1), ("encoder.pos_conv_embed", None)]
    found = []
    for unit, layer in units:
        found.append(
            place | {"measure": "criticality", "stream": unit, "layer": layer, "value": 0.5, "label": "critical"}
        )
        found.append(place | {"measure": "criticality-normalised", "stream": unit, "layer": layer, "value": 0.7})
    panel = criticality_panel(of(*found), {})
    assert panel is not None
    (grid,) = panel.grids
    go.Figure(grid.plotly())
    assert grid.title == "Tensors"
    assert grid.data[0]["y"] == ["1", "encoder.pos_conv_embed"]
    assert sum(value is not None for line in grid.data[0]["z"] for value in line) == 2
    assert panel.forests == []


def test_scores_are_drawn_over_layers_and_churn_against_each_model(rows):
    panel = cheap_panel(rows)
    assert panel is not None
    assert [figure.title for figure in panel.scores] == [
        "block influence", "angular distance", "gradient norm, relative", "Fisher information",
    ]  # fmt: skip
    # Of angular distance only that of single blocks.
    assert all(len(figure.data) == 1 and len(figure.data[0]["x"]) == 6 for figure in panel.scores)
    assert len(panel.churn) == len(CHURN)
    for figure in (*panel.scores, *panel.churn):
        go.Figure(figure.plotly())
    assert [trace["name"] for trace in panel.churn[0].data] == ["initial weights", "seed:second"]


def test_churn_of_parts_is_a_line_a_part():
    found = of(
        *(
            {
                "measure": "churn",
                "stream": f"layer.{k}{part}",
                "layer": k,
                "target": "rms",
                "other": other,
                "value": 0.1 * k,
            }
            for k in (1, 2)
            for part in ("", ".attention", ".norms", ".attention.q_proj.weight")
            for other in ("initial", "step-100")
        )
    )
    panel = cheap_panel(found)
    assert panel is not None
    (figure,) = panel.churn
    assert [(trace["type"], trace["name"]) for trace in figure.data] == [
        ("bar", "initial weights"), ("bar", "step-100"), ("scatter", "attention"), ("scatter", "norms"),
    ]  # fmt: skip


def test_scatters_join_scores_with_the_change_of_the_same_unit(rows):
    panel = cheap_panel(rows)
    assert panel is not None
    assert [title for title, _ in panel.predictions] == [
        "blocks re-initialised, CTC loss", "blocks re-randomised, CTC loss",
    ]  # fmt: skip
    for _, figures in panel.predictions:
        strengths = [float(figure.note.split()[2].replace("−", "-")) for figure in figures]
        assert strengths == sorted(strengths, key=abs, reverse=True)
        for figure in figures:
            go.Figure(figure.plotly())
    figure = next(figure for figure in panel.predictions[0][1] if figure.title == "block influence")
    influence = {row["stream"]: row["value"] for row in rows["block-influence"]}
    changes = {
        row["stream"]: row["value"]
        for row in rows["criticality"]
        if (row["target"], row["other"]) == ("ctc-loss", "re-initialise")
    }
    trace = figure.data[0]
    for text, x, y in zip(trace["text"], trace["x"], trace["y"], strict=True):
        assert (x, y) == (influence[f"layer.{text}"], changes[f"layer.{text}"])
    assert figure.note.startswith("ρ = ")


def test_scores_of_several_references_are_told_apart():
    critical = {"measure": "criticality", "target": "wer", "other": "bypass", "label": "critical"}
    churn = {"measure": "churn", "target": "rms"}
    units = [(f"layer.{k}", k) for k in (1, 2, 3)]
    found = [critical | {"stream": unit, "layer": k, "value": 0.1 * k} for unit, k in units]
    for other, size in (("initial", 1.0), ("seed:b", 7.0)):
        found += [churn | {"stream": unit, "layer": k, "other": other, "value": size * k} for unit, k in units]
        found.append(
            {"measure": "criticality-prediction", "stream": "block", "target": f"churn-rms ({other})", "other": "bypass",
             "label": "wer", "value": 1.0, "n": 3}
        )  # fmt: skip
    panel = cheap_panel(of(*found))
    assert panel is not None
    ((_, figures),) = panel.predictions
    assert {figure.title: figure.data[0]["x"] for figure in figures} == {
        "churn (rms, initial)": [1, 2, 3], "churn (rms, seed:b)": [7, 14, 21],
    }  # fmt: skip
    assert len({figure.id for figure in figures}) == 2


def test_what_is_lost_without_attention_is_a_score_of_the_attention():
    found = [{"measure": "criticality-prediction", "stream": "sub-module", "target": "importance-loo", "other": "mean"}]
    found[0] |= {"label": "wer", "value": 1.0, "n": 3}
    for k in (1, 2, 3):
        place = {"layer": k, "target": "wer", "value": 1.0 * k}
        found.append(place | {"measure": "importance-loo", "stream": f"layer.{k}", "other": "attention"})
        found.append(place | {"measure": "criticality", "stream": f"layer.{k}.attention", "other": "mean"})
    panel = cheap_panel(of(*found))
    assert panel is not None
    assert panel.predictions[0][0] == "sub-modules replaced by their mean output, WER"
    assert panel.predictions[0][1][0].data[0]["x"] == [1, 2, 3]


def test_of_many_scores_the_strongest_are_drawn():
    units = [(f"layer.{k}", k) for k in (1, 2, 3)]
    place = {"target": "wer", "other": "mean"}
    found = [
        place | {"measure": "criticality", "stream": u, "layer": k, "value": 1.0 * k, "label": "ambient"}
        for u, k in units
    ]
    for n in range(2 * MOST):
        found += [
            {"measure": "churn", "stream": u, "layer": k, "target": "rms", "other": f"step-{n}", "value": 1.0}
            for u, k in units
        ]
        place = {"stream": "block", "target": f"churn-rms (step-{n})", "other": "mean", "value": -n / 20}
        found.append({"measure": "criticality-prediction"} | place)
    panel = cheap_panel(of(*found))
    assert panel is not None
    titles = [figure.title for figure in panel.predictions[0][1]]
    assert titles == [f"churn (rms, step-{n})" for n in range(2 * MOST - 1, MOST - 1, -1)]


def test_names_of_scores():
    assert score_name("gradient-fisher (ctc-loss)") == "Fisher information (ctc-loss)"
    assert score_name("unheard-of") == "unheard-of"


def test_what_is_missing_leaves_its_part_away():
    assert criticality_panel({}, {}) is None
    assert cheap_panel({}) is None
    none = of({"measure": "churn", "stream": "layer.1", "layer": 1, "target": "rms", "other": "initial", "value": None})
    assert cheap_panel(none) is None
    alone = of(
        {"measure": "criticality-prediction", "stream": "block", "target": "churn-rms", "other": "mean", "value": 0.4}
    )
    assert cheap_panel(alone) is None


def test_the_section_is_written_with_every_figure_once(panel, rows):
    cheap = cheap_panel(rows)
    text = render_template("criticality.html", {"criticality": panel, "cheap": cheap})
    assert cheap is not None
    for figure in (*panel.figures, *cheap.figures):
        assert text.count(f'id="{figure.id}"') == 1, figure.id
    assert render_template("criticality.html", {"criticality": None, "cheap": None}).strip() == ""


def test_names_are_escaped():
    place = {"stream": "layer.1", "layer": 1, "target": "<i>", "other": "rewind:<b>"}
    found = of(
        place | {"measure": "criticality", "value": 0.1, "label": "critical"},
        place | {"measure": "criticality-normalised", "value": 0.1},
    )
    panel = criticality_panel(found, {})
    assert panel is not None
    text = render_template("criticality.html", {"criticality": panel, "cheap": None})
    assert "<i>" not in text.replace("<i style=", "")
    assert "rewound to <b>" not in text
    assert panel.grids[0].data[0]["x"] == ["rewound to &lt;b&gt;"]
