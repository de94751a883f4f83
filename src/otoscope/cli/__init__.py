"""The command line: one file a group of commands, registered by being imported."""

import os
import sys
import warnings

from rich.console import Console

from otoscope.cli import (
    comparing,
    diagnosing,
    evaluating,
    federating,
    language,
    prescribing,
    synthesising,
    training,
    verifying,
    viewing,
)
from otoscope.cli.app import app
from otoscope.errors import OtoscopeError

__all__ = [
    "app", "comparing", "diagnosing", "evaluating", "federating", "language", "main", "prescribing", "synthesising",
    "training", "verifying", "viewing",
]  # fmt: skip


def main() -> None:
    """Entry point: a named error is one line on stderr and exit status 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    # WavLM's attention in transformers hands PyTorch two kinds of masks; no user can mend that.
    warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask", category=UserWarning)
    try:
        app()
    except OtoscopeError as error:
        Console(stderr=True).print(
            f"[bold red]otoscope:[/bold red] {_escaped(error.problem)}.", highlight=False, soft_wrap=True
        )
        if error.cure:
            Console(stderr=True).print(f"  {_escaped(error.cure)}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
