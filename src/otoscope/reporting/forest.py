"""Changes with their intervals, one below the other, on an axis that shows small and large ones alike."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otoscope.diagnosis.metric_words import called, digits_of, unit_of
from otoscope.reporting.figures import GREY, Figure, Trace, safe
from otoscope.reporting.values import Row, number

LINE = 15
"""Height of a line, in CSS pixels; lines of few units are higher."""

NEAREST = 0.19
"""Ticks that are nearer to each other than this share of the axis would be written over each other."""


@dataclass(frozen=True)
class Mark:
    """One change in a forest plot.

    Attributes:
        place: number of its line, from 0; marks of one unit may stand a part of a line apart.
        row: of the diagnosis table; value, low and high are drawn.
        title: of what it is the change, for the pointer.
        colour: of the mark.
        symbol: as plotly calls it.
        words: further lines for the pointer.
    """

    place: float
    row: Row
    title: str
    colour: str
    symbol: str = "circle"
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """An axis of changes that is linear near zero and logarithmic beyond, on both sides.

    Attributes:
        metric: what changes.
        near: the change at which the axis turns logarithmic, in the metric's own unit.
        low: left end, in the metric's own unit.
        high: right end.
    """

    metric: str
    near: float
    low: float
    high: float

    @classmethod
    def of(cls, metric: str, rows: Iterable[Row], near: float | None = None) -> "Scale":
        """The axis on which rows fit, with their intervals and ceilings left aside.

        Args:
            metric: its name.
            rows: with values, low and high ends in the metric's unit.
            near: where the axis turns; by default a fiftieth of the largest change.
        """
        known = [row[name] for row in rows for name in ("value", "low", "high") if row[name] is not None]
        most = max((abs(value) for value in known), default=0.0) or 1.0
        near = near if near else most / 50
        low, high = min(known, default=0.0), max(known, default=0.0)
        return cls(metric, near, min(1.15 * low, -near), max(1.15 * high, near))

    def __call__(self, value: float) -> float:
        """Where a change stands on the axis."""
        return math.asinh(value / self.near)

    def axis(self) -> dict[str, Any]:
        """The axis as plotly reads it, with ticks at 0 and at powers of ten."""
        factor, unit = unit_of(self.metric)
        first = math.floor(math.log10(factor * self.near))
        last = math.floor(math.log10(factor * max(-self.low, self.high)))
        sizes = [10.0**power for power in range(last, first - 1, -1)]
        apart = NEAREST * (self(self.high) - self(self.low))
        ends = (1.02 * factor * self.low, 1.02 * factor * self.high)
        wanted = [0.0, *(sign * size for size in sizes for sign in (1, -1) if ends[0] <= sign * size <= ends[1])]
        ticks: list[float] = []
        for tick in wanted:
            if all(abs(self(tick / factor) - self(other / factor)) >= apart for other in ticks):
                ticks.append(tick)
        return {
            "title": {"text": unit or safe(called(self.metric)), "standoff": 4}, "tickangle": 0,
            "tickmode": "array", "tickvals": [self(tick / factor) for tick in ticks],
            "ticktext": [_tick(tick) for tick in ticks],
            "range": [self(self.low) - 0.1, self(self.high) + 0.1], "zeroline": True,
        }  # fmt: skip


def _tick(value: float) -> str:
    sign = "−" if value < 0 else "+" if value > 0 else ""
    return f"{sign}{abs(value):g}"


def change(row: Mapping[str, Any], metric: str) -> str:
    """A change with its sign and interval, in the unit in which readers are told the metric, without that unit.

    >>> change({"value": 0.012, "low": -0.003, "high": None}, "wer")
    '+1.2'
    """
    factor, digits = unit_of(metric)[0], digits_of(metric)

    def signed(value: float | None) -> str:
        if value is None:
            return "–"
        text = number(factor * value, digits)
        return text if text.startswith("−") or float(text) == 0 else f"+{text}"

    text = signed(row["value"])
    if row["low"] is None or row["high"] is None:
        return text
    return f"{text} [{signed(row['low'])}, {signed(row['high'])}]"


def forest(
    name: str,
    label: str,
    marks: Sequence[Mark],
    lines: Sequence[str],
    scale: Scale,
    *,
    title: str = "",
    note: str = "",
    thresholds: Sequence[float] = (),
    line: int | None = None,
    what: str = "layer",
) -> Figure:
    """A forest plot: a line a unit, a mark a change, bars for 95 % intervals.

    Args:
        name: of the element.
        label: what it shows.
        marks: what is drawn; those without a value are left away.
        lines: names of the lines, from the top.
        scale: the axis of changes.
        title: what stands over it.
        note: a few words beside the title.
        thresholds: changes at which a dotted line stands, in the metric's unit.
        line: height of a line in CSS pixels.
        what: title of the axis of lines.
    """
    line = line or (26 if len(lines) <= 8 else LINE)
    colours: dict[str, list[Mark]] = {}
    for mark in marks:
        if mark.row["value"] is not None:
            colours.setdefault(mark.colour, []).append(mark)
    data: list[Trace] = [_marks(colour, found, scale) for colour, found in colours.items()]
    rows = max(len(lines), 1)
    shapes = [
        {
            "type": "line", "xref": "x", "yref": "paper", "x0": scale(at), "x1": scale(at), "y0": 0, "y1": 1,
            "line": {"color": GREY, "width": 1.2, "dash": "dot"}, "layer": "below",
        }
        for at in thresholds
    ]  # fmt: skip
    room = 7 * max((len(text) for text in lines), default=2)
    # Of many lines every second or third is named.
    step = max(1, -(-12 // line))
    layout: dict[str, Any] = {
        "xaxis": scale.axis(),
        "yaxis": {
            "title": {"text": what, "standoff": 4}, "tickmode": "array", "tickvals": list(range(0, rows, step)),
            "ticktext": [safe(text) for text in lines[::step]], "range": [rows - 0.5, -0.5], "zeroline": False,
            "showgrid": True,
        },
        "shapes": shapes,
        "showlegend": False,
        "margin": {"l": 40 + room, "r": 10, "t": 8, "b": 40},
        "hovermode": "closest",
        "font": {"size": 11},
    }  # fmt: skip
    return Figure(name, label, data, layout, height=56 + line * rows, min_width=190, title=title, note=note)


def _marks(colour: str, found: Sequence[Mark], scale: Scale) -> Trace:
    x = [scale(mark.row["value"]) for mark in found]
    ends = {
        side: [0.0 if mark.row[side] is None else abs(scale(mark.row[side]) - at) for mark, at in zip(found, x, strict=True)]
        for side in ("low", "high")
    }  # fmt: skip
    return {
        "type": "scatter", "mode": "markers", "x": x, "y": [mark.place for mark in found],
        "marker": {
            "color": colour, "symbol": [mark.symbol for mark in found], "size": 7,
            "line": {"width": 0.8, "color": "rgba(0,0,0,0.45)"},
        },
        "error_x": {
            "type": "data", "array": ends["high"], "arrayminus": ends["low"], "thickness": 1.3, "width": 0, "color": colour,
        },
        "hovertext": [
            "<br>".join([f"<b>{safe(mark.title)}</b>", change(mark.row, scale.metric), *map(safe, mark.words)])
            for mark in found
        ],
        "hoverinfo": "text",
    }  # fmt: skip
