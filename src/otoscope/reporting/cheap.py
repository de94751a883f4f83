"""Cheap scores of units: their course over depth, how far weights moved, and how well they predict criticality."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from otoscope.diagnosis.block_sentences import mode_in_words
from otoscope.diagnosis.metric_words import SCORES, called, score_name, split_score
from otoscope.reporting.criticality import (
    LETTERS,
    MODES,
    SYMBOLS,
    granularity,
    labelling_metric,
    mode_name,
    mode_order,
)
from otoscope.reporting.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, Figure, Trace, safe
from otoscope.reporting.forest import change
from otoscope.reporting.values import Row, interval, number

CHURN = {
    "rms": "distance of weights (rms)",
    "relative": "distance, relative",
    "angular": "angle, share of π",
    "largest": "largest change of a weight",
    "path": "length of the path",
}
INITIAL = "initial"
LEFT_OUT = "importance-loo"

MOST = 8
"""Of many scores so many are drawn against criticality, those with the strongest correlation."""

SIZES = {"block": "blocks", "sub-module": "sub-modules", "tensor": "tensors"}

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, GREY)


@dataclass(frozen=True)
class CheapPanel:
    """What the report says of cheap scores.

    Attributes:
        scores: scores of activations and gradients over the layers.
        churn: distances of weights over the layers.
        predictions: of each mode, one scatter a score.
    """

    scores: list[Figure] = field(default_factory=list)
    churn: list[Figure] = field(default_factory=list)
    predictions: list[tuple[str, list[Figure]]] = field(default_factory=list)

    @property
    def figures(self) -> list[Figure]:
        """All figures that the page draws."""
        return [*self.scores, *self.churn, *(figure for _, found in self.predictions for figure in found)]


def cheap_panel(rows: Mapping[str, Sequence[Row]]) -> CheapPanel | None:
    """What there is of cheap scores in a diagnosis; None where there is nothing.

    Args:
        rows: the table by measure.
    """
    scores = [
        _bars(f"figure-score-{name}", title, _plain(rows.get(name, ())), "score") for name, title in SCORES.items()
    ]
    churn = [
        _bars(f"figure-churn-{target}", title, [row for row in rows.get("churn", ()) if row["target"] == target], "churn")
        for target, title in CHURN.items()
    ]  # fmt: skip
    panel = CheapPanel(
        [one for one in scores if one is not None], [one for one in churn if one is not None], _predictions(rows)
    )
    return panel if panel.figures else None


def _plain(rows: Sequence[Row]) -> list[Row]:
    """Rows of single blocks, without those of several blocks that follow each other."""
    return [row for row in rows if row["other"] is None]


def _bars(name: str, title: str, rows: Sequence[Row], kind: str) -> Figure | None:
    """Values over the layers: bars of blocks, grouped by what they are compared with; of finer units a line a part."""
    known = [row for row in rows if row["value"] is not None and row["layer"] is not None and row["stream"]]
    known = [row for row in known if granularity(row["stream"]) != "tensor"]
    if not known:
        return None
    series: dict[tuple[str, str], list[Row]] = {}
    for row in known:
        part = str(row["stream"]).partition(f"layer.{int(row['layer'])}.")[2]
        against = row["other"] or ""
        if part and against not in ("", INITIAL):  # one line a part is enough
            continue
        series.setdefault((part, against), []).append(row)
    blocks = [key for key in series if not key[0]]
    data: list[Trace] = []
    for place, (key, own) in enumerate((key, series[key]) for key in [*blocks, *(k for k in series if k[0])]):
        own = sorted(own, key=lambda row: int(row["layer"]))
        part, against = key
        label = part or ({INITIAL: "initial weights"}.get(against, against) if kind == "churn" else "block")
        colour = COLOURS[place % len(COLOURS)]
        hover = [
            f"<b>{safe(', '.join(filter(None, (row['stream'], row['other']))))}</b><br>{_exact(row)}" for row in own
        ]
        x, y = [int(row["layer"]) for row in own], [row["value"] for row in own]
        trace: Trace = {
            "x": x, "y": y, "name": safe(label), "hovertext": hover, "hoverinfo": "text", "showlegend": len(series) > 1,
        }  # fmt: skip
        if part:
            trace |= {
                "type": "scatter", "mode": "lines+markers", "line": {"color": colour, "width": 1.6},
                "marker": {"size": 5, "symbol": ("circle", "square", "diamond", "cross", "x")[place % 5]},
            }  # fmt: skip
        else:
            ends = [
                [0.0 if row[side] is None else abs(row[side] - row["value"]) for row in own] for side in ("high", "low")
            ]
            trace |= {"type": "bar", "marker": {"color": colour}}
            if any(map(any, ends)):
                trace["error_y"] = {
                    "type": "data", "array": ends[0], "arrayminus": ends[1], "thickness": 1.2, "width": 0, "color": GREY,
                }  # fmt: skip
        data.append(trace)
    legend = 20 * -(-len(data) // 2) if len(data) > 1 else 0
    layout = {
        "xaxis": {"title": {"text": "layer", "standoff": 4}, "nticks": 8, "zeroline": False, "showgrid": False},
        "yaxis": {"nticks": 5, "rangemode": "tozero", "exponentformat": "power", "tickformat": "~g"},
        "barmode": "group", "bargap": 0.25, "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        "margin": {"l": 56, "r": 8, "t": 8 + legend, "b": 36}, "hovermode": "closest", "font": {"size": 11},
    }  # fmt: skip
    return Figure(name, f"{title} by layer", data, layout, height=190 + legend, min_width=230, title=title)


def _exact(row: Row) -> str:
    value = row["value"]
    return interval(row, 4) if value == 0 or abs(value) >= 0.001 else f"{value:.3g}"


def _score_rows(rows: Mapping[str, Sequence[Row]], name: str) -> dict[str, Row]:
    """The rows of a cheap score by unit."""
    base, detail = split_score(name)
    if base.startswith("churn-"):
        churn = [row for row in rows.get("churn", ()) if row["target"] == base.removeprefix("churn-")]
        return {row["stream"]: row for row in churn if row["value"] is not None and detail in ("", row["other"])}
    found = [row for row in rows.get(base, ()) if row["head"] is None and row["value"] is not None and row["stream"]]
    if base == LEFT_OUT:
        # Of a layer without its attention the unit is that attention.
        of_metric = [row for row in found if detail in ("", row["target"])]
        return {f"{row['stream']}.{row['other']}" if row["other"] else row["stream"]: row for row in of_metric}
    return {row["stream"]: row for row in _plain(found) if detail in ("", row["target"])}


def _predictions(rows: Mapping[str, Sequence[Row]]) -> list[tuple[str, list[Figure]]]:
    """Scatters of criticality over cheap scores, by mode; only where the correlation is in the table."""
    own = [row for row in rows.get("criticality", ()) if row["value"] is not None and row["stream"]]
    metric = labelling_metric(own)
    if metric is None:
        return []
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows.get("criticality-prediction", ()):
        if row["target"] and row["other"] and row["label"] in (None, metric):
            groups.setdefault((row["stream"] or "block", row["other"]), []).append(row)
    found = []
    for size, mode in sorted(groups, key=lambda key: (list(SIZES).index(key[0]), mode_order(key[1]))):
        units = {
            row["stream"]: row
            for row in own
            if row["other"] == mode and row["target"] == metric and granularity(row["stream"]) == size
        }
        ordered = sorted(groups[size, mode], key=lambda row: -abs(row["value"] or 0.0))
        figures = [figure for row in ordered if (figure := _scatter(row, rows, units, metric)) is not None]
        if figures:
            found.append((f"{SIZES[size]} {mode_in_words(mode)}, {called(metric)}", figures[:MOST]))
    return found


def _scatter(
    prediction: Row, rows: Mapping[str, Sequence[Row]], units: Mapping[str, Row], metric: str
) -> Figure | None:
    scores = _score_rows(rows, prediction["target"])
    both = [name for name in units if name in scores]
    if not both:
        return None
    mode = prediction["other"]
    title = score_name(prediction["target"])
    colour = MODES.get(mode.partition(":")[0], ("", GREY, ""))[1]
    labels = {granularity(name) for name in both}
    blocks = labels == {"block"}
    trace: Trace = {
        "type": "scatter", "mode": "markers+text" if blocks and len(both) <= 16 else "markers",
        "x": [scores[name]["value"] for name in both], "y": [units[name]["value"] for name in both],
        "text": [name.removeprefix("layer.") for name in both], "textposition": "top center", "textfont": {"size": 10},
        "marker": {
            "size": 7, "color": colour, "symbol": [SYMBOLS.get(units[name]["label"], "circle") for name in both],
            "line": {"width": 0.8, "color": "rgba(0,0,0,0.45)"},
        },
        "hovertext": [
            f"<b>{safe(name)}</b><br>{safe(title)} {_exact(scores[name])}<br>"
            f"{safe(called(metric))} {change(units[name], metric)}"
            + (f"<br>{units[name]['label']}" if units[name]["label"] in LETTERS else "")
            for name in both
        ],
        "hoverinfo": "text", "showlegend": False, "cliponaxis": False,
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": safe(title), "standoff": 4}, "nticks": 5, "zeroline": False, "exponentformat": "power"},
        "yaxis": {"title": {"text": f"change of {safe(called(metric))}", "standoff": 4}, "nticks": 5},
        "margin": {"l": 56, "r": 12, "t": 12, "b": 40}, "hovermode": "closest", "font": {"size": 11},
    }  # fmt: skip
    rho = f"ρ = {interval(prediction, 2)}" if prediction["value"] is not None else f"ρ = {number(None)}"
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{prediction['stream'] or 'block'}-{mode}-{prediction['target']}")
    return Figure(
        f"figure-prediction-{name}", f"{title} against the change of {called(metric)}, {mode_name(mode)}", [trace], layout,
        height=210, min_width=230, title=title, note=rho,
    )  # fmt: skip
