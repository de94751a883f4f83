"""`otoscope federate`, from Python and as a person meets it: clients, schedules and sizes told before, rounds, results."""

import json
from dataclasses import replace

import pytest
import torch

import otoscope
from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import FederationError, MissingPackageError
from otoscope.federation.channels import exchanged
from otoscope.federation.client import LocalSettings
from otoscope.federation.drawing import Drawing
from otoscope.federation.result import FederationResult
from otoscope.federation.running import put_recogniser
from otoscope.federation.settings import FederationSettings
from otoscope.models.recogniser import load_recogniser
from otoscope.speech import write_corpus
from otoscope.workflow import federating
from otoscope.workflow.blocks import BlockPasses
from otoscope.workflow.client_rates import elements_of
from otoscope.workflow.examining import Passes
from otoscope.workflow.federating import federate, prepared
from tests.federation.small import SPEAKERS, conformer, speech, wav2vec2
from tests.workflow.program import otoscope as command

SHORT = FederationSettings(rounds=1, local=LocalSettings(steps=1, batch_seconds=4.0, learning_rate=0.05))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders of a recogniser and of speech by four speakers."""
    folder = tmp_path_factory.mktemp("federating")
    write_corpus(speech(), folder / "speech")
    put_recogniser(wav2vec2(), folder / "model")
    return folder / "model", folder / "speech"


def test_clients_and_sizes_are_told_and_nothing_is_trained(places, tmp_path):
    model, tones = places
    given = ["federate", model, tones, "-o", tmp_path / "f", "--hold-out", 0.25, "--dry-run", "--threads", 1]
    found = command(*given, "--schedule", "uniform", "--keep", 0.5)
    assert found.returncode == 0, found.stderr
    assert "3 clients" in found.stdout
    assert "3 utterances held out" in found.stdout
    assert "layer.2.feed_forward 0.5" in found.stdout
    told = json.loads(command(*given, "--json").stdout)
    assert set(told["clients"]) < set(SPEAKERS)
    assert told["client"]["share"] == 1.0
    assert set(told["rates"].values()) == {1.0}
    assert not (tmp_path / "f").exists()


@pytest.fixture(scope="module")
def diagnosed(places, tmp_path_factory):
    """A diagnosis of the recogniser's layers."""
    folder = tmp_path_factory.mktemp("diagnosed") / "found"
    blocks = BlockPasses(modes=("bypass",))
    passes = Passes(metrics=("ctc-loss",), blocks=blocks)
    otoscope.diagnose(places[0], speech(4), ["criticality", "criticality-normalised"], passes=passes).save(folder)
    return folder


def test_a_size_is_solved_for(places):
    whole = prepared(*places, settings=SHORT, hold_out=0.25)
    half = prepared(*places, settings=SHORT, hold_out=0.25, schedule="uniform", client_size=0.8)
    assert 0.78 < half.client.share <= 0.8
    bytes_too = prepared(
        *places, settings=SHORT, hold_out=0.25, schedule="uniform", client_size=f"{whole.client.download_bytes * 0.8}B"
    )
    assert bytes_too.rates == half.rates


def test_a_memory_is_solved_for(places):
    asked = dict(settings=SHORT, hold_out=0.25, schedule="uniform")
    whole = prepared(*places, **asked | {"keep": 1.0, "client_memory": "1GB"})
    assert whole.client.share == 1
    limit = int(whole.memory * 0.97)
    fitted = prepared(*places, **asked, client_memory=f"{limit}B")
    assert fitted.client.share < 1
    assert fitted.memory <= limit
    assert f"holds {fitted.memory / 2**20:.1f} MiB at most" in str(fitted)
    assert fitted.to_dict()["client"]["step_bytes"] == fitted.memory


@pytest.mark.parametrize("wrong", ["0", "1.5", "many", "8 parsecs", "-1MiB", "1.2.3", "nan"])
def test_a_size_that_is_none(wrong):
    with pytest.raises(FederationError, match="The size of a client"):
        elements_of(wrong, 1000)


