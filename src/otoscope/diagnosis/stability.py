"""Whether several diagnoses find the same units critical: agreement of labels, and of the order of units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import binomtest

from otoscope.diagnosis.curves import Depth
from otoscope.diagnosis.metric_words import called
from otoscope.diagnosis.result import Diagnosis
from otoscope.interventions.agreement import kendall, spearman
from otoscope.interventions.prediction import CRITICALITY, LEAST, granularity_of
from otoscope.statistics.kappa import fleiss_kappa, kappa_interval
from otoscope.statistics.rank_correlation import FEWEST, rank_interval

FIGURE_SCHEMA: dict[str, Any] = {
    "figure": pl.String, "metric": pl.String, "mode": pl.String, "granularity": pl.String, "first": pl.String,
    "second": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "n": pl.Int64,
    "matching": pl.String, "across": pl.String,
}  # fmt: skip
UNIT_SCHEMA: dict[str, Any] = {
    "metric": pl.String, "mode": pl.String, "granularity": pl.String, "unit": pl.String, "diagnosis": pl.String,
    "matched": pl.String, "layer": pl.Int32, "depth": pl.Float64, "label": pl.String, "value": pl.Float64,
    "low": pl.Float64, "high": pl.Float64,
}  # fmt: skip
SHARE, KAPPA, SPEARMAN, KENDALL = "same label", "Fleiss' kappa", "Spearman's rho", "Kendall's tau"

Group = tuple[str, str, str]
"""Metric, mode and granularity."""


@dataclass(frozen=True)
class Stability:
    """What several diagnoses say of the criticality of the same units.

    Attributes:
        figures: a row a figure: of two diagnoses the share of units with the same label, Spearman's rho and Kendall's tau
            between the changes of the metric; of all together (`first` and `second` null) Fleiss' kappa of the labels.
            `n` counts units, `matching` says whether they were matched by name or by relative depth, `across` in what
            the two differ.
        units: a row a unit and diagnosis: its label, and the metric's change. Units are those of the diagnosis with the
            fewest layers; `matched` is the unit of this diagnosis that stands for it.
    """

    figures: pl.DataFrame
    units: pl.DataFrame

    @property
    def groups(self) -> list[Group]:
        """Metrics, modes and granularities, in the order of the table."""
        return list(self.figures.select("metric", "mode", "granularity").unique(maintain_order=True).iter_rows())

    def of(self, group: Group) -> list[dict[str, Any]]:
        """The figures of one group."""
        return _of(self.figures, group).to_dicts()

    def labels(self, group: Group) -> list[tuple[str, dict[str, dict[str, Any]]]]:
        """The units of one group with their rows by diagnosis."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for row in _of(self.units, group).iter_rows(named=True):
            found.setdefault(row["unit"], {})[row["diagnosis"]] = row
        return list(found.items())

    def names(self, group: Group) -> list[str]:
        """The diagnoses that hold a group, in order."""
        return _of(self.units, group)["diagnosis"].unique(maintain_order=True).to_list()

    def sentences(self) -> list[str]:
        """Whether labels and orders agree, in words, a sentence a group."""
        return [text for group in self.groups if (text := self._sentence(group))]

    def _sentence(self, group: Group) -> str:
        metric, mode, granularity = group
        rows, names, parts = self.of(group), self.names(group), []
        lines = [[cell["label"] for cell in cells.values()] for _, cells in self.labels(group)]
        whole = [labels for labels in lines if len(labels) == len(names) and None not in labels]
        if whole:
            same = sum(len(set(labels)) == 1 for labels in whole)
            kappa = next((row for row in rows if row["figure"] == KAPPA and row["value"] is not None), None)
            beside = f" (Fleiss' kappa {told(kappa)})" if kappa else ""
            parts.append(f"{same} of {len(whole)} {granularity}s have the same label in {' and '.join(names)}{beside}")
        values = [row for row in rows if row["figure"] == SPEARMAN and row["value"] is not None]
        if len(values) == 1:
            parts.append(f"their orders correlate with {told(values[0])} (Spearman)")
        elif values:
            low, high = min(row["value"] for row in values), max(row["value"] for row in values)
            parts.append(f"the orders of every two correlate with {low:.2f} to {high:.2f} (Spearman)")
        return f"By {called(metric)} under {mode}, {'; '.join(parts)}." if parts else ""

    def __str__(self) -> str:
        lines = []
        for group in self.groups:
            metric, mode, granularity = group
            names = self.names(group)
            rows = [[granularity, *names]]
            for unit, cells in self.labels(group):
                rows.append([unit, *(label_cell(cells.get(name), unit) for name in names)])
            widths = [max(len(row[k]) for row in rows) for k in range(len(names) + 1)]
            lines.append(f"criticality by {called(metric)} under {mode}")
            lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
            lines += figure_lines(self.of(group))
        return "\n".join(lines)


