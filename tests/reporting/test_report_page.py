"""The page: whole, self-contained, escaped, and honest about what a diagnosis lacks."""

import base64
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import polars as pl
import pytest

from otoscope.errors import ResultError
from otoscope.reporting import render_page, write_report
from otoscope.reporting.page import csv_link, script_json
from tests.reporting.synthetic_diagnosis import SyntheticDiagnosis, frame, synthetic

SECTIONS = ("short", "examined", "layers", "heads", "blocks", "left-out", "methods", "provenance")
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Elements with attributes, the text outside scripts, and whether the tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.unmatched: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unmatched.append(tag)

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        {"script": self.scripts, "style": self.styles}.get(inside, self.words).append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def figures(text: str) -> dict[str, dict]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def diagnosis() -> SyntheticDiagnosis:
    return synthetic()


@pytest.fixture(scope="module")
def text(diagnosis: SyntheticDiagnosis) -> str:
    return render_page(diagnosis)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_every_section_is_there_once(page: Page) -> None:
    assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)
    linked = [attributes["href"] for tag, attributes in page.elements if tag == "a" and "download" not in attributes]
    assert linked == [f"#{name}" for name in SECTIONS]
    assert len(page.ids) == len(set(page.ids))


def test_tags_nest(page: Page) -> None:
    assert page.unmatched == []
    assert page.open == []


def test_words_of_the_diagnosis_are_there(page: Page, diagnosis: SyntheticDiagnosis) -> None:
    for sentence in diagnosis.sentences():
        assert sentence in page.text
    for expected in (
        "embedded on exam",
        "6 layers · 36 attention heads · 3.18 M parameters · 96 utterances · 6.2 min of speech",
        "6 in each layer",
        "f3_0001 shorter than 400 samples",
        "cca-speaker the corpus names no speakers",
        "labels_left_out 214",
        "clipped samples 12",
        "9f2c" * 16,
        "arXiv 2006.03265",
        "arXiv 2107.04734",
        "Nadeau",
    ):
        assert expected in page.text


def test_nothing_is_loaded_from_outside(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form")
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            if name in attributes:
                assert attributes[name].startswith(("#", "data:")), (tag, attributes[name][:80])
    assert not re.search(r"url\(|@import", "".join(page.styles))
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert page.text.count("http") == 0


def test_plotly_is_inlined_once(text: str) -> None:
    assert text.count("plotly.js v") == 1


def test_every_figure_has_its_place_and_is_valid(page: Page, text: str) -> None:
    found = figures(text)
    assert list(found) == [
        "figure-layers",
        "figure-heads",
        "figure-scatter",
        "figure-lift",
        *(f"figure-block-{layer}" for layer in range(1, 7)),
    ]
    assert [name for name in page.ids if name in found] == list(found)
    for figure in found.values():
        checked = go.Figure(figure)
        assert checked.layout.xaxis.title.text
        assert checked.layout.yaxis.title.text


def test_table_comes_back_from_the_download(page: Page, diagnosis: SyntheticDiagnosis) -> None:
    link = next(attributes for tag, attributes in page.elements if "download" in attributes)
    assert link["download"].endswith(".csv")
    head, _, body = link["href"].partition("base64,")
    assert head == "data:text/csv;charset=utf-8;"
    read = pl.read_csv(base64.b64decode(body), schema=diagnosis.table.schema)
    assert read.equals(diagnosis.table)


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def test_names_are_escaped() -> None:
    hostile = synthetic(2, 2, model=HOSTILE, corpus=HOSTILE)
    hostile.lines = [HOSTILE]
    hostile.provenance["corpus"]["path"] = HOSTILE
    hostile.provenance["corpus"]["left_out"] = [{"id": HOSTILE, "reason": HOSTILE}]
    hostile.provenance["corpus"]["counts"] = {HOSTILE: 3}
    hostile.provenance["skipped"] = [{"measure": HOSTILE, "reason": HOSTILE}]
    hostile.provenance["notes"] = {HOSTILE: {HOSTILE: [HOSTILE]}}
    hostile.provenance["command"] = HOSTILE
    hostile.table = pl.concat(
        [
            hostile.table,
            frame([{"measure": f"cca-{HOSTILE}", "stream": HOSTILE, "value": 0.5}]),
            frame([{"measure": "category", "layer": 1, "head": 0, "label": HOSTILE, "value": 1.0}]),
        ]
    )
    text = render_page(hostile)
    found = Page(text)
    plain = Page(render_page(synthetic(2, 2)))
    count = [tag for tag, _ in found.elements].count
    assert count("script") == [tag for tag, _ in plain.elements].count("script")
    assert count("img") == 0
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert found.unmatched == []
    assert found.text.count("alert(1)") >= 8
    embedded = json.dumps(figures(text), ensure_ascii=False)
    assert "<img" not in embedded
    assert "&lt;img" in embedded


@pytest.mark.parametrize(
    ("without", "section", "gone"),
    [
        (("cca-",), "layer measure", ["figure-layers"]),
        (
            ("globalness", "verticality", "diagonality", "head-information", "category"),
            "head measure",
            ["figure-heads", "figure-scatter"],
        ),
        (("relative-profile",), "block measure", ["figure-lift", "figure-block-1"]),
    ],
)
def test_a_missing_group_is_said_and_the_rest_stands(without: tuple[str, ...], section: str, gone: list[str]) -> None:
    text = render_page(synthetic(3, 2, without=without))
    page = Page(text)
    assert page.text.count("This diagnosis holds no") == 1
    assert f"This diagnosis holds no {section}" in page.text
    assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)
    found = figures(text)
    assert found
    assert not set(gone) & set(found)
    assert not set(gone) & set(page.ids)


