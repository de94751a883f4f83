"""Runs in a folder: begun, killed, taken up, ended; clients answer without training."""

from dataclasses import replace

import pytest
import torch

from otoscope.errors import FederationError
from otoscope.federation.channels import exchanged, groups_of
from otoscope.federation.result import FederationResult
from otoscope.federation.running import Run, check_run_folder
from otoscope.federation.schedules import uniform
from otoscope.federation.server import Server
from otoscope.federation.settings import FederationSettings, PrivacySettings
from otoscope.models.recogniser import load_recogniser
from tests.federation.answers import NAMES, answers
from tests.federation.small import VOCABULARY, speech, wav2vec2

MODEL = wav2vec2().model
HELD = speech(3).utterances
SPEECH = dict.fromkeys(NAMES, "a hash")


def run(folder, rounds=3, resume=False, report=None, held=HELD, given=SPEECH, keep_rate=0.5, **settings):
    rates = uniform(groups_of(MODEL), keep_rate)
    server = Server(MODEL, NAMES, rates, FederationSettings(rounds=rounds, server="fedadam", **settings))
    return Run(server, VOCABULARY, held, folder, given, resume=resume, report=report)


def train(opened, rounds):
    for round in range(opened.server.done + 1, opened.server.done + rounds + 1):
        opened.finish(round, answers(opened.server, round), {}, 0.5)


def killed(unopened, rounds):
    with unopened as opened:
        train(opened, rounds)
        raise RuntimeError("killed")


def failing(unopened):
    with unopened as opened:
        train(opened, 1)
        opened.finish(2, answers(opened.server, 2)[:2], {})


def weights(folder):
    return exchanged(load_recogniser(folder).model)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def whole(folder, **settings):
    with run(folder, **settings) as opened:
        train(opened, 3)
        return opened.complete()


def test_a_run_leaves_a_model_and_a_true_result(tmp_path):
    seen = []
    result = whole(tmp_path / "run", report=lambda so_far, row: seen.append((so_far.status, row.round)))
    assert FederationResult.load(tmp_path / "run") == result
    assert (result.status, result.runner, result.clients) == ("completed", "local", NAMES)
    assert seen == [("running", 1), ("running", 2), ("running", 3)]
    assert set(result.initial) == {"wer", "cer"}
    assert [number for number, _ in result.curve("wer")] == [0, 1, 2, 3]
    assert same(weights(tmp_path / "run" / "initial"), exchanged(MODEL))
    assert not same(weights(tmp_path / "run"), exchanged(MODEL))
    assert load_recogniser(tmp_path / "run").vocabulary.tokens == VOCABULARY.tokens
    assert not list((tmp_path / "run" / "run").glob("round-*"))


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path):
    expected = whole(tmp_path / "whole")
    with pytest.raises(RuntimeError):
        killed(run(tmp_path / "part"), 2)
    broken = FederationResult.load(tmp_path / "part")
    assert (broken.status, broken.reason, len(broken.rows)) == ("failed", "RuntimeError: killed", 2)
    with run(tmp_path / "part", resume=True, tolerance=0.5, timeout=5.0, keep=1) as opened:
        assert opened.server.done == 2
        train(opened, 1)
        found = opened.complete()
    assert same(weights(tmp_path / "part"), weights(tmp_path / "whole"))
    assert found.rows == expected.rows
    assert found.initial == expected.initial


def test_a_run_killed_before_its_first_round_begins_anew(tmp_path):
    with pytest.raises(KeyboardInterrupt), run(tmp_path / "part"):
        raise KeyboardInterrupt
    assert FederationResult.load(tmp_path / "part").reason == "it was interrupted"
    with run(tmp_path / "part", resume=True) as opened:
        train(opened, 3)
        opened.complete()
    whole(tmp_path / "whole")
    assert same(weights(tmp_path / "part"), weights(tmp_path / "whole"))


def test_a_round_that_fails_keeps_the_one_before(tmp_path):
    with pytest.raises(FederationError, match="2 of 4 clients failed"):
        failing(run(tmp_path / "run"))
    result = FederationResult.load(tmp_path / "run")
    assert (result.status, len(result.rows)) == ("failed", 1)
    assert "2 of 4 clients failed" in result.reason
    with run(tmp_path / "run", resume=True) as opened:
        assert opened.server.done == 1


