"""An outcome in the report: error rates before and after, the difference with its interval, speakers, and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otoscope.diagnosis.metric_words import called, change_in_words, digits_of, unit_of
from otoscope.evaluation.outcome import FACTOR, Change, Heard, Outcome, decoder_in_words
from otoscope.evaluation.scores import Scores
from otoscope.reporting.facts import Fact, duration, magnitude
from otoscope.reporting.figures import BLUE, GREEN, GREY, VERMILLION, Figure, Trace, safe
from otoscope.reporting.forest import change
from otoscope.reporting.transcripts import Line, TranscriptPanel, transcript_panel
from otoscope.reporting.values import count, finite, interval, number

COLOURS = {"better": GREEN, "worse": VERMILLION, "not told apart": GREY}

MOST_CHANGED = 30
"""So many utterances are shown whose hypothesis changed, those whose errors changed most first."""


@dataclass(frozen=True)
class Changed:
    """An utterance with both hypotheses, aligned with what was said."""

    utterance: str
    speaker: str
    change: int
    before: Line
    after: Line


@dataclass(frozen=True)
class OutcomePanel:
    """What the report says of an outcome.

    Attributes:
        sentences: the findings in words.
        facts: what was compared, and how.
        table: a row a metric: name, before, after, difference, probability of improvement, verdict.
        figures: differences, speakers, costs.
        costs: a row a cost: name, before, after, change.
        time: the comparison of times in words; empty where there is none.
        seeds: how much of the uncertainty comes with seeds, by metric; empty with one model a side.
        notes: what is to be known beside.
        changed: utterances whose hypothesis changed.
        unchanged: how many did not.
        transcripts: hypotheses after the change.
    """

    sentences: Sequence[str]
    facts: Sequence[Fact]
    table: Sequence[tuple[str, ...]]
    figures: Sequence[Figure]
    costs: Sequence[tuple[str, ...]]
    time: str
    seeds: Sequence[tuple[str, str]]
    notes: Sequence[str]
    changed: Sequence[Changed]
    unchanged: int
    transcripts: TranscriptPanel | None


def outcome_panel(outcome: Outcome | None) -> OutcomePanel | None:
    """The section of an outcome; None where there is none."""
    if outcome is None:
        return None
    figures = [_differences(outcome.changes), _speakers(outcome.first), _costs(outcome)]
    before, after = (_scores(outcome.heard, side) for side in ("before", "after"))
    changed = _changed(outcome.heard, before, after)
    return OutcomePanel(
        outcome_sentences(outcome), _facts(outcome), [_row(name, one) for name, one in outcome.changes.items()],
        [one for one in figures if one is not None],
        [(name, _size(a), _size(b), _percent(a, b)) for name, a, b in outcome.savings],
        "" if outcome.time is None else str(outcome.time),
        [(called(name), str(one.seeds)) for name, one in outcome.changes.items() if one.seeds is not None],
        list(outcome.provenance["notes"]), changed[:MOST_CHANGED], len(outcome.heard) - len(changed),
        transcript_panel(after),
    )  # fmt: skip


def outcome_sentences(outcome: Outcome) -> list[str]:
    """What the change did, a sentence a metric, and what it saves."""
    found = []
    for name, one in outcome.changes.items():
        diff = one.difference
        words = change_in_words(name, diff.value, finite(diff.low), finite(diff.high))
        chance = f"; it is better with probability {diff.probability_of_improvement:.3f}"
        found.append(f"The treatment {words}{chance}.")
    told = [(name, a, b) for name, a, b in outcome.savings if name != FACTOR and abs(b - a) >= 0.001 * a]
    less = [f"{name} {_percent(a, b)}" for name, a, b in told]
    if outcome.time is not None and not outcome.time.low <= 1 <= outcome.time.high:
        less.append(f"time {_percent(1, outcome.time.ratio)}")
    if less:
        found.append(f"What it changes of the cost: {', '.join(less)}.")
    return found


def _facts(outcome: Outcome) -> list[Fact]:
    about = outcome.provenance
    speech = about["corpus"]
    names = {side: ", ".join(str(one["name"]) for one in about[side]) for side in ("before", "after")}
    invariant = all(found.holds for found in outcome.invariance.values())
    return [
        *names.items(),
        ("speech", str(speech["name"])),
        ("utterances", count(speech["utterances"])),
        ("speakers", str(speech.get("speakers") or "not known")),
        ("length", duration(speech["seconds"])),
        ("decoding", decoder_in_words(about["decoder"])),
        ("batches", str(about["batches"])),
        ("depends on the batch", "no" if invariant else "yes"),
        ("left out", str(len(speech["left_out"]))),
        ("seed", str(about["seed"])),
    ]


def _row(name: str, one: Change) -> tuple[str, ...]:
    diff, unit = one.difference, unit_of(name)[1]
    title = f"{called(name)} (%)" if unit == "points" else called(name)
    ends: dict[str, Any] = {"value": diff.value, "low": finite(diff.low), "high": finite(diff.high)}
    return (
        title, *(interval(_scaled(name, estimate), digits_of(name) + 1) for estimate in (one.before, one.after)),
        f"{change(ends, name)} {unit}".rstrip(), f"{diff.probability_of_improvement:.3f}", one.verdict,
    )  # fmt: skip


def _scaled(name: str, estimate: Any) -> dict[str, float | None]:
    """A value with its ends in the unit in which readers are told the metric."""
    factor = unit_of(name)[0]
    values = {end: finite(getattr(estimate, end)) for end in ("value", "low", "high")}
    return {end: None if value is None else factor * value for end, value in values.items()}


def _differences(changes: Mapping[str, Change]) -> Figure:
    """The difference of every metric with its interval, each in its own unit on an axis of its own."""
    data: list[Trace] = []
    layout: dict[str, Any] = {"showlegend": False, "margin": {"l": 110, "r": 20, "t": 8, "b": 36}}
    layout["grid"] = {"rows": len(changes), "columns": 1, "pattern": "independent", "ygap": 0.75}
    for k, (name, one) in enumerate(changes.items(), start=1):
        factor, unit = unit_of(name)
        diff, axis = one.difference, "" if k == 1 else str(k)
        value, low, high = (factor * end for end in (diff.value, diff.low, diff.high))
        known = finite(low) is not None and finite(high) is not None
        reach = 1.15 * max(abs(end) for end in ((value, low, high) if known else (value,))) or 1.0
        bar = {"type": "data", "array": [high - value], "arrayminus": [value - low], "thickness": 2, "width": 7}
        data.append(
            {
                "type": "scatter", "mode": "markers", "x": [value], "y": [called(name)],
                "xaxis": f"x{axis}", "yaxis": f"y{axis}",
                "marker": {"color": COLOURS[one.verdict], "size": 11}, "hoverinfo": "text",
                "hovertext": [f"<b>{safe(called(name))}</b><br>{change(_plain(diff), name)} {unit}<br>{one.verdict}"],
            }
            | ({"error_x": bar | {"color": COLOURS[one.verdict]}} if known else {})
        )  # fmt: skip
        layout[f"xaxis{axis}"] = {
            "range": [-reach, reach], "zeroline": True,
            "title": {"text": f"after less before, {unit or 'no unit'}", "standoff": 2},
        }  # fmt: skip
        layout[f"yaxis{axis}"] = {"showgrid": False}
    return Figure(
        "figure-outcome", "The difference of every metric with its 95 % interval", data, layout, 40 + 92 * len(changes),
        title="Difference",
    )  # fmt: skip


def _plain(diff: Any) -> dict[str, float | None]:
    return {"value": diff.value, "low": finite(diff.low), "high": finite(diff.high)}


def _speakers(one: Change) -> Figure | None:
    """Every speaker before and after, those that gain most on top."""
    known = [each for each in one.speakers if each.before is not None and each.after is not None]
    if len(known) < 2:
        return None
    factor, unit = unit_of(one.difference.metric)
    known.sort(key=lambda each: ((each.after or 0) - (each.before or 0), each.speaker))
    names = [each.speaker for each in known]
    ends = [[factor * (each.before or 0) for each in known], [factor * (each.after or 0) for each in known]]
    lines: Trace = {
        "type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False, "line": {"color": GREY, "width": 2},
        "x": [x for a, b in zip(*ends, strict=True) for x in (a, b, None)],
        "y": [y for name in names for y in (safe(name), safe(name), None)],
    }  # fmt: skip
    looks = (("before", GREY, "circle-open"), ("after", BLUE, "circle"))
    marks: list[Trace] = [
        {
            "type": "scatter", "mode": "markers", "name": side, "x": values, "y": [safe(name) for name in names],
            "marker": {"color": colour, "size": 9, "symbol": symbol}, "cliponaxis": False,
        }
        for values, (side, colour, symbol) in zip(ends, looks, strict=True)
    ]  # fmt: skip
    axis = f"{called(one.difference.metric)}, {'%' if unit == 'points' else unit}"
    layout = {
        "xaxis": {"title": {"text": axis, "standoff": 4}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": True},
        "margin": {"l": 30 + 7 * max(map(len, names)), "r": 10, "t": 30, "b": 44},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
    }
    return Figure(
        "figure-speakers", "Every speaker before and after", [lines, *marks], layout, 110 + 22 * len(known),
        title="By speaker",
    )  # fmt: skip


def _costs(outcome: Outcome) -> Figure | None:
    """What the changed model costs, as a share of the one before."""
    rows = [(name, a, b) for name, a, b in outcome.savings if a]
    if not rows:
        return None
    shares = [100 * b / a for _, a, b in rows]
    bars: Trace = {
        "type": "bar", "orientation": "h", "x": shares, "y": [safe(name) for name, *_ in rows], "marker": {"color": BLUE},
        "text": [f"{_size(a)} → {_size(b)}" for _, a, b in rows], "textposition": "auto", "hoverinfo": "text",
        "hovertext": [f"{safe(name)}: {share:.1f} %" for (name, *_), share in zip(rows, shares, strict=True)],
    }  # fmt: skip
    line = {
        "type": "line",
        "x0": 100,
        "x1": 100,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": GREY, "dash": "dot"},
    }
    layout = {
        "xaxis": {
            "title": {"text": "share of the model before, %", "standoff": 4}, "range": [0, max(110, 1.05 * max(shares))],
        },
        "yaxis": {"autorange": "reversed", "showgrid": False, "ticksuffix": "  "},
        "shapes": [line], "margin": {"l": 200, "r": 10, "t": 8, "b": 44}, "bargap": 0.35,
    }  # fmt: skip
    return Figure(
        "figure-costs", "Costs after as a share of those before", [bars], layout, 70 + 34 * len(rows), 520, title="Cost"
    )


def _size(value: float) -> str:
    return magnitude(value) if value >= 1000 else f"{value:.3g}"


def _percent(before: float, after: float) -> str:
    if not before:
        return "–"
    text = number(100 * (after - before) / before, 1)
    return f"{text} %" if text.startswith("−") or float(text) == 0 else f"+{text} %"


def _scores(heard: Sequence[Heard], side: str) -> Scores | None:
    """Word errors of one side with both texts."""
    if not any(one.reference for one in heard):
        return None
    return Scores(
        "wer", "errors per word", False, tuple(one.utterance for one in heard), tuple(one.speaker for one in heard),
        np.array([getattr(one, f"errors_{side}") for one in heard], np.float64),
        np.array([len(one.reference.split()) for one in heard], np.float64), {},
        {
            "reference": tuple(one.reference for one in heard),
            "hypothesis": tuple(str(getattr(one, side)) for one in heard),
        },
    )  # fmt: skip


def _changed(heard: Sequence[Heard], before: Scores | None, after: Scores | None) -> list[Changed]:
    if before is None or after is None:
        return []
    lines = []
    for scores in (before, after):
        panel = transcript_panel(scores, len(heard))
        lines.append({line.utterance: line for line in (panel.lines if panel is not None else ())})
    found = [
        Changed(
            one.utterance, one.speaker or "", one.errors_after - one.errors_before,
            lines[0][one.utterance], lines[1][one.utterance],
        )
        for one in heard if one.before != one.after
    ]  # fmt: skip
    return sorted(found, key=lambda one: (-abs(one.change), one.before.place))
