"""A search among plans as a picture: the error rate against what the treated model costs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otoscope.diagnosis.metric_words import called, unit_of
from otoscope.plans.search import ORIGINAL, Search, Trial
from otoscope.reporting.figures import BLUE, GREY, VERMILLION, Figure, Trace, rgba, safe
from otoscope.reporting.page import page_parts, render_template, write_page
from otoscope.reporting.values import interval, number, plural


@dataclass(frozen=True)
class FrontPanel:
    """What the report says of a search.

    Attributes:
        sentence: what was tried.
        figure: error against cost.
        metric: the error rate as readers are told it.
        cost: what a treated model costs, as readers are told it.
        lines: plans on the front: name, error, cost, treatments.
        failed: plans that are out, with the reason.
    """

    sentence: str
    figure: Figure
    metric: str
    cost: str
    lines: Sequence[tuple[str, str, str, Sequence[str]]]
    failed: Sequence[tuple[str, str]]


def front_panel(search: Search | None) -> FrontPanel | None:
    """The section of a search; None where there is none."""
    if search is None:
        return None
    last = search.last
    lines = [
        (
            name, interval(_scaled(search, last[name]), 2), f"{number(100 * search.cost_of(last[name]), 1)} %",
            [str(one) for one in search.plans[name].treatments],
        )
        for name in search.front
    ]  # fmt: skip
    steps = sorted({trial.steps for trial in search.trials})
    rounds = " and ".join(f"{one} steps" if one else "no training" for one in steps)
    sentence = (
        f"{plural(len(search.plans), 'plan')} were tried on development speech, with {rounds}; "
        f"{plural(len(search.left), 'plan')} went through all rounds, of which {len(search.front)} no other betters."
    )
    return FrontPanel(
        sentence, _figure(search), f"{called(search.metric)}, %", f"{search.cost} of the original", lines,
        list(search.failed.items()),
    )  # fmt: skip


def write_front(search: Search, path: str | os.PathLike[str]) -> Path:
    """Writes a search as one HTML page that loads nothing from anywhere, whole or not at all.

    Raises:
        ResultError: the file cannot be written there.
    """
    panel = front_panel(search)
    assert panel is not None
    context = {"front": panel, "model": str(search.provenance.get("model", ORIGINAL))}
    return write_page(lambda: render_template("search.html", context | page_parts([panel.figure])), path)


def _scaled(search: Search, one: Trial) -> dict[str, float | None]:
    """A trial's error rate with its ends, in the unit in which readers are told it."""
    factor = unit_of(search.metric)[0]
    ends = {"value": one.value, "low": one.low, "high": one.high}
    return {name: None if end is None else factor * end for name, end in ends.items()}


def _figure(search: Search) -> Figure:
    paths: dict[str, list[Trial]] = {}
    for trial in search.trials:
        paths.setdefault(trial.plan, []).append(trial)
    front = [search.last[name] for name in search.front]
    factor, unit = unit_of(search.metric)
    joined: Trace = {
        "type": "scatter", "mode": "lines", "x": [100 * search.cost_of(one) for one in front],
        "y": [factor * one.value for one in front], "line": {"color": BLUE, "width": 2, "dash": "dot"},
        "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip
    measured = f"{called(search.metric)}, {'%' if unit == 'points' else unit}"
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": f"{search.cost} of the treated model, % of the original", "standoff": 6}},
        "yaxis": {"title": {"text": measured, "standoff": 6}, "rangemode": "tozero"},
        "margin": {"l": 62, "r": 16, "t": 10, "b": 52}, "hovermode": "closest",
    }  # fmt: skip
    data = [*(_path(search, name, trials) for name, trials in paths.items()), joined]
    return Figure("figure-front", "Error rate against cost of every plan that was tried", data, layout, 430)


def _path(search: Search, name: str, trials: Sequence[Trial]) -> Trace:
    """A plan through the rounds; the last mark is filled where it went through all of them."""
    original, last = name == ORIGINAL, len(trials) - 1
    kept = original or name in search.left
    colour = VERMILLION if original else BLUE if kept else GREY
    shown = [_scaled(search, one) for one in trials]
    reach = {
        side: [0.0 if row[side] is None else abs((row[side] or 0) - (row["value"] or 0)) for row in shown]
        for side in ("low", "high")
    }
    costs = [100 * search.cost_of(one) for one in trials]
    words = [
        f"<b>{safe(name)}</b><br>{one.steps} steps<br>{called(search.metric)} {interval(row, 1)} %<br>"
        f"{number(cost, 1)} % of the original's {search.cost}"
        for one, row, cost in zip(trials, shown, costs, strict=True)
    ]
    symbols = ["x" if original else "circle" if kept and k == last else "circle-open" for k in range(len(trials))]
    return {
        "type": "scatter", "mode": "lines+markers", "x": costs, "y": [row["value"] for row in shown],
        "line": {"color": rgba(colour, 0.4), "width": 1}, "hovertext": words, "hoverinfo": "text", "showlegend": False,
        "marker": {
            "color": colour, "symbol": symbols, "size": [11 if kept and k == last else 6 for k in range(len(trials))]
        },
        "error_y": {
            "type": "data", "array": reach["high"], "arrayminus": reach["low"], "color": rgba(colour, 0.35),
            "thickness": 1, "width": 0,
        },
    }  # fmt: skip
