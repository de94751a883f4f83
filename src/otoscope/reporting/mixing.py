"""Context mixing: how far each layer reaches, by raw weights and by what they carry."""

from collections.abc import Mapping, Sequence

from otoscope.reporting.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, Figure, Trace, band, safe
from otoscope.reporting.values import Row, interval

METHODS = {
    "attention": ("raw weights", GREY),
    "norm": ("norms of what is carried", BLUE),
    "value-zeroing": ("value zeroing", VERMILLION),
    "attention-rollout": ("raw weights, rolled out", PURPLE),
    "norm-rollout": ("norms, rolled out", GREEN),
    "value-zeroing-rollout": ("value zeroing, rolled out", ORANGE),
}
"""Methods with their names and colours."""

TARGETS = {
    "distance": "mean distance (frames)",
    "own-share": "share of the frame itself",
    "mixing-ratio": "share of other frames",
}
"""Figures that are drawn, with the title of their axis."""


def mixing_figures(rows: Mapping[str, Sequence[Row]]) -> list[Figure]:
    """One figure a target, a curve a method; none where a diagnosis holds no context mixing.

    Args:
        rows: the table by measure.
    """
    found = []
    for target, title in TARGETS.items():
        data: list[Trace] = []
        for method, (name, colour) in METHODS.items():
            own = [row for row in rows.get(f"mixing-{method}", ()) if row["target"] == target and row["layer"]]
            if own:
                data += _curve(sorted(own, key=lambda row: row["layer"]), name, colour)
        if data:
            found.append(
                Figure(
                    f"figure-mixing-{target}", f"Context mixing by layer: {title}", data,
                    {
                        "xaxis": {"title": {"text": "layer"}, "dtick": 1, "zeroline": False, "showgrid": False},
                        "yaxis": {"title": {"text": title}, "rangemode": "tozero"},
                        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
                        "margin": {"l": 58, "r": 12, "t": 60, "b": 48}, "hovermode": "closest",
                    },
                    height=360, min_width=420, title=title,
                )
            )  # fmt: skip
    return found


def _curve(own: Sequence[Row], name: str, colour: str) -> list[Trace]:
    x = [row["layer"] for row in own]
    line: Trace = {
        "type": "scatter", "mode": "lines+markers", "x": x, "y": [row["value"] for row in own], "name": safe(name),
        "line": {"color": colour, "width": 2}, "marker": {"size": 6}, "legendgroup": name, "hoverinfo": "text",
        "hovertext": [f"<b>{safe(name)}</b>, layer {row['layer']}<br>{interval(row)}" for row in own],
    }  # fmt: skip
    return [band(x, [row["low"] for row in own], [row["high"] for row in own], colour, legendgroup=name), line]
