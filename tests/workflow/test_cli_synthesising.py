"""`otoscope synthesise`, as a person meets it."""

import ctypes.util
import json

import pytest

from tests.workflow.program import otoscope, program

espeak = pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="needs the Debian package espeak-ng")


@espeak
def test_the_summary_counts_what_lies_there(tmp_path):
    command = ("synthesise", "--hours", "0.001", "--seed", "1", "--no-flite", "-o", tmp_path / "speech")
    done = program(*command)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert all(word in done.stdout for word in ("train", "dev", "exam", "speakers", "Saved in"))
    told = json.loads(otoscope(*command, "--workers", "1", "--json").stdout)
    assert told["rendered"] == 0
    assert told["splits"]["train"]["sentences"] == len(list((tmp_path / "speech" / "train").rglob("*.flac")))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--hours", "0"], "0.0 hours cannot be rendered"), (["--hours", "1", "--noise", "brown"], "no noise 'brown'"),
     (["--hours", "1", "--rooms", "--rt60", "2", "1"], "Reverberation times from 2.0 to 1.0 seconds"),
     (["--hours", "1", "--workers", "0"], "0 workers cannot render anything"),
     (["--hours", "1", "--snr", "0", "15"], "ratio (0.0, 15.0) is given, and no noise is added"),
     (["--hours", "1", "--rt60", "0.2", "0.4", "--noise", "pink"], "time (0.2, 0.4) is given, and there are no rooms"),
     (["--hours", "1", "--noise", ","], "--noise ',' names no noise"),
     (["--hours", "1", "--noise", ""], "--noise '' names no noise")],
)  # fmt: skip
def test_errors_are_two_lines_with_the_cure(tmp_path, arguments, told):
    done = otoscope("synthesise", *arguments, "-o", tmp_path / "speech")
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2
    assert not (tmp_path / "speech").exists()


def test_help_shows_examples():
    done = program("synthesise", "--help")
    assert done.returncode == 0
    assert "otoscope synthesise --hours 10" in done.stdout
    assert "--empty" not in done.stdout
