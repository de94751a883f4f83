"""Curves of a federated training over its rounds, and the share of every unit that clients are sent."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from otoscope.diagnosis.metric_words import called, unit_of
from otoscope.federation.result import FederationResult
from otoscope.reporting.criticality import LETTERS
from otoscope.reporting.federated_labels import Labels, place_of
from otoscope.reporting.figures import BLUE, GREEN, GREY, VERMILLION, Figure, Trace, rgba, safe
from otoscope.reporting.values import finite, number, plural

MOST_MARKED = 60
"""Curves of more rounds have no marks."""

_BRANCHES = {"attention": "attention", "feed_forward": "feed-forward", "convolution": "convolution"}
_ORDER = ("feed_forward.1", "attention", "convolution", "feed_forward", "feed_forward.2")


def mebibytes(value: float) -> str:
    """Bytes in MiB, to three digits.

    >>> mebibytes(11532724), mebibytes(448224266), mebibytes(12345)
    ('11.0', '427', '0.0118')
    """
    size = value / 2**20
    if not size > 0:
        return number(size, 0)
    return number(size, min(4, max(0, 2 - math.floor(math.log10(size)))))


def percent(share: float) -> str:
    r"""A share in hundredths, to one decimal where it is not whole; the line does not break before the sign.

    >>> percent(0.5), percent(0.125)
    ('50\xa0%', '12.5\xa0%')
    """
    value = 100 * share
    return f"{number(value, 0 if abs(value - round(value)) < 1e-6 else 1)}\u00a0%"


def metrics_of(result: FederationResult) -> list[str]:
    """Figures on held-out speech, in the order in which they were taken first."""
    return list(
        dict.fromkeys(name for taken in (result.initial, *(row.held_out for row in result.rows)) for name in taken)
    )


def figures_of(result: FederationResult) -> list[Figure]:
    """Curves over rounds; none where no round is complete."""
    if not result.rows:
        return []
    rounds = [row.round for row in result.rows]
    found = [_held_out(result, name) for name in metrics_of(result) if len(result.curve(name)) > 1]
    found.append(_curve("loss", "training loss", rounds, {"": [row.loss for row in result.rows]}))
    sizes = {
        side: [getattr(row, name) / 2**20 for row in result.rows]
        for side, name in (("down", "download"), ("up", "upload"))
    }
    found.append(_curve("bytes", "MiB a client", rounds, sizes))
    shares = [100 * row.share for row in result.rows]
    found.append(_curve("share", "share of the model, %", rounds, {"": shares}, top=105))
    spent = [row.epsilon for row in result.rows]
    if any(value is not None for value in spent):
        found.append(_curve("epsilon", "privacy spent, epsilon", rounds, {"": spent}))
    if any(row.failures for row in result.rows):
        found.append(_answers(result, rounds))
    return found


def _held_out(result: FederationResult, name: str) -> Figure:
    """A figure on held-out speech, with a dotted line at what it was before the first round."""
    factor, unit = unit_of(name)
    curve = result.curve(name)
    title = f"{called(name)}, %" if unit == "points" else f"{called(name)}{f', {unit}' if unit else ''}"
    digits = 1 if unit == "points" else 3
    values = [factor * value for _, value in curve]
    best = min(range(len(curve)), key=values.__getitem__)
    note = f"{number(values[0], digits)} → {number(values[-1], digits)}"
    # The lowest value is told only where the training has left it behind.
    if values[best] < values[-1]:
        note += f", least {number(values[best], digits)}"
    figure = _curve(f"held-{name}", title, [number for number, _ in curve], {"": values}, note=note, digits=digits)
    if curve[0][0] == 0:
        figure.layout["shapes"] = [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": values[0], "y1": values[0],
             "line": {"color": GREY, "width": 1.5, "dash": "dot"}}
        ]  # fmt: skip
        symbols = ["circle-open", *["circle"] * (len(curve) - 1)]
        figure.data[0]["marker"]["symbol"] = symbols
    return figure


def _curve(
    name: str,
    title: str,
    rounds: Sequence[int],
    lines: dict[str, list[Any]],
    *,
    note: str = "",
    digits: int = 3,
    top: float | None = None,
) -> Figure:
    """Lines over rounds, from zero up."""
    looks = ((BLUE, "solid", "circle", 6), (VERMILLION, "dot", "diamond-open", 9))  # both are seen where they coincide
    data: list[Trace] = [
        {
            "type": "scatter", "mode": "lines+markers" if len(rounds) <= MOST_MARKED else "lines", "name": side,
            "x": list(rounds), "y": [finite(value) for value in values], "showlegend": bool(side), "hoverinfo": "text",
            "hovertext": [_words(at, title, side, value, digits) for at, value in zip(rounds, values, strict=True)],
            "line": {"color": colour, "width": 2, "dash": dash}, "marker": {"size": size, "symbol": symbol},
            "cliponaxis": False,
        }
        for (side, values), (colour, dash, symbol, size) in zip(lines.items(), looks, strict=False)
    ]  # fmt: skip
    layout = _layout(rounds, len(lines) > 1)
    if top is not None:
        layout["yaxis"] |= {"range": [0, top]}
    return Figure(
        f"figure-federated-{re.sub(r'[^A-Za-z0-9]+', '-', name)}", f"{title} over rounds", data, layout, 210,
        min_width=230, note=note, title=title,
    )  # fmt: skip


def _words(at: int, title: str, side: str, value: Any, digits: int) -> str:
    when = f"round {at}" if at else "before the first round"
    return f"<b>{when}</b><br>{safe(title)}{f', {side}' if side else ''}: {number(value, digits)}"


def _layout(rounds: Sequence[int], legend: bool) -> dict[str, Any]:
    first, last = rounds[0], rounds[-1]
    step = max(1, math.ceil((last - first) / 6))
    edge = max(0.3, 0.03 * (last - first))
    return {
        "xaxis": {
            "title": {"text": "round", "standoff": 2}, "range": [first - edge, last + edge], "tick0": 0, "dtick": step,
            "showgrid": False, "zeroline": False,
        },
        "yaxis": {"rangemode": "tozero", "nticks": 5},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        "margin": {"l": 44, "r": 12, "t": 28 if legend else 10, "b": 38}, "hovermode": "closest", "font": {"size": 11},
    }  # fmt: skip


def _answers(result: FederationResult, rounds: Sequence[int]) -> Figure:
    """Clients of every round whose answer was taken, and those that failed."""
    amounts = {
        "taken": ([len(row.clients) for row in result.rows], GREEN),
        "failed": ([len(row.failures) for row in result.rows], VERMILLION),
    }
    data: list[Trace] = [
        {
            "type": "bar", "name": side, "x": list(rounds), "y": values, "marker": {"color": colour}, "hoverinfo": "text",
            "hovertext": [
                f"<b>round {at}</b><br>{plural(n, 'client')} {side}" for at, n in zip(rounds, values, strict=True)
            ],
        }
        for side, (values, colour) in amounts.items()
    ]  # fmt: skip
    layout = _layout(rounds, legend=True) | {"barmode": "stack", "bargap": 0.25}
    layout["xaxis"] |= {"range": [rounds[0] - 0.6, rounds[-1] + 0.6]}
    layout["legend"] |= {"traceorder": "normal"}
    return Figure(
        "figure-federated-answers", "Clients taken and failed over rounds", data, layout, 210, min_width=230,
        note=f"{sum(amounts['failed'][0])} failed", title="clients",
    )  # fmt: skip


def schedule_figure(result: FederationResult, labels: Labels) -> Figure | None:
    """The share kept of every unit on a grid of branches by layers; None where every unit is sent whole."""
    cells = {place: share for unit, share in result.schedule.items() if (place := place_of(unit)) is not None}
    if all(share >= 1 for share in result.schedule.values()) or not cells:
        return None
    layers = sorted({layer for layer, _ in cells})
    branches = sorted({branch for _, branch in cells}, key=lambda one: (_ORDER.index(one) if one in _ORDER else 9, one))
    values: list[list[float | None]] = [[None] * len(layers) for _ in branches]
    text = [[""] * len(layers) for _ in branches]
    hover = [[""] * len(layers) for _ in branches]
    for (layer, branch), share in cells.items():
        i, j = branches.index(branch), layers.index(layer)
        unit = f"layer.{layer}.{branch}"
        label, importance = labels.label(unit), labels.importance(unit)
        values[i][j] = 100 * share
        text[i][j] = f"{number(100 * share, 0)}" + (f"<br>{LETTERS[label]}" if label in LETTERS else "")
        hover[i][j] = "<br>".join(
            [
                f"<b>{safe(unit)}</b>", f"{percent(share)} kept", *([label] if label else []),
                *([f"importance {number(importance, 2)}"] if importance is not None else []),
            ]
        )  # fmt: skip
    names = [_branch(one) for one in branches]
    trace: Trace = {
        "type": "heatmap", "x": [str(layer) for layer in layers], "y": [safe(name) for name in names], "z": values,
        "text": text, "texttemplate": "%{text}", "textfont": {"size": 11}, "hovertext": hover, "hoverinfo": "text",
        "hoverongaps": False, "xgap": 2, "ygap": 2, "zmin": 0, "zmax": 100,
        # No deeper, so that the numbers stay legible in the light and in the dark scheme.
        "colorscale": [[0, rgba(BLUE, 0.03)], [1, rgba(BLUE, 0.5)]],
        "colorbar": {
            "thickness": 12, "outlinewidth": 0, "x": 1.01, "xpad": 6, "len": 1, "tickfont": {"size": 11},
            "tickvals": [0, 50, 100], "ticktext": ["0", "50", "100 %"],
        },
    }  # fmt: skip
    room = 20 + 7 * max(map(len, names))
    layout = {
        "xaxis": {"type": "category", "title": {"text": "layer", "standoff": 4}, "showgrid": False, "zeroline": False},
        "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False, "zeroline": False},
        "margin": {"l": room, "r": 74, "t": 8, "b": 42}, "hovermode": "closest", "font": {"size": 12},
    }  # fmt: skip
    tall = 44 if labels.known else 34
    return Figure(
        "figure-federated-schedule", "Share of every unit that clients are sent, by layer", [trace], layout,
        height=50 + max(tall * len(branches), 68), min_width=room + 74 + 34 * len(layers),
        max_width=room + 74 + max(260, 72 * len(layers)),
    )  # fmt: skip


def _branch(name: str) -> str:
    """A branch in words.

    >>> _branch("feed_forward.1"), _branch("attention")
    ('feed-forward 1', 'attention')
    """
    kind, _, place = name.partition(".")
    return f"{_BRANCHES.get(kind, kind)} {place}".strip()
