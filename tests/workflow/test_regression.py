"""The demo's numbers, pinned: what the embedded model and speech gave when they were made."""

import pytest

import otoscope as oto

PINNED = {
    ("cca-mel", "conv.1"): 0.195, ("cca-mel", "layer.1"): 0.324, ("cca-mel", "layer.6"): 0.282,
    ("cca-phone", "input"): 0.534, ("cca-phone", "layer.3"): 0.682, ("cca-phone", "layer.6"): 0.736,
    ("cca-word", "input"): 0.361, ("cca-word", "layer.6"): 0.582,
}  # fmt: skip
HEADS = {"globalness": (3.7246, 3.1573), "verticality": (-4.1148, -3.6339), "diagonality": (-0.3466, -0.3307)}


@pytest.fixture(scope="module")
def diagnosis():
    return oto.diagnose("embedded", "embedded")


def test_layers(diagnosis):
    found = {(r["measure"], r["stream"]): r for r in diagnosis.table.to_dicts() if r["head"] is None}
    for key, value in PINNED.items():
        assert found[key]["value"] == pytest.approx(value, abs=3e-3), key
        assert abs(found[key]["floor"]) < 0.02
        assert found[key]["low"] < value < found[key]["high"]
    assert found["cca-phone", "layer.6"]["n"] == 4385
    assert found["cca-word", "layer.6"]["n"] == 1098


def test_heads(diagnosis):
    for name, values in HEADS.items():
        assert diagnosis.measure(name)["value"].to_list()[:2] == pytest.approx(values, abs=2e-3)
    assert diagnosis.measure("category").height == 36


def test_the_untrained_network_knows_less(diagnosis):
    from otoscope.embedded import INITIAL

    initial = oto.diagnose(INITIAL, "embedded", measures=["cca-phone"])
    before = initial.table["value"].max()
    assert before < 0.3
    assert diagnosis.measure("cca-phone")["value"].max() > before + 0.4
