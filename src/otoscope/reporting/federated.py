"""Federated training in the report: how it ended, rounds with their failures, what clients were sent, settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otoscope.diagnosis.metric_words import called, unit_of
from otoscope.evaluation.outcome import Outcome
from otoscope.federation.result import COMPLETED, FAILED, FederationResult, RoundRow
from otoscope.reporting.facts import Fact, duration
from otoscope.reporting.federated_figures import figures_of, mebibytes, metrics_of, percent, schedule_figure
from otoscope.reporting.federated_labels import Labels, labels_of
from otoscope.reporting.figures import Figure
from otoscope.reporting.outcome import COLOURS, outcome_panel
from otoscope.reporting.page import page_parts, render_template, write_page
from otoscope.reporting.values import Reportable, finite, number, plural

MOST_OPEN = 30
"""The table of rounds is folded where there are more."""

RUNNERS = {"local": "one process", "ray": "processes of Ray", "deploy": "Flower's SuperLink and SuperNodes"}
LOCAL = {
    "epochs": "epochs", "steps": "updates at most", "batch_seconds": "speech in a batch", "optimiser": "optimiser",
    "learning_rate": "learning rate", "clip": "norm of the gradient", "mask": "frames masked", "precision": "precision",
    "rescale": "narrowed branches rescaled", "freeze_convolutions": "convolutions over samples frozen",
}  # fmt: skip
"""Settings of clients, as readers are told them."""

_OFF = ("widths", "frozen", "steps", "mask", "rescale")  # settings that say nothing where they are zero or empty
_WORDS = {
    "denominator": {"coverage": "clients that held the element", "cohort": "all clients of the round"},
    "scope": {"client-round": "every client and round", "round": "every round", "client": "every client, once"},
}


@dataclass(frozen=True)
class FederatedPanel:
    """What the report says of a federated training.

    Attributes:
        model: its name.
        headline: sizes and status in one line.
        status: "running", "completed" or "failed".
        state: how it ended, in words.
        sentences: the findings in words.
        curves: a figure for each number that rounds tell.
        schedule: share kept of every unit, by layer; None where every unit is sent whole.
        units: a row a unit: name, share kept, label, importance; the last two empty without a diagnosis.
        labelled: whether units have labels of a diagnosis.
        notes: what is to be known of the schedule and its labels.
        columns: of the table of rounds.
        rounds: its rows, the first of which is the model before the first round.
        failures: round, client and reason of every answer that was not taken.
        settings: groups of facts.
    """

    model: str
    headline: str
    status: str
    state: str
    sentences: Sequence[str]
    curves: Sequence[Figure]
    schedule: Figure | None
    units: Sequence[tuple[str, str, str, str]]
    labelled: bool
    notes: Sequence[str]
    columns: Sequence[str]
    rounds: Sequence[Sequence[str]]
    failures: Sequence[tuple[int, str, str]]
    settings: Mapping[str, Sequence[Fact]]

    @property
    def figures(self) -> list[Figure]:
        """All figures that the page draws."""
        return [*self.curves, *([self.schedule] if self.schedule is not None else [])]

    @property
    def folded(self) -> bool:
        """Whether the table of rounds is closed at first."""
        return len(self.rounds) > MOST_OPEN


def federated_panel(result: FederationResult | None, diagnosis: Reportable | None = None) -> FederatedPanel | None:
    """The section of a federated training; None where there is none.

    Args:
        result: finished or not.
        diagnosis: of the model that it began with; labels of its criticality then stand beside the shares.
    """
    if result is None:
        return None
    labels = labels_of(diagnosis, result) if diagnosis is not None else Labels()
    return FederatedPanel(
        result.model, _headline(result), result.status, state_in_words(result), federated_sentences(result),
        figures_of(result), schedule_figure(result, labels), _units(result, labels), labels.known,
        _notes(result, labels), _columns(result), _rounds(result),
        [(row.round, client, why) for row in result.rows for client, why in row.failures.items()],
        {name: facts for name, facts in _settings(result).items() if facts},
    )  # fmt: skip


def write_federated_report(
    result: FederationResult, path: str | os.PathLike[str], *, outcome: Outcome | None = None
) -> Path:
    """Writes a federated training as one HTML page that loads nothing from anywhere, whole or not at all.

    Args:
        result: finished or not.
        path: the file to write; folders that are missing are made.
        outcome: what the trained model came to.

    Returns:
        The path.

    Raises:
        ResultError: the file cannot be written there.
    """

    def render() -> str:
        panel, came = federated_panel(result), outcome_panel(outcome)
        assert panel is not None
        drawn = [*panel.figures, *(came.figures if came is not None else ())]
        context = {
            "federated": panel, "outcome": came, "outcome_colours": COLOURS,
            "sentences": [*(came.sentences if came is not None else ()), *panel.sentences],
        }  # fmt: skip
        return render_template("federation.html", context | page_parts(drawn))

    return write_page(render, path)


def state_in_words(result: FederationResult) -> str:
    """How a training ended, or that it has not."""
    done = _done(result)
    if result.status == COMPLETED:
        return f"The training is complete: {done}, and the trained model was written."
    rest = "No trained model was written; what follows is of the rounds that are complete."
    if result.status == FAILED:
        return f"The training failed, with {done} complete: {_reason(result)} {rest}"
    return f"The training has not ended: {done} complete. It is under way, or was cut off. {rest}"


def federated_sentences(result: FederationResult) -> list[str]:
    """What became of the model on held-out speech, what clients were sent, and what privacy was spent."""
    found = []
    who = f"Federated training of {result.model} by {plural(len(result.clients), 'client')}"
    if result.status == FAILED:
        found.append(f"{who} failed, with {_done(result)} complete: {_reason(result)}")
    elif result.status != COMPLETED:
        found.append(f"{who} has not ended: {_done(result)} complete.")
    curves = {name: result.curve(name) for name in metrics_of(result)}
    told = [
        f"{called(name)} from {_in_unit(name, curve[0][1])} to {_in_unit(name, curve[-1][1])}"
        for name, curve in curves.items() if len(curve) > 1 and curve[0][0] == 0
    ]  # fmt: skip
    if told:
        last = max(curve[-1][0] for curve in curves.values())
        began = who if not found else "It"
        found.append(
            f"{began} takes {', '.join(told)} on held-out speech, after {plural(last, 'round')}; these have no interval."
        )
    if result.rows:
        down, up, share = (_mean(result, name) for name in ("download", "upload", "share"))
        found.append(
            f"A client is sent {mebibytes(down)} MiB a round and sends {mebibytes(up)} MiB back, on average; it holds "
            f"{percent(share)} of the model's elements."
        )
    spent = [row.epsilon for row in result.rows if finite(row.epsilon) is not None]
    if spent:
        delta = finite(_part(result, "privacy").get("delta"))
        found.append(
            f"The privacy spent is epsilon {number(spent[-1], 2)}{f' at delta {delta:g}' if delta is not None else ''}."
        )
    return found


def _done(result: FederationResult) -> str:
    """Rounds that are complete, of those that were asked for."""
    planned = finite(result.settings.get("rounds"))
    done = len(result.rows)
    return plural(done, "round") if planned is None or planned == done else f"{done} of {plural(int(planned), 'round')}"


def _reason(result: FederationResult) -> str:
    text = result.reason.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _headline(result: FederationResult) -> str:
    where = RUNNERS.get(result.runner, result.runner)
    return " · ".join((plural(len(result.clients), "client"), _done(result), where, result.status))


def _mean(result: FederationResult, name: str) -> float:
    """The mean of what clients were sent, over all answers that were taken."""
    weights = [len(row.clients) for row in result.rows]
    return sum(n * getattr(row, name) for n, row in zip(weights, result.rows, strict=True)) / max(sum(weights), 1)


def _in_unit(name: str, value: float) -> str:
    factor, unit = unit_of(name)
    return f"{number(factor * value, 1)}\u00a0%" if unit == "points" else f"{number(value)} {unit}".strip()


def _units(result: FederationResult, labels: Labels) -> list[tuple[str, str, str, str]]:
    return [
        (unit, percent(share), labels.label(unit), number(labels.importance(unit), 2) if labels.known else "")
        for unit, share in result.schedule.items()
    ]


def _notes(result: FederationResult, labels: Labels) -> list[str]:
    drawing, found = _part(result, "drawing"), []
    widths = drawing.get("widths") or ()
    if widths:
        found.append(
            f"Clients draw a width among {', '.join(percent(width) for width in widths)}, and keep no unit at a higher share."
        )
    frozen = finite(drawing.get("frozen"))
    if frozen:
        found.append(f"Up to {percent(frozen)} of the elements of whole variables are frozen and not sent back.")
    return [*found, *labels.notes]


def _columns(result: FederationResult) -> list[str]:
    figures = [
        f"{called(name)} (%)" if unit_of(name)[1] == "points" else called(name) for name in metrics_of(result)
    ]  # fmt: skip
    spent = ["epsilon"] if any(row.epsilon is not None for row in result.rows) else []
    return ["round", "clients", "failed", "training loss", *figures, "down (MiB)", "up (MiB)", "share",
            "peak memory (MiB)", "time", *spent]  # fmt: skip


def _rounds(result: FederationResult) -> list[list[str]]:
    """Cells of the table of rounds; a dash stands for what was not taken."""
    names, private = metrics_of(result), any(row.epsilon is not None for row in result.rows)

    def figures(taken: Mapping[str, float]) -> list[str]:
        return [
            number(unit_of(name)[0] * taken[name], 1 if unit_of(name)[1] == "points" else 3) if name in taken else "–"
            for name in names
        ]

    def line(row: RoundRow) -> list[str]:
        return [
            str(row.round), str(len(row.clients)), str(len(row.failures)), number(row.loss), *figures(row.held_out),
            mebibytes(row.download), mebibytes(row.upload), percent(row.share),
            "–" if row.memory is None else mebibytes(row.memory), duration(row.seconds),
            *([number(row.epsilon, 2)] if private else []),
        ]  # fmt: skip

    before = [["before", *["–"] * 3, *figures(result.initial), *["–"] * (5 + private)]] if result.initial else []
    return [*before, *(line(row) for row in result.rows)]


def _part(result: FederationResult, name: str) -> Mapping[str, Any]:
    found = result.settings.get(name)
    return found if isinstance(found, Mapping) else {}


def _settings(result: FederationResult) -> dict[str, list[Fact]]:
    """Settings that numbers depend on; the seed of the noise stays out, for whoever knows it can take the noise away."""
    drawing, local, privacy = (_part(result, name) for name in ("drawing", "local", "privacy"))
    cohort, private = result.settings.get("cohort"), result.settings.get("privacy") is not None
    rate = result.settings.get("rate")
    return {
        "Training": [
            ("clients", str(len(result.clients))),
            ("clients in a round", str(cohort) if cohort else "all"),
            ("clients train in", RUNNERS.get(result.runner, result.runner)),
            *_told(result.settings, {
                "rounds": "rounds asked for", "seed": "seed", "tolerance": "failures that are borne", "timeout": "timeout",
            }),
        ],
        "Server": [
            *_told(result.settings, {"server": "step"}),
            ("rate of the step", "the usual one" if rate is None else f"{rate:g}"),
            *_told(result.settings, {"denominator": "mean over", "dtype": "deltas sent in"}),
            *_told(drawing, {"order": "order of units", "scope": "drawn for", "widths": "widths",
                             "frozen": "variables frozen"}),
            *([] if private else [("privacy", "none")]),
        ],
        "Clients": _told(local, LOCAL),
        "Privacy": _told(privacy, {"norm": "norm of a delta", "multiplier": "noise over the norm", "delta": "delta",
                                   "per": "clipped for each"}),
    }  # fmt: skip


def _told(settings: Mapping[str, Any], names: Mapping[str, str]) -> list[Fact]:
    """Those settings that there are, by the names that readers are told; what is turned off is left away."""
    return [
        (words, _value(name, settings[name]))
        for name, words in names.items() if name in settings and (settings[name] or name not in _OFF)
    ]  # fmt: skip


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in ("tolerance", "frozen", "mask"):
        return percent(value)
    if name in ("timeout", "batch_seconds"):
        return duration(value)
    if isinstance(value, list | tuple):
        return ", ".join(percent(one) for one in value)
    if isinstance(value, float):
        return f"{value:g}"
    return _WORDS.get(name, {}).get(value, str(value))
