"""Pruning and span curves: every point is that of a model edited by hand, with the paired interval."""

import pytest

from otoscope.errors import EvaluationError, SurgeryError
from otoscope.evaluation import CTCLoss, WordErrorRate, paired_bootstrap
from otoscope.interventions.curves import pruning_curves
from otoscope.interventions.orders import Order
from otoscope.interventions.spans import span_curves, span_variants
from otoscope.models.recogniser import Recogniser
from otoscope.surgery import Gate, Span, apply
from tests.evaluation.speaking import VOCABULARY, small_recogniser, speech

CORPUS = speech(seconds=(0.6, 0.8, 0.5), transcripts=("A cat", "the cats", "it's"))


@pytest.fixture(scope="module")
def recogniser():
    return small_recogniser("hubert-ctc-stable")


@pytest.fixture(scope="module")
def whole(recogniser):
    return CTCLoss().values(recogniser, CORPUS)


def _after(recogniser, edits):
    return CTCLoss().values(Recogniser(apply(recogniser.model, edits), VOCABULARY), CORPUS)


def test_pruning_curves(recogniser, whole):
    heads = [(layer, head) for layer in (3, 2, 1) for head in range(4)]
    up, down = Order("upwards", tuple(heads[::-1])), Order("downwards", tuple(heads))
    result = pruning_curves(recogniser, CORPUS, [up, down], CTCLoss(), steps=3)
    rows = {(row.measure, row.target, row.other): row for row in result.rows}
    assert [key[2] for key in rows if key[:2] == ("pruning-ctc-loss", "upwards")] == ["0", "4", "8", "12"]
    assert len(rows) == 16
    for order in ("upwards", "downwards"):
        assert rows["pruning-ctc-loss", order, "0"].value == whole.value
        assert rows["pruning-ctc-loss-change", order, "0"].value == 0
    for order, count, units in (
        ("upwards", 4, "1"),
        ("upwards", 8, "1-2"),
        ("downwards", 4, "3"),
        ("downwards", 12, "*"),
    ):
        after = _after(recogniser, [Gate(f"layer.{units}")])
        own, change = (rows[f"pruning-ctc-loss{end}", order, str(count)] for end in ("", "-change"))
        wanted = paired_bootstrap(whole, after)
        assert own.value == pytest.approx(after.value, abs=1e-12)
        assert (own.low, own.high) == pytest.approx((after.interval().low, after.interval().high))
        assert (change.value, change.low, change.high) == pytest.approx((wanted.value, wanted.low, wanted.high))
        assert own.n == change.n == 3
    assert result.notes["pruning-ctc-loss"]["before"] == whole.value


def test_points_that_orders_share_are_run_once(recogniser):
    heads = [(layer, head) for layer in (1, 2, 3) for head in range(4)]
    seen = set()

    class Counting(CTCLoss):
        def count(self, recogniser, one):
            seen.add(recogniser.name)
            return super().count(recogniser, one)

    orders = [Order("a", tuple(heads)), Order("b", tuple(heads[::-1]))]
    pruning_curves(recogniser, CORPUS, orders, Counting(), steps=2)
    assert len(seen) == 1 + 2 + 1  # the whole model, each order's half, and all heads removed


def test_orders_are_named_once(recogniser):
    for orders in ([], [Order("a", ((1, 0),)), Order("a", ((1, 1),))]):
        with pytest.raises(EvaluationError, match="no curves to be told apart"):
            pruning_curves(recogniser, CORPUS, orders, CTCLoss())


@pytest.mark.parametrize("form", ["literal", "banded"])
def test_span_curves_of_all_heads_together(recogniser, whole, form):
    result = span_curves(recogniser, CORPUS, CTCLoss(), radii=(3, 0), form=form)
    rows = {(row.measure, row.other): row for row in result.rows}
    assert [other for measure, other in rows if measure == "span-ctc-loss"] == ["full", "3", "0"]
    assert rows["span-ctc-loss", "full"].value == whole.value
    for radius in (3, 0):
        after = _after(recogniser, [Span("layer.*", radius, form)])
        row, change = rows["span-ctc-loss", str(radius)], rows["span-ctc-loss-change", str(radius)]
        assert row.target == form
        assert row.layer is None
        assert row.value == pytest.approx(after.value, abs=1e-12)
        wanted = paired_bootstrap(whole, after)
        assert (change.value, change.low, change.high) == pytest.approx((wanted.value, wanted.low, wanted.high))


def test_span_curves_by_layer_and_by_head(recogniser, whole):
    result = span_curves(recogniser, CORPUS, CTCLoss(), radii=(1,), per="layer")
    changes = {row.layer: row.value for row in result.rows if row.measure.endswith("change") and row.other == "1"}
    assert list(changes) == [1, 2, 3]
    assert changes[2] == pytest.approx(_after(recogniser, [Span("layer.2", 1)]).value - whole.value, abs=1e-12)
    places = span_variants(recogniser.model.anatomy, (4, 2), "banded", "head")
    assert len(places) == 3 * 4 * 2
    row, edits = places["layer.2.head.3 within 4, banded"]
    assert (row.stream, row.layer, row.head, row.target, row.other) == ("layer.2", 2, 3, "banded", "4")
    assert edits == [Span("layer.2.head.3", 4, "banded")]


def test_an_error_rate_has_an_interval_where_nothing_differs(recogniser):
    result = span_curves(recogniser, CORPUS, WordErrorRate(), radii=(10_000,), form="banded")
    change = next(row for row in result.rows if row.measure == "span-wer-change" and row.other == "10000")
    assert change.value == 0
    assert change.low < 0 < change.high


def test_limits_that_give_no_curve_are_refused(recogniser):
    anatomy = recogniser.model.anatomy
    with pytest.raises(EvaluationError, match="per 'word'"):
        span_variants(anatomy, per="word")
    for radii in ((), (3, 3)):
        with pytest.raises(EvaluationError, match="give no curve"):
            span_variants(anatomy, radii)
    with pytest.raises(SurgeryError, match="no form"):
        span_variants(anatomy, (3,), form="soft")
    with pytest.raises(SurgeryError, match="radius"):
        span_variants(anatomy, (-1,))
