"""Critical and ambient units: what a model loses when one of them is reset, by mode, with labels and thresholds."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from otoscope.diagnosis.block_sentences import notes_of
from otoscope.diagnosis.metric_words import called, higher_is_better, unit_of
from otoscope.reporting.facts import part
from otoscope.reporting.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, Figure, Trace, rgba, safe
from otoscope.reporting.forest import Mark, Scale, change, forest
from otoscope.reporting.values import Row, finite, interval, number

MODES = {
    "re-initialise": ("re-initialised", VERMILLION, "circle"),
    "rewind": ("rewound", ORANGE, "triangle-up"),
    "re-randomise": ("re-randomised", PURPLE, "square"),
    "bypass": ("bypassed", BLUE, "diamond"),
    "mean": ("mean output", GREEN, "cross"),
}
"""Modes of a reset in words, with their colours and symbols; "rewind" is followed by the name of its checkpoint."""

PART_COLOURS = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, GREY)

LETTERS = {"ambient": "A", "intermediate": "I", "critical": "C"}
SYMBOLS = {"ambient": "circle-open", "intermediate": "circle", "critical": "x"}

_PART = re.compile(r"layer\.\d+\.(attention|feed_forward(\.\d+)?|convolution|norms)")


def granularity(unit: str) -> str:
    """Which of the three sizes of unit a name is of.

    >>> granularity("layer.3"), granularity("layer.3.feed_forward.1"), granularity("layer.3.attention.q_proj.weight")
    ('block', 'sub-module', 'tensor')
    """
    if re.fullmatch(r"layer\.\d+", unit):
        return "block"
    return "sub-module" if _PART.fullmatch(unit) else "tensor"


def mode_name(mode: str) -> str:
    """A mode in words.

    >>> mode_name("bypass"), mode_name("rewind:pretrained")
    ('bypassed', 'rewound to pretrained')
    """
    kind, _, checkpoint = mode.partition(":")
    return f"rewound to {checkpoint}" if checkpoint else MODES.get(kind, (mode,))[0]


def mode_order(mode: str) -> int:
    """Where a mode stands among the others."""
    kind = mode.partition(":")[0]
    return list(MODES).index(kind) if kind in MODES else len(MODES)


def labelling_metric(rows: Sequence[Row]) -> str | None:
    """The metric by which units were labelled, else the first in the table; None where there is none."""
    first = next((row["target"] for row in rows if row["label"]), None)
    return first or next((row["target"] for row in rows), None)


@dataclass(frozen=True)
class Forests:
    """What one metric changes by.

    Attributes:
        title: the metric and the units, in words.
        figures: one forest plot a mode, all on one axis.
        parts: parts of layers with their colours; empty where whole blocks are reset.
    """

    title: str
    figures: list[Figure]
    parts: list[tuple[str, str]]


@dataclass(frozen=True)
class CriticalityPanel:
    """What the report says of critical units.

    Attributes:
        metric: the metric that labels go by, in words.
        thresholds: the rule in words.
        grids: shares of the whole model's loss, units by modes and layers by parts.
        forests: one for each metric and size of unit.
        draws: how far the draws of fresh random weights lie apart.
        module: criticality of modules after Chatterji et al.
    """

    metric: str
    thresholds: str
    grids: list[Figure] = field(default_factory=list)
    forests: list[Forests] = field(default_factory=list)
    draws: Figure | None = None
    module: Figure | None = None

    @property
    def figures(self) -> list[Figure]:
        """All figures that the page draws."""
        single = [figure for figure in (self.draws, self.module) if figure is not None]
        return [*self.grids, *(figure for one in self.forests for figure in one.figures), *single]


def criticality_panel(rows: Mapping[str, Sequence[Row]], notes: Mapping[str, Any]) -> CriticalityPanel | None:
    """What there is of criticality in a diagnosis; None where there is nothing.

    Args:
        rows: the table by measure.
        notes: of the diagnosis' provenance; thresholds are read.
    """
    own = [row for row in rows.get("criticality", ()) if row["value"] is not None and row["stream"]]
    module = _module(rows.get("module-criticality", ()))
    if not own and module is None:
        return None
    metric = labelling_metric(own)
    told = notes_of(notes, "criticality")
    shares = {_key(row): row for row in rows.get("criticality-normalised", ())}
    grids = [grid for size in ("block", "sub-module", "tensor") if (grid := _grid(own, shares, size)) is not None]
    forests = []
    for name in sorted(dict.fromkeys(row["target"] for row in own), key=lambda name: name != metric):
        for size in ("block", "sub-module") if name == metric else ("block",):
            found = [row for row in own if row["target"] == name and granularity(row["stream"]) == size]
            if found:
                forests.append(_forests(found, name, size, told))
    draws = _draws(rows.get("criticality-spread", ()), own, metric)
    return CriticalityPanel(
        called(metric) if metric else "", _rule(told, metric), grids, forests, draws, module
    )  # fmt: skip


def _key(row: Row) -> tuple[str, str, str]:
    return row["stream"], row["target"], row["other"]


def _tolerances(told: Mapping[str, Any], metric: str) -> dict[str, float]:
    """What counts as no change for the worse, by mode; empty where the notes do not say."""
    found = part(part(told, "tolerance"), metric)
    return {str(mode): float(value) for mode, value in found.items() if finite(value)}


def _critical(told: Mapping[str, Any]) -> float | None:
    return finite(part(told, "thresholds").get("critical"))


def _rule(told: Mapping[str, Any], metric: str | None) -> str:
    if metric is None:
        return ""
    tolerances, share = list(_tolerances(told, metric).values()), _critical(told)
    factor, unit = unit_of(metric)
    ends = [f"{factor * one:.2g}" for one in (min(tolerances), max(tolerances))] if tolerances else []
    ends = list(dict.fromkeys(ends))
    least = f"{' to '.join(ends)} {unit}".strip() if ends else "the stated tolerance"
    least += " (each mode has its own)" if len(ends) > 1 else ""
    most = f"{100 * share:.0f} %" if share is not None else "the stated share"
    heard = f"On {told['utterances']} utterances. " if told.get("utterances") else ""
    return (
        f"{heard}Labels go by {called(metric)}: ambient where it gets worse by less than {least}, critical where by more "
        f"than {most} of what resetting all layers together does, both with the whole 95 % interval; intermediate "
        f"otherwise.{_not_finite(told)}"
    )


def _not_finite(told: Mapping[str, Any]) -> str:
    """What was done where resets left values that are not finite; empty where none did."""
    text = ""
    counted = sorted(
        {unit for modes in part(told, "counted_as_chance").values() for units in modes.values() for unit in units}
    )
    if counted:
        text = f" Where a reset of {', '.join(counted)} leaves no finite value, that with all units reset is counted."
    left_out = sorted({mode_name(mode) for modes in part(told, "not_finite").values() for mode in modes})
    if left_out:
        text += f" Left out, since even with all units reset values are not finite: {', '.join(left_out)}."
    return text


def _grid(own: Sequence[Row], shares: Mapping[tuple[str, str, str], Row], size: str) -> Figure | None:
    """Shares as a heat map: blocks by modes, one metric at a time; finer units as layers by parts, one mode at a time."""
    found = [row for row in own if granularity(row["stream"]) == size and _key(row) in shares]
    found = [row for row in found if shares[_key(row)]["value"] is not None]
    if not found:
        return None
    metrics = sorted(dict.fromkeys(row["target"] for row in found), key=lambda name: name != labelling_metric(found))
    modes = sorted(dict.fromkeys(row["other"] for row in found), key=mode_order)
    if size == "block":
        groups = {called(name): [row for row in found if row["target"] == name] for name in metrics}
        across = [mode_name(mode) for mode in modes]
    else:
        found = [row for row in found if row["target"] == metrics[0]]
        groups = {mode_name(mode): [row for row in found if row["other"] == mode] for mode in modes}
        across = list(dict.fromkeys(_column(row, size) for row in found))
    down = sorted(
        {_line(row) for row in found}, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0)
    )
    data = [_cells(group, shares, across, down, size) for group in groups.values() if group]
    for place, trace in enumerate(data):
        trace["visible"] = place == 0
        trace["showscale"] = True
    tall = 26 if len(down) <= 16 else 18
    longest = max(map(len, across))
    upright = longest > 12 and len(across) > 5
    room = 7 * longest if upright else 24
    layout = {
        "xaxis": {"type": "category", "categoryarray": [safe(name) for name in across], "side": "top", "showgrid": False,
                  "zeroline": False, "tickangle": -60 if upright else 0},
        "yaxis": {"type": "category", "categoryarray": [safe(name) for name in down], "autorange": "reversed",
                  "title": {"text": "layer"}, "showgrid": False, "zeroline": False},
        "margin": {"l": 56 if all(map(str.isdigit, down)) else 40 + 7 * max(map(len, down)), "r": 84, "t": 8 + room, "b": 8},
        "hovermode": "closest", "font": {"size": 12},
    }  # fmt: skip
    wide = max(68, 0 if upright else 7 * min(longest, 26) + 8)
    return Figure(
        f"figure-criticality-{size}", f"Share of the change under a reset of all units, by {size} and mode", data, layout,
        height=16 + room + tall * len(down), min_width=140 + wide * len(across),
        max_width=160 + max(150, wide) * len(across), choices=[name for name, group in groups.items() if group],
        title={"block": "Blocks", "sub-module": "Sub-modules", "tensor": "Tensors"}[size],
    )  # fmt: skip


def _line(row: Row) -> str:
    """The line of a unit: its layer, or its own name where it belongs to none."""
    return str(int(row["layer"])) if row["layer"] is not None else str(row["stream"])


def _column(row: Row, size: str) -> str:
    if size == "block" or row["layer"] is None:
        return mode_name(row["other"])
    return str(row["stream"]).partition(f"layer.{int(row['layer'])}.")[2]


def _cells(
    group: Sequence[Row], shares: Mapping[tuple[str, str, str], Row], across: Sequence[str], down: Sequence[str], size: str
) -> Trace:  # fmt: skip
    values: list[list[float | None]] = [[None] * len(across) for _ in down]
    text = [[""] * len(across) for _ in down]
    hover = [[""] * len(across) for _ in down]
    for row in group:
        i, j = down.index(_line(row)), across.index(_column(row, size))
        share, unit = shares[_key(row)], unit_of(row["target"])[1]
        values[i][j] = share["value"]
        text[i][j] = f"{number(share['value'], 2)} {LETTERS.get(row['label'], '')}".strip()
        hover[i][j] = "<br>".join(
            [
                f"<b>{safe(row['stream'])}</b>, {safe(mode_name(row['other']))}",
                f"{safe(called(row['target']))} {change(row, row['target'])} {unit}".strip(),
                f"share {interval(share, 2)}",
                *([row["label"]] if row["label"] else []),
            ]
        )
    return {
        "type": "heatmap", "x": [safe(name) for name in across], "y": [safe(name) for name in down], "z": values,
        "text": text, "texttemplate": "%{text}", "textfont": {"size": 11}, "hovertext": hover, "hoverinfo": "text",
        "hoverongaps": False, "xgap": 2, "ygap": 2, "zmin": -1, "zmax": 1,
        "colorscale": [
            [0, BLUE], [0.25, rgba(BLUE, 0.5)], [0.5, rgba(GREY, 0.08)], [0.75, rgba(VERMILLION, 0.5)], [1, VERMILLION],
        ],
        "colorbar": {
            "thickness": 12, "outlinewidth": 0, "x": 1.01, "xpad": 6, "len": 1, "tickfont": {"size": 11},
            "tickvals": [-1, 0, 0.5, 1], "ticktext": ["−1", "0", "½", "all"],
        },
    }  # fmt: skip


def _forests(own: Sequence[Row], metric: str, size: str, told: Mapping[str, Any]) -> Forests:
    """One forest plot a mode, with a line a layer; parts of a layer stand a little apart."""
    tolerances, critical = _tolerances(told, metric), _critical(told)
    worse = -1 if higher_is_better(metric) else 1
    scale = Scale.of(metric, own, min(tolerances.values(), default=None))
    parts = list(dict.fromkeys(_column(row, size) for row in own)) if size != "block" else [""]
    lines = sorted({int(row["layer"]) for row in own})
    figures = []
    for mode in sorted(dict.fromkeys(row["other"] for row in own), key=mode_order):
        of_mode = [row for row in own if row["other"] == mode]
        colour, symbol = MODES.get(mode.partition(":")[0], ("", GREY, "circle"))[1:]
        marks = []
        for row in of_mode:
            k = 0 if size == "block" else parts.index(_column(row, size))
            apart = 0.8 * ((k + 0.5) / len(parts) - 0.5)
            marks.append(
                Mark(
                    lines.index(int(row["layer"])) + apart,
                    row,
                    row["stream"],
                    colour if size == "block" else PART_COLOURS[k % len(PART_COLOURS)],
                    SYMBOLS.get(row["label"], symbol),
                    (row["label"],) if row["label"] else (),
                )
            )
        everything = next((row["ceiling"] for row in of_mode if row["ceiling"] is not None), None)
        at = [worse * tolerances[mode]] if mode in tolerances else []
        at += [critical * everything] if critical and everything and everything * worse > 0 else []
        whole = {"value": everything, "low": None, "high": None}
        figures.append(
            forest(
                f"figure-criticality-change-{metric}-{size}-{re.sub(r'[^A-Za-z0-9]+', '-', mode)}",
                f"Change of {called(metric)} of every {size}, {mode_name(mode)}",
                marks,
                [str(layer) for layer in lines],
                scale,
                title=mode_name(mode),
                note=f"all {change(whole, metric)}" if everything is not None else "",
                thresholds=at,
                line=max(15, 9 * len(parts)) if len(parts) > 1 else None,
            )
        )
    unit = unit_of(metric)[1]
    return Forests(
        f"{called(metric)}{f' ({unit})' if unit else ''}, {'blocks' if size == 'block' else 'sub-modules'}",
        figures,
        [(name, PART_COLOURS[k % len(PART_COLOURS)]) for k, name in enumerate(parts) if name],
    )


def _draws(spread: Sequence[Row], own: Sequence[Row], metric: str | None) -> Figure | None:
    """Least and greatest draw of fresh random weights beside their mean."""
    found = [row for row in spread if row["target"] == metric and row["low"] is not None and row["layer"] is not None]
    found = [row for row in found if granularity(row["stream"]) == "block"] or found
    means = {_key(row): row for row in own}
    rows = [
        row | {"value": means[_key(row)]["value"], "deviation": row["value"]} for row in found if _key(row) in means
    ]  # fmt: skip
    if metric is None or not rows:
        return None
    lines = [row["stream"] if granularity(row["stream"]) != "block" else _line(row) for row in rows]
    marks = [
        Mark(
            place, row, row["stream"], PURPLE, "square",
            () if row["deviation"] is None else (f"deviation {number(unit_of(metric)[0] * row['deviation'], 3)}",),
        )
        for place, row in enumerate(rows)
    ]  # fmt: skip
    return forest(
        "figure-criticality-draws", "Least, mean and greatest change over the draws of fresh random weights", marks,
        lines, Scale.of(metric, rows), title="draws of fresh random weights", what="unit" if len(lines[0]) > 3 else "layer",
    )  # fmt: skip


def _module(rows: Sequence[Row]) -> Figure | None:
    found = [row for row in rows if row["value"] is not None and row["stream"]]
    if not found:
        return None
    least = min((row["value"] for row in found if row["value"] > 0), default=1.0)
    lines = [_line(row) if granularity(row["stream"]) == "block" else row["stream"] for row in found]
    trace: Trace = {
        "type": "scatter", "mode": "markers", "x": [max(row["value"], least / 10) for row in found],
        "y": list(range(len(found))), "marker": {"color": BLUE, "size": 8, "symbol": "diamond"},
        "hovertext": [f"<b>{safe(row['stream'])}</b><br>μ = {row['value']:.3g}" for row in found], "hoverinfo": "text",
        "showlegend": False,
    }  # fmt: skip
    line = 26 if len(found) <= 8 else 15
    powers = [math.floor(math.log10(end)) for end in (least / 10, max(row["value"] for row in found) or 1.0)]
    step = max(1, (powers[1] - powers[0]) // 4)
    layout = {
        "xaxis": {
            "title": {"text": "module criticality μ", "standoff": 4}, "type": "log", "tickformat": "~g", "dtick": step,
        },
        "yaxis": {
            "tickmode": "array", "tickvals": list(range(len(found))), "ticktext": [safe(text) for text in lines],
            "range": [len(found) - 0.5, -0.5], "zeroline": False,
            "title": {"text": "layer" if all(map(str.isdigit, lines)) else "unit", "standoff": 4},
        },
        "margin": {"l": 40 + 7 * max(map(len, lines)), "r": 10, "t": 8, "b": 40}, "hovermode": "closest",
        "font": {"size": 11},
    }  # fmt: skip
    return Figure(
        "figure-module-criticality", "Module criticality of every unit", [trace], layout, height=56 + line * len(found),
        min_width=230, title="module criticality",
    )  # fmt: skip