def label_cell(cell: Mapping[str, Any] | None, unit: str) -> str:
    """The label of a unit in one diagnosis, and which of its units that is, where it is another one."""
    if cell is None:
        return ""
    own = cell["matched"]
    return f"{cell['label'] or '-'}{'' if own == unit else f' ({own})'}"


def figure_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The figures of one group in words, a line for every two diagnoses, and one for all."""
    found: dict[tuple[str, str] | None, list[str]] = {}
    across: dict[tuple[str, str] | None, str] = {}
    for row in rows:
        pair = (row["first"], row["second"]) if row["first"] is not None else None
        across[pair] = f" (across {row['across']})" if row["across"] else ""
        if row["value"] is not None:
            found.setdefault(pair, []).append(f"{row['figure']} {told(row)}")
    return [
        f"{'all' if pair is None else ' and '.join(pair)}{across[pair]}: {'; '.join(figures)}"
        for pair, figures in found.items()
    ]


def stability_of(named: Mapping[str, Diagnosis]) -> Stability | None:
    """Sets the criticality of units side by side.

    Units of models with the same number of layers are matched by name. Of two with different numbers, units of layers
    are matched by relative depth l / L: the label of a layer of the shallower one is held against that of the nearest
    layer of the deeper (a half goes up), and its change of the metric against the change that is interpolated linearly,
    between the same parts (such as all `layer.l.attention`), at its depth. What lies outside the layers is matched by name.

    Intervals are over units, as if these were drawn from many of their kind: Wilson's of the share of the same labels,
    Bonett and Wright's of the correlations, a jackknife of kappa.

    Args:
        named: diagnoses by name.

    Returns:
        The figures; None where no two diagnoses hold the criticality of the same units by the same metric and mode.
    """
    held = {name: _criticality(diagnosis) for name, diagnosis in named.items()}
    depths = {name: Depth.of(diagnosis) for name, diagnosis in named.items()}
    figures: list[dict[str, Any]] = []
    units: list[dict[str, Any]] = []
    for group in dict.fromkeys(group for found in held.values() for group in found):
        taken = {name: found[group] for name, found in held.items() if group in found}
        about = dict(zip(("metric", "mode", "granularity"), group, strict=True))
        pairs = [row for one, two in combinations(taken, 2) for row in _pair(one, two, taken, depths, named)]
        if not pairs:
            continue
        base = min(taken, key=lambda name: depths[name].layers)
        lines = list(_lines(base, taken, depths))
        kappa = _kappa([[cell["label"] for cell in line] for line in lines if len(line) == len(taken)])
        figures += [{**about, **row} for row in (*kappa, *pairs)]
        units += [{**about, **cell} for line in lines for cell in line]
    if not figures:
        return None
    return Stability(
        pl.DataFrame(figures, schema=FIGURE_SCHEMA, orient="row"), pl.DataFrame(units, schema=UNIT_SCHEMA, orient="row")
    )


def told(row: Mapping[str, Any]) -> str:
    """A figure with its interval, where it has one."""
    if row["value"] is None:
        return ""
    ends = "" if row["low"] is None else f", 95 % {row['low']:.2f} to {row['high']:.2f}"
    return f"{row['value']:.2f}{ends}"


def _of(table: pl.DataFrame, group: Group) -> pl.DataFrame:
    metric, mode, granularity = group
    return table.filter(
        (pl.col("metric") == metric) & (pl.col("mode") == mode) & (pl.col("granularity") == granularity)
    )


def _criticality(diagnosis: Diagnosis) -> dict[Group, dict[str, dict[str, Any]]]:
    """Rows of a diagnosis by group and unit."""
    found: dict[Group, dict[str, dict[str, Any]]] = {}
    for row in (
        diagnosis.measure(CRITICALITY).drop_nulls(["stream", "value"]).filter(pl.col("value").is_finite()).to_dicts()
    ):
        group = (row["target"] or "", row["other"] or "", granularity_of(row["stream"]))
        found.setdefault(group, {})[row["stream"]] = row
    return found


def _split(unit: str) -> tuple[int | None, str]:
    """Number of the layer and the part of it; no number outside layers."""
    found = re.fullmatch(r"layer\.(\d+)(.*)", unit)
    return (int(found[1]), found[2]) if found else (None, unit)


def _nearest(unit: str, mine: Depth, theirs: Depth) -> str:
    """The unit of another model that stands for a unit of this one."""
    layer, part = _split(unit)
    return unit if layer is None else f"{mine.matched(f'layer.{layer}', theirs)}{part}"


def _lines(
    base: str, taken: Mapping[str, Mapping[str, Mapping[str, Any]]], depths: Mapping[str, Depth]
) -> Iterator[list[dict[str, Any]]]:
    """For every unit of the base the cell of each diagnosis that has a unit for it."""
    for unit in taken[base]:
        cells = []
        for name, rows in taken.items():
            matched = _nearest(unit, depths[base], depths[name])
            if matched in rows:
                row, layer = rows[matched], _split(matched)[0]
                cells.append(
                    {
                        "unit": unit, "diagnosis": name, "matched": matched, "layer": layer,
                        "depth": None if layer is None else depths[name](f"layer.{layer}"),
                        **{key: row[key] for key in ("label", "value", "low", "high")},
                    }
                )  # fmt: skip
        yield cells


def _pair(
    one: str,
    two: str,
    taken: Mapping[str, Mapping[str, Mapping[str, Any]]],
    depths: Mapping[str, Depth],
    named: Mapping[str, Diagnosis],
) -> Iterator[dict[str, Any]]:
    """Figures of two diagnoses; none where they have too few units in common."""
    shallow, deep = sorted((one, two), key=lambda name: depths[name].layers)
    alike = depths[one].layers == depths[two].layers
    about = {
        "first": one,
        "second": two,
        "matching": "name" if alike else "depth",
        "across": _across(named[one], named[two]),
    }
    mine, theirs = taken[shallow], taken[deep]
    labels = [
        (row["label"], theirs[matched]["label"])
        for unit, row in mine.items()
        if (matched := _nearest(unit, depths[shallow], depths[deep])) in theirs
    ]
    labels = [(a, b) for a, b in labels if a is not None and b is not None]
    if len(labels) >= LEAST:
        same = sum(a == b for a, b in labels)
        ends = binomtest(same, len(labels)).proportion_ci(method="wilson")
        low, high = (float(ends.low), float(ends.high)) if len(labels) >= FEWEST else (None, None)
        yield {"figure": SHARE, **about, "value": same / len(labels), "low": low, "high": high, "n": len(labels)}
    at = _interpolated(mine, theirs, depths[shallow], depths[deep])
    if len(at) < LEAST:
        return
    x, y = np.array([mine[unit]["value"] for unit in at]), np.array(list(at.values()))
    for figure, kind, correlation in ((SPEARMAN, "spearman", spearman), (KENDALL, "kendall", kendall)):
        value, _ = correlation(x, y)
        known = bool(np.isfinite(value))
        low, high = (rank_interval(value, len(at), kind) if known else None) or (None, None)
        yield {"figure": figure, **about, "value": value if known else None, "low": low, "high": high, "n": len(at)}


def _interpolated(
    mine: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]], shallow: Depth, deep: Depth
) -> dict[str, float]:
    """The other model's change of the metric at the depth of each of these units, where it has one."""
    if shallow.layers == deep.layers:
        return {unit: theirs[unit]["value"] for unit in mine if unit in theirs}
    found = {}
    along: dict[str, list[tuple[float, float]]] = {}
    for unit, row in theirs.items():
        layer, part = _split(unit)
        if layer is not None:
            along.setdefault(part, []).append((layer / deep.layers, row["value"]))
    for unit in mine:
        layer, part = _split(unit)
        if layer is None:
            if unit in theirs:
                found[unit] = theirs[unit]["value"]
            continue
        points = sorted(along.get(part, []))
        depth = layer / shallow.layers
        if points and points[0][0] <= depth <= points[-1][0]:
            found[unit] = float(np.interp(depth, *np.array(points).T))
    return found


def _kappa(labels: Sequence[Sequence[str | None]]) -> Iterator[dict[str, Any]]:
    """Fleiss' kappa of the labels that each unit has in all diagnoses."""
    whole = [line for line in labels if None not in line]
    words = sorted({str(word) for line in whole for word in line})
    if len(whole) < LEAST:
        return
    counts = np.array([[line.count(word) for word in words] for line in map(list, whole)])
    value, without = fleiss_kappa(counts)
    known = bool(np.isfinite(value))
    low, high = (kappa_interval(value, without, FEWEST) if known else None) or (None, None)
    yield {"figure": KAPPA, "value": value if known else None, "low": low, "high": high, "n": len(whole)}


def _across(one: Diagnosis, two: Diagnosis) -> str:
    """In what two diagnoses differ: "size", "weights" (of models of the same size), "data"."""

    def differ(part: str, key: str) -> bool:
        mine, theirs = ((about.provenance.get(part) or {}).get(key) for about in (one, two))
        return bool(mine != theirs)

    size = any(differ("model", key) for key in ("family", "layers", "parameters"))
    found = ["size"] if size else ["weights"] if differ("model", "fingerprint") else []
    return " and ".join([*found, *(["data"] if differ("corpus", "fingerprint") else [])]) or "nothing"
