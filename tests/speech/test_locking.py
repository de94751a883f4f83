"""A folder that one process at a time writes to: the lock holds between processes, and goes with the process."""

import subprocess
import sys

import pytest

from otoscope.speech.locking import alone_in

pytest.importorskip("fcntl")
HOLD = """
import sys
from pathlib import Path
from otoscope.speech.locking import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_refused_until_the_first_leaves(tmp_path):
    with alone_in(tmp_path):
        with pytest.raises(BlockingIOError), alone_in(tmp_path):
            pass
        other = tmp_path / "other"
        other.mkdir()
        with alone_in(other):
            pass
    with alone_in(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_killed_process_holds_nothing(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), alone_in(tmp_path):
            pass
        process.kill()
    with alone_in(tmp_path):
        pass


def test_a_file_system_without_locks_keeps_nothing_out(tmp_path, monkeypatch):
    import fcntl

    def refuse(handle, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone_in(tmp_path), alone_in(tmp_path):
        pass


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError), alone_in(tmp_path / "nowhere"):
        pass
