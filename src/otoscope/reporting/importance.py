"""Which heads matter: a wall of importances, how far rankings agree, curves of what is left, and verdicts in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from otoscope.reporting.figures import (
    BLUE,
    CATEGORY_COLOURS,
    GREEN,
    GREY,
    VERMILLION,
    YELLOW,
    Figure,
    Trace,
    band,
    safe,
)  # fmt: skip
from otoscope.reporting.values import Row, interval, number

TASKS = {
    "phone": ("the phone of a frame", "accuracy"),
    "speaker": ("the speaker of a frame", "accuracy"),
    "speaker-utterance": ("the speaker of an utterance", "accuracy"),
    "mel": ("the sound itself (log-mel)", "mean absolute error"),
}
"""What probes are asked, in words, and what the score is; an error is better the lower it is."""

MODES = {"": "probes trained anew at every point", "-frozen": "probes of the whole model"}

COLOURS = {
    "globalness": CATEGORY_COLOURS["global"],
    "verticality": CATEGORY_COLOURS["vertical"],
    "diagonality": CATEGORY_COLOURS["diagonal"],
    "max-weight": YELLOW,
    "importance-gradient": BLUE,
    "importance-attribution": GREEN,
    "literal": VERMILLION,
    "banded": BLUE,
}
"""Curves that are shown at first; the others wait in the legend."""

CATEGORY_ORDERS = ("globalness", "verticality", "diagonality")
"""Curves that have bands."""

_REST = (VERMILLION, GREEN, BLUE, YELLOW)
_IMPORTANCES = (
    "importance-loo",
    "importance-gradient",
    "importance-gradient-sum",
    "importance-attribution",
    "importance-l1",
)
_UNLIMITED = "full"


@dataclass
class ImportancePanel:
    """What the report says of the importance of heads.

    Attributes:
        verdicts: what the curves say about diagonal and global heads.
        signs: sign tests: number, claim, outcome, figures found and published.
        wall: importances by layer and head, one measure at a time.
        agreement: rank correlations of every two rankings.
        curves: of each task and kind, with probes trained anew and frozen side by side.
    """

    verdicts: list[str] = field(default_factory=list)
    signs: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    wall: Figure | None = None
    agreement: Figure | None = None
    curves: list[tuple[str, list[Figure]]] = field(default_factory=list)

    @property
    def figures(self) -> list[Figure]:
        """All figures that the page draws."""
        single = [figure for figure in (self.wall, self.agreement) if figure is not None]
        return [*single, *(figure for _, found in self.curves for figure in found)]


def importance_panel(rows: Mapping[str, Sequence[Row]], notes: Mapping[str, Any]) -> ImportancePanel | None:
    """What there is of importance in a diagnosis; None where there is nothing.

    Args:
        rows: the table by measure.
        notes: of the diagnosis' provenance; those of sign tests are read.
    """
    panel = ImportancePanel(
        verdicts(rows), _signs(notes), wall_figure(rows), agreement_figure(rows), _curves(rows)
    )  # fmt: skip
    return panel if panel.figures or panel.verdicts else None


def verdicts(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Whether pruning diagonal heads hurts phones more than global ones, a sentence for each kind of probe."""
    found = []
    for ending, probes in MODES.items():
        for row in rows.get(f"pruning-verdict{ending}", ()):
            points = {name: None if row[name] is None else 100 * row[name] for name in ("value", "low", "high")}
            found.append(
                "That pruning the most diagonal heads hurts phones more than pruning the most global ones "
                f"{row['label'] if row['label'] != 'undecided' else 'is undecided'} here: phone accuracy after "
                f"{row['other'].replace(' against ', ' less that after ')} is {interval(points, 1)} points ({probes})."
            )
    return found


