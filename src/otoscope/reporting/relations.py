"""Relation maps of heads: what heads do with labels, extreme concentration against verticality, maps of some heads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from otoscope.reporting.figures import (
    BLUE,
    CATEGORY_COLOURS,
    CATEGORY_SYMBOLS,
    GREY,
    VERMILLION,
    Figure,
    Trace,
    rgba,
    safe,
)  # fmt: skip
from otoscope.reporting.heads import Place
from otoscope.reporting.values import CATEGORIES, Row, interval, number

MOST_MAPS = 8
"""Heads whose maps are drawn."""

MOST_TICKS = 45
"""A map of more labels names none along its axes; the pointer does."""

MOST_HEADS = 6
"""Heads that are named in a cell of a table."""

WIDEST = 2.0
"""Colours end at a quarter of uniform attention and at four times as much."""

NO_OPERATION = ("none seen", "stays near")

SOME_LABELS = {"attends": "attends some labels", "not": "neglects some labels"}
"""Operations that name labels, by their first word, and what they are called together."""


@dataclass(frozen=True)
class RelationPanel:
    """What the report says of one measure of relation maps.

    Attributes:
        key: the measure without its "relation-", which the elements' names end in.
        title: what the labels are.
        maps: relation maps of some heads.
        scatter: extreme concentration against verticality, where both are there.
        verticality: how the two go together, in words; empty where it is not known.
        operations: what heads do, with how many do it and the clearest of them.
        labels: each label with the heads that focus on it and those that neglect it, the strongest first.
    """

    key: str
    title: str
    maps: list[Figure] = field(default_factory=list)
    scatter: Figure | None = None
    verticality: str = ""
    operations: list[tuple[str, int, str]] = field(default_factory=list)
    labels: list[tuple[str, str, str]] = field(default_factory=list)


def relation_panels(
    rows: Mapping[str, Sequence[Row]], arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any]
) -> list[RelationPanel]:
    """One panel for every measure of relation maps in the table.

    Args:
        rows: the table by measure.
        arrays: those of the diagnosis; maps are drawn where theirs are there.
        notes: of the diagnosis' provenance, by measure; they name the labels of maps.
    """
    found = []
    for measure, group in rows.items():
        if measure.startswith("relation-") and any(row["head"] is not None and row["label"] for row in group):
            key = measure.removeprefix("relation-")
            tier = key.removesuffix("-exclude-run")
            found.append(
                RelationPanel(
                    key,
                    tier if tier == key else f"{tier}, without a query's own run",
                    _maps(key, rows, arrays, notes),
                    _scatter(key, rows),
                    _in_words(rows.get(f"relation-verticality-{key}", ())),
                    _operations(rows.get(f"operation-{key}", ())),
                    _labels(rows.get(f"concentration-{key}", ())),
                )
            )
    return found


def _by_head(rows: Sequence[Row]) -> dict[Place, Row]:
    return {(row["layer"], row["head"]): row for row in rows if row["layer"] is not None and row["head"] is not None}


def _name(place: Place) -> str:
    return f"{place[0]}.{place[1]}"


def chosen_heads(key: str, rows: Mapping[str, Sequence[Row]]) -> list[Place]:
    """The heads whose maps are drawn: of each operation the clearest, then those of the most extreme concentration.

    Args:
        key: of the panel.
        rows: the table by measure.
    """
    operations, extremes = _by_head(rows.get(f"operation-{key}", ())), _by_head(rows.get(f"relation-{key}", ()))
    clearest: dict[str, Place] = {}
    for place, row in sorted(operations.items(), key=lambda item: -(item[1]["value"] or 0.0)):
        if row["label"] not in NO_OPERATION:
            clearest.setdefault(_kind(row["label"])[0], place)
    strongest = sorted(extremes, key=lambda place: -abs(extremes[place]["value"] or 0.0))
    return sorted(list(dict.fromkeys([*clearest.values(), *strongest]))[:MOST_MAPS])


def _kind(operation: str) -> tuple[str, str]:
    """An operation without the labels that it names, and those labels.

    >>> _kind("attends s, sh"), _kind("attends silence")
    (('attends some labels', 's, sh'), ('attends silence', ''))
    """
    first, _, named = operation.partition(" ")
    if first not in SOME_LABELS or named == "silence" or named.startswith("the same "):
        return operation, ""
    return SOME_LABELS[first], named


def _maps(
    key: str, rows: Mapping[str, Sequence[Row]], arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any]
) -> list[Figure]:
    maps, labels = arrays.get(f"relation-{key}.map"), notes.get(f"relation-{key}", {}).get("labels")
    if maps is None or not isinstance(labels, Sequence):
        return []
    operations = _by_head(rows.get(f"operation-{key}", ()))
    layers: dict[int, list[int]] = {}
    for layer, head in _by_head(rows[f"relation-{key}"]):
        layers.setdefault(layer, []).append(head)
    figures = []
    for layer, head in chosen_heads(key, rows):
        # The table names heads as the original model does; arrays hold them in the order of the tensors.
        relative = maps[layer - 1, layers[layer].index(head)][: len(labels), : len(labels)]
        operation = operations.get((layer, head), {}).get("label") or ""
        figures.append(_map(key, (layer, head), relative, [safe(label) for label in labels], operation))
    return figures


def _map(key: str, place: Place, relative: np.ndarray, labels: Sequence[str], operation: str) -> Figure:
    ratio = relative.astype(np.float64) + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = np.clip(np.log2(ratio), -WIDEST, WIDEST)

    def cells(values: np.ndarray) -> list[list[float | None]]:
        return [[round(float(x), 3) if np.isfinite(x) else None for x in line] for line in values]

    trace: Trace = {
        "type": "heatmap",
        "x": list(labels),
        "y": list(labels),
        "z": cells(lift),
        "customdata": cells(ratio),
        "zmin": -WIDEST,
        "zmax": WIDEST,
        "colorscale": [
            [0, VERMILLION], [0.25, rgba(VERMILLION, 0.5)], [0.5, rgba(GREY, 0.05)], [0.75, rgba(BLUE, 0.5)], [1, BLUE],
        ],
        "showscale": False,
        "hoverongaps": False,
        "hovertemplate": "from %{y} to %{x}<br>%{customdata} times uniform<extra></extra>",
    }  # fmt: skip
    axis: dict[str, Any] = {
        "type": "category", "showgrid": False, "zeroline": False, "tickfont": {"size": 8},
        "showticklabels": len(labels) <= MOST_TICKS, "tickmode": "linear", "dtick": 1,
    }  # fmt: skip
    longest = max(map(len, labels)) if len(labels) <= MOST_TICKS else 0
    upright = longest > 3
    room = 20 + 5 * min(longest, 12)
    return Figure(
        id=f"figure-relation-{key}-{place[0]}-{place[1]}",
        label=f"Relation map of head {_name(place)}: attention from each {key} to each other over uniform attention",
        title=f"head {_name(place)}",
        note=operation,
        data=[trace],
        layout={
            "xaxis": axis | {"title": {"text": "key"}, "tickangle": -90 if upright else 0},
            "yaxis": axis | {"title": {"text": "query"}, "autorange": "reversed"},
            "margin": {"l": max(room, 44), "r": 6, "t": 6, "b": max(room, 40) if upright else 40},
            "hovermode": "closest",
        },
        height=max(200, min(60 + 10 * len(labels), 470)),
        min_width=max(200, min(60 + 10 * len(labels), 470)),
    )


def _scatter(key: str, rows: Mapping[str, Sequence[Row]]) -> Figure | None:
    extremes, vertical = _by_head(rows.get(f"relation-{key}", ())), _by_head(rows.get("verticality", ()))
    categories, operations = _by_head(rows.get("category", ())), _by_head(rows.get(f"operation-{key}", ()))
    groups: dict[str, list[Place]] = {}
    for place, row in extremes.items():
        if row["value"] is not None and vertical.get(place, {}).get("value") is not None:
            label = categories.get(place, {}).get("label")
            groups.setdefault(label if label in CATEGORIES else "no category", []).append(place)
    if not groups:
        return None
    data: list[Trace] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [vertical[place]["value"] for place in groups[name]],
            "y": [extremes[place]["value"] for place in groups[name]],
            "marker": {
                "color": CATEGORY_COLOURS.get(name, GREY),
                "symbol": CATEGORY_SYMBOLS.get(name, "circle-open"),
                "size": 9 if len(extremes) <= 150 else 7,
                "opacity": 0.9,
                "line": {"width": 0.8, "color": "rgba(0,0,0,0.45)"},
            },
            "hovertext": [
                f"<b>head {_name(place)}</b><br>C({safe(extremes[place]['label'])}) = {interval(extremes[place])}"
                f"<br>permuted labels: {number(extremes[place]['floor'])}"
                f"<br>V = {number(vertical[place]['value'])} nat"
                + (f"<br>{safe(operations[place]['label'])}" if place in operations else "")
                for place in groups[name]
            ],
            "hoverinfo": "text",
        }
        for name in (*CATEGORIES, "no category")
        if name in groups
    ]
    return Figure(
        id=f"figure-concentration-{key}",
        label=f"Extreme concentration on a {key} against verticality of every head",
        data=data,
        layout={
            "xaxis": {"title": {"text": "verticality V (nat)"}, "zeroline": False},
            "yaxis": {"title": {"text": "extreme concentration"}, "zeroline": True},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "margin": {"l": 62, "r": 12, "t": 34, "b": 52},
            "hovermode": "closest",
        },
        height=430,
    )


def _in_words(rows: Sequence[Row]) -> str:
    """The relation of verticality to concentration."""
    if not rows or rows[0]["value"] is None:
        return ""
    row = rows[0]
    says = {
        "positive": "more vertical heads are the more extreme ones",
        "negative": "more vertical heads are the less extreme ones",
    }.get(row["label"], "neither direction is beyond chance")
    return (
        f"Spearman's correlation of verticality with the absolute extreme concentration over {row['n']} heads: "
        f"{interval(row, 2)} (permuted labels {number(row['floor'], 2)}): {says}."
    )


def _operations(rows: Sequence[Row]) -> list[tuple[str, int, str]]:
    """Operations by how many heads do them, with the clearest heads and the labels that they attend or neglect."""
    found: dict[str, list[tuple[float, Place, str]]] = {}
    for place, row in _by_head(rows).items():
        kind, named = _kind(row["label"] or "")
        found.setdefault(kind, []).append((row["value"] or 0.0, place, named))
    order = sorted(found, key=lambda name: (name in NO_OPERATION, -len(found[name]), name))
    lines = []
    for name in order:
        heads = sorted(found[name], key=lambda one: (-one[0], one[1]))
        lines.append((name, len(heads), _heads([place for _, place, _ in heads], [named for *_, named in heads])))
    return lines


def _labels(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Each label with the heads whose concentration is beyond chance, in the order of the table."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        sides = found.setdefault(row["target"], {"focus": [], "neglect": []})
        if row["label"] in sides:
            sides[row["label"]].append(row)
    cells = []
    for label, sides in found.items():
        strongest = {side: sorted(heads, key=lambda row: -abs(row["value"])) for side, heads in sides.items()}
        focus, neglect = (
            _heads(
                [(row["layer"], row["head"]) for row in strongest[side]],
                [number(row["value"], 2) for row in strongest[side]],
            )
            for side in ("focus", "neglect")
        )
        cells.append((label, focus, neglect))
    return cells


def _heads(places: Sequence[Place], values: Sequence[str]) -> str:
    """Names of heads, each with a word beside it unless that is empty, and how many more there are than are named."""
    named = [_name(place) + (f" ({value})" if value else "") for place, value in zip(places, values, strict=True)]
    more = len(named) - MOST_HEADS
    return ", ".join(named[:MOST_HEADS]) + (f" and {more} more" if more > 0 else "")
