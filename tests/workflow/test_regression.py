"""The demo's numbers, pinned: what the embedded model and speech gave when they were made."""

import pytest

import otoscope as oto

PINNED = {
    ("cca-mel", "conv.1"): 0.2112, ("cca-mel", "layer.1"): 0.3888, ("cca-mel", "layer.8"): 0.3453,
    ("cca-phone", "input"): 0.5692, ("cca-phone", "layer.3"): 0.7006, ("cca-phone", "layer.8"): 0.7887,
    ("cca-word", "input"): 0.3706, ("cca-word", "layer.8"): 0.6108,
}  # fmt: skip
HEADS = {"globalness": (3.4402, 3.0837), "verticality": (-4.2147, -4.4503), "diagonality": (-0.3043, -0.1043)}


@pytest.fixture(scope="module")
def diagnosis():
    return oto.diagnose("embedded", "embedded")


def test_layers(diagnosis):
    found = {(r["measure"], r["stream"]): r for r in diagnosis.table.to_dicts() if r["head"] is None}
    for key, value in PINNED.items():
        assert found[key]["value"] == pytest.approx(value, abs=3e-3), key
        assert abs(found[key]["floor"]) < 0.02
        assert found[key]["low"] < value < found[key]["high"]
    assert found["cca-phone", "layer.8"]["n"] == 4279
    assert found["cca-word", "layer.8"]["n"] == 797


def test_heads(diagnosis):
    for name, values in HEADS.items():
        assert diagnosis.measure(name)["value"].to_list()[:2] == pytest.approx(values, abs=2e-3)
    assert diagnosis.measure("category").height == 32


def test_the_untrained_network_knows_less(diagnosis):
    initial = oto.diagnose("embedded:wavlm-initial", "embedded", measures=["cca-phone"])
    before = initial.table["value"].max()
    assert before < 0.3
    assert diagnosis.measure("cca-phone")["value"].max() > before + 0.4