def test_categories_may_be_missing_alone() -> None:
    text = render_page(synthetic(3, 2, without=("category",)))
    assert "figure-heads" in figures(text)
    assert "Heads by layer and category" not in Page(text).text


def test_an_empty_diagnosis_is_a_page_without_figures() -> None:
    page = Page(text := render_page(SyntheticDiagnosis(frame([]))))
    assert figures(text) == {}
    assert "plotly.js v" not in text
    assert page.text.count("This diagnosis holds no") == 4
    assert "Nothing was left out" in page.text
    assert "None" not in page.text
    assert page.unmatched == []


def test_missing_numbers_are_gaps() -> None:
    broken = synthetic(4, 3)
    index = pl.int_range(pl.len())
    for step, hole in ((3, None), (5, math.nan), (7, math.inf)):
        broken.table = broken.table.with_columns(
            pl.when(index % step == 0).then(pl.lit(hole, dtype=pl.Float64)).otherwise(pl.col(name)).alias(name)
            for name in ("value", "low", "high", "floor", "ceiling")
        )
    text = render_page(broken)
    for figure in figures(text).values():
        go.Figure(figure)
    assert not re.search(r"\b(nan|NaN|inf|Infinity|None)\b", Page(text).text)


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_table_of_missing_numbers_only(value: float | None) -> None:
    empty = synthetic(2, 2)
    empty.table = empty.table.with_columns(
        pl.lit(value, dtype=pl.Float64).alias(name) for name in ("value", "low", "high", "floor", "ceiling")
    )
    text = render_page(empty)
    for figure in figures(text).values():
        go.Figure(figure)


@pytest.mark.parametrize(("layers", "heads"), [(2, 2), (12, 12), (48, 20)])
def test_sizes(layers: int, heads: int) -> None:
    found = figures(render_page(synthetic(layers, heads, reach=10)))
    assert len(found) == 4 + layers
    grid = found["figure-heads"]["data"][0]["z"]
    assert (len(grid), len(grid[0])) == (layers, heads)


def test_unknown_provenance_is_left_away() -> None:
    bare = synthetic(2, 2)
    bare.provenance = {
        "model": {"name": None, "hop_ms": None},
        "corpus": {"speakers": None, "left_out": None},
    }
    page = Page(text := render_page(bare))
    assert "a model without a name on a corpus without a name" in page.text
    assert figures(text)["figure-lift"]["layout"]["xaxis"]["title"]["text"] == "key − query (frames)"


def test_many_left_out_utterances_are_counted() -> None:
    page = Page(render_page(synthetic(2, 2, left_out=205)))
    assert "f3_0199" in page.text
    assert "f3_0200" not in page.text
    assert "and 5 more." in page.text


def test_script_json_is_safe_and_finite() -> None:
    text = script_json({"a": ["</script><!--", math.nan, math.inf, 1 / 3, True, None, "\u2028"]})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": ["</script><!--", None, None, 0.333333, True, None, "\u2028"]}


def test_csv_link_keeps_every_letter() -> None:
    table = pl.DataFrame({"target": ['ʃ, "x"', "\n", "ü"]})
    body = base64.b64decode(csv_link(table).partition("base64,")[2])
    assert pl.read_csv(body).equals(table)


def test_report_is_written_and_replaced(tmp_path: Path) -> None:
    goal = tmp_path / "deep" / "report.html"
    assert write_report(synthetic(2, 2), goal) == goal
    first = goal.read_text(encoding="utf-8")
    assert first.startswith("<!doctype html>")
    assert first.rstrip().endswith("</html>")
    write_report(synthetic(2, 2, model="other"), str(goal))
    assert goal.read_text(encoding="utf-8") != first
    assert [path.name for path in goal.parent.iterdir()] == ["report.html"]


def test_the_same_diagnosis_gives_the_same_page() -> None:
    assert render_page(synthetic(2, 2)) == render_page(synthetic(2, 2))


@pytest.mark.parametrize("broken", ["write_text", "replace"])
def test_a_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    goal = tmp_path / "report.html"
    goal.write_text("old", encoding="utf-8")
    original = Path.write_text

    def fail(self: Path, *args: object, **more: object) -> None:
        if broken == "write_text":
            original(self, "half", encoding="utf-8")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, broken, fail)
    with pytest.raises(ResultError, match=r"report\.html: No space left on device"):
        write_report(synthetic(2, 2), goal)
    monkeypatch.undo()
    assert goal.read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ResultError, match="cannot be written"):
        write_report(synthetic(2, 2), tmp_path / "file" / "report.html")
    with pytest.raises(ResultError, match="it is a folder"):
        write_report(synthetic(2, 2), tmp_path)


def test_a_link_is_followed_and_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target.html").write_text("old")
    (tmp_path / "link.html").symlink_to(tmp_path / "target.html")
    write_report(synthetic(2, 2), tmp_path / "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "target.html").read_text().startswith("<!doctype html>")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ResultError, match="no ordinary file"):
        write_report(synthetic(2, 2), tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_the_page_says_what_its_floors_are():
    found = synthetic()
    assert "what chance alone gives" in render_page(found)
    found.provenance["floor"] = {"kind": "fresh weights"}
    assert "what the same network with fresh weights gives" in render_page(found)
