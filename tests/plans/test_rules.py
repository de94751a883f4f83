"""Rules: what they prescribe on which evidence, and what they leave."""

import pytest

from otoscope.errors import PlanError
from otoscope.measures.measure import Row
from otoscope.plans import Limits, prescribe
from otoscope.plans.changes import higher_is_better, preferred
from otoscope.plans.rules.reinitialise_top import fallen
from otoscope.treatments.bypass import Bypass
from otoscope.treatments.freeze import Freeze
from otoscope.treatments.learning_rate import LearningRate
from otoscope.treatments.limit_span import LimitSpan
from otoscope.treatments.prune_heads import PruneHeads
from otoscope.treatments.reinitialise import Reinitialise
from otoscope.treatments.remove_blocks import RemoveBlocks
from otoscope.treatments.replace_attention import ReplaceAttention
from otoscope.treatments.treatment import kinds
from tests.plans.found import HEADS, LAYERS, bypassed, change, found, intervened, left_out

EVERY_HEAD = [(layer, head) for layer in range(1, LAYERS + 1) for head in range(HEADS)]


def plan(evidence, goal, notes=None, **limits):
    rows, told = evidence
    return prescribe(found(rows, notes=told | (notes or {})), goal, **limits)


def notes_of(plan, rule):
    return [note for note in plan.notes if note.startswith(f"{rule}:")]


# Layers


def test_layers_are_taken_out_as_long_as_the_worse_ends_fit_the_margin():
    # The tolerance is 0.02: 0.3 + 0.4 of it fit, 0.5 more do not.
    evidence = bypassed(0.1, 0.004, 0.006, 0.008, 0.2, 0.3, half=0.002)
    assert plan(evidence, "size").treatments == (RemoveBlocks("layer.2"), RemoveBlocks("layer.3"))
    assert plan(evidence, "size", margin=0.69).treatments == (RemoveBlocks("layer.2"),)
    assert plan(evidence, "speed", margin=1.3).treatments == tuple(RemoveBlocks(f"layer.{k}") for k in (2, 3, 4))
    assert plan(evidence, "size", margin=1e6, blocks=0.5).treatments == tuple(
        RemoveBlocks(f"layer.{k}") for k in (2, 3, 4)
    )


def test_each_line_holds_its_evidence_rule_source_and_cost():
    line = plan(bypassed(0.1, 0.004, 0.1, 0.1, 0.1, 0.1, half=0.002), "size").lines[0]
    (told,) = line.evidence
    assert (told.measure, told.units, told.value) == ("criticality", "layer.2", 0.004)
    assert (told.low, told.high, told.threshold, told.note) == (0.002, 0.006, 0.02, "ctc-loss, bypass")
    assert line.rule == "remove-ambient-blocks"
    assert "Zhang" in line.source
    assert line.cost == {"parameters": -1000, "macs_per_second": -100.0}


def test_harm_that_is_not_excluded_is_not_prescribed():
    empty = plan(bypassed(*[0.001] * LAYERS, half=0.03), "size")
    assert empty.treatments == ()
    assert "no layer is worth taking out here; layer.1 costs least, up to 1.55 tolerances" in empty.notes[0]
    unknown = plan(bypassed(*[0.001] * LAYERS, half=None), "size")
    assert unknown.treatments == ()
    assert "no interval" in unknown.notes[0]


def test_a_change_of_nothing_costs_nothing():
    assert plan(bypassed(0.0, 0.1, 0.1, 0.1, 0.1, 0.1, half=None), "size").treatments == (RemoveBlocks("layer.1"),)


def test_an_improvement_makes_no_room_for_harm():
    evidence = bypassed(-0.5, 0.03, 0.1, 0.1, 0.1, 0.1)
    assert plan(evidence, "size").treatments == (RemoveBlocks("layer.1"),)


def test_the_metric_that_is_named_decides():
    rows, notes = bypassed(0.004, *[0.1] * 5)
    rows += [change("criticality", k, 0.0005 * k, 0.0, target="wer", other="bypass") for k in range(1, LAYERS + 1)]
    notes["criticality"]["criticality"]["tolerance"]["wer"] = {"bypass": 0.001}
    assert plan((rows, notes), "size").treatments == (RemoveBlocks("layer.1"),)
    assert plan((rows, notes), "size", metric="wer").lines[0].evidence[0].value == 0.0005
    with pytest.raises(PlanError, match="no change of the metric 'cer'"):
        plan((rows, notes), "size", metric="cer")


