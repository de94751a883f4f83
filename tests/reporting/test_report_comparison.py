"""The page and the terminal summary of a comparison."""

import io
import re

import plotly.graph_objects as go
import pytest
from rich.console import Console

from otoscope.diagnosis.comparison import Comparison
from otoscope.diagnosis.matching import compare_diagnoses
from otoscope.errors import ResultError
from otoscope.measures.measure import Row
from otoscope.reporting import render_comparison, render_comparison_summary, render_page, write_comparison
from otoscope.reporting.comparison import across, mark
from tests.diagnosis.side_by_side import diagnosis, row, streams_of
from tests.reporting.test_report_page import HOSTILE, Page, figures


def compared(*names: str, layers: tuple[int, ...] = (4, 8, 4), measures: int = 2) -> Comparison:
    made = {}
    for place, (name, count) in enumerate(zip(names or ("before", "after"), layers, strict=False)):
        rows = [
            row(measure, stream, 0.3 + 0.1 * place + 0.02 * k)
            for measure in ("cca-phone", "cca-word", "cca-speaker", "mean-cca-phone", "svcca-phone", "unheard-of")[
                :measures
            ]
            for k, stream in enumerate([*streams_of(count, 3), "final_norm"])
        ]
        made[name] = diagnosis(rows, name)
    return compare_diagnoses(made)


def test_every_curve_is_a_figure_with_a_trace_a_diagnosis() -> None:
    comparison = compared("one", "two", "three")
    text = render_comparison(comparison)
    page, found = Page(text), figures(text)
    assert [name for name in page.ids if name in found] == list(found) == ["figure-curve-1", "figure-curve-2"]
    assert page.unmatched == []
    assert page.open == []
    for figure in found.values():
        go.Figure(figure)
        named = [trace for trace in figure["data"] if "name" in trace]
        assert [trace["name"] for trace in named] == ["one", "two", "three"]
        for trace in named:
            assert trace["x"] == sorted(trace["x"])
        assert len({trace["line"]["color"] for trace in named}) == 3
        rings = [trace for trace in figure["data"] if trace.get("mode") == "markers"]
        assert [ring["x"] for ring in rings] == [[trace["x"][-1]] for trace in named]  # the final norm is best of all
    phone = next(trace for trace in found["figure-curve-1"]["data"] if trace.get("name") == "two")
    assert phone["y"] == pytest.approx([one["value"] for one in comparison.values("cca-phone", "phone", "two")])


def test_words_peaks_numbers_and_circumstances_are_there() -> None:
    comparison = compared()
    page = Page(render_comparison(comparison))
    for sentence in (*comparison.sentences(), *comparison.provenance["stated"]):
        assert sentence in page.text
    for expected in ("after against before", "after − before", "unpaired", "Zou", "final_norm 0.460"):
        assert expected in page.text
    assert "0.100 [0.072, 0.128]" in page.text  # 0.02 and 0.02 make 0.028
    assert "0.120 [0.092, 0.148] to layer.2" in page.text
    bold = [attributes for tag, attributes in page.elements if tag == "td" and attributes.get("class") == "best"]
    assert len(bold) == 2 * 13


def test_streams_are_drawn_by_depth_and_the_final_norm_apart() -> None:
    rows = compared().values("cca-phone", "phone", "before")
    places = [across(one) for one in rows]
    assert places == sorted(places)
    assert len(set(places)) == len(places)
    assert [one["depth"] for one in rows][-2:] == [1.0, 1.0]


def test_marks_differ_for_as_many_diagnoses_as_anyone_compares() -> None:
    assert len({mark(place) for place in range(18)}) == 18


def test_the_page_loads_nothing_and_names_are_escaped() -> None:
    comparison = compared(HOSTILE, "plain")
    text = render_comparison(comparison)
    page, plain = Page(text), Page(render_comparison(compared()))
    count = [tag for tag, _ in page.elements].count
    assert count("script") == [tag for tag, _ in plain.elements].count("script")
    assert count("img") == 0
    assert page.text.count("http") == 0
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "#").startswith(("#", "data:"))


def test_it_is_written_whole_or_refused(tmp_path) -> None:
    place = write_comparison(compared(), tmp_path / "deep" / "page.html")
    assert place.read_text().rstrip().endswith("</html>")
    with pytest.raises(ResultError, match="it is a folder"):
        write_comparison(compared(), tmp_path)


