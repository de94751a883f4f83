"""Scores of variants as they are kept in a folder, so that a run that was cut off goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.errors import ResultError
from otoscope.evaluation.scores import Scores
from otoscope.surgery import Edit

Point = Mapping[tuple[str, str], Scores]
"""Scores of a variant by task and by whether probes were trained anew or are frozen."""

_RUN = "run.json"


class KeptPoints:
    """A folder with a file for each variant, of one model, speech, set of tasks and seed.

    What the run is of is told by the scores of the whole model, utterance by utterance: with another model or seed
    they are others.

    Args:
        folder: made if it is not there.
        whole: scores of the whole model, by task.
        seed: of the probes.

    Raises:
        ResultError: the folder holds another run, or cannot be written.
    """

    def __init__(self, folder: Path, whole: Mapping[str, Scores], seed: int) -> None:
        self.folder, self.whole = folder, whole
        told = {
            name: [scores.ids, scores.numerator.tolist(), scores.denominator.tolist()] for name, scores in whole.items()
        }
        run = hashlib.sha256(json.dumps([seed, told], sort_keys=True).encode()).hexdigest()
        if (folder / _RUN).exists():
            if _read(folder / _RUN).get("run") != run:
                raise ResultError(
                    f"{folder} holds the scores of other probes: of another model, corpus, seed or set of tasks",
                    "Name another folder, or remove this one.",
                )
        else:
            self._put(folder / _RUN, {"run": run, "tasks": list(whole), "seed": seed})

    def read(self, edits: Sequence[Edit]) -> Point | None:
        """What a variant's probes scored; None where it was not examined yet.

        Raises:
            ResultError: the file is broken.
        """
        place = self._place(edits)
        if not place.exists():
            return None
        found = _read(place).get("scores", [])
        try:
            point = {
                (task, mode): replace(self.whole[task], numerator=np.array(values, np.float64))
                for task, mode, values in found
            }
        except (KeyError, TypeError, ValueError) as error:
            raise ResultError(f"{place} is not what a run wrote ({error})", "Remove it, and run again.") from error
        if {task for task, _ in point} != set(self.whole):
            raise ResultError(f"{place} is not what a run wrote", "Remove it, and run again.")
        return point

    def write(self, edits: Sequence[Edit], point: Point) -> None:
        """Keeps what a variant's probes scored.

        Raises:
            ResultError: the file cannot be written.
        """
        scores = [[task, mode, one.numerator.tolist()] for (task, mode), one in point.items()]
        self._put(self._place(edits), {"edits": [edit.to_dict() for edit in edits], "scores": scores})

    def _place(self, edits: Sequence[Edit]) -> Path:
        told = json.dumps([edit.to_dict() for edit in edits], sort_keys=True)
        return self.folder / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"

    def _put(self, place: Path, values: Mapping[str, Any]) -> None:
        unfinished = place.with_name(f".{place.name}.{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                unfinished.write_text(json.dumps(values))
                unfinished.replace(place)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise ResultError(
                f"Scores cannot be written to {self.folder}: {error}", "Name a folder that you may write to."
            ) from error


def _read(place: Path) -> dict[str, Any]:
    try:
        found = json.loads(place.read_text())
    except (OSError, ValueError) as error:
        raise ResultError(f"{place} cannot be read: {error}", "Remove it, and run again.") from error
    if not isinstance(found, dict):
        raise ResultError(f"{place} is not what a run wrote", "Remove it, and run again.")
    return found
