"""The examination of blocks as a whole: what it gives, what it skips, what it refuses."""

from dataclasses import replace

import pytest

from otoscope.cli.passes import Blocks, Spent, passes_of
from otoscope.diagnosis.block_entries import NOISE, block_entries, block_passes
from otoscope.diagnosis.catalogue import choose
from otoscope.embedded import MODELS
from otoscope.errors import EvaluationError, MeasureError, OtoscopeError
from otoscope.models.loading import load
from otoscope.surgery import Redraw, apply
from otoscope.workflow.blocks import BlockPasses, with_own_checkpoints
from otoscope.workflow.diagnosing import diagnose
from otoscope.workflow.examining import Passes
from tests.models.small import CASES
from tests.training.probe_material import corpus_of

CORPUS = corpus_of(speakers=4, each=2, frames=20)
LITTLE = Passes(seconds=60, blocks=BlockPasses(draws=3, modes=("re-initialise", "re-randomise", "bypass")))
NO_SPENDING = Spent(120.0, 20, None, None)
NO_OPTIONS = Blocks(None, (), (), "block", None, 3, None, None, None, 1)


@pytest.fixture(scope="module")
def model():
    return load(next(case for case in CASES if case.name == "hubert-group").build())


@pytest.fixture(scope="module")
def start(model):
    return apply(model, [Redraw("layer.*", 7)])


@pytest.fixture(scope="module")
def examined(model, start):
    lines = []
    passes = replace(LITTLE, blocks=replace(LITTLE.blocks, initial=start, twins={"two": start}))
    return diagnose(model, CORPUS, "blocks", passes=passes, tell=lines.append), lines


def test_the_group_gives_every_measure_or_says_why_not(examined):
    found, _ = examined
    there = set(found.table["measure"])
    missed = {one["measure"]: one["reason"] for one in found.provenance["skipped"]}
    names = {entry.name for entry in (*block_entries(), *block_passes())} - {NOISE}
    # Three blocks follow no trend; where all are alike there is no normal one, and nothing to take a share of.
    absent = {"block-control", "criticality-normalised", "neighbour-deviation", "trend-residual"}
    assert names - absent <= there | set(missed)
    assert all(missed.values())
    # A model without a head is judged by a phone probe, and has no loss that gradients flow from.
    assert set(missed) == {"gradient-norm-relative", "gradient-fisher"}
    assert len(found.measure("criticality")["target"].unique()) == 1


def test_every_block_has_a_verdict_and_a_label_with_an_interval(examined, model):
    found, _ = examined
    layers = list(range(1, model.anatomy.n_layers + 1))
    assert found.measure("block-verdict")["layer"].to_list() == layers
    for mode in LITTLE.blocks.modes:
        rows = found.measure("criticality").filter(other=mode)
        assert rows["layer"].to_list() == layers
        assert rows["label"].is_in(["ambient", "intermediate", "critical"]).all()


def test_stages_are_told_before_they_start(examined):
    _, lines = examined
    assert [line.split(":")[0] for line in lines] == ["Blocks", "Criticality"]
    assert all("on phone probe accuracy, over " in line for line in lines)


def test_one_pass_alone_takes_nothing_else(model):
    chosen = choose(None)
    assert "abnormality" in [entry.name for entry, _ in chosen]
    assert all(entry.make is not None for entry, _ in chosen)
    found = diagnose(model, CORPUS, "abnormality,block-influence")
    assert set(found.table["measure"]) == {"abnormality", "block-influence"}


def test_churn_alone_runs_no_variant_and_a_verdict_alone_finds_its_pattern(model, start):
    passes = replace(LITTLE, blocks=replace(LITTLE.blocks, initial=start))
    found = diagnose(model, CORPUS, "globalness,churn", passes=passes)
    assert set(found.table["measure"]) == {"globalness", "churn"}
    found = diagnose(model, CORPUS, "globalness,block-verdict", passes=passes)
    assert found.measure("block-verdict").height == model.anatomy.n_layers
    assert not found.measure("abnormality").height


def test_what_is_named_and_has_no_ground_is_an_error(model):
    with pytest.raises(MeasureError, match="churn.*checkpoint"):
        diagnose(model, CORPUS, "globalness,churn")
    with pytest.raises(MeasureError, match="criticality.*no initial|initial") as caught:
        diagnose(model, CORPUS, "globalness,criticality", passes=Passes(blocks=BlockPasses(modes=("re-initialise",))))
    assert caught.value.cure.startswith("Name its initial checkpoint")
    assert caught.value.cure.endswith("use the mode re-randomise.")
    found = diagnose(model, CORPUS, "blocks", passes=replace(LITTLE, blocks=BlockPasses(modes=("re-initialise",))))
    reasons = {one["measure"]: one["reason"] for one in found.provenance["skipped"]}
    assert "initial" in reasons["criticality"]
    assert found.measure("block-verdict").height


def test_embedded_models_come_with_their_checkpoints(model):
    mine = with_own_checkpoints(BlockPasses(), load("embedded:wav2vec2"))
    assert mine.initial == str(MODELS["embedded:wav2vec2-initial"])
    assert list(mine.checkpoints) == ["step-300", "step-700", "pretrained"]
    assert with_own_checkpoints(BlockPasses(), model) == BlockPasses()
    given = BlockPasses(initial="elsewhere")
    assert with_own_checkpoints(given, load("embedded:wav2vec2")) is given


