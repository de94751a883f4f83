"""What the commands that train print: lines of the log, the outcome, and where an interrupted training stands."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

_MOST_LISTED = 20  # of the utterances left out


class Log:
    """Prints a training's lines and its outcome, and on Ctrl-C where it stands; of several processes the first alone.

    Args:
        as_json: the log goes to stderr, and the outcome is JSON.
        steps: of the training.
        folder: of the training.
    """

    def __init__(self, as_json: bool, steps: int, folder: Path) -> None:
        self._as_json, self._folder, self._steps = as_json, folder, steps
        self._quiet = os.environ.get("RANK", "0") != "0"
        self._console = Console(stderr=as_json, quiet=self._quiet)
        self._console.print("Reading the speech ...", style="dim", highlight=False)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is KeyboardInterrupt:
            text = standing(self._folder, self._steps)
            Console(stderr=True, quiet=self._quiet).print(
                f"otoscope: {text}", highlight=False, markup=False, soft_wrap=True
            )

    def line(self, row: Mapping[str, Any]) -> None:
        """A line of the log."""
        self._console.print(render_line(row), highlight=False, soft_wrap=True)

    def outcome(self, outcome: Any, following: str) -> None:
        """The outcome, and the command that comes next."""
        if self._console.quiet:
            return
        if self._as_json:
            print(json.dumps(outcome.to_dict()))
            return
        for one in outcome.left_out[:_MOST_LISTED]:
            self._say(f"left out: {one.id}: {one.reason}")
        if len(outcome.left_out) > _MOST_LISTED:
            self._say(f"... and {len(outcome.left_out) - _MOST_LISTED} more; --json lists all")
        self._say(str(outcome))
        self._say(f"Next: {following}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def standing(folder: Path, steps: int) -> str:
    """Where an interrupted training stands, and how it is gone on with."""
    from otoscope.training.folders import RUN, SETTINGS, last_state

    if (folder / "config.json").exists():
        return f"interrupted when the model already lay in {folder}."
    if not (folder / RUN / SETTINGS).exists():
        return "interrupted before the first step; nothing was written."
    state = last_state(folder)
    if state is None:
        return f"interrupted before {folder} held a state. Give the same command with --resume to begin at step 0."
    step = state.name.rpartition("-")[2]
    return (
        f"interrupted; the last state in {folder} is that of step {step} of {steps}. "
        "Give the same command with --resume to go on from there."
    )


def render_line(row: Mapping[str, Any]) -> str:
    """One line of a training's log, for reading.

    >>> render_line({"step": 20, "of": 100, "loss": 2.5, "learning_rate": 1e-3, "minutes": 1.0, "minutes_left": 4.0})
    'step    20 of 100  4.0 min left  loss 2.500  rate 0.001'
    """
    start = f"step {row['step']:>5} of {row['of']}"
    if "held_out" in row:
        figures = "  ".join(f"{name} {value:.3f}" for name, value in row["held_out"].items())
        return f"{start}  [bold]held out:[/bold] {figures}"
    parts = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in row.items() if name not in _OWN_PLACE]
    return f"{start}  {row['minutes_left']:.1f} min left  " + "  ".join([*parts, f"rate {row['learning_rate']:.2g}"])


_OWN_PLACE = ("step", "of", "minutes", "minutes_left", "learning_rate", "grad_norm")
