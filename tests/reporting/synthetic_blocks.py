"""Made-up rows of the measures of blocks, of any number of layers: patterns, verdicts, criticality, cheap scores."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl

from tests.reporting.synthetic_diagnosis import SyntheticDiagnosis, frame, synthetic

SCALARS = {
    "globalness-normalised": 0.8, "verticality-normalised": -0.95, "diagonality": -0.25, "head-information": 0.7,
    "head-disagreement": 0.4, "self-mass": 0.06, "local-mass": 0.4, "mean-offset": -0.8, "between-utterance-variance": 2e-4,
}  # fmt: skip
INTERVENTIONS = ("bypass", "uniform", "local", "neighbour")
MODES = ("re-initialise", "rewind:pretrained", "re-randomise", "bypass", "mean")
PARTS = ("attention", "feed_forward", "norms")
CHURN = ("rms", "relative", "angular", "largest")

Rows = list[dict[str, Any]]


def ends(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def synthetic_blocks(layers: int = 6, *, seed: int = 0) -> SyntheticDiagnosis:
    """The made-up diagnosis with all measures of blocks: block 3 is harmful, the last but one is needed."""
    whole = synthetic(layers, 4, seed=seed)
    rng = np.random.default_rng(seed)
    rows = [
        *pattern_rows(layers, rng),
        *verdict_rows(layers, rng),
        *criticality_rows(layers, rng),
        *score_rows(layers, rng),
    ]
    # As results of several measures are filed: each measure's notes under its name, within those of the result.
    told = {
        "criticality": {
            "labelled_by": "ctc-loss",
            "thresholds": {"ambient": None, "critical": 0.5},
            "tolerance": {
                "ctc-loss": {mode: 0.02 + 0.01 * (mode == "mean") for mode in MODES},
                "wer": dict.fromkeys(MODES, 0.004),
            },
        },
        "block-intervention": {
            "metrics": {"wer": {"criterion": {"margin": 0.002}}, "ctc-loss": {"criterion": {"margin": 0.02}}},
        },
    }
    notes = whole.provenance["notes"] | {name: {name: found} for name, found in told.items()}
    table = pl.concat([whole.table, frame(rows)])
    return dataclasses.replace(whole, table=table, provenance=whole.provenance | {"notes": notes})


def pattern_rows(layers: int, rng: np.random.Generator) -> Rows:
    rows: Rows = []
    odd = {3: "uniform", max(layers - 1, 1): "neighbour-copy; mean-offset departs from the trend"}
    for layer in range(1, layers + 1):
        place = {"stream": f"layer.{layer}", "layer": layer, "n": 96}
        share = rng.dirichlet(np.full(20, 40.0))
        rows += [
            place | {"measure": "position-profile", "target": str(k), **ends(float(v), 0.1 * float(v)), "floor": 0.05}
            for k, v in enumerate(share, 1)
        ]
        for name, value in SCALARS.items():
            found = value * (0.7 + 0.5 * layer / layers) * (1 + 0.02 * rng.normal()) * (1.6 if layer in odd else 1)
            rows.append(place | {"measure": "block-summary", "target": name, **ends(found, 0.03 * abs(found))})
            z = 6.1 if layer in odd and name == "mean-offset" else float(rng.normal())
            rows.append(place | {"measure": "trend-residual", "target": name, **ends(z, 0.4)})
        apart = 0.09 if layer in odd else 0.004 * rng.uniform(0.5, 2)
        rows.append(place | {"measure": "neighbour-deviation", **ends(apart, 0.1 * apart), "floor": 0.0004})
        for flag in ("query-independent", "uniform", "rank-one", "edge-sink", "same-heads", "neighbour-copy"):
            told = flag in odd.get(layer, "")
            label = "yes" if told else "no"
            rows.append(
                place | {"measure": "degenerate-pattern", "target": flag, "label": label} | ends(0.99 if told else 0.3, 0.002)
            )  # fmt: skip
        rows.append(
            place
            | {
                "measure": "abnormality", "target": odd.get(layer), "value": 0.002 if layer in odd else 1.0,
                "label": "abnormal" if layer in odd else "normal",
            }
        )  # fmt: skip
    return rows


def verdict_rows(layers: int, rng: np.random.Generator) -> Rows:
    rows: Rows = []
    for metric, size in (("wer", 0.05), ("ctc-loss", 0.4)):
        for layer in range(1, layers + 1):
            place = {"stream": f"layer.{layer}", "layer": layer, "target": metric, "n": 96}
            for other in INTERVENTIONS:
                value = size * (-0.16 if layer == 3 else float(rng.uniform(0.05, 2)))
                half = 0.08 * size + 0.2 * abs(value) * (layer != 3)
                rows.append(place | {"measure": "block-intervention", "other": other, **ends(value, half)})
            label, other = ("harmful", "bypass") if layer == 3 else ("normal", None)
            if layer == max(layers - 1, 1):
                label, other = "needed", "local"
            own = next(row for row in reversed(rows) if other in (None, row["other"]))
            rows.append(
                place | {"measure": "block-verdict", "other": other, "label": label}
                | {name: own[name] if other else None for name in ("value", "low", "high")}
            )  # fmt: skip
        rows += [
            {"measure": "block-control", "target": metric, "other": other, "value": 0.25, "low": 0.05, "high": 0.7}
            | {"n": layers - 2}
            for other in (*INTERVENTIONS, "any")
        ]  # fmt: skip
    return rows


def criticality_rows(layers: int, rng: np.random.Generator) -> Rows:
    rows: Rows = []
    for metric, everything in (("ctc-loss", 5.2), ("wer", 0.8)):
        for mode in MODES:
            scale = {"re-randomise": 1.2, "mean": 0.5}.get(mode, 1.0)
            for layer in range(1, layers + 1):
                parts = [""] + [f".{part}" for part in PARTS]
                for part in parts:
                    share = scale * np.exp(-3 * ((layer - 1) / layers)) * (0.4 if part else 0.8) * rng.uniform(0.6, 1.2)
                    share = 0.001 if layer == layers or (part == ".norms" and layer > 2) else float(share)
                    label = "ambient" if share < 0.01 else "critical" if share > 0.55 else "intermediate"
                    place = {
                        "stream": f"layer.{layer}{part}", "layer": layer, "target": metric, "other": mode, "n": 96,
                        "label": label if metric == "ctc-loss" else None,
                    }  # fmt: skip
                    change = ends(everything * share, everything * 0.04 * share + 1e-3)
                    rows.append(place | {"measure": "criticality", "ceiling": everything} | change)
                    rows.append(place | {"measure": "criticality-normalised", **ends(share, 0.05 * share)})
                    if mode == "re-randomise":
                        spread = {
                            "value": everything * 0.05 * share,
                            "low": everything * 0.92 * share,
                            "high": everything * 1.09 * share,
                        }
                        rows.append(place | {"measure": "criticality-spread", "label": None} | spread)
    for layer in range(1, layers + 1):
        place = {"stream": f"layer.{layer}", "layer": layer, "target": "ctc-loss"}
        rows.append(place | {"measure": "module-criticality", "value": float(10 ** rng.uniform(-2, 3))})
    return rows


def score_rows(layers: int, rng: np.random.Generator) -> Rows:
    rows: Rows = []
    for layer in range(1, layers + 1):
        place = {"stream": f"layer.{layer}", "layer": layer, "n": 96}
        size = float(np.exp(-2 * layer / layers) * rng.uniform(0.7, 1.3))
        rows.append(place | {"measure": "block-influence", **ends(0.3 * size, 0.01)})
        rows.append(place | {"measure": "angular-distance", **ends(0.2 * size, 0.01)})
        rows.append(place | {"measure": "angular-distance", "other": "2", **ends(0.3 * size, 0.01)})
        for name in ("gradient-norm-relative", "gradient-fisher"):
            rows.append(place | {"measure": name, "target": "ctc-loss", **ends(0.01 * size, 0.001)})
        for name in CHURN:
            for other in ("initial", "seed:second"):
                rows.append(place | {"measure": "churn", "target": name, "other": other, "value": 0.02 * size})
    for score in ("block-influence", "angular-distance", "gradient-norm-relative", "gradient-fisher", "churn-rms"):
        for mode in ("re-initialise", "re-randomise"):
            rho = float(rng.uniform(0.2, 0.9))
            found = {"value": rho, "low": rho - 0.4, "high": min(rho + 0.2, 1.0)}
            place = {"stream": "block", "label": "ctc-loss", "target": score, "other": mode, "n": layers}
            rows.append({"measure": "criticality-prediction"} | place | found)
    return rows
