"""Stability of criticality: agreement of labels and orders across diagnoses, matched by name and by depth."""

import numpy as np
import pytest
import scipy.stats

from otoscope.diagnosis.comparison import Comparison
from otoscope.diagnosis.matching import compare_diagnoses
from otoscope.diagnosis.stability import KAPPA, KENDALL, SHARE, SPEARMAN, stability_of
from otoscope.errors import MeasureError
from otoscope.measures.measure import Row
from otoscope.statistics.rank_correlation import rank_interval
from tests.diagnosis.side_by_side import diagnosis, row

WORDS = {"a": "ambient", "i": "intermediate", "c": "critical", "-": None}


def critical(values, labels, mode="bypass", metric="ctc-loss", part=""):
    return [
        Row("criticality", f"layer.{k}{part}", k, target=metric, other=mode, value=value, low=value - 0.1,
            high=value + 0.1, ceiling=9.0, label=WORDS[label], n=9)
        for k, (value, label) in enumerate(zip(values, labels, strict=True), 1)
    ]  # fmt: skip


def both_modes(values, labels):
    return [*critical(values, labels), *critical(values[::-1], labels[::-1], "mean")]


A = [0.1, 0.2, 3.0, 2.0, 0.3, 1.0]
B = [0.2, 0.1, 2.5, 1.0, 0.4, 1.2]


def two(**about):
    return {
        "A": diagnosis(both_modes(A, "aaccai"), "a"),
        "B": diagnosis(both_modes(B, "aaciai"), "b", **about),
    }


def figures(found, group):
    return {(one["figure"], one["first"], one["second"]): one for one in found.of(group)}


def test_figures_of_two_diagnoses_of_one_size():
    found = stability_of(two())
    assert found.groups == [("ctc-loss", "bypass", "block"), ("ctc-loss", "mean", "block")]
    held = figures(found, found.groups[0])
    assert held[SHARE, "A", "B"]["value"] == pytest.approx(5 / 6)
    assert held[SHARE, "A", "B"]["n"] == 6
    ends = scipy.stats.binomtest(5, 6).proportion_ci(method="wilson")
    assert (held[SHARE, "A", "B"]["low"], held[SHARE, "A", "B"]["high"]) == pytest.approx((ends.low, ends.high))
    rho = held[SPEARMAN, "A", "B"]
    assert rho["value"] == pytest.approx(float(scipy.stats.spearmanr(A, B).statistic))
    assert (rho["low"], rho["high"]) == pytest.approx(rank_interval(rho["value"], 6))
    assert held[KENDALL, "A", "B"]["value"] == pytest.approx(float(scipy.stats.kendalltau(A, B).statistic))
    # Labels: P = 5/6; shares 6, 3 and 3 of 12.
    shares = np.array([6, 3, 3]) / 12
    assert held[KAPPA, None, None]["value"] == pytest.approx((5 / 6 - (shares**2).sum()) / (1 - (shares**2).sum()))
    assert {(one["matching"], one["across"]) for one in found.of(found.groups[0]) if one["first"]} == {
        ("name", "weights")
    }
    labels = dict(found.labels(found.groups[0]))
    assert labels["layer.4"]["A"]["label"] == "critical"
    assert labels["layer.4"]["B"]["label"] == "intermediate"
    assert [labels[f"layer.{k}"]["B"]["value"] for k in range(1, 7)] == B


def test_three_diagnoses_in_words():
    made = two() | {"C": diagnosis(both_modes(B, "aaciai"), "b", corpus={"fingerprint": "other"})}
    found = stability_of(made)
    held = figures(found, found.groups[0])
    assert {key[1:] for key in held if key[0] == SPEARMAN} == {("A", "B"), ("A", "C"), ("B", "C")}
    assert held[SPEARMAN, "B", "C"]["across"] == "data"
    assert held[SPEARMAN, "A", "C"]["across"] == "weights and data"
    assert held[SPEARMAN, "B", "C"]["value"] == pytest.approx(1)
    assert found.sentences()[0].startswith(
        "By CTC loss under bypass, 5 of 6 blocks have the same label in A and B and C (Fleiss' kappa 0.82"
    )
    assert "the orders of every two correlate with 0.89 to 1.00 (Spearman)." in found.sentences()[0]
    text = str(found)
    assert "layer.4  critical      intermediate  intermediate" in text
    assert "B and C (across data): same label 1.00" in text


