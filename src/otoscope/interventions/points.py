"""Scores of variants as they are kept in a folder, so that a run that was cut off goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from otoscope.errors import ResultError
from otoscope.evaluation.scores import Scores
from otoscope.interventions.kept import put, same_run, taken
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
        same_run(
            folder / _RUN, {"run": run, "tasks": list(whole), "seed": seed},
            "the scores of other probes: of another model, corpus, seed or set of tasks",
        )  # fmt: skip

    def read(self, edits: Sequence[Edit]) -> Point | None:
        """What a variant's probes scored; None where it was not examined yet.

        Raises:
            ResultError: the file is broken.
        """
        place = self._place(edits)
        if not place.exists():
            return None
        found = taken(place).get("scores", [])
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
        put(self._place(edits), {"edits": [edit.to_dict() for edit in edits], "scores": scores})

    def _place(self, edits: Sequence[Edit]) -> Path:
        told = json.dumps([edit.to_dict() for edit in edits], sort_keys=True)
        return self.folder / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"
