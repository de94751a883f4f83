"""Rank correlations of cheap scores with criticality, from rows alone."""

import numpy as np
import pytest
import scipy.stats

from otoscope.interventions.prediction import criticality_prediction, granularity_of
from otoscope.measures.measure import Row
from otoscope.statistics.rank_correlation import rank_interval

DRAW = np.random.default_rng(0)


def _rows(measure, values, target=None, other=None, part="", **more):
    return [
        Row(measure, f"layer.{k}{part}", k, target=target, other=other, value=value, **more)
        for k, value in enumerate(values, start=1)
    ]


def _found(rows):
    return {(row.target, row.other, row.label, row.stream): row for row in criticality_prediction(rows).rows}


def test_it_is_scipys_correlation_with_ties():
    dear, cheap = DRAW.integers(0, 6, 12).astype(float), DRAW.integers(0, 6, 12).astype(float)
    rows = [*_rows("criticality", dear, "wer", "bypass", ceiling=0.8), *_rows("block-influence", cheap)]
    (row,) = _found(rows).values()
    wanted = float(scipy.stats.spearmanr(dear, cheap).statistic)
    assert row.value == pytest.approx(wanted, abs=1e-12)
    assert (row.low, row.high) == pytest.approx(rank_interval(wanted, 12))
    assert (row.measure, row.n, row.layer) == ("criticality-prediction", 12, None)


def test_every_score_meets_every_mode_metric_and_granularity():
    up = np.arange(1.0, 7.0)
    rows = [
        *_rows("criticality", up, "wer", "bypass", ceiling=1.0),
        *_rows("criticality", up[::-1], "ctc-loss", "re-initialise", ceiling=9.0),
        *_rows("criticality", up, "wer", "bypass", ".attention", ceiling=1.0),
        *_rows("block-influence", up),
        *_rows("angular-distance", up),
        *_rows("angular-distance", up[::-1], other="2"),
        *_rows("gradient-norm-relative", up, "ctc-loss"),
        *_rows("gradient-norm-relative", up[::-1], "ctc-loss", part=".attention"),
        *_rows("gradient-fisher", up, "ctc-loss"),
        *_rows("churn", up, "rms", "initial"),
        *_rows("churn", up, "angular", "initial"),
        *_rows("churn", up[::-1], "angular", "seed:two"),
        *_rows("importance-loo", up, "wer", "attention"),
        *_rows("globalness", up),
    ]
    found = _found(rows)
    assert found["block-influence", "bypass", "wer", "block"].value == pytest.approx(1)
    assert found["block-influence", "bypass", "wer", "block"].high == 1
    assert found["block-influence", "re-initialise", "ctc-loss", "block"].value == pytest.approx(-1)
    assert found["angular-distance", "bypass", "wer", "block"].value == pytest.approx(1)
    assert found["gradient-norm-relative", "bypass", "wer", "sub-module"].value == pytest.approx(-1)
    assert found["importance-loo", "bypass", "wer", "sub-module"].value == pytest.approx(1)
    assert found["churn-rms", "bypass", "wer", "block"].value == pytest.approx(1)
    assert found["churn-angular (initial)", "bypass", "wer", "block"].value == pytest.approx(1)
    assert found["churn-angular (seed:two)", "bypass", "wer", "block"].value == pytest.approx(-1)
    assert not any(key[0] == "globalness" for key in found)
    assert len(found) == 7 * 2 + 2


def test_accuracies_are_turned_and_what_is_not_known_is_left_out():
    worse = np.array([-0.1, -0.4, -0.2, -0.3])
    rows = [*_rows("criticality", worse, "phone", "bypass", ceiling=-0.6), *_rows("block-influence", -worse)]
    (row,) = _found(rows).values()
    assert row.value == pytest.approx(1)
    assert (row.low, row.high, row.n) == (None, None, 4)  # of four units there is no interval
    rows[1].value = None
    assert [row.n for row in _found(rows).values()] == [3]
    rows[2].value = float("nan")
    assert _found(rows) == {}
    assert criticality_prediction(rows).notes == {}


def test_a_score_that_is_the_same_for_all_units_predicts_nothing():
    rows = [*_rows("criticality", np.arange(6.0), "wer", "bypass"), *_rows("churn", np.zeros(6), "rms", "initial")]
    (row,) = _found(rows).values()
    assert (row.value, row.low, row.high) == (None, None, None)


def test_kinds_of_units():
    names = [
        "layer.12",
        "layer.1.norms",
        "layer.1.feed_forward",
        "layer.1.attention.q_proj",
        "conv.1",
        "layer.1.x.bias",
    ]
    assert [granularity_of(name) for name in names] == ["block", *["sub-module"] * 2, *["tensor"] * 3]
