"""The command line, run in this process or, where a process of its own is the point, as a program."""

import contextlib
import io
import os
import subprocess
import sys
import warnings
from unittest import mock

import torch

from otoscope.cli import main

SCREEN = {"COLUMNS": "100"}


def otoscope(*arguments, **settings):
    """A command in this process, with status, output and errors as of a program; it leaves the process as it was."""
    out, errors = io.StringIO(), io.StringIO()
    threads, status = torch.get_num_threads(), 0
    with contextlib.ExitStack() as stack:
        for context in (
            mock.patch.dict(os.environ, SCREEN | settings),
            mock.patch.object(sys, "argv", ["otoscope", *map(str, arguments)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
            warnings.catch_warnings(),
        ):
            stack.enter_context(context)
        stack.callback(torch.set_num_threads, threads)
        # cyclopts supposes that who runs it within pytest without arguments has forgotten them
        warnings.filterwarnings("ignore", "Cyclopts application invoked without tokens", UserWarning)
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    return subprocess.CompletedProcess(sys.argv, status, out.getvalue(), errors.getvalue())


def program(*arguments, **settings):
    """A command in a process of its own, as a person runs it."""
    environment = {**os.environ, **SCREEN, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **settings}
    return subprocess.run(
        [sys.executable, "-m", "otoscope", *map(str, arguments)], capture_output=True, text=True, env=environment,
        check=False,
    )  # fmt: skip