@pytest.mark.parametrize(
    ("width", "names"), [(80, ("before", "after")), (80, ("one", "two", "three")), (60, ("a", "b"))]
)
def test_the_summary_fits_the_terminal(width: int, names: tuple[str, ...]) -> None:
    stream = io.StringIO()
    comparison = compared(*names, measures=6)
    render_comparison_summary(comparison, Console(file=stream, width=width, color_system=None))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = re.sub(r"\s+", " ", stream.getvalue())
    assert "cca-phone is best in" in text
    for name in names:
        assert name in text
    assert "final_norm" in text
    assert ("4 layers and" in text) == (len(set((4, 8, 4)[: len(names)])) > 1)


def test_what_is_absent_is_told_once_for_each_reason() -> None:
    phone = row("cca-phone", "input", 0.5)
    more = [row(name, "input", 0.5) for name in ("cca-word", "cca-speaker")]
    comparison = compare_diagnoses({"[a]": diagnosis([phone, *more], "a"), "b": diagnosis([phone], "b")})
    stream = io.StringIO()
    render_comparison_summary(comparison, Console(file=stream, width=100, color_system=None))
    assert "Absent in b: cca-word, cca-speaker (it was not taken)." in stream.getvalue()
    assert "[a]" in stream.getvalue()
    assert "b: cca-word, cca-speaker it was not taken" in Page(render_comparison(comparison)).text


def test_scores_of_all_streams_together_are_numbers_without_a_figure() -> None:
    parts = {}
    for name in ("before", "after"):
        together = row("probe-weighted-phone", "input", 0.7)
        together.stream = None
        parts[name] = diagnosis([together, row("cca-phone", "input", 0.5), row("cca-phone", "layer.1", 0.4)], name)
    text = render_comparison(compare_diagnoses(parts))
    assert list(figures(text)) == ["figure-curve-1"]
    assert "all streams 0.700 [0.680, 0.720]" in Page(text).text
    report = Page(render_page(parts["before"]))
    assert "Of all streams together" in report.text
    assert "probe-weighted-phone 0.700 [0.680, 0.720] 0.100" in report.text


def stable(layers: tuple[int, int] = (4, 6), name: str = "after") -> Comparison:
    made = {}
    for place, (title, count) in enumerate(zip(("before", name), layers, strict=True)):
        rows = [
            Row(
                "criticality", f"layer.{k}{part}", k, target="ctc-loss", other="bypass", value=k + place, low=k - 0.5,
                high=k + 0.5, label="critical" if k > 2 + place else None if k == 1 else "ambient", n=9,
            )
            for part in ("", ".attention")
            for k in range(1, count + 1)
        ]  # fmt: skip
        made[title] = diagnosis([*rows, row("cca-phone", "layer.1", 0.4)], title)
    return compare_diagnoses(made)


def test_stability_is_a_section_with_labels_agreement_and_a_figure() -> None:
    comparison = stable()
    text = render_comparison(comparison)
    page, found = Page(text), figures(text)
    assert page.unmatched == []
    assert page.open == []
    assert page.ids.count("stability") == 1
    (figure,) = (figure for name, figure in found.items() if name.startswith("figure-stability"))
    go.Figure(figure)
    named = [trace for trace in figure["data"] if "name" in trace]
    assert [trace["x"] for trace in named] == [[0.25, 0.5, 0.75, 1.0], pytest.approx([1 / 3, 0.5, 5 / 6, 1.0])]
    for expected in (
        "bypass, CTC loss, blocks", "bypass, CTC loss, sub-modules", "critical 3.000 [2.500, 3.500]", "(layer.5)",
        "matched by depth", "before and after", "all together", "Spearman's rho 1.00, n = 4", "Bonett and Wright",
        *comparison.stability.sentences(),
    ):  # fmt: skip
        assert expected in page.text, expected


def test_stability_in_the_terminal_and_nothing_of_it_where_there_is_none() -> None:
    console = Console(file=io.StringIO(), width=100)
    render_comparison_summary(stable((6, 6)), console)
    text = console.file.getvalue()
    for expected in (
        "criticality by CTC loss under bypass",
        "sub-module",
        "before and after (across weights): same label",
    ):
        assert expected in text
    text = render_comparison(compared())
    assert "stability" not in Page(text).ids
    assert "Bonett" not in text
    assert HOSTILE not in render_comparison(stable(name=HOSTILE))
