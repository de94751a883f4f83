"""All attention heads of a model: categories and metrics by layer and head, a scatter of two metrics."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from otoscope.reporting.figures import (
    CATEGORY_COLOURS,
    CATEGORY_SYMBOLS,
    Figure,
    Trace,
    rgba,
    safe,
)
from otoscope.reporting.values import CATEGORIES, Row, category_counts, interval, number

METRICS = {
    "globalness": ("globalness G", "nat"),
    "verticality": ("verticality V", "nat"),
    "diagonality": ("diagonality D", "utterance lengths"),
    "head-information": ("information I", "nat"),
    "globalness-normalised": ("G / ln T", ""),
    "verticality-normalised": ("V / ln T", ""),
    "peak-offset": ("offset of the peak", "frames"),
    "peak-mass": ("mass at the peak", ""),
    "mean-offset": ("mean offset", "frames"),
    "cad": ("CAD", ""),
    "centrality": ("centrality", ""),
    "max-weight": ("greatest weight", ""),
    "confidence": ("confidence", ""),
}
"""Measures of heads with their names in the report and their units."""

FAINTEST = 0.3
"""Opacity of a head whose best and second-best rank are equal."""

Place = tuple[int, int]
"""Layer (from 1) and head (from 0)."""


def heads_by_place(rows: Mapping[str, Sequence[Row]]) -> dict[Place, dict[str, Row]]:
    """The rows of every head by measure, in the order of layers and heads."""
    found: dict[Place, dict[str, Row]] = {}
    for measure in (*METRICS, "category"):
        for row in rows.get(measure, ()):
            if row["layer"] is not None and row["head"] is not None:
                found.setdefault((int(row["layer"]), int(row["head"])), {})[measure] = row
    return dict(sorted(found.items()))


def describe(place: Place, head: Mapping[str, Row]) -> str:
    """What the pointer shows over a head: category with its margin, and every metric with its interval."""
    category = head.get("category")
    title = f"<b>head {place[0]}.{place[1]}</b>"
    if category and category["label"]:
        title += f" · {safe(category['label'])}"
        if category["value"] is not None:
            title += f" (margin {category['value']:.0f} ranks)"
    lines = [title]
    for measure, (name, unit) in METRICS.items():
        if measure in head and head[measure]["value"] is not None:
            lines.append(f"{name} = {interval(head[measure])} {unit}".rstrip())
    return "<br>".join(lines)


def head_figure(rows: Mapping[str, Sequence[Row]]) -> Figure | None:
    """The heads on a grid of layers by heads, coloured by category or by one of the metrics.

    The colour of a category is the stronger, the larger the margin between the best and second-best rank.

    Returns:
        The figure with its `choices` (one a trace; the page shows one at a time), or None without heads.
    """
    heads = heads_by_place(rows)
    if not heads:
        return None
    layers = sorted({layer for layer, _ in heads})
    width = max(head for _, head in heads) + 1
    data: list[Trace] = []
    choices: list[str] = []
    if any(head.get("category", {}).get("label") in CATEGORIES for head in heads.values()):
        data.append(_category_trace(heads, layers, width))
        choices.append("category")
    for measure, (name, unit) in METRICS.items():
        if any(measure in head and head[measure]["value"] is not None for head in heads.values()):
            data.append(_metric_trace(heads, layers, width, measure, unit))
            choices.append(name)
    if not data:
        return None
    for place, trace in enumerate(data):
        trace["visible"] = place == 0
    data[0] |= _words(heads, layers, width)
    cell = 36 if len(layers) <= 12 else 24
    layout = {
        "xaxis": {
            "title": {"text": "head (from 0)"},
            "dtick": 1,
            "range": [-0.5, width - 0.5],
            "showgrid": False,
            "zeroline": False,
        },
        "yaxis": {
            "title": {"text": "layer"},
            "tickmode": "array",
            "tickvals": layers,
            "range": [max(layers) + 0.5, min(layers) - 0.5],
            "showgrid": False,
            "zeroline": False,
        },
        "margin": {"l": 56, "r": 84, "t": 8, "b": 48},
        "hovermode": "closest",
    }
    return Figure(
        id="figure-heads",
        label="Attention heads by layer and head, coloured by category or metric",
        data=data,
        layout=layout,
        height=56 + cell * (max(layers) - min(layers) + 1),
        min_width=140 + 38 * width,
        max_width=140 + 90 * width if width < 12 else None,
        choices=choices,
    )


def _grid(layers: Sequence[int], width: int) -> list[list[Any]]:
    return [[None] * width for _ in layers]


def _words(heads: Mapping[Place, Mapping[str, Row]], layers: Sequence[int], width: int) -> Trace:
    """What stands in the cells and what the pointer shows; the page gives the first trace's words to all."""
    text, names = ([[""] * width for _ in layers] for _ in range(2))  # empty where a head was cut
    row_of = {layer: index for index, layer in enumerate(layers)}
    for (layer, head), found in heads.items():
        text[row_of[layer]][head] = describe((layer, head), found)
        names[row_of[layer]][head] = f"{layer}.{head}"
    return {"text": names, "hovertext": text}


