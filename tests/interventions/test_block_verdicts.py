"""The rule for abnormal blocks on intervals whose verdict is known, its rate of false alarms, and its control."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from otoscope.errors import EvaluationError
from otoscope.interventions.blocks.control import block_verdicts, control_sentence, controls, drawn_blocks
from otoscope.interventions.blocks.variants import INTERVENTIONS
from otoscope.interventions.blocks.verdicts import CHANGE, VERDICTS, Criterion, abnormal_of, judge, verdicts
from otoscope.measures.measure import Result, Row
from otoscope.statistics.multiple import holm, wilson

LOSS = Criterion("ctc-loss", False, 0.1, 9)
NOTHING = (0.0, None, None)
WORSE, LITTLE, OPEN, BETTER = (0.5, 0.3, 0.7), (0.05, 0.02, 0.08), (0.1, -0.1, 0.3), (-0.5, -0.6, -0.4)


def changes(blocks, metric="ctc-loss"):
    """Rows of blocks: layer -> (value, low, high) of each intervention in order, None where it is absent."""
    return [
        Row(CHANGE, f"layer.{layer}", layer, target=metric, other=kind, value=one[0], low=one[1], high=one[2], n=36)
        for layer, found in blocks.items()
        for kind, one in zip(INTERVENTIONS, found, strict=False)
        if one is not None
    ]


def verdict(*found, criterion=LOSS):
    row = verdicts({1: True}, changes({1: found}, criterion.metric), [criterion])[0]
    return row.label, row.other


def t_row(layer, kind, sample):
    """A row with Student's interval of a sample's mean."""
    mean, half = (
        float(np.mean(sample)),
        student.ppf(0.975, len(sample) - 1) * np.std(sample, ddof=1) / len(sample) ** 0.5,
    )
    return Row(CHANGE, f"layer.{layer}", layer, target="ctc-loss", other=kind, value=mean, low=mean - half,
               high=mean + half, n=36)  # fmt: skip


@pytest.mark.parametrize(
    ("found", "label", "other"),
    [
        ((WORSE, WORSE, WORSE, BETTER), "harmful", "neighbour"),
        ((LITTLE, BETTER, WORSE, (-0.9, -1.0, -0.8)), "harmful", "neighbour"),
        ((WORSE, LITTLE, OPEN, WORSE), "dispensable", "uniform"),
        ((LITTLE, (0.0, -0.02, 0.02), WORSE, WORSE), "dispensable", "uniform"),
        ((WORSE, (0.4, 0.2, 0.6), WORSE, WORSE), "needed", "uniform"),
        ((WORSE, WORSE, WORSE, None), "needed", "bypass"),
        ((WORSE, (0.4, 0.25, 0.55), (0.5, 0.2, 0.8), WORSE), "needed", "local"),  # of the least lower end
        (((0.5, 0.1, 0.9),) * 4, "undecided", "bypass"),  # from the margin on is not beyond it
        ((WORSE, OPEN, WORSE, WORSE), "undecided", "uniform"),
        (
            (WORSE, (0.3, 0.05, 0.55), WORSE, WORSE),
            "undecided",
            "uniform",
        ),  # worse, and perhaps not by more than the margin
        ((WORSE, NOTHING, WORSE, WORSE), "dispensable", "uniform"),
        ((LITTLE, NOTHING, WORSE, WORSE), "dispensable", "bypass"),  # what changes something says more
        ((NOTHING, NOTHING, NOTHING, NOTHING), "dispensable", "bypass"),
        (
            (WORSE, (-0.2, None, None), WORSE, WORSE),
            "undecided",
            "bypass",
        ),  # a change by the same in all has no interval
    ],
)
def test_verdicts_of_intervals(found, label, other):
    assert verdict(*found) == (label, other)


def test_what_changes_nothing_never_improves_whatever_the_margin():
    assert verdict(NOTHING, WORSE, criterion=dataclasses.replace(LOSS, margin=0.0)) == ("dispensable", "bypass")


def test_the_margin_parts_dispensable_from_needed():
    found = ((0.15, 0.12, 0.18),) * 4
    for margin, label in ((0.2, "dispensable"), (0.15, "undecided"), (0.1, "needed")):
        assert verdict(*found, criterion=dataclasses.replace(LOSS, margin=margin))[0] == label


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.001, 1)), min_size=4, max_size=12))
def test_a_metric_that_falls_where_things_get_worse_is_turned(drawn):
    blocks = {}
    for k, (value, half) in enumerate(drawn):
        blocks.setdefault(1 + k // 4, []).append((value, value - half, value + half))
    turned = {layer: [(-v, -high, -low) for v, low, high in found] for layer, found in blocks.items()}
    abnormal = dict.fromkeys(blocks, True)
    as_loss = verdicts(abnormal, changes(blocks), [LOSS])
    as_score = verdicts(abnormal, changes(turned), [dataclasses.replace(LOSS, higher_is_better=True)])
    assert [(row.label, row.other) for row in as_loss] == [(row.label, row.other) for row in as_score]


def test_normal_blocks_are_normal_and_each_metric_has_its_own_verdict():
    rows = changes({1: [BETTER] * 4, 2: [BETTER] * 4}) + changes({1: [WORSE] * 4, 2: [WORSE] * 4}, "wer")
    wer = Criterion("wer", False, 0.001, 9)
    found = verdicts({1: False, 2: True, 3: True}, rows, [LOSS, wer])
    told = {(row.target, row.layer): (row.label, row.n) for row in found}
    assert told == {
        ("ctc-loss", 1): ("normal", 36),
        ("ctc-loss", 2): ("harmful", 36),
        ("ctc-loss", 3): ("undecided", None),  # not intervened on
        ("wer", 1): ("normal", 36),
        ("wer", 2): ("needed", 36),
        ("wer", 3): ("undecided", None),
    }
    normal = next(row for row in found if (row.target, row.layer) == ("wer", 1))
    assert (normal.other, normal.value, normal.low, normal.high) == ("bypass", *WORSE)  # the mildest
    row = next(row for row in found if (row.target, row.layer) == ("ctc-loss", 2))
    assert (row.measure, row.stream, row.value, row.low, row.high) == ("block-verdict", "layer.2", *BETTER)
    assert {row.label for row in found} <= set(VERDICTS)


def test_p_values_are_those_of_student_corrected_over_abnormal_blocks_only():
    """With a margin so large that all is dispensable, what is harmful is what Holm rejects for the better."""
    rng = np.random.default_rng(0)
    wide = dataclasses.replace(LOSS, margin=100.0)
    seen = set()
    for _ in range(30):
        samples = {(layer, kind): rng.normal(-0.4, 1, 9) for layer in (1, 2, 3) for kind in INTERVENTIONS}
        rows = [t_row(layer, kind, sample) for (layer, kind), sample in samples.items()]
        flagged = {key: sample for key, sample in samples.items() if key[0] != 2}
        p = holm(np.array([ttest_1samp(sample, 0).pvalue for sample in flagged.values()]))
        improved = {k for ((k, _), sample), q in zip(flagged.items(), p, strict=True) if q < 0.05 and sample.mean() < 0}
        found = verdicts({1: True, 2: False, 3: True}, rows, [wide])
        assert {row.layer for row in found if row.label == "harmful"} == improved
        assert [row.label for row in found if row.layer == 2] == ["normal"]
        seen |= improved
    assert seen == {1, 3}


def test_p_values_have_the_degrees_of_freedom_of_the_intervals():
    """Of two tests one is rejected below 2.5 %: where the value is that many more half widths of a 95 % interval."""
    few = dataclasses.replace(LOSS, blocks=3)
    edge = student.ppf(0.9875, 2) / student.ppf(0.975, 2)
    for value, label in ((-1.02 * edge, "harmful"), (-0.98 * edge, "dispensable")):
        assert verdict((value, value - 1, value + 1), OPEN, criterion=few)[0] == label


def test_harmful_is_rarely_said_where_no_intervention_changes_anything():
    rng = np.random.default_rng(1)
    runs, alarms, uncorrected = 200, 0, 0
    for _ in range(runs):
        rows = [t_row(layer, kind, rng.normal(0, 1, 9)) for layer in (1, 2, 3) for kind in INTERVENTIONS]
        alarms += any(row.label == "harmful" for row in verdicts({1: True, 2: True, 3: True}, rows, [LOSS]))
        uncorrected += any(row.high < 0 for row in rows)
    assert alarms / runs <= 0.05  # 2.5 % and its Monte Carlo noise
    assert uncorrected / runs > 0.2


def test_blocks_of_unknown_kind_and_metrics_without_rows_are_refused():
    rows = changes({1: [WORSE] * 4, 2: [WORSE] * 4})
    with pytest.raises(EvaluationError, match="Block 2 was intervened on, and nothing says"):
        verdicts({1: True}, rows, [LOSS])
    with pytest.raises(EvaluationError, match="No intervention was taken by wer"):
        verdicts({1: True, 2: True}, rows, [dataclasses.replace(LOSS, metric="wer")])
    with pytest.raises(EvaluationError, match="margin of ctc-loss is nan"):
        dataclasses.replace(LOSS, margin=float("nan"))
    with pytest.raises(EvaluationError, match="block 1 has no value"):
        judge([dataclasses.replace(rows[0], value=None)], LOSS)


def test_the_control_counts_what_the_rule_says_of_normal_blocks():
    blocks = {
        1: [WORSE, WORSE, WORSE, None],
        2: [LITTLE, WORSE, WORSE, WORSE],
        3: [WORSE, OPEN, WORSE, BETTER],
        4: [WORSE] * 4,
        5: [LITTLE] * 4,
    }
    found = controls({1: False, 2: False, 3: False, 4: False, 5: True}, changes(blocks), [LOSS])
    shares = {row.other: (row.value, row.n) for row in found}
    assert shares == {
        "any": (2 / 4, 4),
        "bypass": (1 / 4, 4),
        "uniform": (0, 4),
        "local": (0, 4),
        "neighbour": (1 / 3, 3),
    }
    row = found[0]
    assert (row.measure, row.stream, row.layer, row.target, row.label) == (
        "block-control",
        None,
        None,
        "ctc-loss",
        None,
    )
    assert (row.low, row.high) == wilson(2, 4)
    assert controls({1: True}, changes({1: [WORSE] * 4}), [LOSS]) == []


def said(flagged, normal):
    """The sentence where so many of abnormal and of normal blocks are dispensable: (hits, n) each."""
    hits = [*[True] * flagged[0], *[False] * (flagged[1] - flagged[0])]
    hits += [*[True] * normal[0], *[False] * (normal[1] - normal[0])]
    rows = changes({k: [LITTLE if hit else WORSE] * 4 for k, hit in enumerate(hits, 1)})
    abnormal = {k: k <= flagged[1] for k in range(1, len(hits) + 1)}
    return control_sentence([*verdicts(abnormal, rows, [LOSS]), *controls(abnormal, rows, [LOSS])], "ctc-loss")


def test_the_sentence_says_whether_abnormality_says_anything():
    assert said((2, 2), (9, 9)).endswith("abnormality says nothing here about need.")
    assert said((1, 2), (3, 6)).endswith("abnormality says nothing here about need.")
    few = said((1, 1), (2, 5))
    assert few.startswith(
        "By ctc-loss 1 of 1 abnormal block is harmful or dispensable; the same rule says so of 2 of 5"
    )
    assert "may be chance with so few" in few
    assert "(p = 0.5)" in few  # 3 of 6 are dispensable, and the abnormal one is among them
    assert said((4, 4), (0, 8)).endswith("abnormality goes with not being needed (p = 0.002).")  # 1 in 12 over 4
    assert "no normal block was tried" in said((1, 2), (0, 0))
    assert said((0, 0), (2, 5)) == "By ctc-loss there is nothing to be compared: no block is abnormal."
    with pytest.raises(EvaluationError, match="no verdict by wer"):
        control_sentence([], "wer")


def test_the_sentence_calls_metrics_by_the_names_that_it_is_given():
    rows = changes({1: [WORSE] * 4})
    judged = verdicts({1: False}, rows, [LOSS])
    assert control_sentence(judged, "ctc-loss", str.upper).startswith("By CTC-LOSS there is nothing")


def test_verdicts_from_what_interventions_gave():
    rows = changes({1: [LITTLE] * 4, 2: [WORSE] * 4})
    found = block_verdicts(
        {1: True, 2: False}, Result(rows, notes={CHANGE: {"metrics": {"ctc-loss": {"criterion": LOSS.to_dict()}}}})
    )
    assert [row.label for row in found.rows if row.measure == "block-verdict"] == ["dispensable", "normal"]
    assert [row.value for row in found.rows if row.measure == "block-control"] == [0.0] * 5
    assert found.notes["block-verdict"]["criteria"] == [LOSS.to_dict()]
    assert "may be chance" in found.notes["block-control"]["says"]["ctc-loss"]


def test_abnormal_blocks_are_read_from_the_table():
    rows = [
        Row("abnormality", "layer.2", 2, label="abnormal", target="uniform"),
        Row("abnormality", "layer.3", 3, label="normal"),
        Row("block-summary", "layer.4", 4, label="abnormal"),
    ]
    assert abnormal_of(rows) == {2: True, 3: False}


def test_normal_blocks_are_drawn_by_the_seed():
    abnormal = {layer: layer in (2, 5) for layer in range(1, 13)}
    drawn = [drawn_blocks(abnormal, 3, seed) for seed in range(4)]
    assert all({2, 5} < set(one) and len(one) == 5 for one in drawn)
    assert len({tuple(one) for one in drawn}) > 1
    assert drawn_blocks(abnormal, 99) == list(range(1, 13))
