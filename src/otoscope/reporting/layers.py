"""Curves over the streams: what each stream of the model knows, in panels of measures of one unit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from otoscope.diagnosis.catalogue import CATALOGUE
from otoscope.diagnosis.curves import WHOLE_MODEL, Curve, Key, curves, titles, unit_of
from otoscope.reporting.figures import Figure, Trace, band, panel_colours, rgba, safe
from otoscope.reporting.values import Row, interval, number, ordered_streams, stream_key

MOST_CURVES = 6
"""So many curves stand in a panel; measures of one unit that are more stand in several."""

LONGEST_AXIS_TITLE = 34


@dataclass(frozen=True)
class Panel:
    """Measures of one unit along the streams.

    Attributes:
        title: what the values are.
        figure: the curves.
        names: of the curves, in the order of the legend.
        tells: names and meaning of the curves of every measure that the catalogue knows.
        lines: the numbers for a table: stream, and for every curve a cell with `text`, `floor`, and whether it is the
            `best` of its curve.
        low_is_good: names of curves whose best score is the lowest.
    """

    title: str
    figure: Figure
    names: list[str]
    tells: list[tuple[str, str]]
    lines: list[tuple[str, list[dict[str, Any]]]]
    low_is_good: list[str]


def short_name(stream: str) -> str:
    """The tick label of a stream: `c3` for conv.3, `3` for layer.3, `in`, `norm`."""
    place, index = stream_key(stream)
    if place in (0, 3):
        return f"c{index}" if place == 0 else str(index)
    return {"input": "in", "final_norm": "norm"}.get(stream, stream)


def tick_names(streams: Sequence[str]) -> list[str]:
    """Short names of the streams in their order; where they are many, some stay empty so that none overlap.

    Then only every second, fifth, ... layer has a name, and the first and last of the convolutional streams.
    """
    layers = sum(stream_key(name)[0] == 3 for name in streams)
    step = next((step for step in (1, 2, 5, 10) if layers <= 28 * step), 20)
    names = [short_name(name) for name in streams]
    if step == 1:
        return names
    places = [stream_key(name)[0] for name in streams]
    for index, (place, number_in_place) in enumerate(map(stream_key, streams)):
        beside = places[max(index - 1, 0) : index + 2]
        if (place == 3 and (number_in_place % step or 4 in beside)) or (place == 0 and beside == [0, 0, 0]):
            names[index] = ""
    return names


def layer_panels(table: Any) -> list[Panel]:
    """Every measure of streams, in panels by unit in the order of the catalogue; empty where there are none.

    Args:
        table: a diagnosis' table.
    """
    by_unit: dict[str, list[Curve]] = {}
    for curve in curves(table).values():
        by_unit.setdefault(unit_of(curve.measure), []).append(curve)
    parts = [(unit, part, number) for unit, found in by_unit.items() for number, part in enumerate(dealt(found))]
    return [_panel(unit, part, place, number > 0) for place, (unit, part, number) in enumerate(parts, 1)]


def whole_model_scores(table: Any) -> list[tuple[str, str, str]]:
    """Scores of all streams together: name, value with interval, floor."""
    found = {key: curve for key, curve in curves(table, whole=True).items() if WHOLE_MODEL in curve.rows}
    called = titles(found)
    rows = [(called[key], curve.rows[WHOLE_MODEL]) for key, curve in found.items()]
    return [(name, interval(row), number(row["floor"])) for name, row in rows]


def dealt(found: Sequence[Curve]) -> list[list[Curve]]:
    """Curves in as few parts of about equal number as hold them, in their order."""
    count = -(-len(found) // MOST_CURVES)
    ends = [round(part * len(found) / count) for part in range(count + 1)]
    return [list(found[start:end]) for start, end in pairwise(ends)]


def short_titles(keys: Iterable[Key]) -> dict[Key, str]:
    """Titles without what they all begin with: `mel` and `phone` for `cca-mel` and `cca-phone`."""
    called = titles(keys)
    parts = [name.split("-") for name in called.values()]
    shared = 0
    while len(parts) > 1 and all(len(one) > shared + 1 and one[shared] == parts[0][shared] for one in parts):
        shared += 1
    return {key: "-".join(one[shared:]) for key, one in zip(called, parts, strict=True)}


def panel_title(unit: str) -> str:
    """A unit as a title."""
    return unit[:1].upper() + unit[1:]


def axis_title(unit: str) -> str:
    """A unit beside an axis, which has room for a few words."""
    return unit if len(unit) <= LONGEST_AXIS_TITLE else "score"


def _panel(unit: str, found: Sequence[Curve], place: int, goes_on: bool) -> Panel:
    named = {name: curve for curve, name in zip(found, short_titles(one.key for one in found).values(), strict=True)}
    streams = ordered_streams(stream for curve in found for stream in curve.rows)
    at = {name: index for index, name in enumerate(streams)}
    colours = panel_colours([curve.target for curve in found])
    data = [
        trace
        for (name, curve), colour in zip(named.items(), colours, strict=True)
        for trace in _traces(name, curve, at, colour)
    ]
    ceilings = {
        round(row["ceiling"], 6) for curve in found for row in curve.rows.values() if row["ceiling"] is not None
    }
    figure = Figure(
        id="figure-layers" if place == 1 else f"figure-layers-{place}",
        label=f"{unit} of every stream: {', '.join(named)}",
        data=data,
        layout=_layout(unit, streams, ceilings, data),
        height=470 if place == 1 else 400,
        min_width=min(1000, 90 + 26 * len(streams)),
    )
    tells = {entry.name: entry.tells for entry in CATALOGUE}
    said: dict[str, list[str]] = {}  # curves of one measure are told once
    for name, curve in named.items():
        said.setdefault(curve.measure, []).append(name)
    return Panel(
        title=panel_title(unit) + (", continued" if goes_on else ""),
        figure=figure,
        names=list(named),
        tells=[(", ".join(names), tells[measure]) for measure, names in said.items() if measure in tells],
        lines=_lines(named, streams),
        low_is_good=[name for name, curve in named.items() if curve.low_is_good],
    )


def _traces(name: str, curve: Curve, place: Mapping[str, int], colour: str) -> list[Trace]:
    found = {stream: curve.rows[stream] for stream in ordered_streams(curve.rows)}
    x = [place[stream] for stream in found]
    floors = [row["floor"] for row in found.values()]
    group = {"legendgroup": safe(name)}
    traces = [band(x, [row["low"] for row in found.values()], [row["high"] for row in found.values()], colour, **group)]
    if any(value is not None for value in floors):
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": x,
                "y": floors,
                "line": {"color": colour, "width": 1.4, "dash": "dash"},
                "hoverinfo": "skip",
                "showlegend": False,
            }
            | group
        )
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": safe(name),
            "x": x,
            "y": [row["value"] for row in found.values()],
            "line": {"color": colour, "width": 2.4},
            "marker": {"color": colour, "size": 6},
            "hovertext": [_hover(name, stream, row) for stream, row in found.items()],
            "hoverinfo": "text",
        }
        | group
    )
    best = curve.best()
    traces.append(ring([place[best]], [found[best]["value"]], colour) | group)
    return traces


def ring(x: Sequence[float], y: Sequence[float], colour: str) -> Trace:
    """A ring around a point that is marked as the best."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(x),
        "y": list(y),
        "marker": {"color": "rgba(0,0,0,0)", "size": 15, "line": {"color": colour, "width": 2}},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _hover(name: str, stream: str, row: Mapping[str, Any]) -> str:
    lines = [f"<b>{safe(stream)}</b> · {safe(name)}", interval(row)]
    if row["floor"] is not None:
        lines.append(f"floor {number(row['floor'])}")
    if row.get("other"):
        lines.append(f"with {safe(row['other'])} of {safe(row['target'])}")
    if row.get("n") is not None:
        lines.append(f"n = {row['n']}")
    return "<br>".join(lines)


