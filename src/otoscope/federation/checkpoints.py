"""The state of a federated training after each complete round, whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from otoscope.errors import FederationError
from otoscope.training.folders import RUN

TENSORS, FACTS = "tensors.safetensors", "facts.json"
_ROUND, _PARTIAL = "round-", ".partial-"


def save_checkpoint(folder: Path, done: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> Path:
    """Writes the state after a round.

    It is written under another name and then renamed, so that what lies under its name is complete.

    Args:
        folder: of the training.
        done: complete rounds.
        tensors: everything that the next rounds depend on.
        facts: plain values that belong to it.

    Returns:
        The checkpoint's folder.

    Raises:
        FederationError: it cannot be written.
    """
    place = folder / RUN / f"{_ROUND}{done}"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        for left in place.parent.glob(f"{_PARTIAL}*"):  # of a program that was killed
            shutil.rmtree(left, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=place.parent))
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial / TENSORS)
        (partial / FACTS).write_text(json.dumps({"done": done, **facts}, allow_nan=False), encoding="utf-8")
        if place.exists():
            shutil.rmtree(place)
        partial.replace(place)
    except (OSError, SafetensorError) as error:
        raise FederationError(
            f"The state after round {done} cannot be written to {place} ({error})",
            "Make room or choose another folder; the round before is kept, and --resume goes on from there.",
        ) from error
    return place


def load_checkpoint(folder: Path) -> tuple[int, dict[str, torch.Tensor], dict[str, Any]] | None:
    """Reads the latest state that is complete.

    Args:
        folder: of the training.

    Returns:
        Complete rounds, tensors and facts; None where there is no state.

    Raises:
        FederationError: there are states, and none can be read.
    """
    problem: Exception | None = None
    for done, place in sorted(_places(folder).items(), reverse=True):
        try:
            facts = dict(json.loads((place / FACTS).read_text(encoding="utf-8")))
            if facts.pop("done") != done:
                raise ValueError(f"it is not of round {done}")
            return done, load_file(place / TENSORS), facts
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            problem = problem or error
    if problem is not None:
        raise FederationError(
            f"No state in {folder / RUN} can be read ({problem})", "Remove the folder, and begin anew."
        ) from problem
    return None


def keep_latest(folder: Path, keep: int) -> None:
    """Removes all but the latest states."""
    places = _places(folder)
    for done in sorted(places)[:-keep]:
        shutil.rmtree(places[done], ignore_errors=True)


def _places(folder: Path) -> dict[int, Path]:
    """Folders of states, by the rounds that are complete."""
    found = {path.name.removeprefix(_ROUND): path for path in (folder / RUN).glob(f"{_ROUND}*")}
    return {int(number): path for number, path in found.items() if number.isdecimal()}