def _base_trace(layers: Sequence[int], width: int) -> Trace:
    return {
        "type": "heatmap",
        "x": list(range(width)),
        "y": list(layers),
        "texttemplate": "%{text}",
        "textfont": {"size": 10},
        "hoverinfo": "text",
        "hoverongaps": False,
        "xgap": 2,
        "ygap": 2,
    }


def _category_trace(heads: Mapping[Place, Mapping[str, Row]], layers: Sequence[int], width: int) -> Trace:
    """Category `c` with strength `s` in [0, 1] is drawn as `c + 0.98 s`, a section of the scale each."""
    margins = [head["category"]["value"] or 0.0 for head in heads.values() if "category" in head]
    largest = max([*margins, 1.0])
    values = _grid(layers, width)
    row_of = {layer: index for index, layer in enumerate(layers)}
    for (layer, head), found in heads.items():
        row = found.get("category")
        if row is None or row["label"] not in CATEGORIES:
            continue
        strength = max(row["value"] or 0.0, 0.0) / largest
        values[row_of[layer]][head] = CATEGORIES.index(row["label"]) + 0.98 * strength
    scale: list[list[Any]] = []
    sections = len(CATEGORIES)
    for index, name in enumerate(CATEGORIES):
        scale.append([index / sections, rgba(CATEGORY_COLOURS[name], FAINTEST)])
        end = 1.0 if index == sections - 1 else (index + 0.99) / sections
        scale.append([end, CATEGORY_COLOURS[name]])
    return _base_trace(layers, width) | {
        "z": values,
        "zmin": 0,
        "zmax": sections,
        "colorscale": scale,
        "showscale": False,
    }


def _metric_trace(
    heads: Mapping[Place, Mapping[str, Row]], layers: Sequence[int], width: int, measure: str, unit: str
) -> Trace:
    values = _grid(layers, width)
    row_of = {layer: index for index, layer in enumerate(layers)}
    for (layer, head), found in heads.items():
        if measure in found:
            values[row_of[layer]][head] = found[measure]["value"]
    return _base_trace(layers, width) | {
        "z": values,
        "colorscale": "Cividis",
        "colorbar": {
            "thickness": 12,
            "outlinewidth": 0,
            "x": 1.01,
            "xpad": 6,
            "len": 1,
            "title": {"text": unit, "side": "right", "font": {"size": 11}},
            "tickfont": {"size": 11},
        },
    }


