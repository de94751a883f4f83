"""Sign tests say what their figures say, and nothing where the figures do not."""

from dataclasses import replace

import numpy as np
import pytest

from otoscope.errors import MeasureError
from otoscope.interventions.probed import ProbedCurves, Variant
from otoscope.interventions.signs import (
    MARGIN,
    diagonal_against_global,
    diagonal_hurts_phones_most,
    global_spares_phones,
    moderate_span,
    sign_tests,
    tally,
    vertical_concentrates,
)
from otoscope.measures.measure import Row
from tests.training.probe_material import corpus_of, speech_of

SPEECH = speech_of(corpus_of(speakers=8, each=2))


def scores_of(task, share, seed=0):
    """Accuracies of 100 frames an utterance around a share, a little different from speaker to speaker."""
    from otoscope.evaluation.scores import Scores

    corpus = SPEECH.corpus
    rng = np.random.default_rng(seed)
    right = np.clip(np.rint(100 * share + rng.normal(0, 0.6, len(corpus))), 0, 100)
    return Scores(
        f"probe-{task}", "share of frames", True, tuple(u.id for u in corpus), tuple(u.speaker for u in corpus),
        right, np.full(len(corpus), 100.0),
    )  # fmt: skip


def curves_of(phone, speaker, spans=(0.6, 0.5)) -> ProbedCurves:
    """Curves whose first step has these accuracies by order; the whole model has 0.6 and 0.9."""
    points = {}
    for k, (task, accuracies) in enumerate((("phone", phone), ("speaker", speaker))):
        for m, (order, share) in enumerate(accuracies.items()):
            points[Variant("pruning", order, 4), task, "trained"] = scores_of(task, share, 10 * k + m + 1)
        points[Variant("span", "literal", 25), task, "trained"] = scores_of(task, spans[k], 50 + k)
    whole = {"phone": scores_of("phone", 0.6), "speaker": scores_of("speaker", 0.9)}
    floors = {task: scores_of(task, 0.1) for task in whole}
    return ProbedCurves(SPEECH, whole, floors, floors, 24, points=points)


PAPER = curves_of(
    {"diagonality": 0.5, "globalness": 0.61, "verticality": 0.6, "max-weight": 0.6},
    {"diagonality": 0.3, "globalness": 0.8, "verticality": 0.7, "max-weight": 0.8},
)
TURNED = curves_of(
    {"diagonality": 0.6, "globalness": 0.5, "verticality": 0.55},
    {"diagonality": 0.8, "globalness": 0.6, "verticality": 0.7},
    spans=(0.4, 0.95),
)
EQUAL = curves_of({"diagonality": 0.6, "globalness": 0.6, "verticality": 0.6}, {"globalness": 0.7, "verticality": 0.7})
GOOD, BAD, OPEN = (Row("x", value=v, low=v - 0.1, high=v + 0.1) for v in (0.5, -0.5, 0.01))


@pytest.mark.parametrize(
    ("curves", "row", "outcome"), [(PAPER, GOOD, "pass"), (TURNED, BAD, "fail")], ids=["as published", "the other way"]
)
def test_all_six_signs(curves, row, outcome):
    found = sign_tests(curves, row, row)
    assert [sign.number for sign in found] == ["i", "ii", "iii", "iv", "v", "vi"]
    assert [sign.outcome for sign in found] == [outcome] * 6
    assert tally(found) == {"pass": 0, "fail": 0, "undecided": 0} | {outcome: 6}
    for sign in found:
        assert sign.published
        assert f"({sign.number})" in str(sign)
        assert set(sign.to_dict()) >= {"claim", "outcome", "found", "published"}


def test_what_is_not_decided_is_not_claimed():
    assert [sign.outcome for sign in sign_tests(EQUAL, OPEN, OPEN)[::2]] == ["undecided"] * 3
    assert sign_tests(EQUAL)[4].found == sign_tests(EQUAL)[5].found == "Not examined"
    bare = replace(PAPER, points={})
    for sign in sign_tests(bare):
        assert sign.outcome == "undecided"
        assert sign.found.startswith("Not examined")
    frozen = sign_tests(PAPER, mode="frozen")
    assert {sign.outcome for sign in frozen[:4]} == {"undecided"}


def test_a_number_has_to_be_beyond_its_floor():
    """Permuted labels correlate with verticality too: no more than that is no sign."""
    high = Row("x", value=0.8, low=0.7, high=0.9)
    for floor, outcome in ((None, "pass"), (0.6, "pass"), (0.75, "undecided"), (0.95, "undecided"), (-0.5, "pass")):
        assert vertical_concentrates(replace(high, floor=floor)).outcome == outcome
    assert vertical_concentrates(replace(high, floor=0.95)).found.endswith("its floor +0.950")
    low = Row("x", value=-0.8, low=-0.9, high=-0.7)
    for floor, outcome in ((0.5, "fail"), (-0.6, "fail"), (-0.8, "undecided")):
        assert vertical_concentrates(replace(low, floor=floor)).outcome == outcome


def test_without_curves_two_signs_are_left():
    assert [sign.number for sign in sign_tests(None, GOOD, GOOD)] == ["v", "vi"]


def test_one_order_that_hurts_more_fails_the_first_sign_and_one_as_bad_leaves_it_open():
    accuracies = {"diagonality": 0.5, "globalness": 0.6, "verticality": 0.6}
    speakers = {"globalness": 0.7, "verticality": 0.7}
    assert diagonal_hurts_phones_most(curves_of(accuracies | {"max-weight": 0.4}, speakers)).outcome == "fail"
    assert diagonal_hurts_phones_most(curves_of(accuracies | {"max-weight": 0.5}, speakers)).outcome == "undecided"
    assert diagonal_hurts_phones_most(curves_of(accuracies | {"random-0": 0.4}, speakers)).outcome == "pass"


def test_a_loss_within_the_margin_is_none():
    def outcome(share):
        return global_spares_phones(curves_of({"globalness": share}, {})).outcome

    assert MARGIN == 0.01
    assert outcome(0.65) == outcome(0.597) == "pass"
    assert outcome(0.5) == "fail"
    assert outcome(0.59) == "undecided"


@pytest.mark.parametrize(
    ("curves", "label", "sign"), [(PAPER, "holds", -1), (TURNED, "does not hold", 1), (EQUAL, "undecided", 0)]
)
def test_the_verdict_on_diagonal_against_global_heads(curves, label, sign):
    row = diagonal_against_global(curves)
    assert (row.measure, row.label, row.target) == ("pruning-verdict", label, "phone")
    assert row.other == "4 diagonal against 4 global heads"
    assert row.low < row.value < row.high
    if sign:
        assert np.sign(row.low) == np.sign(row.high) == sign
    before, after = (curves.scores(Variant("pruning", n, 4), "phone").value for n in ("globalness", "diagonality"))
    assert row.value == pytest.approx(after - before)


def test_the_moderate_span_is_the_nearest_to_three_quarters_of_a_second():
    points = {
        (Variant("span", form, r), "phone", "trained"): PAPER.whole["phone"]
        for form in ("literal", "banded") for r in (50, 25, 5, 0)
    }  # fmt: skip
    assert moderate_span(replace(PAPER, points=points)).amount == 50  # 750 ms are 37.5 frames of 20 ms
    coarse = replace(SPEECH, grid=replace(SPEECH.grid, hop=480))
    assert moderate_span(replace(PAPER, points=points, speech=coarse)).amount == 25
    with pytest.raises(MeasureError, match="No literal span"):
        moderate_span(replace(PAPER, points={}))
