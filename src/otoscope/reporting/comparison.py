"""The page of a comparison: curves over relative depth, peaks, and the numbers of every difference."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from otoscope.diagnosis.comparison import Comparison
from otoscope.diagnosis.curves import Key, titles, unit_of
from otoscope.reporting import facts
from otoscope.reporting.comparison_stability import stability_parts
from otoscope.reporting.figures import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Figure,
    Trace,
    band,
    rgba,
    safe,
)
from otoscope.reporting.layers import axis_title, panel_title, ring, value_range
from otoscope.reporting.page import csv_link, page_parts, render_template, write_page
from otoscope.reporting.values import Row, interval, number, ordered_streams

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
SYMBOLS = ("circle", "square", "diamond")
"""Diagnoses beyond the sixth take the colours again, with other marks."""

MOST_SENTENCES = 6
"""So many measures are put into words at the top; the rest are folded away, and left to the page in the terminal."""

CONVOLUTIONS = 0.4
"""Width of the convolutional streams on the axis, where the layers take 1."""

LAST_NORM = 1.11
"""Where the final norm is drawn, lest it lie on the last layer."""


def write_comparison(comparison: Comparison, path: str | os.PathLike[str]) -> Path:
    """Writes a comparison as one HTML page that loads nothing from anywhere, whole or not at all.

    Args:
        comparison: what to report.
        path: the file to write; folders that are missing are made.

    Raises:
        ResultError: the file cannot be written there.
    """
    return write_page(lambda: render_comparison(comparison), path)


def render_comparison(comparison: Comparison) -> str:
    """The comparison as HTML text."""
    called = titles(comparison.keys)
    along = [key for key in comparison.keys if any(comparison.values(*key, name)[1:] for name in comparison.names)]
    figures = {key: _figure(comparison, key, called[key], place) for place, key in enumerate(along, 1)}
    stability, more = stability_parts(comparison.stability, comparison.names, mark)
    units: dict[str, list[dict[str, Any]]] = {}
    for key in comparison.keys:
        shown = {"figure": figures.get(key), "title": called[key], "table": _table(comparison, key)}
        units.setdefault(panel_title(unit_of(key[0])), []).append(shown)
    # The page draws blue in a tone of its own on dark paper.
    tones = {BLUE: "var(--blue)"}
    marks = [(name, tones.get(mark(k)[0], mark(k)[0]), mark(k)[1]) for k, name in enumerate(comparison.names)]
    return render_template(
        "comparison.html",
        {
            "names": comparison.names,
            "diagnoses": [_diagnosis(one) for one in comparison.provenance["diagnoses"]],
            "sentences": comparison.sentences(),
            "first": MOST_SENTENCES,
            "stated": comparison.provenance["stated"],
            "absent": absent_in_words(comparison),
            "marks": marks,
            "stability": stability,
            "units": units,
            "peaks": [(called[key], [_peak(comparison, key, name) for name in comparison.names]) for key in called],
            "csv": csv_link(comparison.table),
            "n_rows": comparison.table.height,
        }
        | page_parts([*more, *figures.values()]),
    )


def mark(place: int) -> tuple[str, str]:
    """Colour and symbol of a diagnosis by its place."""
    return COLOURS[place % len(COLOURS)], SYMBOLS[place // len(COLOURS) % len(SYMBOLS)]


def absent_in_words(comparison: Comparison) -> list[tuple[str, str]]:
    """What is absent in which diagnosis: name and reason, and the measures that it holds of."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in comparison.provenance["absent"]:
        found.setdefault((one["diagnosis"], one["reason"]), []).append(one["measure"])
    return [(f"{name}: {', '.join(dict.fromkeys(measures))}", reason) for (name, reason), measures in found.items()]


def across(row: Mapping[str, Any]) -> float | None:
    """Where a stream is drawn: its relative depth, with convolutions closer together and the final norm set apart."""
    if row["stream"] == "final_norm":
        return LAST_NORM
    depth = row["depth"]
    return depth * CONVOLUTIONS if depth is not None and depth < 0 else depth


def _figure(comparison: Comparison, key: Key, title: str, place: int) -> Figure:
    data: list[Trace] = []
    drawn: list[Row] = []
    for index, name in enumerate(comparison.names):
        rows = [row for row in comparison.values(*key, name) if row["depth"] is not None]
        rows.sort(key=lambda row: across(row) or 0.0)
        if not rows:
            continue
        drawn += rows
        colour, symbol = mark(index)
        x = [across(row) for row in rows]
        data.append(band([at or 0.0 for at in x], [row["low"] for row in rows], [row["high"] for row in rows], colour))
        if any(row["floor"] is not None for row in rows):
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": x,
                    "y": [row["floor"] for row in rows],
                    "line": {"color": colour, "width": 1.2, "dash": "dash"},
                    "hoverinfo": "skip",
                }
            )
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": safe(name),
                "x": x,
                "y": [row["value"] for row in rows],
                "line": {"color": colour, "width": 2.2},
                "marker": {"color": colour, "size": 6, "symbol": symbol},
                "hovertext": [_hover(name, row) for row in rows],
                "hoverinfo": "text",
            }
        )
        peak = comparison.peak(*key, name)
        if peak is not None and peak["depth"] is not None:
            data.append(ring([across(peak) or 0.0], [peak["value"]], colour))
    return Figure(
        id=f"figure-curve-{place}",
        label=f"{title} over relative depth in {', '.join(comparison.names)}",
        title=title,
        data=data,
        layout=_layout(drawn, data, unit_of(key[0])),
        height=300,
        min_width=340,
    )