def test_a_metric_that_is_higher_where_it_is_better_is_turned():
    evidence = intervened({1: -0.01, 2: 0.5}, metric="contrastive-accuracy", higher=True)
    assert plan(evidence, "size").treatments == (Bypass("layer.2.attention"), Bypass("layer.1.attention"))
    assert plan(intervened({1: -0.03}, metric="contrastive-accuracy"), "size").treatments == ()
    assert higher_is_better("probe-phone")
    assert not higher_is_better("probe-mel")
    assert not higher_is_better("wer")
    assert preferred({"wer", "ctc-loss", "probe-phone"}) == "ctc-loss"
    assert preferred({"strange"}) == "strange"
    assert preferred(set()) is None


def test_an_error_rate_that_surely_gets_worse_has_a_veto():
    rows, notes = bypassed(0.004, 0.005, *[0.1] * 4)
    notes["criticality"]["criticality"]["tolerance"]["wer"] = {"bypass": 0.001}
    for value, half, left in ((0.03, 0.01, True), (0.03, 0.04, False), (0.0005, 0.0, False)):
        errors = [change("criticality", 1, value, half, target="wer", other="bypass")]
        treatments = plan((rows + errors, notes), "size").treatments
        assert (RemoveBlocks("layer.1") not in treatments) == left
        assert RemoveBlocks("layer.2") in treatments


# Branches


def test_branches_share_the_margin_with_layers():
    rows, notes = bypassed(0.01, *[0.1] * 5)
    more, told = intervened({1: 0.0, 2: 0.008, 3: 0.009})
    found_plan = plan((rows + more, notes | told), "size")
    assert found_plan.treatments == (RemoveBlocks("layer.1"), Bypass("layer.2.attention"))


def test_branches_that_were_reset_by_themselves_count_too():
    rows, notes = bypassed(*[0.004] * LAYERS, stream="layer.{}.feed_forward")
    found_plan = plan((rows, notes), "size", margin=0.45)
    assert found_plan.treatments == (Bypass("layer.1.feed_forward"), Bypass("layer.2.feed_forward"))
    assert found_plan.lines[0].cost == {"parameters": -500, "macs_per_second": -40.0}


# Heads


def test_heads_that_are_not_missed_are_pruned_and_each_layer_keeps_one():
    values = dict.fromkeys(EVERY_HEAD, 1.0) | {(2, 0): 0.001, (2, 3): 0.002, (5, 1): 0.003, (5, 2): 0.03}
    found_plan = plan(left_out(values), "size")
    assert found_plan.treatments == (PruneHeads("layer.2.head.0,3"), PruneHeads("layer.5.head.1"))
    assert found_plan.lines[0].cost == {"parameters": -190, "macs_per_second": -30.0}
    assert [one.units for one in found_plan.lines[0].evidence] == ["layer.2.head.0", "layer.2.head.3"]
    all_of_them = plan(left_out(dict.fromkeys(EVERY_HEAD, 0.0)), "size").treatments
    assert all_of_them == tuple(PruneHeads(f"layer.{layer}.head.0,1,2") for layer in range(1, LAYERS + 1))


def test_a_loss_near_zero_is_held_against_what_there_is_to_lose():
    rows, notes = left_out({(1, 0): 0.01}, before=0.01)
    assert plan((rows, notes), "size").treatments == ()
    ground = intervened({})[1]  # all attention bypassed costs 2.0, of which 1 % is tolerated
    assert plan((rows, notes | ground), "size").treatments == (PruneHeads("layer.1.head.0"),)
    curve = [
        change("pruning-ctc-loss-change", None, 3.0, 0.1, target="globalness", other=str(len(EVERY_HEAD)), stream=None)
    ]
    assert plan((rows + curve, notes), "size").lines[0].evidence[0].threshold == pytest.approx(0.03)


def shapes(most_global=6):
    rows = []
    for k, (layer, head) in enumerate(EVERY_HEAD):
        label = "global" if k < most_global else "diagonal"
        rows.append(Row("category", f"layer.{layer}", layer, head, value=1.0, label=label))
        rows.append(Row("globalness", f"layer.{layer}", layer, head, value=float(k), low=k - 0.5, high=k + 0.5))
    return rows


