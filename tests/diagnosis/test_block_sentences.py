"""What is said of blocks: their patterns, verdicts and control, critical and ambient layers, predictions and churn."""

import pytest

from otoscope.diagnosis.block_sentences import block_sentences, listed
from otoscope.diagnosis.metric_words import called, change_in_words, higher_is_better, unit_of
from otoscope.diagnosis.result import Diagnosis, table_of
from otoscope.measures.measure import Row


def told(rows, notes=None):
    return block_sentences(Diagnosis(table_of(rows), {}, {"model": {"hop_ms": 20.0}, "notes": notes or {}}))


def patterns(odd, layers=6):
    return [
        Row("abnormality", f"layer.{k}", k, target=odd.get(k), value=0.002 if k in odd else 1.0,
            label="abnormal" if k in odd else "normal")
        for k in range(1, layers + 1)
    ]  # fmt: skip


def verdict(layer, label, other=None, value=None, low=None, high=None, metric="wer"):
    return Row(
        "block-verdict",
        f"layer.{layer}",
        layer,
        target=metric,
        other=other,
        value=value,
        low=low,
        high=high,
        label=label,
    )


def critical(labels, mode="re-initialise", metric="ctc-loss", ceiling=5.0, **more):
    return [
        Row("criticality", f"layer.{k}", k, target=metric, other=mode, value=1.0 - 0.1 * k, low=0.9 - 0.1 * k,
            high=1.1 - 0.1 * k, ceiling=ceiling, label=label, **more)
        for k, label in enumerate(labels, 1)
    ]  # fmt: skip


def test_a_model_of_normal_blocks():
    assert told(patterns({})) == ["All 6 blocks attend normally."]
    assert told(patterns({}, 1)) == ["The block attends normally."]


def test_an_abnormal_block_that_was_not_intervened_on():
    assert told(patterns({3: "uniform; trend of mean-offset"})) == [
        "Block 3 attends abnormally (uniform, trend of mean-offset), p = 0.002. The other 5 attend normally."
    ]
    assert told(patterns({1: None, 2: "uniform"}, 2)) == [
        "Block 1 attends abnormally, p = 0.002.", "Block 2 attends abnormally (uniform), p = 0.002.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("judged", "said"),
    [
        (
            verdict(3, "harmful", "bypass", -0.008, -0.012, -0.003),
            "bypassing its attention improves WER by 0.8 points (95 % 0.3 to 1.2): harmful.",
        ),
        (
            verdict(3, "dispensable", "neighbour", 0.001, -0.001, 0.003),
            "its neighbour's map in its place changes WER by +0.1 points (95 % -0.1 to +0.3): dispensable.",
        ),
        (verdict(3, "dispensable", "uniform", 0.0), "uniform attention in its place leaves WER as it is: dispensable."),
        (
            verdict(3, "needed", "local", 0.2, 0.1, 0.3, "ctc-loss"),
            "even limiting it to a local window worsens CTC loss by 0.200 nats per token (95 % 0.100 to 0.300): needed.",
        ),
        (
            verdict(3, "needed", "local", -0.02, -0.03, -0.01, "probe-phone"),
            "even limiting it to a local window worsens phone probe accuracy by 2.0 points (95 % 1.0 to 3.0): needed.",
        ),
        (verdict(3, "undecided"), "by WER its effect is undecided."),
    ],
)
def test_verdicts_name_what_decided_and_by_how_much(judged, said):
    lines = told([*patterns({3: "uniform"}), judged])
    assert lines[0] == f"Block 3 attends abnormally (uniform); {said} The other 5 attend normally."


def test_the_first_metric_decides_what_is_said():
    rows = [
        verdict(3, "harmful", "bypass", -0.008, -0.012, -0.003),
        verdict(3, "needed", "local", 1.0, 0.5, 2.0, "ctc-loss"),
    ]
    assert "harmful" in told([*patterns({3: "uniform"}), *rows])[0]
    assert "needed" in told([*patterns({3: "uniform"}), *rows[::-1]])[0]


def test_of_many_abnormal_blocks_the_rest_is_counted():
    rows = [*patterns(dict.fromkeys(range(1, 8), "uniform"), 8), *(verdict(k, "undecided") for k in range(1, 8))]
    lines = told(rows)
    assert len(lines) == 5
    assert lines[-1] == "3 further blocks attend abnormally (3 undecided). The other one attends normally."