def _hover(name: str, row: Row) -> str:
    lines = [f"<b>{safe(row['stream'])}</b> · {safe(name)}", interval(row)]
    if row["floor"] is not None:
        lines.append(f"floor {number(row['floor'])}")
    if row["other"]:
        lines.append(f"with {safe(row['other'])} of another model")
    return "<br>".join(lines)


def _layout(rows: Sequence[Row], data: Sequence[Trace], unit: str) -> dict[str, Any]:
    lowest = min((row["depth"] for row in rows), default=0.0)
    ticks = [(0.0, "in"), (0.25, "¼"), (0.5, "½"), (0.75, "¾"), (1.0, "1")]
    if any(row["stream"] == "final_norm" for row in rows):
        ticks.append((LAST_NORM, "norm"))
    shapes = []
    if lowest < 0:
        ticks.insert(0, (-CONVOLUTIONS * 0.6, "conv"))
        shapes.append(
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": -CONVOLUTIONS - 0.04,
                "x1": -0.025,
                "y0": 0,
                "y1": 1,
                "fillcolor": rgba("#888888", 0.13),
                "line": {"width": 0},
                "layer": "below",
            }
        )
    return {
        "xaxis": {
            "title": {"text": "relative depth"},
            "tickmode": "array",
            "tickvals": [at for at, _ in ticks],
            "ticktext": [text for _, text in ticks],
            "tickangle": 0,
            "range": [-CONVOLUTIONS - 0.04 if lowest < 0 else -0.04, LAST_NORM + 0.05],
            "showgrid": False,
            "zeroline": False,
        },
        "yaxis": {"title": {"text": safe(axis_title(unit))}, "range": value_range(data), "zeroline": False},
        "shapes": shapes,
        "showlegend": False,
        "margin": {"l": 58, "r": 10, "t": 8, "b": 46},
        "hovermode": "closest",
    }


def _table(comparison: Comparison, key: Key) -> dict[str, Any]:
    """The numbers of one curve: a line a stream, with values of every diagnosis and differences from the first."""
    values = {name: {row["stream"]: row for row in comparison.values(*key, name)} for name in comparison.names}
    apart = {name: {row["stream"]: row for row in comparison.differences(*key, name)} for name in comparison.names[1:]}
    shown = [name for name, rows in apart.items() if rows]
    lines = []
    for stream in ordered_streams(stream for rows in values.values() for stream in rows):
        cells = [interval(rows[stream]) if stream in rows else "" for rows in values.values()]
        changes = []
        for name in shown:
            row = apart[name].get(stream)
            told = "" if row is None else interval(row) + (f" to {row['other']}" if row["other"] != stream else "")
            changes.append({"text": told, "apart": row is not None and row["pairing"] and row["low"] * row["high"] > 0})
        lines.append((stream, cells, changes))
    pairing = {row["pairing"] for name in shown for row in apart[name].values()} - {None}
    return {"lines": lines, "differences": shown, "pairing": ", ".join(sorted(pairing))}


def _peak(comparison: Comparison, key: Key, name: str) -> dict[str, Any] | None:
    peak = comparison.peak(*key, name)
    if peak is None:
        return None
    count, streams = len(peak["as_good"]), len(comparison.values(*key, name))
    beside = "" if not count else "no stream differs" if count == streams - 1 else ", ".join(peak["as_good"])
    return {
        "stream": peak["stream"],
        "text": interval(peak),
        "as_good": beside,
        "at_floor": peak["above_floor"] is False,
    }


def _diagnosis(one: Mapping[str, Any]) -> dict[str, Any]:
    model, corpus = one["model"], one["corpus"]
    told = [
        ("model", str(model.get("name") or "–")),
        ("family", str(model.get("family") or "–")),
        ("layers", str(model.get("layers") or "–")),
        ("parameters", facts.magnitude(model.get("parameters"))),
        ("speech", str(corpus.get("name") or "–")),
        ("utterances", str(corpus.get("utterances") or "–")),
        ("length", facts.duration(corpus.get("seconds"))),
        ("seed", str(one.get("seed", "–"))),
        ("otoscope", str((one.get("versions") or {}).get("otoscope", "–"))),
        ("folder", str(one.get("path") or "–")),
    ]
    return {"name": one["name"], "facts": [fact for fact in told if fact[1] != "–"]}
