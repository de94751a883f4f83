"""What the report says of relation maps."""

import math

import numpy as np
import pytest

from otoscope.reporting.page import render_template, script_json
from otoscope.reporting.relations import MOST_MAPS, chosen_heads, relation_panels
from otoscope.reporting.values import rows_by_measure
from tests.reporting.synthetic_diagnosis import frame

LABELS = ["aa", "b", "<s>", "sil"]
HEADS = [(1, 0), (1, 2), (2, 0), (2, 1), (2, 3)]
"""Heads 1.1 and 2.2 were cut; the tensors hold two and three."""

OPERATIONS = ["attends silence", "none seen", "not <s>, b", "attends aa", "stays near"]


def rows(key="phone", **without):
    found = []
    for k, (layer, head) in enumerate(HEADS):
        place = {"layer": layer, "head": head, "stream": f"layer.{layer}", "target": "phone", "n": 9}
        value = (-1) ** k * (0.2 + 0.1 * k)
        ends = {"low": value - 0.05, "high": value + 0.05}
        found += [
            place | ends | {"measure": f"relation-{key}", "value": value, "floor": 0.01, "label": LABELS[k % 4]},
            place | {"measure": f"operation-{key}", "value": 0.5 - 0.1 * k, "label": OPERATIONS[k]},
            place | {"measure": "verticality", "value": -5 + 0.1 * k, "target": None},
            place | {"measure": "category", "value": 1.0, "label": "global", "target": None},
        ]
        for n, label in enumerate(LABELS):
            side = "focus" if n == 3 else "neglect" if n == 1 and k < 2 else None
            found.append(
                place | {"measure": f"concentration-{key}", "target": label, "value": 0.1 * (n + k), "label": side}
            )
    found.append(
        {"measure": f"relation-verticality-{key}", "target": "phone", "value": 0.5, "low": 0.2, "high": 0.8,
         "floor": 0.1, "label": "positive", "n": 5}
    )  # fmt: skip
    return rows_by_measure(frame([row for row in found if row["measure"] not in without.get("without", ())]))


def arrays(key="phone"):
    maps = np.full((2, 3, 5, 5), np.nan, np.float32)
    for layer, heads in ((0, 2), (1, 3)):
        for head in range(heads):
            maps[layer, head] = 10 * (layer + 1) + head
    maps[1, 2] = [[0, 3, 1, -1, 9]] * 5
    maps[1, 2, 0, 0] = np.nan
    return {f"relation-{key}.map": maps}


NOTES = {"relation-phone": {"labels": LABELS}, "relation-phone-exclude-run": {"labels": LABELS}}


def test_a_panel_holds_operations_labels_scatter_and_maps():
    (panel,) = relation_panels(rows(), arrays(), NOTES)
    assert (panel.key, panel.title) == ("phone", "phone")
    assert panel.operations == [
        ("attends silence", 1, "1.0"), ("attends some labels", 1, "2.1 (aa)"), ("neglects some labels", 1, "2.0 (<s>, b)"),
        ("none seen", 1, "1.2"), ("stays near", 1, "2.3"),
    ]  # fmt: skip
    assert panel.labels[1] == ("b", "", "1.2 (0.20), 1.0 (0.10)")
    assert panel.labels[3] == ("sil", "2.3 (0.70), 2.1 (0.60), 2.0 (0.50), 1.2 (0.40), 1.0 (0.30)", "")
    assert (
        "0.50 [0.20, 0.80] (permuted labels 0.10): more vertical heads are the more extreme ones" in panel.verticality
    )
    assert panel.scatter.data[0]["x"] == [-5, -4.9, -4.8, -4.7, -4.6]
    assert panel.scatter.data[0]["y"] == pytest.approx([0.2, -0.3, 0.4, -0.5, 0.6])
    assert "C(&lt;s&gt;) = 0.400 [0.350, 0.450]" in panel.scatter.data[0]["hovertext"][2]


def test_maps_are_those_of_the_heads_they_name():
    (panel,) = relation_panels(rows(), arrays(), NOTES)
    assert [figure.title for figure in panel.maps] == ["head 1.0", "head 1.2", "head 2.0", "head 2.1", "head 2.3"]
    assert [figure.data[0]["customdata"][0][1] for figure in panel.maps] == [11, 12, 21, 22, 4]
    trace = panel.maps[-1].data[0]
    assert trace["x"] == trace["y"] == ["aa", "b", "&lt;s&gt;", "sil"]  # without the rest
    # Four times uniform attention, twice, none at all; what is not known stays empty.
    assert trace["z"][1] == [0, 2, 1, -2]
    assert trace["z"][0][0] is None
    assert all(math.isfinite(z) for line in trace["z"] for z in line if z is not None)
    assert script_json([figure.plotly() for figure in panel.maps])


def test_of_many_heads_the_clearest_of_each_operation_are_drawn():
    many = []
    for head in range(40):
        place = {"layer": 1, "head": head, "stream": "layer.1", "target": "phone"}
        label = {7: "same phone", 8: "not silence", 9: "attends b", 10: "attends aa"}.get(head, "none seen")
        many += [
            place | {"measure": "operation-phone", "value": 0.1 + 0.01 * head, "label": label},
            place | {"measure": "relation-phone", "value": -0.02 * head, "label": "aa"},
        ]
    chosen = chosen_heads("phone", rows_by_measure(frame(many)))
    assert len(chosen) == MOST_MAPS
    assert {(1, 7), (1, 8), (1, 10)} < set(chosen)  # of two that attend labels the one of the larger margin
    assert {(1, head) for head in range(35, 40)} < set(chosen)


def test_what_is_missing_leaves_its_part_away():
    assert relation_panels(rows_by_measure(frame([])), {}, {}) == []
    (panel,) = relation_panels(rows(without=("verticality", "operation-phone", "category")), {}, {})
    assert (panel.maps, panel.scatter, panel.operations) == ([], None, [])
    (panel,) = relation_panels(rows(without=("category", "relation-verticality-phone")), arrays(), {})
    assert (panel.maps, panel.verticality) == ([], "")
    assert [trace["name"] for trace in panel.scatter.data] == ["no category"]


def test_the_section_is_written_with_all_its_figures():
    both = rows() | rows("phone-exclude-run")
    panels = relation_panels(both, arrays() | arrays("phone-exclude-run"), NOTES)
    assert [panel.title for panel in panels] == ["phone", "phone, without a query's own run"]
    page = render_template("relations.html", {"relations": panels})
    figures = [figure for panel in panels for figure in (*panel.maps, panel.scatter)]
    assert len({figure.id for figure in figures}) == len(figures) == 12
    assert all(page.count(f'id="{figure.id}"') == 1 for figure in figures)
    assert "&lt;s&gt;" in page
    assert "<s>" not in page
    assert render_template("relations.html", {"relations": []}).strip() == ""
