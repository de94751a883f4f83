"""Stability of criticality on the page of a comparison: labels side by side, the change over relative depth, agreement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from otoscope.diagnosis.metric_words import called
from otoscope.diagnosis.stability import KAPPA, Group, Stability
from otoscope.reporting.figures import Figure, Trace, band, safe
from otoscope.reporting.layers import value_range
from otoscope.reporting.values import interval

Mark = Callable[[int], tuple[str, str]]
"""From the place of a diagnosis to its colour and symbol."""


def stability_parts(
    stability: Stability | None, names: list[str], mark: Mark
) -> tuple[list[dict[str, Any]], list[Figure]]:
    """What the section shows of every metric, mode and kind of unit, and its figures.

    Args:
        stability: what was found; None gives nothing.
        names: all diagnoses, in order: each has its own mark.
        mark: of a diagnosis by its place.
    """
    parts: list[dict[str, Any]] = []
    figures: list[Figure] = []
    for group in stability.groups if stability is not None else ():
        assert stability is not None
        metric, mode, granularity = group
        held = stability.names(group)
        figure = _figure(stability, group, names, mark, len(figures) + 1) if granularity == "block" else None
        figures += [figure] if figure is not None else []
        parts.append(
            {
                "title": f"{mode}, {called(metric)}, {granularity}s",
                "names": held,
                "figure": figure,
                "lines": [
                    (unit, [_cell(cells.get(name), unit) for name in held]) for unit, cells in stability.labels(group)
                ],
                "agreement": _agreement(stability, group),
            }
        )
    return parts, figures


def _cell(cell: Mapping[str, Any] | None, unit: str) -> dict[str, str]:
    """Label and change of one unit in one diagnosis."""
    if cell is None:
        return {"label": "", "change": "", "matched": ""}
    own = cell["matched"]
    return {"label": cell["label"] or "", "change": interval(cell), "matched": "" if own == unit else own}


def _agreement(stability: Stability, group: Group) -> list[dict[str, Any]]:
    """The figures: a line for every two diagnoses, after one for all."""
    found: dict[tuple[str | None, str | None], dict[str, Any]] = {}
    for row in stability.of(group):
        pair = row["first"], row["second"]
        called_so = "all together" if row["figure"] == KAPPA else f"{row['first']} and {row['second']}"
        line = found.setdefault(
            pair, {"who": called_so, "across": row["across"] or "", "matching": row["matching"] or "", "figures": {}}
        )
        line["figures"][row["figure"]] = f"{interval(row, 2)}, n = {row['n']}" if row["value"] is not None else "–"
    return list(found.values())


def _figure(stability: Stability, group: Group, names: list[str], mark: Mark, place: int) -> Figure:
    """The change of the metric over relative depth, a curve a diagnosis."""
    metric, mode, _ = group
    data: list[Trace] = []
    for name in stability.names(group):
        # A deeper model's blocks that stand for no block of the shallowest are not drawn.
        rows = {cells[name]["matched"]: cells[name] for _, cells in stability.labels(group) if name in cells}
        drawn = sorted((row for row in rows.values() if row["depth"] is not None), key=lambda row: row["depth"])
        colour, symbol = mark(names.index(name))
        x = [row["depth"] for row in drawn]
        data.append(band(x, [row["low"] for row in drawn], [row["high"] for row in drawn], colour))
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": safe(name), "x": x,
                "y": [row["value"] for row in drawn], "line": {"color": colour, "width": 2.2},
                "marker": {"color": colour, "size": 6, "symbol": symbol}, "hoverinfo": "text",
                "hovertext": [
                    f"<b>{safe(row['matched'])}</b> · {safe(name)}<br>{interval(row)}<br>{safe(row['label'] or '')}"
                    for row in drawn
                ],
            }
        )  # fmt: skip
    return Figure(
        id=f"figure-stability-{place}",
        label=f"Change of {called(metric)} under {mode} of each block over relative depth",
        title=f"{mode}, {called(metric)}",
        data=data,
        layout={
            "xaxis": {"title": {"text": "relative depth"}, "range": [-0.04, 1.05], "showgrid": False, "zeroline": False},
            "yaxis": {"title": {"text": safe(f"change of {called(metric)}")}, "range": value_range(data)},
            "showlegend": False, "margin": {"l": 58, "r": 10, "t": 8, "b": 46}, "hovermode": "closest",
        },
        height=300,
        min_width=340,
    )  # fmt: skip
