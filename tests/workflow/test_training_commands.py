"""`otoscope pretrain` and `otoscope finetune`, as a person meets them."""

import json
import os
import signal
import subprocess
import sys

import pytest

from otoscope.cli.training_log import Log, render_line, standing
from otoscope.models.recogniser import load_recogniser
from otoscope.plans.plan import Line, Plan
from otoscope.speech import write_corpus
from otoscope.speech.corpus import LeftOut
from otoscope.training.outcome import TrainingOutcome
from otoscope.training.schedules import is_over
from otoscope.treatments import PruneHeads
from tests.training.small_training import spelt_speech, weights
from tests.workflow.program import otoscope, program

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
    return folder, program("pretrain", "hubert", speech, "-o", folder, "--clusters", 5, "--keep", "2", *TINY, *SHORT)


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


def test_finetune_takes_a_plan_a_subset_and_a_vocabulary(pretrained, speech, tmp_path):
    Plan((Line(PruneHeads("layer.1.head.1")),)).save(tmp_path / "plan.toml")
    done = otoscope(
        "finetune", pretrained[0], speech, "-o", tmp_path / "m", *SHORT, "--json", "--plan", tmp_path / "plan.toml",
        "--subset", "4s", "--vocabulary", "bpe:10", "--open-at", 1, "--patience", 2, "--feature-mask", 0.1,
        "--feature-span", 4,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["trained_on"] < 9
    assert told["step"] == 4
    found = load_recogniser(tmp_path / "m")
    assert len(found.vocabulary) == 10
    assert found.model.anatomy.head_names == ((0,), (0, 1))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["finetune", "embedded", "SPEECH", "--subset", "9h"], "A subset of 9.00 h cannot be taken"),
        (["finetune", "embedded", "SPEECH", "--plan", "/no/plan.toml"], "/no/plan.toml"),
        (["finetune", "embedded", "SPEECH", "--vocabulary", "bpe:many"], "no vocabulary of the kind"),
        (["finetune", "embedded", "SPEECH", "--patience", "-1"], "patience is -1"),
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
    done = program(command, "--help")
    assert done.returncode == 0
    assert f"otoscope {command}" in done.stdout
    assert "torchrun" in done.stdout


def test_a_line_of_figures():
    row = {"step": 20, "of": 100, "held_out": {"wer": 0.5, "cer": 0.25}}
    assert render_line(row) == "step    20 of 100  [bold]held out:[/bold] wer 0.500  cer 0.250"


def test_what_was_left_out_is_listed(tmp_path, capsys):
    left_out = tuple(LeftOut(f"utterance-{k}", f"[{k}] is short") for k in range(23))
    outcome = TrainingOutcome(tmp_path / ("long" * 30), "ctc", {"wer": 0.5}, 10, 2, left_out)
    Log(False, 1000, tmp_path).outcome(outcome, "otoscope evaluate DIR CORPUS")
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[0] == "left out: utterance-0: [0] is short"
    assert lines[20:] == ["... and 3 more; --json lists all", str(outcome), "Next: otoscope evaluate DIR CORPUS"]


def test_an_interruption_tells_where_the_training_stands(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt), Log(False, 10, tmp_path / "m"):
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
    ) as running:  # fmt: skip
        while "step     4" not in running.stdout.readline():
            pass
        running.send_signal(signal.SIGINT)
        _, told = running.communicate()
    assert running.returncode == 130
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


@pytest.mark.slow
def test_two_processes_open_the_encoder_and_stop_together(pretrained, speech, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    arguments = [
        "finetune", pretrained[0], speech, "-o", tmp_path / "m", "--steps", 8, "--batch-seconds", 4, "--hold-out", 0.25,
        "--threads", 1, "--open-at", 2, "--keep", "2,3", "--evaluate-every", 1, "--patience", 1, "--save-every", 1,
    ]  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "otoscope"]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    held, opened = (weights(tmp_path / "m" / name) for name in ("step-2", "step-3"))
    before = weights(tmp_path / "m" / "initial")
    moved = [name for name in held if not (held[name] == before[name]).all()]
    assert moved == ["lm_head.bias", "lm_head.weight"]
    assert any(name.startswith("hubert.encoder.layers") and not (opened[name] == held[name]).all() for name in held)
    rows = [json.loads(line) for line in (tmp_path / "m" / "run" / "log.jsonl").read_text().splitlines()]
    figures = {row["step"]: row["held_out"]["wer"] for row in rows if "held_out" in row and row["step"] > 2}
    assert min(figures) == 3
    assert is_over(figures, 1) or max(figures) == 8