def value_range(data: Sequence[Trace], ceilings: Iterable[float] = ()) -> list[float]:
    """The vertical axis: from 0, or below, to a little above the highest value; of large values alone what they span."""
    values = [value for trace in data for value in trace["y"] if value is not None]
    top, lowest = max([*values, *ceilings]), min(values)
    bottom = lowest if lowest > 0.6 * top else min(0.0, lowest)
    margin = 0.03 * (top - bottom or 1.0)
    return [bottom - margin * (bottom != 0), top + margin]


def _layout(unit: str, streams: Sequence[str], ceilings: set[float], data: Sequence[Trace]) -> dict[str, Any]:
    low, high = value_range(data, ceilings)
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    parts = {
        "convolutional front-end": [i for i, name in enumerate(streams) if stream_key(name)[0] == 0],
        "transformer layers": [i for i, name in enumerate(streams) if stream_key(name)[0] == 3],
    }
    for title, places in parts.items():
        if not places:
            continue
        if title.startswith("conv"):
            shapes.append(
                {
                    "type": "rect",
                    "xref": "x",
                    "yref": "paper",
                    "x0": places[0] - 0.5,
                    "x1": places[-1] + 0.5,
                    "y0": 0,
                    "y1": 1,
                    "fillcolor": rgba("#888888", 0.13),
                    "line": {"width": 0},
                    "layer": "below",
                }
            )
        notes.append(
            {
                "x": (places[0] + places[-1]) / 2,
                "y": 1,
                "xref": "x",
                "yref": "paper",
                "yanchor": "bottom",
                "text": title,
                "showarrow": False,
                "font": {"size": 12},
            }
        )
    for ceiling in sorted(ceilings):
        shapes.append(
            {
                "type": "line",
                "xref": "paper",
                "yref": "y",
                "x0": 0,
                "x1": 1,
                "y0": ceiling,
                "y1": ceiling,
                "line": {"color": "#888888", "width": 1.2, "dash": "dot"},
            }
        )
    if len(ceilings) == 1:
        notes.append(
            {
                "x": 1,
                "y": max(ceilings),
                "xref": "paper",
                "yref": "y",
                "xanchor": "right",
                "yanchor": "top" if max(ceilings) > (low + high) / 2 else "bottom",
                "text": "ceiling",
                "showarrow": False,
                "font": {"size": 11, "color": "#888888"},
            }
        )
    return {
        "xaxis": {
            "title": {"text": "stream, from the waveform to the output"},
            "tickmode": "array",
            "tickvals": list(range(len(streams))),
            "ticktext": [safe(name) for name in tick_names(streams)],
            "tickangle": 0,
            "range": [-0.6, len(streams) - 0.4],
            "showgrid": False,
            "zeroline": False,
        },
        "yaxis": {"title": {"text": safe(axis_title(unit))}, "range": [low, high], "zeroline": False},
        "shapes": shapes,
        "annotations": notes,
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.09, "yanchor": "bottom"},
        "margin": {"l": 62, "r": 16, "t": 74, "b": 56},
        "hovermode": "closest",
    }


def _lines(named: Mapping[str, Curve], streams: Sequence[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    lines = []
    for stream in streams:
        cells = []
        for curve in named.values():
            row: Row | Mapping[str, Any] | None = curve.rows.get(stream)
            cells.append(
                {
                    "text": interval(row) if row else "",
                    "floor": number(row["floor"]) if row and row["floor"] is not None else "",
                    "best": curve.best() == stream,
                }
            )
        lines.append((stream, cells))
    return lines