def test_the_control_is_said_only_beside_an_abnormal_block():
    control = Row("block-control", target="wer", other="any", value=0.25, low=0.05, high=0.7, n=4)
    odd = [*patterns({3: "uniform"}), verdict(3, "undecided"), control]
    assert told(odd)[1] == "Of 4 normal blocks the same rule would call 25% (95 % 5% to 70%) harmful or dispensable."
    notes = {"block-control": {"says": {"wer": "By wer it is so.", "ctc-loss": "No."}}}
    assert told(odd, notes)[1:] == ["By wer it is so."]
    assert told(odd, {"block-verdict": notes})[1:] == ["By wer it is so."]
    even = [*patterns({}), *(verdict(k, "normal") for k in range(1, 7)), control]
    assert told(even, notes) == ["All 6 blocks attend normally."]


def test_ambient_and_critical_layers_are_listed_and_the_rest_counted():
    lines = told(critical(["critical", "ambient", "intermediate", "intermediate", "ambient"]))
    assert lines == [
        "When re-initialised one at a time, layers 2 and 5 are ambient, layer 1 is critical and the other 2 are intermediate "
        "(by CTC loss: +0.900 nats per token (95 % +0.800 to +1.000) at layer 1, where most is lost, +5.000 nats per token "
        "with all reset together)."
    ]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["ambient"] * 3, "all 3 layers are ambient ("),
        (
            ["critical"],
            "When re-initialised, layer 1 is critical (by CTC loss: +0.900 nats per token (95 % +0.800 to +1.000)).",
        ),
        (["ambient", "intermediate"], "layer 1 is ambient and the other one is intermediate ("),
        (["ambient", "critical"], "layer 1 is ambient and layer 2 is critical ("),
        (["intermediate", "intermediate"], "all 2 layers are intermediate ("),
    ],
)
def test_layers_of_few_labels(labels, said):
    assert said in told(critical(labels))[0]


def test_further_modes_share_a_sentence():
    rows = critical(["critical", "ambient", "intermediate"]) + critical(["critical"] * 3, "re-randomise")
    rows += critical(["intermediate", "ambient", "intermediate"], "rewind:step-10")
    lines = told(rows)
    assert len(lines) == 2
    assert lines[1] == "When re-randomised, all 3 layers are critical; rewound to step-10, layer 2 is ambient."


def test_what_another_metric_would_call_critical_is_said():
    def share(layer, value, metric="wer", mode="re-initialise"):
        return Row("criticality-normalised", f"layer.{layer}", layer, target=metric, other=mode, value=value,
                   low=value and value - 0.1, high=value and value + 0.1)  # fmt: skip

    rows = critical(["intermediate", "critical", "ambient"])
    shares = [share(1, 0.9), share(2, 0.8), share(3, 0.55), share(3, 0.9, "ctc-loss"), share(3, 0.9, mode="bypass")]
    notes = {"criticality": {"thresholds": {"critical": 0.5}}}
    assert told([*rows, *shares], notes)[1:] == [
        "By WER layer 1 would be critical: 90% (95 % 80% to 100%) of what is lost with all reset together is lost."
    ]
    assert told([*rows, *shares, share(3, 0.7)], notes)[1] == (
        "By WER layers 1 and 3 would be critical: 90% (95 % 80% to 100%) of what is lost with all reset together is lost at "
        "layer 1."
    )
    assert len(told([*rows, *shares])) == 1
    assert len(told([*rows, share(1, 0.55), share(1, None)], notes)) == 1


def test_where_less_is_worse_most_is_lost_at_the_lowest():
    rows = critical(["critical", "ambient"], metric="probe-phone", ceiling=-0.6)
    for row in rows:
        row.value, row.low, row.high = -row.value, -row.high, -row.low
    assert "-90.0 points (95 % -100.0 to -80.0) at layer 1, where most is lost, -60.0 points with all" in told(rows)[0]


def test_rows_without_labels_say_nothing():
    assert told(critical([None, None])) == []


def test_sub_modules_alone_are_counted():
    rows = [
        Row("criticality", f"layer.{k}.attention", k, target="wer", other="bypass", value=0.1, label=label)
        for k, label in enumerate(["ambient", "ambient", "critical"], 1)
    ]
    assert told(rows) == ["Of 3 units bypassed one at a time: 2 ambient, 0 intermediate, 1 critical (by WER)."]
    assert len(told([*rows, *critical(["ambient"])])) == 1