def test_rates_by_name_of_units(places):
    found = prepared(*places, settings=SHORT, hold_out=0.25, schedule={"layer.2": 0.5, "layer.*.attention": 0.25})
    assert found.rates["layer.1.feed_forward"] == 1.0
    assert found.rates["layer.2.feed_forward"] == 0.5
    assert found.rates["layer.2.attention"] == 0.25


def test_a_run_lowers_the_loss_and_leaves_a_model(places, tmp_path):
    rows = []
    settings = FederationSettings(
        rounds=3, local=LocalSettings(batch_seconds=4.0, optimiser="adamw", learning_rate=3e-3)
    )
    result = federate(*places, tmp_path / "f", settings=settings, hold_out=0.25, report=lambda _, row: rows.append(row))
    assert result.status == "completed"
    assert [row.round for row in rows] == [1, 2, 3]
    assert rows[-1].loss < rows[0].loss
    assert FederationResult.load(tmp_path / "f") == result
    assert result.fingerprint == load_recogniser(places[0]).model.fingerprint()
    assert result.asked == {"schedule": "full"}
    trained = exchanged(load_recogniser(tmp_path / "f").model)
    before = exchanged(load_recogniser(places[0]).model)
    assert any(not torch.equal(trained[name], before[name]) for name in before)
    again = federate(*places, tmp_path / "again", settings=settings, hold_out=0.25)
    same = exchanged(load_recogniser(tmp_path / "again").model)
    assert all(torch.equal(trained[name], same[name]) for name in trained)
    assert [row.held_out for row in again.rows] == [row.held_out for row in result.rows]


def test_the_command_tells_rounds_and_what_comes_next(places, tmp_path):
    model, tones = places
    options = ["--rounds", 2, "--local-steps", 1, "--batch-seconds", 4, "--hold-out", 0.25, "--threads", 1]
    found = command("federate", model, tones, "-o", tmp_path / "f", "--clients", "speaker:2", *options, "--tensorboard")
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert any(line.startswith("before the first round  wer ") for line in lines)
    assert sum(line.startswith("round ") for line in lines) == 2
    assert f"Next: otoscope verify {model} {tmp_path / 'f'} CORPUS" in lines
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "f" / "run" / "runs"))
    board.Reload()
    assert {"train/loss", "eval/wer", "train/share"} <= set(board.Tags()["scalars"])
    assert [one.step for one in board.Scalars("eval/wer")] == [1, 2]
    told = json.loads(command("federate", model, tones, "-o", tmp_path / "g", *options, "--json").stdout)
    assert told["status"] == "completed"
    assert len(told["rows"]) == 2


def test_how_rates_were_come_by_is_told(places, diagnosed):
    asked = dict(settings=SHORT, hold_out=0.25)
    found = prepared(*places, **asked, schedule="ambient", diagnosis=diagnosed, client_size=0.8)
    fingerprint = load_recogniser(places[0]).model.fingerprint()
    told = {"schedule": "ambient", "client_size": 0.8, "diagnosed": fingerprint, "mode": "bypass", "metric": "ctc-loss"}
    assert found.asked == told
    assert found.to_dict()["asked"] == told
    assert prepared(*places, **asked, schedule="uniform", keep=0.7).asked == {"schedule": "uniform", "keep": 0.7}
    assert prepared(*places, **asked, schedule={"layer.1": 0.5}).asked == {"schedule": {"layer.1": 0.5}}


def test_variables_can_be_frozen(places):
    half = prepared(*places, settings=replace(SHORT, drawing=Drawing(0, frozen=0.5)), hold_out=0.25)
    assert half.client.upload_bytes < half.client.download_bytes


def test_a_dry_run_refuses_what_a_run_would(places):
    with pytest.raises(FederationError, match="9 clients a round"):
        prepared(*places, settings=replace(SHORT, cohort=9), hold_out=0.25)


def test_noise_can_be_drawn_again_by_a_seed_of_its_own(places, tmp_path):
    pytest.importorskip("opacus")
    given = ["federate", *places, "-o", tmp_path / "f", "--hold-out", 0.25, "--dry-run", "--json", "--threads", 1]
    told = json.loads(command(*given, "--privacy-noise", 1, "--privacy-seed", 7).stdout)
    assert told["settings"]["privacy"]["seed"] == 7


