"""Orders in their right directions, agreement against scipy, l1 norms by hand."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import EvaluationError, SurgeryError
from otoscope.interventions.agreement import KENDALL, SPEARMAN, agreement, kendall, spearman
from otoscope.interventions.orders import Order, order_by, order_by_loss, random_orders, values_of
from otoscope.interventions.weights import NAME, weight_importance
from otoscope.measures.measure import Row
from otoscope.models import load
from otoscope.statistics import jackknife
from otoscope.surgery import CutHeads, Gate, Span, apply
from tests.models.small import CASES
from tests.surgery.cases import run, same_bits, speech

VALUES = {(1, 0): 0.3, (1, 1): -0.5, (2, 0): 0.3, (2, 1): 2.0}


def _case(name):
    return next(case for case in CASES if case.name == name)


def test_orders_prune_from_the_end_that_their_source_does():
    assert order_by("globalness", VALUES).heads == ((2, 1), (1, 0), (2, 0), (1, 1))
    assert order_by("diagonality", VALUES).heads[0] == order_by("verticality", VALUES).heads[0] == (2, 1)
    for name in ("max-weight", "confidence", "importance-gradient", "importance-l1", "importance-attribution"):
        assert order_by(name, VALUES).heads == ((1, 1), (1, 0), (2, 0), (2, 1))
    # A loss that rises most without a head is a reason to keep it; so is an accuracy that falls most.
    assert order_by_loss(VALUES, higher_is_better=False).heads[-1] == (2, 1)
    assert order_by_loss(VALUES, higher_is_better=True).heads[-1] == (1, 1)
    with pytest.raises(EvaluationError, match="high or of low size"):
        order_by("size", VALUES)
    assert order_by("size", VALUES, high_first=True).heads[0] == (2, 1)
    with pytest.raises(EvaluationError, match="layer 1, head 0 is nan"):
        order_by("globalness", {(1, 0): float("nan")})
    with pytest.raises(EvaluationError, match="given for no head"):
        order_by("globalness", {})


def test_steps_and_edits_of_an_order():
    whole = Order("x", tuple((layer, head) for layer in range(1, 13) for head in range(12)))
    assert whole.steps() == (0, 24, 48, 72, 96, 120, 144)
    assert Order("x", ((1, 0), (1, 1))).steps() == (0, 1, 2)
    order = order_by("globalness", VALUES)
    assert order.edits(0) == []
    assert order.edits(3) == [Gate("layer.1.head.0"), Gate("layer.2.head.0,1")]
    with pytest.raises(EvaluationError, match="5 heads are to be removed"):
        order.edits(5)
    with pytest.raises(EvaluationError, match="0 steps"):
        order.steps(0)


def test_random_orders_hold_every_head_once_and_come_from_their_seed():
    heads = [(layer, head) for layer in (1, 2, 3) for head in range(4)]
    one, other = random_orders(heads, seed=1, count=2)
    assert (one.name, other.name) == ("random-0", "random-1")
    assert sorted(one.heads) == sorted(other.heads) == heads
    assert one.heads != other.heads
    assert random_orders(reversed(heads), seed=1)[0] == one
    assert random_orders(heads, seed=2)[0] != one


def test_values_of_rows():
    rows = [
        Row("importance-loo", "layer.1", 1, 0, "wer", value=1.0),
        Row("importance-loo", "layer.1", 1, 0, "cer", value=2.0),
        Row("importance-loo", "layer.1", 1, None, "wer", value=3.0),
        Row("globalness", "layer.1", 1, 0, value=4.0),
    ]
    assert values_of(rows, "importance-loo", "wer") == {(1, 0): 1.0}
    assert values_of(rows, "globalness") == {(1, 0): 4.0}
    with pytest.raises(EvaluationError, match="several values"):
        values_of(rows, "importance-loo")
    with pytest.raises(EvaluationError, match="No head has a value of confidence"):
        values_of(rows, "confidence")


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=14))
def test_rank_correlations_and_those_without_each_value_are_scipys(pairs):
    x, y = np.array(pairs, np.float64).T
    for ours, theirs in ((kendall, scipy.stats.kendalltau), (spearman, scipy.stats.spearmanr)):
        value, without = ours(x, y)
        kept = [np.delete(np.arange(len(x)), k) for k in range(len(x))]
        for found, rows in zip([value, *without], [np.arange(len(x)), *kept], strict=True):
            if len(set(x[rows])) < 2 or len(set(y[rows])) < 2:
                assert np.isnan(found)
            else:
                assert found == pytest.approx(theirs(x[rows], y[rows]).statistic, abs=1e-12)


def test_agreement_of_rankings():
    draw = np.random.default_rng(0)
    heads = [(layer, head) for layer in (1, 2, 3) for head in range(4)]
    a = {head: float(draw.normal()) for head in heads}
    noisy = {head: value + 0.5 * float(draw.normal()) for head, value in a.items()}
    sets = {"a": a, "cubed": {h: v**3 for h, v in a.items()}, "turned": {h: -v for h, v in a.items()}, "noisy": noisy}
    found = agreement(sets | {"flat": dict.fromkeys(heads, 1.0)})
    rows = {(row.measure, row.target, row.other): row for row in found.rows}
    assert len(rows) == 20
    for measure in (KENDALL, SPEARMAN):
        assert rows[measure, "a", "cubed"].value == pytest.approx(1)
        assert rows[measure, "a", "turned"].value == pytest.approx(-1)
        assert rows[measure, "a", "flat"].value is None
        assert rows[measure, "a", "flat"].low is None
        one = rows[measure, "a", "noisy"]
        assert one.n == 12
        assert -1 <= one.low < one.value < one.high <= 1
    x, y = (np.array([values[head] for head in heads]) for values in (a, noisy))
    low, _ = jackknife(*kendall(x, y))
    assert rows[KENDALL, "a", "noisy"].low == pytest.approx(float(low))


def test_only_heads_that_all_sets_have_are_compared():
    other = {(1, 0): 1.0, (1, 1): 2.0, (2, 0): 3.0, (3, 3): 4.0}
    assert {row.n for row in agreement({"a": VALUES, "b": other}).rows} == {3}
    with pytest.raises(EvaluationError, match="2 heads have a value"):
        agreement({"a": VALUES, "b": {(1, 0): 1.0, (1, 1): 2.0}})
    with pytest.raises(EvaluationError, match="The b of a head is not finite"):
        agreement({"a": VALUES, "b": dict.fromkeys(VALUES, float("nan"))})
    with pytest.raises(EvaluationError, match="1 sets"):
        agreement({"a": VALUES})


@pytest.mark.parametrize("name", ["wav2vec2-group", "whisper", "parakeet", "conformer-relative"])
def test_the_l1_norm_of_a_head_by_hand(name):
    model = load(_case(name).build().eval())
    rows = weight_importance(model).rows
    assert [(row.layer, row.head) for row in rows] == [(k, h) for k in (1, 2, 3) for h in range(4)]
    layers = model.encoder.get_submodule(model.family.layers)
    for row in rows:
        attention = layers[row.layer - 1].get_submodule(model.family.attention)
        total = 0.0
        for part in model.family.projections[:3]:
            linear = getattr(attention, part)
            total += float(linear.weight[12 * row.head : 12 * (row.head + 1)].detach().double().abs().sum())
            if linear.bias is not None:
                total += float(linear.bias[12 * row.head : 12 * (row.head + 1)].detach().double().abs().sum())
        assert row.measure == NAME
        assert row.value == pytest.approx(total, rel=1e-12)


def test_l1_norms_of_heads_that_are_left_keep_their_names():
    model = load(_case("hubert-group").build().eval())
    cut = apply(model, [CutHeads("layer.2.head.0,2"), CutHeads("layer.3")])
    whole = {(row.layer, row.head): row.value for row in weight_importance(model).rows}
    left = {(row.layer, row.head): row.value for row in weight_importance(cut).rows}
    assert set(left) == {(1, 0), (1, 1), (1, 2), (1, 3), (2, 1), (2, 3)}
    assert left == {head: whole[head] for head in left}


def test_a_radius_that_reaches_everywhere_changes_nothing():
    model, corpus = load(_case("wavlm-group").build().eval()), speech(0.3)
    with pytest.raises(SurgeryError):
        Span("layer.*", -1)
    far = run(apply(model, [Span("layer.*", 1000)]), corpus).streams
    assert torch.allclose(far["layer.3"], run(model, corpus).streams["layer.3"], atol=2e-5)
    near = run(apply(model, [Span("layer.*", 2)]), corpus).streams
    assert not same_bits(near, far)