def test_a_layer_that_was_never_trained_is_named():
    def notes(*units):
        return {"criticality": {"unchanged": {"re-initialise": list(units), "rewind:a": ["layer.9"]}}}

    assert told([], notes("layer.4", "layer.4.attention")) == [
        "Layer 4 has the weights of the initialisation: never trained."
    ]
    assert told([], notes("layer.2", "layer.3", "layer.4")) == [
        "Layers 2 to 4 have the weights of the initialisation: never trained."
    ]
    assert told([], notes()) == []


def prediction(score, value, low, high, **more):
    place = {"stream": "block", "other": "re-initialise", "label": "ctc-loss", "n": 12} | more
    return Row("criticality-prediction", target=score, value=value, low=low, high=high, **place)


def test_the_best_cheap_score_and_whether_it_may_be_chance():
    rows = [prediction("block-influence", 0.83, 0.41, 0.96), prediction("churn-rms", 0.2, -0.4, 0.7)]
    assert told(rows) == [
        "Of 2 cheap scores block influence ranks layers most as their criticality does, re-initialised (Spearman's 0.83, "
        "95 % 0.41 to 0.96, 12 layers)."
    ]
    assert told(rows[1:])[0].endswith("12 layers); that may be chance.")
    assert told([prediction("churn-rms", 0.9, None, None, n=4)])[0].endswith(
        "(Spearman's 0.90, 4 layers); that may be chance."
    )


def test_predictions_of_other_sizes_modes_and_metrics_are_no_rivals():
    rows = [
        prediction("block-influence", 0.5, 0.1, 0.8), prediction("a", 0.9, 0.8, 1.0, stream="sub-module"),
        prediction("b", 0.9, 0.8, 1.0, other="bypass"), prediction("c", 0.9, 0.8, 1.0, label="wer"),
        prediction("d", None, None, None),
    ]  # fmt: skip
    assert "Of 1 cheap score block influence ranks" in told([*rows, *critical(["ambient"])])[-1]


def churn(layer, value, other="initial", target="relative"):
    return Row("churn", f"layer.{layer}", layer, target=target, other=other, value=value)


def test_the_layers_that_moved_most_and_least():
    rows = [churn(1, 0.21), churn(2, 0.034), churn(2, 9.0, "seed:b"), churn(1, 0.0, target="rms")]
    assert told(rows) == [
        "Layer 1 moved furthest from its initial weights (by 0.21 of their size), layer 2 least (0.034)."
    ]
    assert told([churn(1, 0.0), churn(2, 0.0)]) == ["No layer has moved from its initial weights."]
    assert told([churn(1, 0.5)]) == []


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([3], "layer 3"), ([3, 1], "layers 1 and 3"), ([1, 2], "layers 1 and 2"), ([1, 2, 3], "layers 1 to 3"),
        ([1, 2, 3, 5, 7, 8, 9], "layers 1 to 3, 5 and 7 to 9"),
    ],
)  # fmt: skip
def test_layers_in_words(layers, words):
    assert listed(layers) == words


@pytest.mark.parametrize(
    ("metric", "higher", "unit"),
    [
        ("wer", False, "points"), ("cer", False, "points"), ("contrastive-accuracy", True, "points"),
        ("probe-speaker", True, "points"), ("probe-mel", False, ""), ("contrastive-loss", False, "nats per masked frame"),
        ("reconstruction", False, ""),
    ],
)  # fmt: skip
def test_directions_and_units_of_metrics(metric, higher, unit):
    assert higher_is_better(metric) is higher
    assert unit_of(metric)[1] == unit
    assert called(metric)


def test_every_metric_of_the_catalogue_has_its_direction():
    from otoscope.evaluation.catalogue import RECOGNITION, SELF_SUPERVISED

    for metric in (*RECOGNITION.values(), *SELF_SUPERVISED.values()):
        assert higher_is_better(metric.name) == metric.higher_is_better, metric.name


def test_a_change_without_direction_keeps_its_sign():
    assert change_in_words("wer", 0.0, 0.0, 0.0) == "leaves WER as it is"
    assert change_in_words("wer", 0.0, -0.01, 0.01) == "changes WER by +0.0 points (95 % -1.0 to +1.0)"
    assert change_in_words("reconstruction", 0.5, None, None) == "changes the reconstruction error by +0.500"
