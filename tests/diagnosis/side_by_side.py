"""Made-up diagnoses to set side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from otoscope.diagnosis.result import Diagnosis, table_of
from otoscope.measures.measure import Row
from otoscope.models.anatomy import layer_of


def streams_of(layers: int, convolutions: int = 0) -> list[str]:
    return [
        *(f"conv.{k}" for k in range(1, convolutions + 1)),
        "input",
        *(f"layer.{k}" for k in range(1, layers + 1)),
    ]


def row(measure: str, stream: str, value: float | None, half: float = 0.02, **more: Any) -> Row:
    ends = {} if value is None else {"low": value - half, "high": value + half}
    given = {"target": measure.rpartition("-")[2], "floor": 0.1, "ceiling": 1.0, "n": 100, **ends, **more}
    return Row(measure, stream=stream, layer=layer_of(stream), value=value, **given)


def diagnosis(
    rows: list[Row], name: str = "model", arrays: dict[str, np.ndarray] | None = None, **about: Any
) -> Diagnosis:
    layers = max((one.layer or 0 for one in rows), default=0)
    provenance = {
        "model": {"name": name, "family": "wav2vec2", "layers": layers, "fingerprint": name, "parameters": 10_000},
        "corpus": {"name": "speech", "utterances": 9, "seconds": 60.0, "fingerprint": "speech"},
        "seed": 0,
        "notes": {},
        "skipped": [],
        "versions": {"otoscope": "1"},
        **about,
    }
    return Diagnosis(table_of(rows), arrays or {}, provenance)


def folded(scores: dict[str, np.ndarray], measure: str = "cca-phone", name: str = "model", **about: Any) -> Diagnosis:
    """A diagnosis of one measure from the scores of its streams in every fold."""
    from otoscope.statistics.intervals import corrected_t

    rows = []
    for stream, found in scores.items():
        mean, low, high = corrected_t(found, 1 / (len(found) - 2))
        rows.append(row(measure, stream, float(mean), low=float(low), high=float(high)))
    return diagnosis(rows, name, {f"{measure}.scores": np.stack(list(scores.values()))}, **about)