def test_without_measurement_few_global_heads_are_pruned_and_it_is_called_a_guess():
    found_plan = plan((shapes(), {}), "size")
    # A sixth of 24 heads, the most global of those that are called global.
    assert found_plan.treatments == (PruneHeads("layer.1.head.2,3"), PruneHeads("layer.2.head.0,1"))
    assert all("guess" in line.expected for line in found_plan.lines)
    assert "a guess" in notes_of(found_plan, "prune-heads")[0]
    assert plan((shapes(), {}), "size", guesses=False).treatments == ()
    assert plan((shapes(0), {}), "size").treatments == ()
    assert plan((shapes(), {}), "size", heads=0.05).treatments == (PruneHeads("layer.2.head.1"),)


def curve(count, value, half, measure="pruning-phone-change"):
    whole = Row("pruning-phone", target="globalness", other="0", value=0.8)
    return [whole, change(measure, None, value, half, target="globalness", other=str(count), stream=None)]


def test_a_guess_that_probes_do_not_bear_out_is_not_prescribed():
    assert plan(([*shapes(), *curve(4, -0.01, 0.005)], {}), "size").treatments  # 2 % of 0.8 are tolerated
    harmed = plan(([*shapes(), *curve(4, -0.01, 0.01)], {}), "size")
    assert harmed.treatments == ()
    assert "harm is not excluded" in notes_of(harmed, "prune-heads")[0]


def test_for_accuracy_global_heads_go_only_where_phones_gain():
    gain = plan(([*shapes(), *curve(4, 0.03, 0.02)], {}), "accuracy")
    assert gain.treatments == (PruneHeads("layer.6.head.0,1,2,3"),)
    none = plan(([*shapes(), *curve(4, 0.03, 0.04)], {}), "accuracy")
    assert none.treatments == ()
    assert "no better" in notes_of(none, "remove-global-heads")[0]


# Spans


def profile(*layers, within):
    rows = []
    for layer in layers:
        for offset in range(-10, 11):
            share = within / 5 if abs(offset) <= 2 else (1 - within) / 32
            rows.append(Row("relative-profile", f"layer.{layer}", layer, target=str(offset), value=share))
        rows.append(Row("relative-profile", f"layer.{layer}", layer, target=">10", value=(1 - within) / 2))
    return rows


def test_spans_go_by_the_intervention_that_they_are():
    evidence = intervened({1: 0.05, 2: 0.004, 3: 0.001}, kind="local", width=7)
    assert plan(evidence, "speed").treatments == (LimitSpan("layer.3", 7), LimitSpan("layer.2", 7))
    assert plan(evidence, "size").treatments == ()


def test_a_span_after_the_softmax_counts_only_where_hardly_anything_lies_outside():
    rows = [change("span-layer-change", layer, 0.001, 0.0, other=str(r)) for layer in (1, 2) for r in (1, 2, 5)]
    notes = {"span-layer on ctc-loss": {"before": 1.0, "form": "literal"}}
    local = plan((rows + profile(1, within=0.995) + profile(2, within=0.5), notes), "speed")
    assert local.treatments == (LimitSpan("layer.1", 2),)
    notes["span-layer on ctc-loss"]["form"] = "banded"
    assert plan((rows, notes), "speed").treatments == (LimitSpan("layer.1", 1), LimitSpan("layer.2", 1))


def test_by_shape_alone_a_span_is_a_guess():
    guess = plan((profile(1, within=0.995) + profile(2, within=0.5), {}), "speed")
    assert guess.treatments == (LimitSpan("layer.1", 2),)
    assert guess.lines[0].evidence[0].value == pytest.approx(0.995)
    assert "guess" in guess.lines[0].expected
    assert plan((profile(1, within=0.995), {}), "speed", guesses=False).treatments == ()
    assert "no layer has 99%" in notes_of(plan((profile(2, within=0.5), {}), "speed"), "limit-spans")[0]


# Accuracy


def verdicts(*labelled, metric="ctc-loss"):
    return [
        change("block-verdict", layer, -0.02, 0.01, target=metric, other=other, label=label)
        for layer, label, other in labelled
    ]


def test_harmful_blocks_are_changed_as_the_intervention_did():
    rows = verdicts(
        (1, "harmful", "bypass"), (2, "harmful", "uniform"), (4, "harmful", "local"), (6, "harmful", "neighbour")
    )
    rows += verdicts((3, "dispensable", "bypass"), (5, "normal", "bypass"))
    found_plan = plan((rows, intervened({}, width=7)[1]), "accuracy")
    assert found_plan.treatments == (
        Bypass("layer.1.attention"), ReplaceAttention("layer.2", "uniform"), LimitSpan("layer.4", 7),
        ReplaceAttention("layer.6", "layer", source=5),
    )  # fmt: skip
    assert found_plan.lines[0].evidence[0].note == "harmful, ctc-loss, bypass"


