"""Findings in words say what the numbers say, and no more."""

import numpy as np
import pytest

from otoscope.diagnosis.result import Diagnosis, table_of
from otoscope.measures.measure import Row


def told(rows, arrays=None, **provenance):
    about = {"model": {"hop_ms": 20.0, "streams": []}, "notes": {}, "skipped": [], **provenance}
    return Diagnosis(table_of(rows), arrays or {}, about).sentences()


def cca(stream, value, low, high, floor=0.02, name="cca-phone"):
    layer = int(stream.split(".")[1]) if stream.startswith("layer") else None
    return Row(name, stream=stream, layer=layer, value=value, low=low, high=high, floor=floor)


def test_the_best_layer_with_its_interval_and_floor():
    rows = [cca("input", 0.3, 0.28, 0.32), cca("layer.1", 0.6, 0.55, 0.65), cca("layer.2", 0.5, 0.45, 0.53)]
    assert told(rows) == ["Phones are best read at layer 1 (PWCCA 0.60, 95 % 0.55 to 0.65, floor 0.02)."]


def test_streams_that_cannot_be_told_from_the_best_are_counted():
    """Folds differ widely and alike: paired, a constant lead is a lead; a lead that comes and goes is none."""
    rows = [cca("layer.1", 0.60, 0.4, 0.8), cca("layer.2", 0.58, 0.4, 0.8), cca("layer.3", 0.59, 0.4, 0.8)]
    best = np.array([0.4, 0.5, 0.6, 0.7, 0.8])
    steady = best - np.array([0.02, 0.021, 0.02, 0.019, 0.02])
    wavering = best - np.array([0.3, -0.28, 0.1, -0.1, 0.03])
    text = told(rows, arrays={"cca-phone.scores": np.stack([best, steady, wavering])})[0]
    assert text.endswith("; 1 other stream cannot be told from it.")


def test_chance_is_called_chance():
    rows = [cca("layer.1", 0.05, 0.01, 0.09, 0.02), cca("layer.2", 0.03, 0.0, 0.06, 0.02)]
    assert told(rows) == ["No layer reads phones above chance on this corpus (best 0.05, floor 0.02)."]


def test_a_network_with_fresh_weights_is_not_called_chance():
    rows = [cca("layer.1", 0.6, 0.55, 0.65, 0.14)]
    about = {"floor": {"kind": "fresh weights"}}
    assert told(rows, **about) == [
        "Phones are best read at layer 1 (PWCCA 0.60, 95 % 0.55 to 0.65, fresh weights 0.14)."
    ]
    rows = [cca("layer.1", 0.15, 0.1, 0.2, 0.14)]
    assert told(rows, **about)[0].startswith("No layer reads phones better than a network with fresh weights")


def test_sound_that_returns_at_the_top():
    rows = [
        cca("conv.1", 0.9, 0.88, 0.92, name="cca-mel"), cca("layer.1", 0.7, 0.68, 0.72, name="cca-mel"),
        cca("layer.2", 0.3, 0.28, 0.32, name="cca-mel"), cca("layer.3", 0.5, 0.45, 0.55, name="cca-mel"),
    ]  # fmt: skip
    text = told(rows)[0]
    assert "closest at convolution 1 (PWCCA 0.90)" in text
    assert "faintest at layer 2 (0.30)" in text
    assert text.endswith("returning to 0.50 at the top.")


def test_heads():
    rows = [
        Row(name, layer=layer, head=head, value=value)
        for name, values in (("diagonality", (-0.1, -0.3)), ("globalness", (1, 4)), ("verticality", (-3, -4)))
        for (layer, head), value in zip(((5, 2), (6, 0)), values, strict=True)
    ]
    rows += [Row("category", layer=5, head=2, label="diagonal"), Row("category", layer=6, head=0, label="global")]
    assert told(rows) == [
        "Head 5.2 is the most diagonal, 6.0 is the most global, 5.2 is the most vertical.",
        "Of 2 heads: 1 diagonal, 0 vertical, 1 global (each by the list in which it ranks highest).",
    ]


@pytest.mark.parametrize(
    ("far", "start"), [(0.1, "Block 1 attends most locally (50% within 100 ms) and block 2"), (0.5, "All blocks")]
)
def test_blocks(far, start):
    rows = [
        Row("relative-profile", layer=layer, target=target, value=value, floor=0.04)
        for layer, near in ((1, 0.5), (2, far))
        for target, value in (("0", near), ("40", 0.3), (">50", 0.7 - near))
    ]
    text = told(rows)
    assert text[0].startswith(start)
    assert "uniform attention would give 4%" in text[0]


def test_labels_too_rare_to_examine_are_counted():
    notes = {"cca-word": {"labels": 33, "labels_left_out": 443, "rows_left_out": 1}}
    assert told([], notes=notes) == [
        "33 words are frequent enough to be examined; 443 words (1 occurrence) left out as too rare."
    ]


def test_an_empty_diagnosis_says_nothing():
    assert told([]) == []


def test_the_verdict_on_diagonal_heads_is_told_also_where_it_does_not_hold():
    def verdict(name, value, low, high, label):
        return Row(
            name,
            target="phone",
            other="5 diagonal against 5 global heads",
            value=value,
            low=low,
            high=high,
            label=label,
        )

    rows = [
        verdict("pruning-verdict", 0.002, -0.001, 0.005, "does not hold"),
        verdict("pruning-verdict-frozen", -0.084, -0.093, -0.075, "holds"),
    ]
    assert told(rows) == [
        "That removing the most diagonal heads hurts phones more than removing the most global ones: does not hold with "
        "probes trained anew (+0.2 points, 95 % -0.1 to +0.5); holds with probes left as they were (-8.4 points, 95 % -9.3 "
        "to -7.5)."
    ]
    assert told([verdict("pruning-verdict", 0.0, None, None, "undecided")])[0].endswith("anew (+0.0 points).")
