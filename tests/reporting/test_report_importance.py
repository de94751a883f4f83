"""Figures and sentences about importance say what the rows say."""

import pytest

from otoscope.diagnosis.result import table_of
from otoscope.measures.measure import Row
from otoscope.reporting.importance import agreement_figure, importance_panel, verdicts, wall_figure
from otoscope.reporting.values import rows_by_measure


def _rows(*rows):
    return rows_by_measure(table_of(rows))


def _curve(measure, target, points):
    rows = []
    for other, value in points.items():
        rows.append(Row(measure, target=target, other=other, value=0.5 + value, floor=0.1))
        rows.append(
            Row(f"{measure}-change", target=target, other=other, value=value, low=value - 0.1, high=value + 0.2)
        )
    rows[1].low = rows[1].high = None
    return rows


def test_nothing_gives_no_panel():
    assert importance_panel({}, {}) is None
    assert wall_figure({}) is None
    assert agreement_figure({}) is None


@pytest.mark.parametrize(
    ("label", "says"),
    [("holds", " holds here"), ("does not hold", " does not hold here"), ("undecided", " is undecided here")],
)
def test_the_verdict_in_words(label, says):
    row = Row(
        "pruning-verdict", target="phone", other="5 diagonal against 5 global heads", value=-0.0212, low=-0.04,
        high=-0.01, label=label,
    )  # fmt: skip
    (sentence,) = verdicts(_rows(row))
    assert says in sentence
    assert "after 5 diagonal less that after 5 global heads is −2.1 [−4.0, −1.0] points" in sentence
    assert "trained anew" in sentence
    row.measure = "pruning-verdict-frozen"
    assert "of the whole model" in verdicts(_rows(row))[0]


def test_what_leaving_out_changes_is_centred_on_no_change_and_worse_is_vermillion():
    rows = [
        Row("importance-loo", layer=layer, head=head, target=target, value=layer - 2.5 * head)
        for layer in (1, 2) for head in (0, 1) for target in ("ctc-loss", "probe-phone", "probe-mel", "contrastive-accuracy")
    ]  # fmt: skip
    figure = wall_figure(_rows(*rows, Row("importance-l1", layer=1, head=1, value=3.0)))
    assert figure.choices[-1] == "l1"
    assert [trace["visible"] for trace in figure.data] == [True, False, False, False, False]
    worse = {name: trace["colorscale"][-1][1] for name, trace in zip(figure.choices[:4], figure.data, strict=False)}
    assert {name.rpartition(" ")[2] for name, colour in worse.items() if colour == "#D55E00"} == {
        "ctc-loss",
        "probe-mel",
    }
    first = figure.data[0]
    assert (first["zmin"], first["zmax"]) == (-2.0, 2.0)
    assert first["z"] == [[1.0, -1.5], [2.0, -0.5]]
    assert figure.data[-1]["z"] == [[None, 3.0], [None, None]]


def test_agreement_is_a_symmetric_matrix_with_ones():
    rows = [
        Row("agreement-kendall", target="globalness", other="importance-l1", value=0.25, low=0.1, high=0.4, n=9),
        Row("agreement-kendall", target="globalness", other="loo-wer", value=-0.5, n=9),
        Row("agreement-kendall", target="importance-l1", other="loo-wer", n=9),
    ]
    trace = agreement_figure(_rows(*rows)).data[0]
    assert trace["x"] == ["globalness", "l1", "loo-wer"]
    assert trace["z"] == [[1.0, 0.25, -0.5], [0.25, 1.0, None], [-0.5, None, 1.0]]


def test_curves_show_the_change_with_its_paired_band():
    points = {"0": 0.0, "4": -0.1, "8": -0.2}
    rows = [
        *_curve("pruning-phone", "diagonality", points), *_curve("pruning-phone", "random-0", points),
        *_curve("pruning-phone", "importance-l1", points), *_curve("pruning-phone-frozen", "diagonality", points),
        *_curve("span-phone", "literal", {"full": 0.0, "3": -0.3, "25": 0.1}),
        *_curve("pruning-ctc-loss", "diagonality", points),
        Row("span-wer-change", "layer.1", 1, target="literal", other="3", value=0.1),
    ]  # fmt: skip
    panel = importance_panel(_rows(*rows), {})
    assert [title for title, _ in panel.curves] == [
        "Heads removed: the phone of a frame", "Heads removed: ctc-loss", "Spans limited: the phone of a frame",
    ]  # fmt: skip
    trained, frozen = panel.curves[0][1]
    assert (trained.id, frozen.id) == ("figure-pruning-phone", "figure-pruning-phone-frozen")
    assert "accuracy of the whole model 0.500, floor 0.100" in trained.note
    lines = {trace["name"]: trace for trace in trained.data if "name" in trace}
    assert lines["diagonality"]["x"] == [0, 4, 8]
    assert lines["diagonality"]["y"] == [0.0, -0.1, -0.2]
    assert lines["l1"]["visible"] == "legendonly"
    assert lines["random-0"]["line"]["dash"] == "dot"
    assert list(lines) == ["diagonality", "l1", "random-0"]
    assert len(trained.data) == 4  # the band of diagonality
    around = trained.data[0]
    assert around["x"] == [4, 8, 8, 4]
    assert around["y"] == pytest.approx([-0.2, -0.3, 0.0, 0.1])
    span = panel.curves[2][1][0]
    assert span.layout["xaxis"]["categoryarray"] == ["full", "25", "3"]
    assert span.data[0]["x"] == ["full", "25", "3"]
    assert span.data[0]["error_y"]["array"] == pytest.approx([0.0, 0.2, 0.2])
    assert panel.curves[1][1][0].title == "the model's own head, as it is"
