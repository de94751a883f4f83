"""Phone segmentation by heads: how well rows of attention, layers and MFCC tell where phones meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otoscope.reporting.figures import BLUE, GREY, VERMILLION, Figure, Trace, band, safe
from otoscope.reporting.values import Row, interval, number, ordered_streams

MEASURE = "head-segmentation"
MFCC = "mfcc"
_TICKS = {"input": "in", "final_norm": "norm"}
_VERDICTS = {"pass": "it is better", "fail": "it is worse", "undecided": "neither is shown to be better"}
_CURVES = {
    "head": ("the best head", VERMILLION),
    "layer": ("the best layer", BLUE),
    "mfcc": ("MFCC", GREY),
}


@dataclass
class SegmentationPanel:
    """What the report says of segmentation.

    Attributes:
        sentences: the best head, and by how much it is better than MFCC and than the best layer.
        figures: R-values by layer, and precision against recall.
    """

    sentences: list[str]
    figures: list[Figure]


def segmentation_panel(rows: Mapping[str, Sequence[Row]], arrays: Mapping[str, Any]) -> SegmentationPanel | None:
    """What there is of segmentation in a diagnosis; None where there is nothing.

    Args:
        rows: the table by measure.
        arrays: of the diagnosis; those of precision and recall are read.
    """
    own = [row for row in rows.get(MEASURE, ()) if row["value"] is not None]
    scores = [row for row in own if row["target"] == "r-value"]
    if not scores:
        return None
    return SegmentationPanel(_sentences(own), [_by_layer(scores), *_trade_offs(arrays)])


def _sentences(rows: Sequence[Row]) -> list[str]:
    found = {row["target"]: row for row in rows}
    best = found.get("best-head")
    if best is None:
        return []
    told = [
        f"Head {best['layer']}.{best['head']} was the best on the validation utterances. On the others its R-value is "
        f"{interval(best)}; that of as many boundaries at equal distances is {number(best['floor'])}."
    ]
    for target in ("mfcc", "layer"):
        row = found.get(f"best-head-less-{target}")
        if row is not None:
            other = "MFCC" if target == "mfcc" else f"the best stream of frames ({row['other']})"
            told.append(f"Its R-value less that of {other} is {interval(row)}: {_VERDICTS[row['label']]}.")
    return told


def _by_layer(scores: Sequence[Row]) -> Figure:
    """R-values: a curve of the streams' frames, a mark a head, and MFCC all along."""
    of_streams = {row["stream"]: row for row in scores if row["head"] is None}
    heads = [row for row in scores if row["head"] is not None]
    streams = ordered_streams([*(name for name in of_streams if name != MFCC), *(row["stream"] for row in heads)])
    place = {name: k for k, name in enumerate(streams)}
    data: list[Trace] = []
    if MFCC in of_streams:
        row = of_streams[MFCC]
        data.append(
            _line("MFCC", [-0.4, len(streams) - 0.6], [row["value"]] * 2, [f"MFCC<br>{interval(row)}"] * 2, GREY)
            | {"mode": "lines", "line": {"color": GREY, "width": 2, "dash": "dash"}}
        )
    frames = [(place[name], of_streams[name]) for name in streams if name in of_streams]
    x = [at for at, _ in frames]
    data += [
        band(x, [row["low"] for _, row in frames], [row["high"] for _, row in frames], BLUE, legendgroup="frames"),
        _line("frames of the layer", x, [row["value"] for _, row in frames], [_hover(row) for _, row in frames], BLUE)
        | {"legendgroup": "frames"},
    ]
    if heads:
        data.append(
            _line(
                "rows of a head's map", [place[row["stream"]] for row in heads], [row["value"] for row in heads],
                [_hover(row) for row in heads], VERMILLION,
            )
            | {"mode": "markers", "marker": {"size": 8, "symbol": "diamond", "opacity": 0.75}}
        )  # fmt: skip
    ticks = [_TICKS.get(name, name.rpartition(".")[2]) for name in streams]
    return Figure(
        "figure-segmentation", "R-value of phone boundaries by layer, of frames, of heads and of MFCC", data,
        {
            "xaxis": {"title": {"text": "layer"}, "tickmode": "array", "tickvals": list(range(len(streams))),
                      "ticktext": ticks, "zeroline": False, "showgrid": False},
            "yaxis": {"title": {"text": "R-value"}, "zeroline": False},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "margin": {"l": 58, "r": 12, "t": 40, "b": 48}, "hovermode": "closest",
        },
        height=360, min_width=420, title="R-value by layer",
    )  # fmt: skip


def _trade_offs(arrays: Mapping[str, Any]) -> list[Figure]:
    """Precision against recall as beta changes, at the alpha that was chosen."""
    data: list[Trace] = []
    for key, (name, colour) in _CURVES.items():
        curve = np.asarray(arrays.get(f"{MEASURE}-{key}", np.zeros((0, 2))))
        # Where nothing is found there is no precision, and 0 stands for it.
        points = [(float(recall), float(precision)) for precision, recall in curve if precision + recall > 0]
        if points:
            hover = [f"<b>{name}</b><br>recall {number(r)}<br>precision {number(p)}" for r, p in points]
            data.append(_line(name, [r for r, _ in points], [p for _, p in points], hover, colour))
    if not data:
        return []
    return [
        Figure(
            "figure-segmentation-trade-off", "Precision against recall of phone boundaries", data,
            {
                "xaxis": {"title": {"text": "recall"}, "zeroline": False},
                "yaxis": {"title": {"text": "precision"}, "zeroline": False},
                "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
                "margin": {"l": 58, "r": 12, "t": 40, "b": 48}, "hovermode": "closest",
            },
            height=360, min_width=420, title="Precision and recall as the threshold changes",
        )
    ]  # fmt: skip


def _line(name: str, x: Sequence[Any], y: Sequence[Any], hover: Sequence[str], colour: str) -> Trace:
    return {
        "type": "scatter", "mode": "lines+markers", "x": list(x), "y": list(y), "name": safe(name),
        "line": {"color": colour, "width": 2}, "marker": {"size": 6}, "hovertext": list(hover), "hoverinfo": "text",
    }  # fmt: skip


def _hover(row: Row) -> str:
    place = row["stream"] if row["head"] is None else f"head {row['layer']}.{row['head']}"
    return f"<b>{safe(place)}</b><br>R-value {interval(row)}<br>floor {number(row['floor'])}"