def scatter_figure(rows: Mapping[str, Sequence[Row]]) -> Figure | None:
    """Normalised globalness against diagonality, one point a head, with two known maps for orientation.

    Returns:
        The figure, or None where no head has both metrics.
    """
    both = {
        place: head
        for place, head in heads_by_place(rows).items()
        if all(head.get(name, {}).get("value") is not None for name in ("globalness-normalised", "diagonality"))
    }
    if not both:
        return None
    data: list[Trace] = []
    groups: dict[str, list[Place]] = {}
    for place, head in both.items():
        label = head.get("category", {}).get("label")
        groups.setdefault(label if label in CATEGORIES else "no category", []).append(place)
    for name in (*CATEGORIES, "no category"):
        if name in groups:
            data.append(_scatter_trace(name, groups[name], both))
    data.append(
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": [1, 0],
            "y": [-1 / 3, 0],
            "text": ["uniform map", "identity map"],
            "textposition": ["bottom left", "middle right"],
            "textfont": {"size": 11},
            "marker": {"symbol": "x-thin", "size": 9, "line": {"width": 1.6, "color": "#888888"}},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    )
    lowest = min(head["diagonality"]["value"] for head in both.values())
    layout = {
        "xaxis": {
            "title": {"text": "globalness over its maximum, G / ln T"},
            "range": [-0.04, 1.04],
            "zeroline": False,
        },
        "yaxis": {
            "title": {"text": "diagonality D (utterance lengths)"},
            "range": [min(lowest, -1 / 3) - 0.06, 0.03],
            "zeroline": False,
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "margin": {"l": 62, "r": 12, "t": 34, "b": 52},
        "hovermode": "closest",
    }
    return Figure(
        id="figure-scatter",
        label="Normalised globalness against diagonality of every head",
        data=data,
        layout=layout,
        height=430,
    )


def _scatter_trace(name: str, places: Sequence[Place], heads: Mapping[Place, Mapping[str, Row]]) -> Trace:
    colour = CATEGORY_COLOURS.get(name, "#888888")
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "marker": {
            "color": colour,
            "symbol": CATEGORY_SYMBOLS.get(name, "circle-open"),
            "size": 9 if len(heads) <= 150 else 7,
            "opacity": 0.9,
            "line": {"width": 0.8, "color": "rgba(0,0,0,0.45)"},
        },
        "hovertext": [describe(place, heads[place]) for place in places],
        "hoverinfo": "text",
    }
    for axis, measure in (("x", "globalness-normalised"), ("y", "diagonality")):
        found = [heads[place][measure] for place in places]
        trace[axis] = [row["value"] for row in found]
        above = [0.0 if row["high"] is None else max(row["high"] - row["value"], 0.0) for row in found]
        below = [0.0 if row["low"] is None else max(row["value"] - row["low"], 0.0) for row in found]
        trace[f"error_{axis}"] = {
            "type": "data",
            "array": above,
            "arrayminus": below,
            "color": rgba(colour, 0.55),
            "thickness": 1,
            "width": 0,
        }
    return trace


def category_table(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any] | None:
    """How many heads of each category every layer has, with totals.

    Returns:
        `rows` of (layer, counts, total), `totals` by category, `total`, and the `largest` total of a layer;
        None where no head has a category.
    """
    counts = category_counts(rows)
    if not counts:
        return None
    totals: Counter[str] = Counter()
    for found in counts.values():
        totals.update(found)
    return {
        "rows": [(layer, found, sum(found.values())) for layer, found in counts.items()],
        "totals": {name: totals[name] for name in CATEGORIES},
        "total": sum(totals.values()),
        "largest": max(sum(found.values()) for found in counts.values()),
    }


def extreme_heads(rows: Mapping[str, Sequence[Row]], top: int = 3) -> list[dict[str, Any]]:
    """The heads with the largest value of each of globalness, verticality and diagonality.

    Returns:
        One entry a metric: its `name`, `unit`, and `heads` as (head id, value with interval, category).
    """
    heads = heads_by_place(rows)
    found = []
    for measure in ("globalness", "verticality", "diagonality"):
        scored = [
            (place, head) for place, head in heads.items() if measure in head and head[measure]["value"] is not None
        ]
        scored.sort(key=lambda item: -item[1][measure]["value"])
        if scored:
            name, unit = METRICS[measure]
            found.append(
                {
                    "name": name,
                    "unit": unit,
                    "heads": [
                        (
                            f"{layer}.{index}",
                            number(head[measure]["value"]),
                            head.get("category", {}).get("label") or "",
                        )
                        for (layer, index), head in scored[:top]
                    ],
                }
            )
    return found