def test_leaving_before_the_end_is_no_success(tmp_path):
    with run(tmp_path / "run") as opened:
        train(opened, 1)
        with pytest.raises(FederationError, match="2 of 3 rounds are left"):
            opened.complete()
    assert FederationResult.load(tmp_path / "run").status == "failed"


def test_the_last_round_is_evaluated_whatever_comes_between(tmp_path):
    result = whole(tmp_path / "run", evaluate_every=2)
    assert [number for number, _ in result.curve("cer")] == [0, 2, 3]
    assert whole(tmp_path / "silent", held=()).last == {}


def test_only_so_many_states_are_kept(tmp_path):
    with run(tmp_path / "run", keep=2) as opened:
        train(opened, 3)
        assert len(list((tmp_path / "run" / "run").glob("round-*"))) == 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"seed": 1}, "other drawing: seed = 0, not 1"), ({"rounds": 4}, "other rounds = 3, not 4"),
        ({"keep_rate": 0.75}, "other rates: layer.1.attention = 0.5, not 0.75"),
        ({"given": SPEECH | {"ann": "another"}}, "other clients$|other clients\\."), ({"held": HELD[:2]}, "other held_out"),
        ({"held": [replace(HELD[0], transcript="d"), *HELD[1:]]}, "other held_out"),
    ],
)  # fmt: skip
def test_a_run_is_not_taken_up_with_anything_else(tmp_path, change, match):
    with run(tmp_path / "run") as opened:
        train(opened, 1)
    with pytest.raises(FederationError, match=match), run(tmp_path / "run", resume=True, **change):
        pass


def test_a_run_killed_after_its_model_and_before_its_end_is_ended(tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(FederationResult, "ended", interrupted)
        with pytest.raises(KeyboardInterrupt):
            whole(tmp_path / "part")
    assert (tmp_path / "part" / "config.json").exists()
    assert FederationResult.load(tmp_path / "part").status == "running"
    with pytest.raises(FederationError, match="holds a model already"):
        check_run_folder(tmp_path / "part", False)
    with run(tmp_path / "part", resume=True) as opened:
        assert opened.server.done == 3
        assert opened.complete().status == "completed"
    whole(tmp_path / "whole")
    assert same(weights(tmp_path / "part"), weights(tmp_path / "whole"))
    with pytest.raises(FederationError, match="holds a model already"):
        check_run_folder(tmp_path / "part", True)


def interrupted(result, reason=""):
    raise KeyboardInterrupt


def test_a_failure_before_the_first_round_does_not_block_the_folder(tmp_path):
    FederationResult("tiny", (), "deploy", {}, {}).ended("a port was in use").save(tmp_path)
    (tmp_path / "flower").mkdir()
    check_run_folder(tmp_path, False)
    with pytest.raises(FederationError, match="no federated training to go on with"):
        check_run_folder(tmp_path, True)
    with run(tmp_path) as opened:
        assert opened.result.status == "running"
    completed = tmp_path / "completed"
    FederationResult("tiny", (), "deploy", {}, {}).ended().save(completed)
    with pytest.raises(FederationError, match="not empty"):
        check_run_folder(completed, False)


def test_the_seed_of_the_noise_is_not_told_with_the_model(tmp_path):
    pytest.importorskip("opacus")
    private = {"denominator": "cohort", "privacy": PrivacySettings(seed=31415926)}
    with run(tmp_path / "run", **private) as opened:
        train(opened, 1)
    assert "31415926" not in (tmp_path / "run" / "federation.json").read_text()
    with pytest.raises(FederationError, match="other privacy") as refused:
        run(tmp_path / "run", resume=True, denominator="cohort", privacy=PrivacySettings(seed=5)).__enter__()
    assert "31415926" not in str(refused.value)
    with run(tmp_path / "run", resume=True, **private) as opened:
        assert opened.server.done == 1


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(FederationError, match="no federated training to go on with"):
        check_run_folder(tmp_path / "none", True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    with pytest.raises(FederationError, match="not empty"):
        check_run_folder(tmp_path / "other", False)
    with run(tmp_path / "run") as opened:
        with pytest.raises(FederationError, match="interrupted"):
            check_run_folder(tmp_path / "run", False)
        with pytest.raises(FederationError, match="Another process"), run(tmp_path / "run", resume=True):
            pass
        train(opened, 3)
        opened.complete()
    for resume in (False, True):
        with pytest.raises(FederationError, match="holds a model already"):
            check_run_folder(tmp_path / "run", resume)
