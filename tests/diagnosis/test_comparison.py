"""Diagnoses side by side: what is set against what, what is refused, and what is said."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import otoscope as oto
from otoscope.diagnosis.comparison import Comparison
from otoscope.diagnosis.matching import compare_diagnoses
from otoscope.errors import MeasureError, ResultError
from tests.diagnosis.side_by_side import diagnosis, folded, row, streams_of

BASE = np.array([0.4, 0.5, 0.6, 0.7, 0.8])
STEADY = np.array([0.1, 0.101, 0.1, 0.099, 0.1])


def two(**about):
    """B leads by 0.1 at layer 2 and falls behind by 0.1 at layer 1, fold by fold."""
    a = folded({"input": BASE, "layer.1": BASE, "layer.2": BASE}, name="a")
    b = folded({"input": BASE, "layer.1": BASE - STEADY, "layer.2": BASE + STEADY}, name="b", **about)
    return {"A": a, "B": b}


def test_differences_are_the_second_less_the_first_fold_by_fold():
    found = compare_diagnoses(two())
    rows = found.differences("cca-phone", "phone", "B")
    assert [one["stream"] for one in rows] == [one["other"] for one in rows] == ["input", "layer.1", "layer.2"]
    assert [one["value"] for one in rows] == pytest.approx([0.0, -0.1, 0.1])
    assert {one["pairing"] for one in rows} == {"folds"}
    assert {one["against"] for one in rows} == {"A"}
    assert rows[1]["high"] < 0 < rows[2]["low"]
    assert [one["depth"] for one in rows] == [0.0, 0.5, 1.0]
    assert found.differences("cca-phone", "phone", "A") == []
    assert [one["value"] for one in found.values("cca-phone", "phone", "A")] == pytest.approx([0.6] * 3)
    assert found.provenance["stated"] == []
    assert found.sentences() == [
        "cca-phone is best in A at the input of layer 1 (0.60, no stream differs from it); in B at layer 2 (0.70). "
        "Against A, B is higher at 1 and lower at 1 of 3 streams, most at layer 2 (+0.10, 95 % +0.10 to +0.10)."
    ]


@given(st.lists(st.lists(st.floats(0, 1), min_size=5, max_size=5), min_size=6, max_size=6))
def test_the_other_way_round_differences_change_their_sign(scores):
    parts = [folded(dict(zip(streams_of(2), map(np.array, part), strict=True))) for part in (scores[:3], scores[3:])]
    there = compare_diagnoses({"A": parts[0], "B": parts[1]}).differences("cca-phone", "phone", "B")
    back = compare_diagnoses({"B": parts[1], "A": parts[0]}).differences("cca-phone", "phone", "A")
    for one, other in zip(there, back, strict=True):
        assert one["value"] == pytest.approx(-other["value"], abs=1e-12)
        assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]), abs=1e-12)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"seed": 1}, "Folds of A and B differ (seed 0 / 1): their scores are not paired."),
        (
            {"notes": {"cca-phone": {"folds": 10}}},
            "Folds of A and B differ (seed 0 / 0, folds None / 10): their scores are not paired.",
        ),
    ],
)
def test_other_folds_are_not_paired(about, said):
    found = compare_diagnoses(two(**about))
    assert {one["pairing"] for one in found.differences("cca-phone", "phone", "B")} == {"unpaired"}
    assert found.provenance["stated"] == [said]
    assert "cannot be told from A at any of 3 streams" in found.sentences()[0]


def test_a_measure_that_was_asked_otherwise_gives_no_difference():
    found = compare_diagnoses(two(notes={"cca-phone": {"labels": 30}}))
    assert found.differences("cca-phone", "phone", "B") == []
    assert len(found.values("cca-phone", "phone", "B")) == 3
    (said,) = found.provenance["stated"]
    assert "labels None / 30" in said
    assert "no difference is taken" in said
    about = {"cca-phone": {"labels_without_vector": ["the", "of"]}}
    (said,) = compare_diagnoses(two(notes=about)).provenance["stated"]
    assert "labels_without_vector None / 2 words" in said


def test_other_speech_is_refused_and_when_allowed_gives_no_difference():
    speech = {"name": "other", "utterances": 3, "fingerprint": "other"}
    with pytest.raises(MeasureError, match=r"A was taken on speech \(9 utterances, speech\) and B on other"):
        compare_diagnoses(two(corpus=speech))
    found = compare_diagnoses(two(corpus=speech), other_speech=True)
    assert found.table["against"].null_count() == found.table.height == 6
    assert "no difference from it is taken" in found.provenance["stated"][0]
    with pytest.raises(MeasureError, match="would differ even if the models did not"):
        compare_diagnoses(two(corpus={"name": "speech"}))


def test_layers_of_models_of_other_depth_are_matched():
    a = diagnosis([row("cca-phone", s, 0.5) for s in streams_of(12)], "base")
    b = diagnosis([row("cca-phone", s, 0.6) for s in [*streams_of(4, 7), "final_norm"]], "small")
    found = compare_diagnoses({"base": a, "small": b})
    rows = found.differences("cca-phone", "phone", "small")
    assert {one["stream"]: one["other"] for one in rows} == {
        "input": "input", "layer.1": "layer.3", "layer.2": "layer.6", "layer.3": "layer.9", "layer.4": "layer.12",
    }  # fmt: skip
    assert {one["pairing"] for one in rows} == {"unpaired"}
    said = " ".join(found.provenance["stated"])
    assert "base has 12 layers and small 4" in said
    assert "Streams of small without a counterpart in base: conv.1, conv.2" in said
    assert "final_norm" in said


def test_what_is_absent_is_listed_with_its_reason():
    skipped = [{"measure": "cca-speaker", "reason": "no speakers are known"}]
    a = diagnosis([row("cca-phone", "input", 0.5), row("cca-speaker", "input", 0.5), row("awd", "input", 0.2)], "a")
    b = diagnosis([row("cca-phone", "input", 0.5)], "b", skipped=skipped)
    found = compare_diagnoses({"A": a, "B": b})
    assert found.keys == [("cca-phone", "phone")]
    absent = {one["measure"]: (one["diagnosis"], one["reason"]) for one in found.provenance["absent"]}
    assert absent == {"cca-speaker": ("B", "no speakers are known"), "awd": ("B", "it was not taken")}


def test_what_two_of_three_hold_is_compared():
    phone, word = row("cca-phone", "input", 0.5), row("cca-word", "input", 0.5)
    parts = {"A": diagnosis([phone], "a"), "B": diagnosis([phone, word], "b"), "C": diagnosis([word], "c")}
    found = compare_diagnoses(parts)
    assert found.keys == [("cca-phone", "phone"), ("cca-word", "word")]
    assert found.peak("cca-phone", "phone", "C") is None
    assert found.differences("cca-word", "word", "C") == []  # the reference holds none
    assert "cca-word is best in B at the input" in found.sentences()[1]


def test_relations_to_another_model_are_shown_where_one_diagnosis_holds_them():
    inter = [row("cca-inter", f"layer.{k}", 0.5 + k / 10, other=f"layer.{2 * k}", target="big") for k in (1, 2)]
    a = diagnosis([row("cca-phone", "layer.1", 0.5), *inter], "a")
    found = compare_diagnoses({"A": a, "B": diagnosis([row("cca-phone", "layer.1", 0.5)], "b")})
    assert [one["other"] for one in found.values("cca-inter", "", "A")] == ["layer.2", "layer.4"]
    assert found.provenance["absent"] == []


def test_measures_are_chosen_by_name_and_group():
    rows = [row("cca-phone", "input", 0.5), row("cca-word", "input", 0.5), row("unheard-of", "input", 0.5)]
    parts = {"A": diagnosis(rows, "a"), "B": diagnosis(rows, "b")}
    assert compare_diagnoses(parts, "cca-word").keys == [("cca-word", "word")]
    assert compare_diagnoses(parts, ["layers"]).keys == [("cca-phone", "phone"), ("cca-word", "word")]
    assert len(compare_diagnoses(parts).keys) == 3
    with pytest.raises(MeasureError, match="No diagnosis holds 'globalness' along its streams.*cca-phone, cca-word"):
        compare_diagnoses(parts, "cca-word,globalness")
    with pytest.raises(MeasureError, match="No measure was asked for"):
        compare_diagnoses(parts, " , ")


def test_nothing_in_common_is_an_error_that_names_what_there_is():
    parts = {"A": diagnosis([row("cca-phone", "input", 0.5)], "a"), "B": diagnosis([], "b")}
    with pytest.raises(MeasureError, match=r"share a measure along the streams \(A: cca-phone; B: none\)"):
        compare_diagnoses(parts)


def test_versions_and_the_same_model_are_stated():
    parts = two(versions={"otoscope": "2"}, model={"name": "b", "layers": 2, "fingerprint": "a"})
    assert compare_diagnoses(parts).provenance["stated"] == [
        "A and B are diagnoses of the same model.",
        "A and B were taken with other versions: otoscope 1 / 2.",
    ]


def test_floors_of_another_kind_are_stated():
    parts = two(floor={"kind": "fresh weights"})
    assert compare_diagnoses(parts).provenance["stated"] == [
        "The floors of A are by permuted labels, those of B by fresh weights."
    ]


def test_scores_of_all_streams_together_are_compared():
    parts = {}
    for name, value in (("A", 0.3), ("B", 0.5)):
        together = row("probe-weighted-phone", "input", value)
        together.stream = None
        parts[name] = diagnosis([together], name)
    found = compare_diagnoses(parts)
    (one,) = found.differences("probe-weighted-phone", "phone", "B")
    assert (one["stream"], one["other"], one["depth"]) == ("all streams", "all streams", None)
    assert one["value"] == pytest.approx(0.2)
    assert found.sentences()[0].startswith("probe-weighted-phone is 0.30 in A; 0.50 in B. B is higher than A.")


def test_peaks_hold_the_range_of_what_cannot_be_told_apart():
    wavering = BASE - np.array([0.3, -0.28, 0.1, -0.1, 0.03])
    a = folded({"input": BASE - STEADY, "layer.1": wavering, "layer.2": BASE}, name="a")
    peak = compare_diagnoses({"A": a, "B": two()["B"]}).peak("cca-phone", "phone", "A")
    assert (peak["stream"], peak["as_good"], peak["pairing"]) == ("layer.2", ["layer.1"], "folds")
    assert (peak["from_depth"], peak["to_depth"]) == (0.5, 1.0)
    assert peak["above_floor"] is True
    errors = [row("abx", s, v, floor=0.5, ceiling=0.0) for s, v in (("input", 0.48), ("layer.1", 0.5))]
    found = compare_diagnoses({"A": diagnosis(errors, "a"), "B": diagnosis(errors, "b")})
    peak = found.peak("abx", "abx", "A")
    assert (peak["stream"], peak["lowest"], peak["above_floor"]) == ("input", True, False)
    assert found.sentences()[0].startswith(
        "abx is lowest in A at the input of layer 1 (0.48, not beyond its floor of 0.50)"
    )


@pytest.fixture
def folders(tmp_path):
    for name, part in two().items():
        part.save(tmp_path / name)
    return tmp_path


def test_a_comparison_comes_back_as_it_was_saved(folders):
    found = oto.compare([folders / "A", folders / "B"])
    assert found.names == ["A", "B"]
    place = found.save(folders / "deep" / "comparison")
    again = Comparison.load(place)
    assert again.table.equals(found.table)
    assert again.peaks.equals(found.peaks)
    assert again.provenance == json.loads(json.dumps(found.provenance))
    assert str(again) == str(found)
    assert "layer.2 0.700" in str(found)
    found.save(place)
    assert sorted(one.name for one in place.iterdir()) == ["comparison.json", "peaks.parquet", "table.parquet"]


def test_places_and_folders_that_are_something_else_are_named(folders):
    found = oto.compare([folders / "A", folders / "B"])
    with pytest.raises(ResultError, match="something other than a comparison"):
        found.save(folders / "A")
    with pytest.raises(ResultError, match="holds no comparison"):
        Comparison.load(folders / "A")
    place = found.save(folders / "c")
    (place / "peaks.parquet").write_bytes(b"half")
    with pytest.raises(ResultError, match="c holds no comparison that can be read"):
        Comparison.load(place)


def test_too_few_twice_or_broken(folders):
    with pytest.raises(ResultError, match="1 diagnosis cannot be compared"):
        oto.compare([folders / "A"])
    with pytest.raises(ResultError, match="There is no diagnosis to compare"):
        oto.compare([])
    (folders / "link").symlink_to(folders / "A")
    with pytest.raises(ResultError, match=r"The diagnosis in .*A is given twice"):
        oto.compare([folders / "A", folders / "link"])
    one = two()["A"]
    with pytest.raises(ResultError, match="A diagnosis is given twice"):
        oto.compare([one, one])
    with pytest.raises(ResultError, match="nothing holds no diagnosis"):
        oto.compare([folders / "A", folders / "nothing"])
    (folders / "B" / "table.parquet").write_bytes(b"half")
    with pytest.raises(ResultError, match="B cannot be read"):
        oto.compare([folders / "A", folders / "B"])


def test_names_are_those_of_folders_made_unique(folders, tmp_path):
    for name in ("x/run", "y/run", "z"):
        two()["B"].save(tmp_path / name)
    found = oto.compare([tmp_path / "x" / "run", tmp_path / "y" / "run", tmp_path / "z"])
    assert found.names == ["x/run", "y/run", "z"]
    assert oto.compare([two()["A"], two()["A"]]).names == ["a", "a (2)"]
    assert oto.compare([folders / "A", two()["B"]], names=["old", "new"]).names == ["old", "new"]
    for names in (["one"], ["same", "same"], ["", "b"]):
        with pytest.raises(ResultError, match="do not fit 2 diagnoses"):
            oto.compare([folders / "A", folders / "B"], names=names)


def test_lower_everywhere_is_said_as_higher_everywhere_is():
    a, b = (
        diagnosis([row("cca-phone", s, value) for s in streams_of(2)], name) for name, value in (("a", 0.7), ("b", 0.3))
    )
    assert "B is lower than A at all 3 streams" in compare_diagnoses({"A": a, "B": b}).sentences()[0]
    assert "A is higher than B at all 3 streams" in compare_diagnoses({"B": b, "A": a}).sentences()[0]
