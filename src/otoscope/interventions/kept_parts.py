"""What each batch of a run over many variants gave, kept in a folder, so that a run that was cut off goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from otoscope.errors import ResultError
from otoscope.evaluation.metric import Metric
from otoscope.interventions.engine import BASE, Variants
from otoscope.interventions.kept import put, same_run, taken
from otoscope.interventions.sequential import Stopping
from otoscope.models.model import SpeechModel
from otoscope.speech.corpus import Corpus
from otoscope.surgery import fingerprint

Columns = Mapping[str, Sequence[float]]
"""Numerators and denominators of the utterances of a stretch of a corpus."""


class KeptRun:
    """A folder with what each part of a corpus gave, and with what it was the result of.

    Values that are not finite are kept as they came: what takes their place is settled when they are read.

    Args:
        folder: made if it is not there.
        model: the unedited model.
        corpus: the whole of the speech.
        variants: name -> edits.
        metric: what is taken.
        batch_seconds: see `Metric.values`.
        stop: when variants are stopped, if ever.
        chance: the variant that stands for chance: of a run with stopping, since it may decide when.

    Raises:
        ResultError: the folder holds another run, or cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        model: SpeechModel,
        corpus: Corpus,
        variants: Variants,
        metric: Metric,
        batch_seconds: float,
        stop: Stopping | None = None,
        chance: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        plain = {name: value for name, value in vars(metric).items() if isinstance(value, int | float | str | Path)}
        about: dict[str, Any] = {
            "model": fingerprint(model.source),
            "input": {name: str(value) for name, value in model.frontend.description.items()},
            "corpus": corpus.fingerprint(),
            "metric": [metric.name, {name: str(value) for name, value in sorted(plain.items())}],
            "variants": {name: [edit.to_dict() for edit in edits] for name, edits in variants.items()},
            "batch_seconds": batch_seconds,
        }
        if stop is not None:
            about["stop"] = asdict(stop) | {"chance": chance}
        self.about = {"run": hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest(), **about}
        same_run(
            self.folder / "run.json",
            self.about,
            "the results of another run: of another model, corpus, metric, edits or rule of stopping",
        )

    def has(self, k: int) -> bool:
        """Whether part k was run."""
        return self._place(k).exists()

    def read(self, k: int, part: Corpus, names: Sequence[str]) -> dict[str, Columns] | None:
        """What part k gave, None where it was not run yet.

        Args:
            k: number of the part.
            part: its utterances.
            names: variants that were still running.

        Raises:
            ResultError: the file is broken, or holds other variants or utterances.
        """
        if not self.has(k):
            return None
        found = taken(self._place(k))
        if found.keys() != {BASE, *names} or any(len(one["numerator"]) != len(part) for one in found.values()):
            raise ResultError(f"{self._place(k)} is not what a run wrote", "Remove it, and run again.")
        return found

    def write(self, k: int, found: Mapping[str, Columns]) -> None:
        """Keeps what part k gave.

        Raises:
            ResultError: it cannot be written.
        """
        put(self._place(k), found)

    def _place(self, k: int) -> Path:
        return self.folder / f"part-{k:05d}.json"
