"""`otoscope pretrain` and `otoscope finetune`, run as programs."""

import json
import os
import signal
import subprocess
import sys

import pytest

from otoscope.cli.training import Log, Run, render_line, standing
from otoscope.models.recogniser import load_recogniser
from otoscope.speech import write_corpus
from otoscope.speech.corpus import LeftOut
from otoscope.training.outcome import TrainingOutcome
from tests.training.small_training import spelt_speech, weights
from tests.workflow.program import otoscope

TINY = ["--layers", 2, "--heads", 2, "--width", 32, "--feed-forward", 48, "--mask", 0.5, "--mask-span", 4]
SHORT = [
    "--steps",
    4,
    "--batch-seconds",
    4,
    "--log-every",
    2,
    "--evaluate-every",
    4,
    "--hold-out",
    0.25,
    "--threads",
    1,
]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech") / "tones"
    write_corpus(spelt_speech(), folder)
    return folder


@pytest.fixture(scope="module")
def pretrained(speech, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "m"
    return folder, otoscope("pretrain", "hubert", speech, "-o", folder, "--clusters", 5, "--keep", "2", *TINY, *SHORT)


def test_pretrain_tells_the_time_left_and_what_comes_next(pretrained):
    folder, done = pretrained
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert "step     2 of 4" in done.stdout
    assert sum("min left" in line for line in lines) == 2
    assert sum("held out" in line for line in lines) >= 1
    assert f"otoscope finetune {folder}" in done.stdout.replace("\n", "")
    assert {"initial", "step-2", "run", "config.json", "model.safetensors"} <= {path.name for path in folder.iterdir()}


def test_finetune_prints_json_alone_on_standard_output(pretrained, speech, tmp_path):
    done = otoscope(
        "finetune", pretrained[0], speech, "-o", tmp_path / "m", *SHORT, "--json", "--speed", 0.9, 1.1, "--noise", 0.5,
        "--train-convolutions", "--phone-layer", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["objective"] == "ctc"
    assert told["held_out"].keys() == {"wer", "cer"}
    assert "min left" in done.stderr
    assert load_recogniser(tmp_path / "m").vocabulary.tokens[2:] == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["pretrain", "wav2vec2", "embedded"], "The embedded speech is for examination"),
        (["pretrain", "wav2vec2", "SPEECH", "--keep", "soon"], "names no steps"),
        (["pretrain", "wav2vec2", "SPEECH", "--threads", "0"], "0 threads"),
        (["finetune", "/no/such/model", "SPEECH"], "/no/such/model"),
    ],
)
def test_errors_are_two_lines_with_the_cure(arguments, told, speech, tmp_path):
    done = otoscope(*(speech if one == "SPEECH" else one for one in arguments), "-o", tmp_path / "m")
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_help_shows_examples(command):
    done = otoscope(command, "--help")
    assert done.returncode == 0
    assert f"otoscope {command}" in done.stdout
    assert "torchrun" in done.stdout


def test_a_line_of_figures():
    row = {"step": 20, "of": 100, "held_out": {"wer": 0.5, "cer": 0.25}}
    assert render_line(row) == "step    20 of 100  [bold]held out:[/bold] wer 0.500  cer 0.250"


def test_what_was_left_out_is_listed(tmp_path, capsys):
    left_out = tuple(LeftOut(f"utterance-{k}", f"[{k}] is short") for k in range(23))
    outcome = TrainingOutcome(tmp_path / ("long" * 30), "ctc", {"wer": 0.5}, 10, 2, left_out)
    Log(Run(), tmp_path).outcome(outcome, "otoscope evaluate DIR CORPUS")
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[0] == "left out: utterance-0: [0] is short"
    assert lines[20:] == ["... and 3 more; --json lists all", str(outcome), "Next: otoscope evaluate DIR CORPUS"]


def test_an_interruption_tells_where_the_training_stands(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt), Log(Run(steps=10), tmp_path / "m"):
        raise KeyboardInterrupt
    assert "interrupted before the first step; nothing was written." in capsys.readouterr().err
    run = tmp_path / "m" / "run"
    run.mkdir(parents=True)
    (run / "settings.json").write_text("{}")
    assert "--resume to begin at step 0" in standing(tmp_path / "m", 10)
    for step in (4, 8):
        (run / f"checkpoint-{step}").mkdir()
    (run / "checkpoint-4" / "trainer_state.json").write_text("{}")
    assert "is that of step 4 of 10" in standing(tmp_path / "m", 10)
    assert "--resume" in standing(tmp_path / "m", 10)
    (tmp_path / "m" / "config.json").write_text("{}")
    assert "already lay" in standing(tmp_path / "m", 10)


@pytest.mark.slow
def test_control_c_names_the_way_on(speech, tmp_path):
    endless = ["--steps", 100_000, "--save-every", 2, *SHORT[2:]]
    arguments = ["pretrain", "wav2vec2", speech, "-o", tmp_path / "m", *TINY, *endless]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "otoscope", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    ) as program:  # fmt: skip
        while "step     4" not in program.stdout.readline():
            pass
        program.send_signal(signal.SIGINT)
        _, told = program.communicate()
    assert program.returncode == 130
    assert len(told.strip().splitlines()) == 1
    assert "Give the same command with --resume" in told


@pytest.mark.slow
def test_two_processes_train_one_model(speech, tmp_path):
    """Under torchrun each process takes every second batch; the first alone writes and tells."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    arguments = ["pretrain", "wav2vec2", speech, "-o", tmp_path / "m", *TINY, *SHORT, "--keep", "2"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "otoscope"]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Reading the speech") == 1
    assert sum("min left" in line for line in done.stdout.splitlines()) == 2
    rows = [json.loads(line) for line in (tmp_path / "m" / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4]
    assert {"initial", "step-2", "run"} == {path.name for path in (tmp_path / "m").iterdir() if path.is_dir()}
    alone = otoscope(*arguments[:3], "-o", tmp_path / "alone", *TINY, *SHORT, "--accumulate", 2)
    assert alone.returncode == 0, alone.stderr
    one, other = weights(tmp_path / "m" / "initial"), weights(tmp_path / "alone" / "initial")
    assert all((one[name] == other[name]).all() for name in one)
    # Two processes take the batches that one process accumulates; dropout and Gumbel noise differ.
    one, other = weights(tmp_path / "m"), weights(tmp_path / "alone")
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 0.02