def test_a_map_that_is_used_by_another_block_is_not_replaced():
    rows = verdicts((2, "harmful", "neighbour"), (1, "harmful", "bypass"))
    found_plan = plan((rows, {}), "accuracy")
    assert found_plan.treatments == (ReplaceAttention("layer.2", "layer", source=1),)
    assert "layer.1 is harmful, and hangs together" in notes_of(found_plan, "avoid-harmful-blocks")[0]


def test_abnormal_blocks_that_do_no_harm_are_left():
    found_plan = plan((verdicts((1, "needed", "bypass"), (2, "normal", None)), {}), "accuracy")
    assert found_plan.treatments == ()
    assert "no block is harmful by ctc-loss (1 of 2 are abnormal)" in notes_of(found_plan, "avoid-harmful-blocks")[0]


# Word curves of the two models of Pasad, Chou and Livescu 2021, figure 1, each scaled to its own range.
BASE = [0.44, 0.51, 0.58, 0.75, 0.92, 0.98, 1.00, 1.00, 0.94, 0.72, 0.27, 0.00]
LARGE = [
    0.42, 0.42, 0.50, 0.52, 0.51, 0.57, 0.71, 0.74, 0.83, 0.88, 0.94, 0.98, 0.98, 0.97, 0.97, 1.00, 1.00, 0.99, 0.96,
    0.81, 0.52, 0.45, 0.08, 0.00,
]  # fmt: skip


def word_curve(values, half=0.01):
    return [change("cca-word", k, value, half, target="word") for k, value in enumerate(values, start=1)]


def test_layers_of_the_source_have_fallen_from_the_top_down():
    assert [row.layer for row in fallen(word_curve(BASE))] == [12, 11, 10]
    assert [row.layer for row in fallen(word_curve(LARGE))] == [24, 23, 22, 21]
    assert fallen(word_curve([0.1, 0.5, 0.8, 0.9])) == []
    assert fallen(word_curve([0.1, 0.9, 0.3, 0.9, 0.7])) == []
    assert fallen(word_curve([0.5] * 4)) == []
    assert fallen(word_curve(BASE, half=1.0)) == []
    assert [row.layer for row in fallen(word_curve([0.1, 0.9, 0.2, 0.8, 0.3]))] == [5]


def test_the_top_begins_anew_with_the_evidence_of_peak_and_return():
    rows = word_curve([0.4, 0.9, 1.0, 0.9, 0.3, 0.1])
    rows += [
        change("cca-mel", k, value, 0.01, target="mel") for k, value in enumerate([1, 0.6, 0.2, 0.1, 0.3, 0.5], start=1)
    ]
    found_plan = plan((rows, {}), "accuracy")
    assert found_plan.treatments == (Reinitialise("layer.5-6", 5),)
    notes = [one.note for one in found_plan.lines[0].evidence]
    assert notes == ["the peak", "", "", "returns from its least, at layer.4"]
    assert plan((rows, {}), "accuracy", top=1).treatments == (Reinitialise("layer.6", 5),)
    fine_tuned = prescribe(found(rows, **{"class": "Wav2Vec2ForCTC"}), "accuracy")
    assert fine_tuned.treatments == ()
    assert "fine-tuned already" in notes_of(fine_tuned, "reinitialise-top")[0]


def test_rates_differ_only_where_gradient_norms_surely_do():
    rows = [change("gradient-norm-relative", 1, 0.01, 0.002), change("gradient-norm-relative", 2, 0.004, 0.003)]
    rows += [change("gradient-norm-relative", 3, 0.009, 0.002), change("gradient-norm-relative", 4, 0.0, 0.001)]
    found_plan = plan((rows, {}), "accuracy")
    assert found_plan.treatments == (LearningRate("layer.2", 0.4), LearningRate("layer.4", 0.01))
    blurred = plan(([change("gradient-norm-relative", k, 0.001 * k, 0.01) for k in (1, 2, 3)], {}), "accuracy")
    assert blurred.treatments == ()
    assert "cannot be told apart" in notes_of(blurred, "layerwise-rates")[0]


# Cost of training


def labelled(*labels, mode="re-initialise"):
    return [
        change("criticality", layer, 0.1, 0.01, other=mode, label=label) for layer, label in enumerate(labels, start=1)
    ]