def _signs(notes: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    return [
        (one["number"], one["claim"], one["outcome"], one["found"], one["published"])
        for one in notes.get("sign-test", {}).values()
    ]


def wall_figure(rows: Mapping[str, Sequence[Row]]) -> Figure | None:
    """Importances on a grid of layers by heads, one measure at a time.

    What leaving out changes is centred on no change: vermillion where the model is worse without the head.
    """
    walls: dict[str, dict[tuple[int, int], Row]] = {}
    for measure in _IMPORTANCES:
        for row in rows.get(measure, ()):
            if row["layer"] is not None and row["head"] is not None and row["value"] is not None:
                name = measure.removeprefix("importance-")
                name = f"without the head: {row['target']}" if name == "loo" else name
                walls.setdefault(name, {})[int(row["layer"]), int(row["head"])] = row
    if not walls:
        return None
    layers = sorted({layer for wall in walls.values() for layer, _ in wall})
    width = 1 + max(head for wall in walls.values() for _, head in wall)
    data = [_wall(name, wall, layers, width) for name, wall in walls.items()]
    for place, trace in enumerate(data):
        trace["visible"] = place == 0
    layout = {
        "xaxis": {
            "title": {"text": "head (from 0)"}, "dtick": 1, "range": [-0.5, width - 0.5], "showgrid": False,
            "zeroline": False,
        },
        "yaxis": {
            "title": {"text": "layer"}, "tickmode": "array", "tickvals": layers,
            "range": [max(layers) + 0.5, min(layers) - 0.5], "showgrid": False, "zeroline": False,
        },
        "margin": {"l": 56, "r": 96, "t": 8, "b": 48}, "hovermode": "closest",
    }  # fmt: skip
    cell = 36 if len(layers) <= 12 else 24
    return Figure(
        "figure-importance", "Importance of every head by layer and head", data, layout,
        height=56 + cell * (max(layers) - min(layers) + 1), min_width=150 + 38 * width,
        max_width=150 + 90 * width if width < 12 else None, choices=list(walls),
    )  # fmt: skip


def _wall(name: str, wall: Mapping[tuple[int, int], Row], layers: Sequence[int], width: int) -> Trace:
    values: list[list[float | None]] = [[None] * width for _ in layers]
    text = [[""] * width for _ in layers]
    for (layer, head), row in wall.items():
        values[layers.index(layer)][head] = row["value"]
        text[layers.index(layer)][head] = f"<b>head {layer}.{head}</b><br>{safe(name)}: {interval(row, 4)}"
    trace: Trace = {
        "type": "heatmap", "x": list(range(width)), "y": list(layers), "z": values, "hovertext": text,
        "hoverinfo": "text", "hoverongaps": False, "xgap": 2, "ygap": 2, "colorscale": "Cividis",
        "colorbar": {"thickness": 12, "outlinewidth": 0, "x": 1.01, "xpad": 6, "len": 1, "tickfont": {"size": 11}},
    }  # fmt: skip
    if name.startswith("without"):
        # An accuracy that falls is as bad as an error that rises: both are to be vermillion.
        worse = -1 if _accuracy(name) else 1
        most = max((abs(row["value"]) for row in wall.values()), default=0.0) or 1.0
        ends = (BLUE, VERMILLION) if worse > 0 else (VERMILLION, BLUE)
        trace |= {"zmin": -most, "zmax": most, "colorscale": [[0, ends[0]], [0.5, "#f7f7f7"], [1, ends[1]]]}
    return trace


def _accuracy(name: str) -> bool:
    """Whether a metric is better the higher it is, by its name."""
    task = name.rpartition("probe-")[2]
    return "accuracy" in name or ("probe-" in name and TASKS.get(task, ("", "accuracy"))[1] == "accuracy")


def agreement_figure(rows: Mapping[str, Sequence[Row]]) -> Figure | None:
    """Kendall's tau of every two rankings, as a matrix; 1 where two agree on every pair of heads."""
    found = {
        (row["target"], row["other"]): row
        for row in rows.get("agreement-kendall", ()) if row["value"] is not None
    }  # fmt: skip
    if not found:
        return None
    names = list(dict.fromkeys(name for pair in found for name in pair))
    values: list[list[float | None]] = [[1.0 if a == b else None for b in names] for a in names]
    text = [["" for _ in names] for _ in names]
    hover = [["" for _ in names] for _ in names]
    for (one, other), row in found.items():
        for a, b in ((one, other), (other, one)):
            i, j = names.index(a), names.index(b)
            values[i][j], text[i][j] = row["value"], number(row["value"], 2)
            hover[i][j] = f"{safe(a)}<br>{safe(b)}<br>τ = {interval(row, 2)}"
    called = [safe(name.removeprefix("importance-")) for name in names]
    side, room = 34 * len(names), 7 * max(map(len, called))  # of letters of about 7 pixels
    trace: Trace = {
        "type": "heatmap", "x": called, "y": called, "z": values, "text": text, "texttemplate": "%{text}",
        "textfont": {"size": 10}, "hovertext": hover, "hoverinfo": "text", "zmin": -1, "zmax": 1, "xgap": 2, "ygap": 2,
        "colorscale": [[0, BLUE], [0.5, "#f7f7f7"], [1, VERMILLION]],
        "colorbar": {"thickness": 12, "outlinewidth": 0, "title": {"text": "τ"}, "tickfont": {"size": 11}},
    }  # fmt: skip
    layout = {
        "xaxis": {"tickangle": 40, "showgrid": False}, "yaxis": {"autorange": "reversed", "showgrid": False},
        "margin": {"l": 40 + room, "r": 60, "t": 8, "b": 40 + round(0.7 * room)},
    }  # fmt: skip
    return Figure(
        "figure-agreement", "Rank correlation of every two ways to rank heads", [trace], layout,
        height=side + 48 + round(0.7 * room), min_width=side + 100 + room, max_width=max(2 * side, 500) + 100 + room,
    )  # fmt: skip


def _curves(rows: Mapping[str, Sequence[Row]]) -> list[tuple[str, list[Figure]]]:
    """Titles with their figures: each kind and task, and metrics that were taken of the variants themselves."""
    found = []
    for kind, title in (("pruning", "Heads removed"), ("span", "Spans limited")):
        names = [
            m.removeprefix(f"{kind}-").removesuffix("-change")
            for m in rows
            if m.startswith(f"{kind}-") and m.endswith("-change")
        ]
        for name in dict.fromkeys(one.removesuffix("-frozen") for one in names):
            asked, score = TASKS.get(name, (name, name))
            endings = [ending for ending in MODES if f"{kind}-{name}{ending}-change" in rows]
            figures = [_curve(rows, kind, name, ending, score) for ending in endings]
            if any(figure.data for figure in figures):
                found.append((f"{title}: {asked}", figures))
    return found


def _curve(rows: Mapping[str, Sequence[Row]], kind: str, name: str, ending: str, score: str) -> Figure:
    """Change of a score against the whole model, with paired bands."""
    measure = f"{kind}-{name}{ending}"
    whole = next((row for row in rows.get(measure, ()) if row["other"] in ("0", _UNLIMITED)), None)
    values = {(row["target"], row["other"]): row for row in rows.get(measure, ())}
    groups: dict[str, list[Row]] = {}
    for row in rows[f"{measure}-change"]:
        if row["layer"] is None:  # of all layers together
            groups.setdefault(row["target"], []).append(row)
    data: list[Trace] = []
    rest = 0
    for target, found in sorted(groups.items(), key=lambda one: _rank(one[0])):
        colour = GREY if target.startswith("random") else COLOURS.get(target)
        shown = colour is not None
        if colour is None:
            colour, rest = _REST[rest % len(_REST)], rest + 1
        data += _traces(target, found, values, colour, shown, kind)
    others = {row["other"] for found in groups.values() for row in found} - {_UNLIMITED}
    limited = sorted(map(int, others), reverse=True)
    axis: dict[str, Any] = {"title": {"text": "heads removed"}, "zeroline": False, "showgrid": False}
    if kind == "span":
        axis |= {"title": {"text": "frames on either side"}, "type": "category", "categoryorder": "array",
                 "categoryarray": [_UNLIMITED, *map(str, limited)]}  # fmt: skip
    note = f"{score} of the whole model {interval(whole)}" if whole is not None else ""
    if whole is not None and whole["floor"] is not None:
        note += f", floor {number(whole['floor'])}"
    legend = 22 * -(-len(groups) // 3)  # of about three names a line
    title = MODES[ending] if name in TASKS else "the model's own head, as it is"
    return Figure(
        f"figure-{measure}", f"Change of {score}, {measure}, {title}", data,
        {
            "xaxis": axis, "yaxis": {"title": {"text": f"change of {score}"}, "zeroline": True},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "margin": {"l": 62, "r": 12, "t": 16 + legend, "b": 52}, "hovermode": "closest",
        },
        height=330 + legend, min_width=420, note=note, title=title,
    )  # fmt: skip


def _rank(target: str) -> tuple[int, str]:
    """Where a curve stands: those that are shown at first, the others by name, random orders."""
    known = list(COLOURS)
    return (known.index(target), "") if target in known else (len(known) + target.startswith("random"), target)


def _traces(
    target: str, found: Sequence[Row], values: Mapping[tuple[str, str], Row], colour: str, shown: bool, kind: str
) -> list[Trace]:
    """One curve with its band; those that wait in the legend are drawn when they are clicked."""
    if kind == "pruning":
        found = sorted(found, key=lambda row: int(row["other"]))
        x: list[Any] = [int(row["other"]) for row in found]
    else:
        found = sorted(found, key=lambda row: (row["other"] != _UNLIMITED, -int(row["other"].replace(_UNLIMITED, "0"))))
        x = [row["other"] for row in found]
    seen = True if shown else "legendonly"
    hover = []
    for row in found:
        own = values.get((target, row["other"]))
        lines = [f"<b>{safe(target)}</b>, {safe(row['other'])}", f"change {interval(row)}"]
        hover.append("<br>".join([*lines, *([f"score {interval(own)}"] if own else [])]))
    line: Trace = {
        "type": "scatter", "mode": "lines+markers", "x": x, "y": [row["value"] for row in found],
        "name": safe(target.removeprefix("importance-")), "legendgroup": target, "visible": seen,
        "line": {"color": colour, "width": 2, "dash": "dot" if target.startswith("random") else "solid"},
        "marker": {"size": 6}, "hovertext": hover, "hoverinfo": "text",
    }  # fmt: skip
    if kind == "span":
        return [line | {"error_y": _bars(found, colour)}]
    if target not in CATEGORY_ORDERS:  # bands of more than a few curves hide each other; the pointer tells the rest
        return [line]
    low, high = ([row[name] for row in found] for name in ("low", "high"))
    return [band(x, low, high, colour, legendgroup=target, visible=seen), line]


def _bars(found: Sequence[Row], colour: str) -> dict[str, Any]:
    """Intervals as bars: radii are names along their axis, between which there is no area."""
    above = [0.0 if row["high"] is None else row["high"] - row["value"] for row in found]
    below = [0.0 if row["low"] is None else row["value"] - row["low"] for row in found]
    return {"type": "data", "array": above, "arrayminus": below, "color": colour, "thickness": 1.2, "width": 3}
