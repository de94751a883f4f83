"""Ray's workers; Ray takes seconds to start, so this is marked slow. What is trained stands in `with_ray.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["equal", "killed", "slow", "absent"])
def test_training_on_workers(what, tmp_path):
    command = [sys.executable, "-m", "tests.federation.with_ray", what, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-3000:]
