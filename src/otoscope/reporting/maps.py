"""Maps of streams against streams, such as the similarity of every layer with every other."""

from collections.abc import Mapping, Sequence
from typing import Any

from otoscope.diagnosis.curves import along_streams, titles, unit_of
from otoscope.reporting.figures import BLUE, Figure, rgba, safe
from otoscope.reporting.layers import tick_names
from otoscope.reporting.values import Row, interval, number, ordered_streams

MOST_WRITTEN = 12
"""On maps of more streams than this the cells hold no numbers."""


def stream_maps(rows: Mapping[str, Sequence[Row]]) -> list[Figure]:
    """One heat map for every measure and target that relates each stream to several others.

    Args:
        rows: the table by measure.
    """
    found: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for measure, group in rows.items():
        if along_streams(measure):
            for row in group:
                if row["stream"] and row["other"] and row["value"] is not None:
                    found.setdefault((measure, row["target"] or ""), {})[row["stream"], row["other"]] = row
    maps = {key: cells for key, cells in found.items() if len({a for a, _ in cells}) < len(cells)}
    called = titles(maps)
    return [_figure(key, called[key], cells, place) for place, (key, cells) in enumerate(maps.items(), 1)]


def _figure(key: tuple[str, str], title: str, cells: Mapping[tuple[str, str], Row], place: int) -> Figure:
    measure, target = key
    down, across = (ordered_streams(pair[side] for pair in cells) for side in (0, 1))
    values = [row["value"] for row in cells.values()]
    ceilings = [row["ceiling"] for row in cells.values() if row["ceiling"] is not None]
    high, lowest = max([*ceilings, *values]), min(values)
    low = lowest if lowest > 0.6 * high else min(0.0, lowest)
    grid = [[cells.get((a, b)) for b in across] for a in down]
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": list(range(len(across))),
        "y": list(range(len(down))),
        "z": [[row["value"] if row else None for row in line] for line in grid],
        "zmin": low,
        "zmax": high,
        "colorscale": [[0, rgba(BLUE, 0.04)], [1, rgba(BLUE, 1)]],
        "colorbar": {"thickness": 10, "outlinewidth": 0},
        "xgap": 1,
        "ygap": 1,
        "hoverinfo": "text",
        "hovertext": [
            [
                f"<b>{safe(row['stream'])}</b> with {safe(row['other'])}<br>{interval(row)}" if row else ""
                for row in line
            ]
            for line in grid
        ],
    }
    if max(len(down), len(across)) <= MOST_WRITTEN:
        trace["text"] = [[number(row["value"], 2) if row else "" for row in line] for line in grid]
        trace["texttemplate"] = "%{text}"
        trace["textfont"] = {"size": 11}
    cell = 34 if max(len(down), len(across)) <= MOST_WRITTEN else 20
    return Figure(
        id=f"figure-map-{place}",
        label=f"{title} of streams with streams",
        title=title,
        note=unit_of(measure),
        data=[trace],
        layout={
            "xaxis": _axis(across, f"stream of {safe(target)}" if target else "stream"),
            "yaxis": _axis(down, "stream"),
            "margin": {"l": 62, "r": 16, "t": 10, "b": 52},
            "hovermode": "closest",
        },
        height=max(62 + cell * len(down), 220),
        min_width=140 + (cell - 4) * len(across),
        max_width=190 + 52 * len(across),
    )


def _axis(streams: Sequence[str], title: str) -> dict[str, Any]:
    return {
        "title": {"text": title},
        "tickmode": "array",
        "tickvals": list(range(len(streams))),
        "ticktext": [safe(name) for name in tick_names(streams)],
        "tickangle": 0,
        "range": [-0.5, len(streams) - 0.5],
        "showgrid": False,
        "zeroline": False,
    }
