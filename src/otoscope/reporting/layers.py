"""Curves over the streams: how much of mel, phone and word each stream lets a linear map find."""

from collections.abc import Mapping, Sequence
from typing import Any

from otoscope.reporting.figures import Figure, Trace, band, rgba, safe, target_colour
from otoscope.reporting.values import (
    LAYER_TARGETS,
    Row,
    best_stream,
    cca_rows,
    cca_targets,
    interval,
    number,
    ordered_streams,
    stream_key,
)


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


def layer_figure(rows: Mapping[str, Sequence[Row]]) -> Figure | None:
    """Every `cca-*` measure over the streams: value with interval, floor and ceiling, the best stream marked.

    Returns:
        The figure, or None where no target has a finite value.
    """
    targets = cca_targets(rows)
    if not targets:
        return None
    per_target = {target: cca_rows(rows, target) for target in targets}
    streams = ordered_streams(name for found in per_target.values() for name in found)
    place = {name: index for index, name in enumerate(streams)}
    others = [target for target in targets if target not in LAYER_TARGETS]
    data: list[Trace] = []
    for target in targets:
        data += _target_traces(target, per_target[target], place, target_colour(target, others))
    ceilings = {
        round(row["ceiling"], 6)
        for found in per_target.values()
        for row in found.values()
        if row["ceiling"] is not None
    }
    layout = _layout(streams, ceilings, data)
    return Figure(
        id="figure-layers",
        label="Canonical correlation of every stream with " + ", ".join(targets),
        data=data,
        layout=layout,
        height=470,
        min_width=min(1000, 90 + 26 * len(streams)),
    )


def _target_traces(target: str, found: Mapping[str, Row], place: Mapping[str, int], colour: str) -> list[Trace]:
    x = [place[name] for name in found]
    values = [row["value"] for row in found.values()]
    floors = [row["floor"] for row in found.values()]
    group = {"legendgroup": safe(target)}
    traces = [
        band(
            x,
            [row["low"] for row in found.values()],
            [row["high"] for row in found.values()],
            colour,
            **group,
        )
    ]
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
            "name": safe(target),
            "x": x,
            "y": values,
            "line": {"color": colour, "width": 2.4},
            "marker": {"color": colour, "size": 6},
            "hovertext": [_hover(target, name, row) for name, row in found.items()],
            "hoverinfo": "text",
        }
        | group
    )
    best = best_stream(found)
    if best is not None:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [place[best]],
                "y": [found[best]["value"]],
                "marker": {"color": "rgba(0,0,0,0)", "size": 15, "line": {"color": colour, "width": 2}},
                "hoverinfo": "skip",
                "showlegend": False,
            }
            | group
        )
    return traces


def _hover(target: str, stream: str, row: Row) -> str:
    lines = [f"<b>{safe(stream)}</b> with {safe(target)}", interval(row)]
    if row["floor"] is not None:
        lines.append(f"floor {number(row['floor'])}")
    if row.get("n") is not None:
        lines.append(f"n = {row['n']}")
    return "<br>".join(lines)


def _layout(streams: Sequence[str], ceilings: set[float], data: Sequence[Trace]) -> dict[str, Any]:
    values = [value for trace in data for value in trace["y"] if value is not None]
    top = max([*values, *ceilings])
    bottom = min([0.0, *values])
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
        notes.append(
            {
                "x": 1,
                "y": ceiling,
                "xref": "paper",
                "yref": "y",
                "xanchor": "right",
                "yanchor": "top",
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
        "yaxis": {
            "title": {"text": "canonical correlation (PWCCA)"},
            "range": [bottom - 0.02 * (bottom < 0), top + 0.03],
            "zeroline": False,
        },
        "shapes": shapes,
        "annotations": notes,
        "legend": {"orientation": "h", "x": 0, "y": 1.09, "yanchor": "bottom"},
        "margin": {"l": 62, "r": 16, "t": 74, "b": 56},
        "hovermode": "closest",
    }


def layer_table(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any] | None:
    """The numbers behind the curves, for a table: streams down, targets across.

    Returns:
        `targets`, and `rows` of (stream, cells), each cell with `text`, `floor` and whether it is the `best`
        of its target; None where there are no numbers.
    """
    targets = cca_targets(rows)
    if not targets:
        return None
    per_target = {target: cca_rows(rows, target) for target in targets}
    best = {target: best_stream(found) for target, found in per_target.items()}
    lines = []
    for name in ordered_streams(name for found in per_target.values() for name in found):
        cells = []
        for target in targets:
            row = per_target[target].get(name)
            cells.append(
                {
                    "text": interval(row) if row else "",
                    "floor": number(row["floor"]) if row and row["floor"] is not None else "",
                    "best": best[target] == name,
                }
            )
        lines.append((name, cells))
    return {"targets": targets, "rows": lines}