def test_models_of_other_depth_are_matched_by_it():
    """The change is a straight line over depth: interpolation keeps its order, and its values."""
    deep = diagnosis(both_modes([k / 6 for k in range(1, 7)], "aaiicc"), "deep")
    small = diagnosis(both_modes([k / 4 for k in range(1, 5)], "aaic"), "small")
    found = stability_of({"deep": deep, "small": small})
    group = found.groups[0]
    held = figures(found, group)
    assert held[SPEARMAN, "deep", "small"]["value"] == pytest.approx(1)
    assert (held[SPEARMAN, "deep", "small"]["low"], held[SPEARMAN, "deep", "small"]["n"]) == (None, 4)
    assert held[SPEARMAN, "deep", "small"]["matching"] == "depth"
    assert held[SPEARMAN, "deep", "small"]["across"] == "size"
    labels = dict(found.labels(group))
    # l / 4 of six layers: 1.5 (up to 2), 3, 4.5 (up to 5), 6.
    assert [cells["deep"]["matched"] for cells in labels.values()] == ["layer.2", "layer.3", "layer.5", "layer.6"]
    assert [cells["deep"]["depth"] for cells in labels.values()] == pytest.approx([1 / 3, 1 / 2, 5 / 6, 1])
    assert held[SHARE, "deep", "small"]["value"] == pytest.approx(2 / 4)
    # A peak between two layers of the deeper model is met half way.
    peaked = diagnosis(both_modes([0.0, 1.0, 0.0, 0.0, 0.0, 0.5], "aaaaaa"), "deep")
    flat = diagnosis(both_modes([0.6, 0.1, 0.2, 0.55], "aaaa"), "small")
    crossed = figures(stability_of({"deep": peaked, "small": flat}), group)
    assert crossed[SPEARMAN, "deep", "small"]["value"] == pytest.approx(
        float(scipy.stats.spearmanr([0.5, 0.0, 0.0, 0.5], [0.6, 0.1, 0.2, 0.55]).statistic)
    )


def test_what_lies_outside_the_layers_of_the_other_is_left_out():
    """Of six layers only the last four were reset: a quarter of the way up there is nothing to go by."""
    deep = diagnosis(critical([k / 6 for k in range(1, 7)], "aaiicc")[2:], "deep")
    small = diagnosis(critical([0.9, 0.1, 0.2, 0.3], "aaic"), "small")
    found = stability_of({"deep": deep, "small": small})
    held = figures(found, found.groups[0])
    assert (held[SPEARMAN, "deep", "small"]["value"], held[SPEARMAN, "deep", "small"]["n"]) == (pytest.approx(1), 3)
    share = held[SHARE, "deep", "small"]
    assert (share["value"], share["n"]) == (pytest.approx(1 / 3), 3)
    assert (share["low"], share["high"]) == (None, None)  # of so few units there is no interval


def test_sub_modules_are_apart_and_parts_outside_layers_go_by_name():
    def made(values):
        rows = critical(values, "c" * len(values), part=".attention")
        rows += critical(values[::-1], "a" * len(values), part=".norms")
        rows.append(Row("criticality", "conv.1", target="ctc-loss", other="bypass", value=1.0, label="critical"))
        return [*rows, *critical(values, "c" * len(values))]

    found = stability_of({"A": diagnosis(made(A), "a"), "B": diagnosis(made(A[:3]), "b")})
    assert {group[2] for group in found.groups} == {"sub-module", "block"}  # a single tensor has no order
    held = figures(found, ("ctc-loss", "bypass", "sub-module"))
    assert held[SHARE, "A", "B"]["value"] == 1
    assert held[SHARE, "A", "B"]["n"] == 6
    labels = dict(found.labels(("ctc-loss", "bypass", "sub-module")))
    assert labels["layer.1.norms"]["A"]["matched"] == "layer.2.norms"


