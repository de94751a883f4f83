"""Small JSON files in which a long run keeps what is finished."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from otoscope.errors import ResultError


def put(place: Path, values: Mapping[str, Any]) -> None:
    """Writes a file, whole or not at all; its folder is made if it is not there.

    Raises:
        ResultError: it cannot be written.
    """
    unfinished = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_text(json.dumps(values))
            unfinished.replace(place)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise ResultError(
            f"Results cannot be written to {place.parent}: {error}",
            "Name a folder that you may write to and that has room.",
        ) from error


def taken(place: Path) -> dict[str, Any]:
    """Reads what `put` wrote.

    Raises:
        ResultError: the file is broken.
    """
    try:
        found = json.loads(place.read_text())
    except (OSError, ValueError) as error:
        raise ResultError(f"{place} cannot be read: {error}", "Remove it, and run again.") from error
    if not isinstance(found, dict):
        raise ResultError(f"{place} is not what a run wrote", "Remove it, and run again.")
    return found


def same_run(place: Path, about: Mapping[str, Any], what: str) -> None:
    """Writes what a run is of where nothing is kept yet, and refuses a folder that keeps another.

    Args:
        place: the file that says so.
        about: its content, with the run's identity as "run".
        what: what the folder holds instead, in words.

    Raises:
        ResultError: the folder holds another run, or cannot be written.
    """
    if not place.exists():
        put(place, about)
    elif taken(place).get("run") != about["run"]:
        raise ResultError(f"{place.parent} holds {what}", "Name another folder, or remove this one.")
