"""Labels of criticality: the rule on intervals made by hand, its thresholds, the metric that it goes by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import EvaluationError
from otoscope.evaluation import CTCLoss, WordErrorRate
from otoscope.evaluation.self_supervised import ContrastiveLoss
from otoscope.interventions.criticality.labels import (
    AMBIENT,
    CRITICAL,
    INTERMEDIATE,
    Thresholds,
    label,
    labelling_metric,
    tolerance,
)
from tests.evaluation.speaking import speech


@pytest.mark.parametrize(
    ("change", "share", "wanted"),
    [
        ((-0.01, 0.004), (-0.1, 0.1), AMBIENT),
        ((-0.01, 0.005), (-0.1, 0.1), INTERMEDIATE),  # the upper end is at the threshold, not below it
        ((0.3, 0.5), (0.51, 0.9), CRITICAL),
        ((0.3, 0.5), (0.5, 0.9), INTERMEDIATE),
        ((-0.2, 0.9), (-0.2, 0.9), INTERMEDIATE),  # an interval that says nothing forces no label
        ((-0.5, -0.4), (-0.9, -0.7), AMBIENT),  # better without what it learnt
        ((0.0, 0.0), (None, None), AMBIENT),
        ((None, None), (None, None), INTERMEDIATE),
        ((0.3, 0.5), (None, None), INTERMEDIATE),
    ],
)
def test_the_rule(change, share, wanted):
    assert label(change, share, 0.005) == wanted
    turned = tuple(None if end is None else -end for end in reversed(change))
    assert label(turned, share, 0.005, higher_is_better=True) == wanted


def test_the_share_beyond_which_a_unit_is_critical_is_an_option():
    assert label((0.3, 0.5), (0.3, 0.5), 0.01, critical=0.25) == CRITICAL
    assert label((0.3, 0.5), (0.3, 0.5), 0.01) == INTERMEDIATE


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.001, 0.2))
def test_a_narrower_interval_never_takes_a_label_away(middle, reach, ambient):
    wide = label((middle - reach, middle + reach), (middle - reach, middle + reach), ambient)
    narrow = label((middle - reach / 2, middle + reach / 2), (middle - reach / 2, middle + reach / 2), ambient)
    assert wide in (narrow, INTERMEDIATE)


def test_tolerances():
    assert tolerance("wer", 0.2) == pytest.approx(0.004)
    assert tolerance("wer", 0.0) == tolerance("cer", 0.01) == 0.001
    assert tolerance("wer", 0.2, ceiling=0.9) == pytest.approx(0.004)
    assert tolerance("ctc-loss", 1.5) == tolerance("log-likelihood", -1.5) == pytest.approx(0.03)
    assert tolerance("ctc-loss", 1e-6, ceiling=4.0) == pytest.approx(0.04)
    assert tolerance("contrastive-accuracy", 0.5, ceiling=-0.5) == pytest.approx(0.01)
    with pytest.raises(EvaluationError, match="'ambient' is -0.1"):
        Thresholds(-0.1)
    with pytest.raises(EvaluationError, match="'critical' is nan"):
        Thresholds(critical=float("nan"))


def test_few_words_are_sorted_by_the_loss():
    words = [" ".join(["a"] * 750)] * 4
    few, many = speech(), speech(transcripts=words)
    wer, loss = WordErrorRate(), CTCLoss()
    assert labelling_metric(few, [wer, loss]) is loss
    assert labelling_metric(many, [wer, loss]) is wer
    assert labelling_metric(speech(transcripts=[*words[:3], words[3][2:]]), [wer, loss]) is loss
    assert labelling_metric(few, [wer]) is wer
    other = ContrastiveLoss()
    assert labelling_metric(few, [other, loss]) is other
    with pytest.raises(EvaluationError, match="no metric"):
        labelling_metric(few, [])