def test_without_labels_orders_are_left_and_without_criticality_nothing():
    bare = {name: diagnosis(both_modes(values, "------"), name) for name, values in (("A", A), ("B", B))}
    found = stability_of(bare)
    assert {one["figure"] for one in found.of(found.groups[0])} == {SPEARMAN, KENDALL}
    assert found.sentences()[0].startswith("By CTC loss under bypass, their orders correlate with 0.89")
    plain = diagnosis([row("cca-phone", "layer.1", 0.5)], "c")
    assert stability_of({"A": plain, "B": plain}) is None
    assert stability_of({"A": two()["A"], "B": plain}) is None
    assert (
        stability_of({"A": diagnosis(critical(A, "aaaaaa"), "a"), "B": diagnosis(critical(A, "aaaaaa", "mean"), "b")})
        is None
    )


def test_labels_that_are_all_the_same_have_no_kappa():
    found = stability_of({name: diagnosis(both_modes(A, "aaaaaa"), name) for name in "AB"})
    held = figures(found, found.groups[0])
    assert held[KAPPA, None, None]["value"] is None
    assert "6 of 6 blocks have the same label in A and B;" in found.sentences()[0]


def test_a_comparison_holds_it_saves_it_and_reads_it_back(tmp_path):
    found = compare_diagnoses(two())
    assert found.keys == []
    assert found.sentences() == found.stability.sentences()
    assert "criticality by CTC loss under bypass" in str(found)
    found.save(tmp_path / "out")
    back = Comparison.load(tmp_path / "out")
    assert back.stability.figures.equals(found.stability.figures)
    assert back.stability.units.equals(found.stability.units)
    # A later comparison without one leaves none behind.
    plain = {name: diagnosis([row("cca-phone", "layer.1", 0.5)], name) for name in "AB"}
    compare_diagnoses(plain).save(tmp_path / "out")
    assert Comparison.load(tmp_path / "out").stability is None
    assert not list((tmp_path / "out").glob("stability*"))


def test_it_is_chosen_by_its_name_and_group():
    made = {
        name: diagnosis([*both_modes(values, "aaccai"), row("cca-phone", "layer.1", 0.5)], name)
        for name, values in (("A", A), ("B", B))
    }
    assert compare_diagnoses(made, "cca-phone").stability is None
    for wanted in ("criticality", "blocks", "cca-phone,criticality"):
        assert compare_diagnoses(made, wanted).stability is not None
    assert compare_diagnoses(made, "criticality").keys == []
    with pytest.raises(MeasureError, match="No diagnosis holds 'criticality'"):
        compare_diagnoses({name: diagnosis([row("cca-phone", "layer.1", 0.5)], name) for name in "AB"}, "criticality")


def test_other_speech_is_allowed_as_for_curves():
    made = two(corpus={"name": "other", "fingerprint": "other"})
    with pytest.raises(MeasureError, match="other_speech"):
        compare_diagnoses(made)
    found = compare_diagnoses(made, other_speech=True)
    assert {one["across"] for one in found.stability.of(found.stability.groups[0]) if one["first"]} == {
        "weights and data"
    }


def test_rows_of_other_measures_of_blocks_do_no_harm():
    """Rows without values, with several targets or several rows a stream stand beside the curves."""
    rows = []
    for k in range(1, 5):
        stream = f"layer.{k}"
        rows += [
            Row("block-influence", stream, k, value=k / 10, low=k / 10 - 0.01, high=k / 10 + 0.01, n=9),
            Row("angular-distance", stream, k, value=0.1, n=9),
            *[Row("angular-distance", stream, k, other=str(n), value=0.1 * n, n=9) for n in (2, 3)],
            *[Row("block-summary", stream, k, target=t, value=0.1 * k, n=9) for t in ("diagonality", "self-mass")],
            Row("neighbour-deviation", stream, k, value=None, n=9),
            Row("abnormality", stream, k, target="uniform; edge-sink", value=None, label="abnormal", n=9),
            *[Row("block-intervention", stream, k, target="wer", other=o, value=0.1, n=9) for o in ("bypass", "local")],
            *[Row("churn", stream, k, target=t, other="initial", value=0.1) for t in ("rms", "path")],
            Row("criticality-prediction", "block", target="churn-rms", other="bypass", label="wer", value=0.5, n=4),
        ]
    found = compare_diagnoses({name: diagnosis(rows, name) for name in "AB"})
    assert {("block-influence", ""), ("block-summary", "diagonality"), ("block-summary", "self-mass")} <= set(
        found.keys
    )
    assert found.peak("block-influence", "", "A")["stream"] == "layer.4"
    assert str(found)
    assert found.sentences()
