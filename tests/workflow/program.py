"""otoscope run as a program, as a person meets it."""

import os
import subprocess
import sys


def otoscope(*arguments, **settings):
    environment = {**os.environ, "COLUMNS": "100", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **settings}
    return subprocess.run(
        [sys.executable, "-m", "otoscope", *map(str, arguments)], capture_output=True, text=True, env=environment,
        check=False,
    )  # fmt: skip