LABELS = ("critical", "ambient", "intermediate", "ambient", "critical", "intermediate")


def test_ambient_layers_are_frozen():
    found_plan = plan((labelled(*LABELS), {}), "training-cost")
    assert found_plan.treatments == (Freeze("layer.2"), Freeze("layer.4"))
    assert found_plan.lines[0].cost == {"parameters": 0, "trained_parameters": -1000}
    both = labelled(*LABELS) + labelled("ambient", *["critical"] * 5, mode="rewind:pretrained")
    assert plan((both, {}), "training-cost").treatments == (Freeze("layer.1"),)
    bypass = plan((labelled(*LABELS, mode="bypass"), {}), "training-cost")
    assert bypass.treatments == ()
    assert "--initial" in notes_of(bypass, "freeze-ambient")[0]


def test_all_but_critical_layers_are_frozen_on_request():
    found_plan = plan((labelled(*LABELS), {}), "training-cost", freeze="all-but-critical")
    assert found_plan.treatments == (Freeze("layer.*", "layer.1,5"),)
    assert found_plan.lines[0].cost == {"parameters": 0, "trained_parameters": -4000}
    none = plan((labelled(*["ambient"] * LAYERS), {}), "training-cost", freeze="all-but-critical")
    assert none.treatments == ()


@pytest.mark.skipif("low-rank" not in kinds(), reason="there are no adapters")
def test_critical_layers_get_adapters_on_request():
    found_plan = plan((labelled(*LABELS), {}), "training-cost", rank=4)
    assert [one.kind for one in found_plan.treatments] == ["freeze", "freeze", "low-rank", "low-rank"]
    assert [one.units for one in found_plan.treatments[2:]] == ["layer.1", "layer.5"]
    assert found_plan.treatments[2].rank == 4
    assert "guess" in found_plan.lines[2].expected
    usual = plan((labelled(*LABELS), {}), "training-cost")
    assert "--rank 8" in notes_of(usual, "low-rank-on-critical")[0]


# Prescribing


def test_what_was_not_measured_is_named_with_the_command():
    nothing = {goal: plan(([], {}), goal) for goal in ("size", "speed", "accuracy", "training-cost")}
    for goal, found_plan in nothing.items():
        assert found_plan.treatments == ()
        assert found_plan.goal == goal
    for goal, rule, told in (
        ("size", "remove-ambient-blocks", "--measures criticality --modes bypass"),
        ("size", "bypass-dispensable", "--measures block-intervention"), ("size", "prune-heads", "--measures importance-loo"),
        ("speed", "limit-spans", "--measures block-intervention"), ("accuracy", "avoid-harmful-blocks", "--measures blocks"),
        ("accuracy", "remove-global-heads", "--measures globalness,pruning-phone"),
        ("accuracy", "reinitialise-top", "--measures cca-word,cca-mel"),
        ("accuracy", "layerwise-rates", "--measures gradient-norm-relative"),
        ("training-cost", "freeze-ambient", "--measures criticality"),
    ):  # fmt: skip
        assert told in notes_of(nothing[goal], rule)[0]


def test_a_plan_says_what_it_is_for_and_what_it_rests_on():
    found_plan = plan(bypassed(*[0.1] * LAYERS), "size", margin=2.0)
    assert found_plan.model["fingerprint"] == "abc"
    assert found_plan.diagnosis == {
        "corpus": "speech", "utterances": 9, "speakers": 3, "seconds": 60.0, "fingerprint": "def", "seed": 5,
        "otoscope": "1", "command": "otoscope diagnose", "finished": "now", "limits": {"margin": 2.0},
    }  # fmt: skip


def test_measures_that_the_rules_send_people_to_are_there():
    from otoscope.diagnosis.catalogue import choose

    for goal in ("size", "speed", "accuracy", "training-cost"):
        for note in plan(([], {}), goal, rank=8).notes:
            measures = note.rpartition("--measures ")[2].split()[0].rstrip("`,")
            assert choose(measures)


def test_what_is_no_goal_or_limit_is_refused():
    with pytest.raises(PlanError, match="no goal 'quality'"):
        prescribe(found([]), "quality")
    with pytest.raises(PlanError, match="Did you mean margin"):
        prescribe(found([]), "size", margins=2.0)
    for name, value in (("margin", -1.0), ("heads", 2.0), ("top", -1), ("freeze", "none")):
        with pytest.raises(PlanError):
            Limits(**{name: value})
