"""View: from names and paths to something to look at, and what is refused on the way."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

from otoscope.cli.viewing import view as command
from otoscope.errors import AudioError, CorpusError, ModelError, OtoscopeError, ResultError
from otoscope.models import load
from otoscope.speech import write_corpus
from otoscope.workflow import diagnose
from otoscope.workflow.viewing import parse_heads, view
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES
from tests.workflow.program import otoscope


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewing")
    CASES[0].write(folder / "model")
    write_corpus(small_speech(3), folder / "speech")
    return folder


def test_the_first_utterance_of_a_corpus_or_the_one_that_is_named(place):
    assert view(place / "model", place / "speech", measures="globalness").scene.utterance.id == "s0-u00"
    found = view(place / "model", small_speech(3), utterance="u02", measures=["globalness"])
    assert found.scene.utterance.id == "u02"
    assert found.others == 2
    assert list(found.scene.sides[0].metrics) == ["globalness"]


def test_a_recording_is_heard_with_the_tiers_beside_it(place):
    recording = next((place / "speech").rglob("*u01*.flac"))
    found = view(place / "model", recording, measures="globalness")
    assert found.scene.utterance.id == recording.stem
    assert set(found.scene.utterance.tiers) == {"phone", "word"}
    np.testing.assert_array_equal(found.scene.samples, found.scene.utterance.read())


def test_an_utterance_that_is_not_there_is_refused_with_those_that_are(place):
    with pytest.raises(CorpusError, match="no utterance 'u0'. It has s0-u00, s1-u01, s2-u02"):
        view(place / "model", place / "speech", utterance="u0")


def test_what_is_too_long_is_refused_before_the_model_is_loaded(place, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(61 * 16000, np.float32), 16000)
    with pytest.raises(AudioError, match="60 s at most"):
        view("/no/such/model", tmp_path / "long.wav")


def test_unreadable_sound_and_unknown_models_keep_their_own_errors(place, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF not audio")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        view(place / "model", tmp_path / "bad.wav")
    with pytest.raises(ModelError, match="no model folder"):
        view("/no/such/model", place / "speech")


def test_diagnoses_go_to_the_models_that_they_are_of(place):
    one, other = load(CASES[0].build(), name="one"), load(CASES[6].build(), name="other")
    speech = small_speech(3)
    found = diagnose(other, speech, ["verticality"])
    sides = view(one, speech, against=other, diagnoses=[found]).scene.sides
    assert sides[0].source == "this utterance alone"
    assert sides[1].source.startswith("the diagnosis on tones")
    assert list(sides[1].metrics) == ["verticality"]
    with pytest.raises(ResultError, match="its weights are not those of one"):
        view(one, speech, diagnoses=[found])
    with pytest.raises(ResultError, match="Leave out one of the two"):
        view(other, speech, measures="heads", diagnoses=[found])


def test_heads_are_written_as_layer_and_head():
    assert parse_heads("3.1,12.0") == [(3, 1), (12, 0)]
    for wrong in ("3", "3.", ".1", "a.b", "3.1,,4.0", "-1.0", "3.1;4.0", ""):
        with pytest.raises(ResultError, match="is no head"):
            parse_heads(wrong)


def test_the_command_saves_a_page(place, tmp_path):
    done = otoscope(
        "view", place / "model", place / "speech", "--utterance", "s1-u01", "-o", tmp_path / "heads.html", "--heads", "2.3",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["utterance"] == "s1-u01"
    assert told["bytes"] == (tmp_path / "heads.html").stat().st_size
    assert "1 exactly (2.3)" in told["holds"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"heads": "1.0"}, "none is saved"),
        ({"heads": "x", "output": Path("page.html")}, "'x' is no head"),
        ({"output": Path("/")}, "it is a folder"),
        ({"utterance": "nobody"}, "has no utterance 'nobody'"),
        ({"measures": "relative-profile"}, "no numbers by head"),
        ({"diagnosis": (Path("/no/such/diagnosis"),)}, "holds no diagnosis"),
        ({"port": 70000, "no_browser": True}, "cannot listen on port 70000"),
        ({"threads": 0}, "0 threads compute nothing"),
    ],
)
def test_options_that_make_no_sense_are_refused(place, settings, told):
    with pytest.raises(OtoscopeError, match=told) as found:
        command(str(place / "model"), str(place / "speech"), **settings)
    assert found.value.cure


def test_the_command_serves_until_it_is_interrupted(place):
    # Where a shell runs the tests in the background, programs are born deaf to interruptions.
    start = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from otoscope.cli import main; main()"
    )
    program = [
        sys.executable,
        "-c",
        start,
        "view",
        str(place / "model"),
        str(place / "speech"),
        "--no-browser",
        "--json",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        try:
            told = json.loads(running.stdout.readline())
            with urllib.request.urlopen(told["address"], timeout=30) as answer:
                assert answer.read().startswith(b"<!doctype html>")
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == 0
    assert "Traceback" not in errors
