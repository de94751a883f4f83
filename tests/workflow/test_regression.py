"""The demo and its numbers, pinned: what the embedded model and speech gave when they were made."""

from functools import partial

import pytest

import otoscope as oto
from otoscope.workflow import demo
from otoscope.workflow.verifying import verify
from tests.workflow.program import otoscope

PINNED = {
    ("cca-mel", "conv.1"): 0.2202, ("cca-mel", "layer.1"): 0.4064, ("cca-mel", "layer.8"): 0.3337,
    ("cca-phone", "input"): 0.5535, ("cca-phone", "layer.3"): 0.7175, ("cca-phone", "layer.8"): 0.8126,
    ("cca-word", "input"): 0.3592, ("cca-word", "layer.8"): 0.7027,
    ("cca-intra", "layer.1"): 0.9125, ("cca-intra", "layer.6"): 0.6338,
    ("cca-semantic", "layer.1"): 0.5625, ("cca-semantic", "layer.6"): 0.8217,
}  # fmt: skip
OTHERS = {  # measure, target, stream; clusters are fitted anew
    ("awd", "pooled", "layer.1"): 0.2848, ("awd", "pooled", "layer.6"): 0.8084,
    ("word-segmentation", "f1", "layer.1"): 0.4089, ("word-segmentation", "f1", "layer.6"): 0.5283,
    ("mi-word", "word", "layer.1"): 0.7186, ("mi-word", "word", "layer.6"): 0.8435,
    ("word-similarity", "micro", "layer.1"): 0.2199, ("word-similarity", "micro", "layer.6"): 0.385,
}  # fmt: skip
HEADS = {"globalness": (3.6403, 2.9025), "verticality": (-4.3459, -4.4465), "diagonality": (-0.3166, -0.0883)}
BESIDE = ("cka", *{measure for measure, *_ in (*PINNED, *OTHERS)} - set(demo.MEASURES))
"""What is pinned and the demo does not take."""
FIRST = ("-0001", "-0002", "-0003")
"""How the first utterances of a speaker end."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The demo with more measures than it takes and a short repair on little speech: its folder, and what it told."""
    folder, found = tmp_path_factory.mktemp("demo"), []

    def keep(run, *given, **named):
        # A wide margin, so that there is something to treat and to verify.
        found.append(run(*given, **named | {"repair": demo.Repair(seconds=6, margin=1e3, steps=2, repeats=6)}))
        return found[-1]

    def read(name):
        whole = oto.read_corpus(name)
        return whole if name == demo.EXAM else whole.subset(lambda one: one.id.endswith(FIRST))

    def on_little(before, after, exam, **named):
        return verify(before, after, exam.subset(lambda one: one.id.endswith("-0001")), **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "MEASURES", (*demo.MEASURES, *BESIDE))
        patch.setattr(demo, "read_corpus", read)
        patch.setattr(demo, "run_demo", partial(keep, demo.run_demo))
        patch.setattr(demo, "verify", on_little)
        done = otoscope("demo", "-o", folder / "report.html", "--keep", folder / "smaller")
    return folder, done, found[0]


@pytest.fixture(scope="module")
def diagnosis(shown):
    return shown[2].diagnosis


def test_the_demo(shown):
    folder, done, found = shown
    assert done.returncode == 0, done.stderr
    assert "Phones are best read at layer" in done.stdout
    assert "the most diagonal" in done.stdout
    assert "Plan for size: embedded" in done.stdout
    assert "remove-blocks" in done.stdout
    assert "(95% over 9 speakers)" in done.stdout
    page = (folder / "report.html").read_text()
    assert len(page) > 1_000_000
    assert "remove-blocks" in page
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "smaller"]
    assert list(found.seconds) == ["diagnose", "evidence", "prescribe", "finetune", "verify"]
    smaller = oto.load(folder / "smaller")
    assert smaller.parameters == oto.load("embedded").parameters + found.plan.cost["parameters"]
    assert found.outcome.provenance["after"][0]["fingerprint"] == smaller.fingerprint()


def test_layers(diagnosis):
    found = {(r["measure"], r["stream"]): r for r in diagnosis.table.to_dicts() if r["head"] is None}
    for key, value in PINNED.items():
        assert found[key]["value"] == pytest.approx(value, abs=3e-3), key
        assert abs(found[key]["floor"]) < 0.03
        assert found[key]["low"] < value < found[key]["high"]
    assert found["cca-phone", "layer.8"]["n"] == 4279
    assert found["cca-word", "layer.8"]["n"] == 797


def test_tasks_and_maps(diagnosis):
    found = {(r["measure"], r["target"], r["stream"]): r for r in diagnosis.table.to_dicts()}
    for key, value in OTHERS.items():
        assert found[key]["value"] == pytest.approx(value, abs=1e-2), key
        assert found[key]["floor"] < found[key]["low"] < value < found[key]["high"], key
    map_ = {(r["stream"], r["other"]): r for r in diagnosis.measure("cka").to_dicts()}
    assert map_["layer.1", "layer.8"]["value"] == pytest.approx(0.2998, abs=3e-3)
    assert map_["layer.7", "layer.8"]["value"] > map_["layer.1", "layer.8"]["high"]


def test_heads(diagnosis):
    for name, values in HEADS.items():
        assert diagnosis.measure(name)["value"].to_list()[:2] == pytest.approx(values, abs=2e-3)
    assert diagnosis.measure("category").height == 32


def test_the_untrained_network_knows_less(diagnosis):
    some = oto.read_corpus("embedded").subset(lambda one: one.id.endswith(FIRST))
    initial = oto.diagnose("embedded:wavlm-initial", some, measures=["cca-phone"])
    before = initial.table["value"].max()
    assert before < 0.3
    assert diagnosis.measure("cca-phone")["value"].max() > before + 0.4
