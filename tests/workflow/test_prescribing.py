"""From a diagnosis to a treated folder, by the verbs and by the commands."""

import json
import tomllib

import numpy as np
import pytest
import torch

from otoscope.errors import CheckpointError, EvaluationError, PlanError, ResultError
from otoscope.models.loading import load
from otoscope.plans import Plan
from otoscope.speech.corpus import Corpus
from otoscope.treatments.prune_heads import PruneHeads
from otoscope.treatments.remove_blocks import RemoveBlocks
from otoscope.workflow.prescribing import prescribe
from otoscope.workflow.treating import treat, try_plan
from tests.models.small import CASES
from tests.plans.found import bypassed, found
from tests.workflow.program import otoscope

STEPS = [RemoveBlocks("layer.2"), PruneHeads("layer.1.head.0")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small model, a diagnosis of it by which layer 2 may go, and its plan."""
    folder = tmp_path_factory.mktemp("prescribing")
    (case,) = [case for case in CASES if case.name == "hubert-group"]
    case.write(folder / "model")
    described = load(folder / "model").describe()
    rows, notes = bypassed(0.1, 0.004, 0.1)
    diagnosis = found(rows, notes=notes)
    diagnosis.provenance["model"] = described
    diagnosis.save(folder / "result")
    return folder


def speech(*seconds):
    draw = np.random.default_rng(0)
    return Corpus.from_arrays([draw.standard_normal(int(16000 * s)).astype(np.float32) * 0.1 for s in seconds])


def test_a_diagnosis_leads_to_a_treated_model(place, tmp_path):
    plan = prescribe(place / "result", "size")
    assert plan.treatments == (RemoveBlocks("layer.2"),)
    assert plan.model["fingerprint"] == load(place / "model").fingerprint()
    model = load(place / "model")
    print_before = model.fingerprint()
    made = treat(model, plan, tmp_path / "treated")
    assert made.parameters < model.parameters
    assert model.fingerprint() == print_before
    again = load(tmp_path / "treated")
    stored, kept = again.encoder.state_dict(), made.encoder.state_dict()
    assert stored.keys() == kept.keys()
    assert all(torch.equal(stored[name], kept[name]) for name in kept)
    assert Plan.load(tmp_path / "treated" / "plan.toml") == plan
    card = (tmp_path / "treated" / "README.md").read_text()
    assert "remove-blocks layer.2" in card
    assert not [path for path in (tmp_path / "treated").rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_an_empty_plan_changes_nothing_bit_for_bit_and_is_not_stored(place, tmp_path):
    model = load(place / "model")
    assert treat(model, Plan()).fingerprint() == model.fingerprint()
    with pytest.raises(PlanError, match="no treated model to be stored"):
        treat(model, [], tmp_path / "treated")
    assert not (tmp_path / "treated").exists()


def test_a_plan_carried_out_twice_and_a_line_written_twice_are_that_once(place, tmp_path):
    once = treat(place / "model", STEPS, tmp_path / "once")
    again = treat(tmp_path / "once", STEPS, tmp_path / "again")
    doubled = treat(place / "model", [*STEPS, STEPS[0]], tmp_path / "doubled")
    for made in (again, doubled, load(tmp_path / "again"), load(tmp_path / "doubled")):
        stored, kept = made.encoder.state_dict(), once.encoder.state_dict()
        assert stored.keys() == kept.keys()
        assert all(torch.equal(stored[name], kept[name]) for name in kept)
    assert (tmp_path / "doubled" / "README.md").is_file()


def test_what_a_killed_program_left_is_no_hindrance_and_goes(place, tmp_path):
    half = tmp_path / "treated" / ".partial-x" / "new"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError):
        load(tmp_path / "treated")
    treat(place / "model", STEPS, tmp_path / "treated")
    assert load(tmp_path / "treated")
    assert not list((tmp_path / "treated").glob(".*"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(PlanError, match="holds something other"):
        treat(place / "model", STEPS, tmp_path / "other")


def test_other_weights_are_refused_unless_allowed(place):
    (case,) = [case for case in CASES if case.name == "hubert-group"]
    other = load(case.build(1), name="other")
    plan = prescribe(place / "result", "size")
    with pytest.raises(PlanError, match="other weights"):
        treat(other, plan)
    assert treat(other, plan, any_weights=True).parameters < other.parameters


def test_a_place_that_holds_something_else_is_refused_before_the_work(place, tmp_path):
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(PlanError, match="something other than a treated model"):
        treat("no-such-model", STEPS, tmp_path)
    with pytest.raises(PlanError, match="is a file"):
        treat("no-such-model", STEPS, tmp_path / "thesis.txt")


def test_a_trial_counts_and_times_and_writes_nothing(place):
    before = sorted(place.rglob("*"))
    trial = try_plan(place / "model", STEPS, speech(0.5, 0.6), repeats=6)
    model = load(place / "model")
    assert trial.parameters == (model.parameters, treat(model, STEPS).parameters)
    assert trial.macs_per_second[1] < trial.macs_per_second[0]
    assert len(trial.time.seconds_a) == 6
    assert "remove-blocks layer.2" in str(trial)
    assert sorted(place.rglob("*")) == before
    nothing = try_plan(model, [], None)
    assert nothing.parameters[0] == nothing.parameters[1]
    assert "nothing would change" in str(nothing)
    with pytest.raises(EvaluationError, match="2 pairs"):
        try_plan(model, STEPS, speech(0.5), repeats=2)


def command(*arguments):
    found = otoscope(*arguments)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_commands_go_from_folder_to_folder(place, tmp_path):
    from otoscope.cli import prescribing  # noqa: F401 - registers them

    out = command("prescribe", place / "result", "--goal", "size", "-o", tmp_path / "plan.toml")
    assert "remove-blocks layer.2" in out
    assert "criticality of layer.2: 0.004" in out
    assert tomllib.loads((tmp_path / "plan.toml").read_text())["goal"] == "size"
    out = command("treat", place / "model", tmp_path / "plan.toml", "-o", tmp_path / "treated")
    assert "Saved in" in out
    assert load(tmp_path / "treated").anatomy.n_layers == 3
    told = json.loads(command("prescribe", place / "result", "--json", "--margin", "3"))
    assert told["treatments"][0]["units"] == "layer.2"
    assert told["diagnosis"]["limits"] == {"margin": 3.0}
    assert told["output"] is None


def test_a_dry_run_writes_nothing(place, tmp_path):
    from otoscope.cli import prescribing  # noqa: F401 - registers them

    command("prescribe", place / "result", "--dry-run", "-o", tmp_path / "plan.toml")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "plan.toml").write_text('[[treatment]]\nkind = "remove-blocks"\nunits = "layer.2"\n')
    out = command(
        "treat", place / "model", tmp_path / "plan.toml", "--dry-run", "--repeats", "6", "-o", tmp_path / "treated"
    )
    assert "parameters:" in out
    assert "time x" in out
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("prescribe", "absent"), "holds no diagnosis"),
        (("prescribe", "{place}/result", "--goal", "beauty"), "no goal 'beauty'"),
        (("prescribe", "{place}/result", "-o", "{place}"), "it is a folder"),
        (("prescribe", "{place}/result", "--heads", "3"), "limit 'heads'"),
        (("treat", "{place}/model", "absent.toml", "-o", "{place}/new"), "absent.toml cannot be read"),
        (("treat", "{place}/model", "absent.toml"), "no folder for the treated model"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_two(place, arguments, told):
    from otoscope.cli import prescribing  # noqa: F401 - registers them

    ended = otoscope(*[one.format(place=place) for one in arguments])
    assert ended.returncode == 2
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_folder_without_a_diagnosis_is_named(tmp_path):
    with pytest.raises(ResultError, match="holds no diagnosis"):
        prescribe(tmp_path)