def test_short_utterances_alone(places):
    lengths = sorted(one.seconds for one in speech())
    middle = lengths[len(lengths) // 2]
    found = prepared(*places, settings=SHORT, hold_out=0.25, shorter_than=middle)
    assert all(one.seconds < middle for share in found.shares for one in share.utterances)


def test_a_model_without_a_head_gets_one(places):
    model = otoscope.load(places[0])
    bare = otoscope.load(model.source.wav2vec2)
    found = prepared(bare, places[1], settings=SHORT, hold_out=0.25)
    assert set("abcd") <= set(found.recogniser.vocabulary.tokens)


def test_conformers_have_convolutions_to_leave_out(places):
    found = prepared(
        conformer().model, places[1], settings=SHORT, hold_out=0.25, vocabulary="characters", schedule="uniform"
    )
    assert found.rates["layer.1.convolution"] == 0.5
    assert found.rates["layer.1.feed_forward.2"] == 0.5


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"runner": "cloud"}, "no runner 'cloud'"),
        ({"clients": "speaker:40"}, "40 clients"),
        ({"clients": "somebody"}, "no partition"),
        ({"schedule": "ambiant"}, "Did you mean ambient"),
        ({"schedule": "ambient"}, "goes by a diagnosis"),
        ({"schedule": {"layer.9": 0.5}}, "layer.9"),
        ({"schedule": "uniform", "client_size": 1e-6}, "smaller than this schedule"),
        ({"schedule": {"layer.1": 0.5}, "client_size": 0.5}, "not solved for a size"),
        ({"schedule": "uniform", "client_memory": "10KB"}, "of the smallest client of this schedule holds"),
        ({"schedule": "uniform", "client_memory": "0.5"}, "The memory of a client"),
        ({"schedule": "uniform", "client_memory": "1GB", "client_size": 0.5}, "Both a size and a memory"),
        ({"schedule": {"layer.1": 0.5}, "client_memory": "1GB"}, "not solved for a size"),
        ({"schedule": "uniform", "layers": 1}, "only the schedule 'random' draws layers"),
        ({"schedule": "uniform", "mode": "bypass"}, "no diagnosis"),
        ({"schedule": "uniform", "diagnosis": "anywhere"}, "the schedule goes by none"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(places, tmp_path, options, match):
    with pytest.raises(FederationError) as refused:
        federate(*places, tmp_path / "f", settings=SHORT, hold_out=0.25, **options)
    assert match in f"{refused.value}"
    assert not (tmp_path / "f").exists()


def test_a_diagnosis_without_criticality(places, tmp_path):
    otoscope.diagnose(places[0], speech(2), ["globalness"]).save(tmp_path / "found")
    with pytest.raises(FederationError, match="does not say how critical"):
        prepared(*places, settings=SHORT, hold_out=0.25, schedule="ambient", diagnosis=tmp_path / "found")
    assert Diagnosis.load(tmp_path / "found")


def test_speech_in_memory_has_no_path_for_other_machines(places, tmp_path):
    with pytest.raises(FederationError, match="has no path"):
        federate(places[0], speech(), tmp_path / "f", settings=SHORT, runner="deploy")


def test_without_flower(places, tmp_path, monkeypatch):
    monkeypatch.setattr(federating.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"otoscope\[federation\]"):
        federate(*places, tmp_path / "f", settings=SHORT)


def test_bad_options_are_named_errors(places, tmp_path):
    found = command("federate", *places, "-o", tmp_path / "f", "--widths", "half", "--dry-run")
    assert found.returncode == 2
    assert "--widths 'half' are no numbers" in found.stderr
    privately = command(
        "federate", *places, "-o", tmp_path / "f", "--privacy-noise", 1, "--denominator", "coverage", "--dry-run"
    )
    assert privately.returncode == 2
    assert "Take the denominator 'cohort'" in privately.stderr
