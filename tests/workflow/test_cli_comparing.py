"""`otoscope compare` as a person meets it."""

import json

import pytest

from otoscope.diagnosis.comparison import Comparison
from otoscope.measures.measure import Row
from tests.diagnosis.side_by_side import diagnosis, row, streams_of
from tests.workflow.program import otoscope


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    for name, value in (("before", 0.3), ("after", 0.5)):
        rows = [row(m, s, value + k / 50) for m in ("cca-phone", "cca-word") for k, s in enumerate(streams_of(4))]
        diagnosis(rows, name).save(folder / name)
        rows = [
            Row("criticality", f"layer.{k}", k, target="ctc-loss", other=mode, value=value * k, low=0.0, high=9.0,
                ceiling=9.0, label="critical" if value * k > 1 else "ambient", n=9)
            for mode in ("bypass", "mean") for k in range(1, 7)
        ]  # fmt: skip
        diagnosis(rows, name).save(folder / f"{name}-reset")
    diagnosis([row("cca-phone", "input", 0.4)], "c", corpus={"name": "other"}).save(folder / "elsewhere")
    return folder


def test_it_prints_saves_and_writes_a_page(place):
    done = otoscope("compare", place / "before", place / "after", "-o", place / "out", "--report", place / "page.html")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for expected in ("after against before", "cca-phone is best in before at layer 4", "cca-word", "page.html"):
        assert expected in done.stdout
    assert Comparison.load(place / "out").names == ["before", "after"]
    assert "compare" in Comparison.load(place / "out").provenance["command"]
    assert (place / "page.html").read_text().startswith("<!doctype html>")


def test_json_is_alone_on_standard_output(place):
    done = otoscope("compare", place / "before", place / "after", "-m", "cca-word", "--names", "old, new", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [one["name"] for one in told["diagnoses"]] == ["old", "new"]
    assert {one["measure"] for one in told["rows"]} == {"cca-word"}
    assert [one["stream"] for one in told["peaks"]] == ["layer.4", "layer.4"]
    assert told["sentences"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [([], "There is no diagnosis to compare"), (["before", "elsewhere"], "--other-speech")],
)
def test_errors_are_two_lines_with_the_cure(place, arguments, told):
    done = otoscope("compare", *(place / one for one in arguments))
    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2


def test_a_place_is_checked_before_the_work(place):
    done = otoscope("compare", "/no/such", "/folder", "-o", place / "after")
    assert done.returncode == 2
    assert str(place / "after") in done.stderr


def test_criticality_alone_is_enough_to_compare(place):
    before, after = place / "before-reset", place / "after-reset"
    done = otoscope("compare", before, after, "-o", place / "stable", "--report", place / "stable.html")
    assert done.returncode == 0, done.stderr
    assert "5 of 6 blocks have the same label in before-reset and after-reset" in " ".join(done.stdout.split())
    assert "criticality by CTC loss under bypass" in done.stdout
    found = Comparison.load(place / "stable").stability
    assert found.groups == [("ctc-loss", "bypass", "block"), ("ctc-loss", "mean", "block")]
    assert "Stability of criticality" in (place / "stable.html").read_text()
