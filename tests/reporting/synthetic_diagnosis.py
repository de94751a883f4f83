"""A made-up diagnosis whose numbers look like those of a trained model, of any size, with gaps on request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

COLUMNS = {
    "measure": pl.String,
    "stream": pl.String,
    "layer": pl.Int64,
    "head": pl.Int64,
    "target": pl.String,
    "other": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "floor": pl.Float64,
    "ceiling": pl.Float64,
    "label": pl.String,
    "n": pl.Int64,
}


@dataclass
class SyntheticDiagnosis:
    table: pl.DataFrame
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        return self.lines


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in COLUMNS} for row in rows], schema=COLUMNS)


def synthetic(
    layers: int = 6,
    heads: int = 6,
    *,
    seed: int = 0,
    reach: int = 50,
    without: tuple[str, ...] = (),
    model: str = "embedded",
    corpus: str = "exam",
    left_out: int = 2,
) -> SyntheticDiagnosis:
    """A diagnosis of a model of `layers` x `heads`; `without` names measures (or beginnings) left away."""
    rng = np.random.default_rng(seed)
    rows = _layer_rows(layers, rng) + _head_rows(layers, heads, rng) + _block_rows(layers, reach, rng)
    rows = [row for row in rows if not row["measure"].startswith(without)] if without else rows
    provenance = {
        "model": {
            "name": model,
            "family": "wav2vec2",
            "layers": layers,
            "heads": [heads] * layers,
            "width": 64 * heads,
            "parameters": 530_000 * layers,
            "macs_per_second": 1.7e8 * layers,
            "hop_ms": 20.0,
            "receptive_field_ms": 25.0,
            "fingerprint": "9f2c" * 16,
        },
        "corpus": {
            "name": corpus,
            "path": "/home/ada/speech/exam",
            "utterances": 96,
            "speakers": 8,
            "seconds": 372.4,
            "tiers": ["phone", "word"],
            "left_out": [{"id": f"f3_{i:04}", "reason": "shorter than 400 samples"} for i in range(left_out)],
            "counts": {"clipped_samples": 12, "cut_intervals": 1},
            "fingerprint": "01ab" * 16,
        },
        "notes": {
            "cca-word": {"labels": 61, "labels_left_out": 214, "folds": 8, "ridge": 1e-4},
            "cca-phone": {"labels": 38, "labels_left_out": 1, "rows_left_out": 3, "folds": 8, "ridge": 1e-5},
            "globalness": {"groups": 20},
        },
        "versions": {"otoscope": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.4.0"},
        "seed": 0,
        "command": "otoscope diagnose embedded exam -o out",
        "started": "2026-03-02T10:15:00Z",
        "seconds": 71.3,
        "skipped": [{"measure": "cca-speaker", "reason": "the corpus names no speakers"}],
    }
    lines = [
        f"Phones are best read at layer {layers - 2} (0.83 of 1; chance gives 0.12).",
        f"Words are best read at layer {layers - 1} (0.71 of 1; chance gives 0.24), and the spectrum at conv.6 (0.93).",
        "Head 5.2 is the most diagonal, head 1.0 the most global and head 3.4 the most vertical.",
        "Layer 2 looks the nearest: half of its attention falls within 60 ms of the query.",
    ]
    return SyntheticDiagnosis(frame(rows), {}, provenance, lines)


def _layer_rows(layers: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    convs = [f"conv.{i}" for i in range(1, 8)]
    deep = ["input", *(f"layer.{i}" for i in range(1, layers + 1)), "final_norm"]
    depth = np.linspace(0, 1, len(deep))
    curves = {
        "mel": np.concatenate([np.linspace(0.55, 0.93, 7), 0.9 - 0.35 * depth + 0.05 * np.cos(6 * depth)]),
        "phone": 0.52 + 0.33 * np.exp(-(((depth - 0.65) / 0.3) ** 2)),
        "word": 0.33 + 0.4 * np.exp(-(((depth - 0.8) / 0.25) ** 2)),
    }
    floors = {"mel": 0.05, "phone": 0.13, "word": 0.24}
    rows = []
    for target, values in curves.items():
        streams = convs + deep if target == "mel" else deep
        for name, value in zip(streams, values + rng.normal(0, 0.008, len(streams)), strict=True):
            half = rng.uniform(0.006, 0.03) * (2 if target == "word" else 1)
            rows.append(
                {
                    "measure": f"cca-{target}",
                    "stream": name,
                    "layer": int(name[6:]) if name.startswith("layer.") else None,
                    "target": target,
                    "value": float(value),
                    "low": float(value - half),
                    "high": float(value + half),
                    "floor": float(floors[target] + rng.normal(0, 0.006)),
                    "ceiling": 1.0,
                    "n": 18_000 if target == "mel" else 3_100,
                }
            )
    return rows


def _head_rows(layers: int, heads: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    length = np.log(180)
    n = layers * heads
    kind = rng.integers(0, 3, n)
    globalness = np.choose(kind, [rng.uniform(0.75, 0.98, n), rng.uniform(0.3, 0.7, n), rng.uniform(0.1, 0.6, n)])
    verticality = -np.minimum(
        1.0,
        globalness + np.choose(kind, [rng.uniform(0, 0.06, n), rng.uniform(0, 0.1, n), rng.uniform(0.4, 0.9, n)]),
    )
    diagonality = np.choose(
        kind, [rng.uniform(-0.33, -0.26, n), rng.uniform(-0.4, -0.25, n), rng.uniform(-0.15, -0.01, n)]
    )
    values = {
        "globalness": globalness * length,
        "verticality": verticality * length,
        "diagonality": diagonality,
        "globalness-normalised": globalness,
        "verticality-normalised": verticality,
        "head-information": -(globalness + verticality) * length,
    }
    ranks = np.array([(-values[name]).argsort().argsort() for name in ("globalness", "verticality", "diagonality")])
    rows = []
    for index in range(n):
        place = {"layer": index // heads + 1, "head": index % heads, "stream": f"layer.{index // heads + 1}"}
        for name, found in values.items():
            half = 0.03 * abs(found[index]) + 0.002
            rows.append(
                place
                | {
                    "measure": name,
                    "value": float(found[index]),
                    "low": float(found[index] - half),
                    "high": float(found[index] + half),
                    "n": 96,
                }
            )
        ordered = np.sort(ranks[:, index])
        label = ("global", "vertical", "diagonal")[int(ranks[:, index].argmin())]
        rows.append(place | {"measure": "category", "label": label, "value": float(ordered[1] - ordered[0]), "n": 96})
    return rows


def _block_rows(layers: int, reach: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    offsets = np.arange(-reach, reach + 1)
    uniform = (180 - np.abs(offsets)) / 180**2
    rows = []
    for layer in range(1, layers + 1):
        width, shift, local = rng.uniform(1.5, 9), rng.integers(-4, 5), rng.uniform(0.15, 0.8)
        peak = np.exp(-np.abs(offsets - shift) / width)
        second = np.exp(-(((offsets + 3 * shift) / (2 * width)) ** 2))
        mass = local * (peak + 0.3 * second) / (peak + 0.3 * second).sum() + (1 - local) * uniform
        mass = mass * np.exp(rng.normal(0, 0.05, len(mass)))
        place = {"measure": "relative-profile", "layer": layer, "stream": f"layer.{layer}", "n": 96}
        for offset, value, base in zip(offsets, mass, uniform, strict=True):
            half = 0.12 * value
            rows.append(
                place
                | {
                    "target": str(offset),
                    "value": float(value),
                    "low": float(value - half),
                    "high": float(value + half),
                    "floor": float(base),
                }
            )
        rest = max(1 - float(mass.sum()), 0.0)
        base = (1 - float(uniform.sum())) / 2
        for target, share in ((f"<-{reach}", 0.55), (f">{reach}", 0.45)):
            rows.append(place | {"target": target, "value": rest * share, "floor": base})
    return rows