def other_family():
    return load(next(case for case in CASES if case.name == "wavlm-group").build())


def with_a_hole(start):
    made = apply(start, [])
    made.family.encoder(made.source).state_dict()["encoder.layers.1.attention.q_proj.weight"][0, 0] = float("nan")
    return made


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"granularity": "blok"}, "Choose block, sub-module, tensor, or name units"),
        ({"granularity": ["layer.9"]}, "'layer.9' matches no unit.*nearest names are layer.3"),
        ({"modes": ("reinitialise",)}, "no mode 'reinitialise'.*modes are re-initialise"),
        ({"modes": ("rewind",)}, "no checkpoint to rewind to"),
        ({"initial": "no/such/folder"}, "no/such/folder"),
        ({"initial": other_family}, "of the family wavlm"),
        ({"twins": {"two": other_family}}, "of the family wavlm"),
        ({"initial": with_a_hole}, "Weights of layer.2 in the checkpoint 'initial' are not finite"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_any_speech_is_run(model, start, given, match, monkeypatch):
    made = {other_family: other_family, with_a_hole: lambda: with_a_hole(start)}

    given = {
        name: {key: made[one]() for key, one in value.items()} if isinstance(value, dict)
        else made[value]() if callable(value) else value
        for name, value in given.items()
    }  # fmt: skip
    monkeypatch.setattr("otoscope.diagnosis.observation.Observation.update", lambda *_, **__: pytest.fail("was run"))
    with pytest.raises(OtoscopeError, match=match):
        diagnose(model, CORPUS, "blocks", passes=Passes(blocks=BlockPasses(**given)))


def test_one_utterance_leaves_what_needs_no_interval(model, start):
    passes = replace(LITTLE, blocks=replace(LITTLE.blocks, initial=start))
    found = diagnose(model, CORPUS.subset([CORPUS[0].id]), "blocks", passes=passes)
    assert {"churn", "block-influence"} <= set(found.table["measure"])
    reasons = {one["measure"]: one["reason"] for one in found.provenance["skipped"]}
    for name in ("block-verdict", "criticality", "gradient-fisher"):
        assert reasons[name].startswith("Fewer than two utterances of corpus")


def test_too_little_speech_for_patterns_is_told_as_that(model):
    found = diagnose(model, CORPUS.subset([one.id for one in CORPUS][:2]), "blocks", passes=LITTLE)
    reasons = {one["measure"]: one["reason"] for one in found.provenance["skipped"]}
    assert reasons["block-verdict"].startswith(
        "Too little speech to tell whether blocks attend abnormally (2 utterances)"
    )
    assert found.measure("abnormality").height == 0


def test_finished_units_are_kept(model, start, tmp_path):
    passes = replace(LITTLE, store=tmp_path, blocks=replace(LITTLE.blocks, initial=start))
    first = diagnose(model, CORPUS, "globalness,criticality", passes=passes)
    assert list(tmp_path.rglob("part-*.json"))
    again = diagnose(model, CORPUS, "globalness,criticality", passes=passes)
    assert first.measure("criticality").equals(again.measure("criticality"))


@pytest.mark.parametrize(
    ("measures", "spent", "blocks", "error", "match"),
    [
        ("heads", {"metrics": "wer"}, {}, MeasureError, "--metrics"),
        (None, {}, {"initial": "x"}, MeasureError, "--initial"),
        ("layers", {}, {"cache_gb": 1.0}, MeasureError, "--cache-gb"),
        ("importance", {}, {"granularity": "tensor"}, MeasureError, "--granularity"),
        ("blocks", {}, {"stop_below": 0.1}, MeasureError, "one metric"),
        ("blocks", {"metrics": "wer"}, {"stop_below": 0.2, "stop_above": 0.1}, EvaluationError, "lower one first"),
        ("blocks", {}, {"checkpoints": ("no-name",)}, MeasureError, "NAME=PATH"),
        ("blocks", {}, {"draws": 1}, EvaluationError, "no spread"),
        ("blocks", {}, {"cache_gb": 0.0}, EvaluationError, "A cache of 0.0 GB"),
        ("blocks", {}, {"together": 0}, EvaluationError, "0 variants"),
        ("blocks", {"metrics": "nothing"}, {}, OtoscopeError, "nothing"),
    ],
)  # fmt: skip
def test_options_are_checked_before_the_work(measures, spent, blocks, error, match):
    with pytest.raises(error, match=match):
        passes_of(measures, NO_SPENDING._replace(**spent), NO_OPTIONS._replace(**blocks))


def test_options_reach_the_examination():
    given = NO_OPTIONS._replace(
        initial="a", checkpoints=("one=b",), twins=("two=c",), granularity="layer.1;layer.2.attention", modes="bypass,mean",
        stop_above=0.5, together=4,
    )  # fmt: skip
    found = passes_of("blocks", NO_SPENDING._replace(metrics="ctc-loss"), given)
    assert list(found.metrics) == ["ctc-loss"]
    assert found.blocks.granularity == ["layer.1", "layer.2.attention"]
    assert found.blocks.modes == ["bypass", "mean"]
    assert found.blocks.checkpoints == {"one": "b"}
    assert found.blocks.twins == {"two": "c"}
    assert found.blocks.stop.tau_high == 0.5
    assert found.blocks.stop.tau_low == float("-inf")
    assert passes_of("blocks", NO_SPENDING, NO_OPTIONS).blocks.granularity == "block"
