"""The diagnosis as a folder: read back equal, written whole or not at all."""

import json

import numpy as np
import polars as pl
import pytest

from otoscope.diagnosis.result import SCHEMA, Diagnosis, table_of
from otoscope.errors import ResultError
from otoscope.measures.measure import Row
from tests.reporting.synthetic_diagnosis import synthetic


@pytest.fixture
def diagnosis():
    made = synthetic()
    table = pl.DataFrame(made.table.to_dicts(), schema=SCHEMA, infer_schema_length=None)
    provenance = {**made.provenance, "notes": {}}
    provenance["model"] = {**provenance["model"], "streams": ["input", *(f"layer.{k}" for k in range(1, 7))]}
    return Diagnosis(table, {"one": np.arange(100.0), "two": np.zeros((2, 3))}, provenance)


def test_save_and_read_back(diagnosis, tmp_path):
    diagnosis.save(tmp_path / "d")
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [
        "arrays.safetensors",
        "diagnosis.json",
        "table.parquet",
    ]
    again = Diagnosis.load(tmp_path / "d")
    assert again.table.equals(diagnosis.table)
    assert again.provenance == json.loads(json.dumps(diagnosis.provenance))
    assert again.arrays.keys() == diagnosis.arrays.keys()
    assert all(np.array_equal(again.arrays[k], v) for k, v in diagnosis.arrays.items())
    assert again.sentences() == diagnosis.sentences()
    assert str(again) == str(diagnosis)


def test_an_earlier_diagnosis_is_replaced_and_what_lies_beside_it_stays(diagnosis, tmp_path):
    diagnosis.save(tmp_path / "d")
    (tmp_path / "d" / "report.html").write_text("mine")
    again = Diagnosis(diagnosis.table.head(3), {}, diagnosis.provenance)
    again.save(tmp_path / "d")
    assert (tmp_path / "d" / "report.html").read_text() == "mine"
    assert Diagnosis.load(tmp_path / "d").table.height == 3
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_link_is_followed(diagnosis, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    diagnosis.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert Diagnosis.load(tmp_path / "real").table.equals(diagnosis.table)


def test_the_current_folder_can_be_named(diagnosis, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    diagnosis.save(".")
    assert Diagnosis.load(".").table.equals(diagnosis.table)


def test_all_files_can_be_read_by_the_same_people(diagnosis, tmp_path):
    diagnosis.save(tmp_path / "d")
    assert len({path.stat().st_mode for path in (tmp_path / "d").iterdir()}) == 1


@pytest.mark.parametrize("name", ["x" * 300, "file/below"])
def test_places_that_cannot_be_are_refused(diagnosis, tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResultError, match="cannot be written"):
        diagnosis.save(tmp_path / name)


@pytest.mark.parametrize("text", ["[1]", "null", "{}"])
def test_a_description_of_something_else_is_refused(diagnosis, tmp_path, text):
    diagnosis.save(tmp_path / "d")
    (tmp_path / "d" / "diagnosis.json").write_text(text)
    with pytest.raises(ResultError):
        Diagnosis.load(tmp_path / "d")
    with pytest.raises(ResultError, match="something other"):
        diagnosis.save(tmp_path / "d")


def test_a_folder_with_something_else_is_left_alone(diagnosis, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ResultError, match="something other"):
        diagnosis.save(tmp_path)
    with pytest.raises(ResultError, match="is a file"):
        diagnosis.save(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_a_failed_save_leaves_the_earlier_one(diagnosis, tmp_path, monkeypatch):
    diagnosis.save(tmp_path / "d")
    broken = Diagnosis(diagnosis.table, diagnosis.arrays, {**diagnosis.provenance, "bad": float("nan")})
    with pytest.raises(ValueError, match="not JSON"):
        broken.save(tmp_path / "d")
    assert Diagnosis.load(tmp_path / "d").table.equals(diagnosis.table)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("name", ["arrays.safetensors", "diagnosis.json", "table.parquet"])
def test_half_a_diagnosis_is_refused(diagnosis, tmp_path, name):
    diagnosis.save(tmp_path / "d")
    path = tmp_path / "d" / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ResultError, match="cannot be read"):
        Diagnosis.load(tmp_path / "d")
    path.unlink()
    with pytest.raises(ResultError, match="is absent"):
        Diagnosis.load(tmp_path / "d")


def test_a_later_format_is_refused(diagnosis, tmp_path):
    diagnosis.save(tmp_path / "d")
    path = tmp_path / "d" / "diagnosis.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ResultError, match="another format"):
        Diagnosis.load(tmp_path / "d")


def test_columns_are_the_contract():
    table = table_of([Row("m", stream="layer.1", layer=1, head=0, value=1.0)])
    assert table.columns == ("measure stream layer head target other value low high floor ceiling label n".split())
    assert table["target"].to_list() == [None]


def test_prints_as_a_short_table(diagnosis):
    text = str(diagnosis)
    assert "layer.1" in text
    assert len(text.splitlines()) < 25
    assert max(map(len, text.splitlines())) <= 110
