"""What a change of a model did: error rates before and after with their interval, by speaker, and what was saved."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.errors import EvaluationError, ResultError
from otoscope.evaluation.bootstrap import Estimate
from otoscope.evaluation.cost import Cost
from otoscope.evaluation.invariance import Invariance
from otoscope.evaluation.paired import Difference
from otoscope.evaluation.seeds import SeedParts
from otoscope.evaluation.timing import TimeComparison

FORMAT = 1
SIDES = ("before", "after")
FACTOR = "real-time factor"


@dataclass(frozen=True)
class SpeakerChange:
    """A speaker's own values; means over seeds, None where nothing is there to be counted on."""

    speaker: str
    utterances: int
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Heard:
    """An utterance as the first model of each side recognised it; errors are in words."""

    utterance: str
    speaker: str | None
    reference: str
    before: str
    after: str
    errors_before: int
    errors_after: int


@dataclass(frozen=True)
class Change:
    """A metric before and after.

    Attributes:
        difference: after less before, with interval and probability of improvement.
        before: value before, with its own interval; a mean over seeds.
        after: the same after.
        runs: value of every model, before and after.
        parts: kinds of errors over all utterances, before and after, means over seeds.
        speakers: each speaker's values, in order of name; empty where none is known.
        seeds: how much of the uncertainty comes with seeds; None where there is one model on each side.
    """

    difference: Difference
    before: Estimate
    after: Estimate
    runs: tuple[tuple[float, ...], tuple[float, ...]]
    parts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    speakers: tuple[SpeakerChange, ...] = ()
    seeds: SeedParts | None = None

    @property
    def verdict(self) -> str:
        """What the interval says: "better", "worse" or "not told apart"."""
        if not self.difference.decided:
            return "not told apart"
        return "better" if (self.difference.value > 0) == self.difference.higher_is_better else "worse"

    def worse_by_less_than(self, margin: float) -> bool:
        """Whether the interval leaves out that the change makes the metric worse by the margin or more.

        Args:
            margin: in the metric's unit, above zero.

        Raises:
            EvaluationError: the margin is not above zero.
        """
        if not margin > 0:
            raise EvaluationError(f"The margin is {margin}", "Give a number above zero, such as 0.01.")
        worst = -self.difference.low if self.difference.higher_is_better else self.difference.high
        return bool(worst < margin)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        ends = {side: _known(asdict(getattr(self, side))) for side in SIDES}
        return {
            "verdict": self.verdict, "difference": self.difference.to_dict(), **ends,
            "runs": [list(values) for values in self.runs],
            "parts": {name: list(pair) for name, pair in self.parts.items()},
            "speakers": [asdict(one) for one in self.speakers],
            "seeds": None if self.seeds is None else self.seeds.to_dict(),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Change:
        """What `to_dict` gave."""
        seeds = told["seeds"]
        if seeds is not None:
            seeds = SeedParts(**seeds | {"freedom": np.inf if seeds["freedom"] is None else seeds["freedom"]})
        before, after = (Estimate(**_with_nan(told[side])) for side in SIDES)
        return cls(
            Difference(**_with_nan(told["difference"])), before, after,
            (tuple(told["runs"][0]), tuple(told["runs"][1])),
            {name: (pair[0], pair[1]) for name, pair in told["parts"].items()},
            tuple(SpeakerChange(**one) for one in told["speakers"]), seeds,
        )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a change of a model did; prints as a table and saves as one JSON file.

    Attributes:
        changes: by name of the metric, in the order asked for.
        costs: of the first model of each side, by side; empty where it was not asked for.
        time: both run in turn; None where it was not asked for.
        invariance: of each model by name, whether it depends on what else is in a batch.
        heard: hypotheses of every utterance; empty where no metric of words was taken.
        provenance: models, corpus, decoder, how utterances were batched, what was left out, notes, seed, versions,
            command.
    """

    changes: Mapping[str, Change]
    costs: Mapping[str, Cost]
    time: TimeComparison | None
    invariance: Mapping[str, Invariance]
    heard: tuple[Heard, ...]
    provenance: Mapping[str, Any]

    @property
    def first(self) -> Change:
        """The change of the first metric."""
        return next(iter(self.changes.values()))

    @property
    def savings(self) -> list[tuple[str, float, float]]:
        """What the models cost: name with its unit, before, after; what is not counted is left away."""
        found = []
        if len(self.costs) == 2:
            for name, attribute in _COSTS.items():
                pair = [getattr(self.costs[side], attribute) for side in SIDES]
                if None not in pair:
                    found.append((name, float(pair[0]), float(pair[1])))
        if self.time is not None:
            found.append((FACTOR, *self.time.real_time_factors))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "metrics": {name: change.to_dict() for name, change in self.changes.items()},
            "costs": {side: cost.to_dict() for side, cost in self.costs.items()},
            "time": None if self.time is None else self.time.to_dict(),
            "invariance": {name: _known(found.to_dict()) for name, found in self.invariance.items()},
            "utterances": [asdict(one) for one in self.heard],
            "provenance": dict(self.provenance),
        }

    def save(self, path: str | Path) -> Path:
        """Writes one JSON file, whole or not at all.

        Raises:
            ResultError: it cannot be written.
        """
        goal = check_outcome_place(path)
        text = json.dumps({"format": FORMAT, **self.to_dict()}, indent=1, ensure_ascii=False, allow_nan=False)
        unfinished = goal.with_name(f".{goal.name}.{os.getpid()}.part")
        try:
            goal.parent.mkdir(parents=True, exist_ok=True)
            try:
                unfinished.write_text(text + "\n", encoding="utf-8")
                unfinished.replace(goal)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise ResultError(
                f"The outcome cannot be written to {goal}: {error}",
                "Name a file that you may write to and that has room.",
            ) from error
        return goal

    @classmethod
    def load(cls, path: str | Path) -> Outcome:
        """Reads what `save` wrote.

        Raises:
            ResultError: there is no such file, or it holds no outcome, or one of another format.
        """
        try:
            told = json.loads(Path(path).read_text(encoding="utf-8"))
            if told["format"] != FORMAT:
                raise ValueError(f"its format is {told['format']}, not {FORMAT}")
            time = told["time"]
            if time is not None:
                time = TimeComparison(**time | {name: tuple(time[name]) for name in ("seconds_a", "seconds_b")})
            return cls(
                {name: Change.from_dict(one) for name, one in told["metrics"].items()},
                {side: Cost(**cost) for side, cost in told["costs"].items()}, time,
                {name: _invariance(one) for name, one in told["invariance"].items()},
                tuple(Heard(**one) for one in told["utterances"]), told["provenance"],
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResultError(
                f"{path} holds no outcome that can be read: {error}", "Name a file that `otoscope verify -o` wrote."
            ) from error

    def __str__(self) -> str:
        about = self.provenance
        speech = about["corpus"]
        names = [", ".join(one["name"] for one in about[side]) for side in SIDES]
        lines = [
            f"{names[0]} -> {names[1]}",
            f"on {speech['name']}: {speech['utterances']} utterances, {speech['seconds'] / 60:.1f} min; "
            f"{decoder_in_words(about['decoder'])} decoding",
        ]
        for name, change in self.changes.items():
            lines += _metric_lines(name, change)
        lines += _speaker_lines(self.first)
        width = max((len(name) for name, *_ in self.savings), default=0)
        for name, before, after in self.savings:
            less = f"  {(after - before) / before:+.1%}" if before else ""
            lines.append(f"{name:<{width}}  {_large(before):>8} -> {_large(after):<8}{less}")
        if self.time is not None:
            lines.append(str(self.time))
        return "\n".join([*lines, *about["notes"]])


_COSTS = {
    "parameters": "parameters", "encoder's MACs a second": "macs_per_second",
    "bytes in float32": "bytes_float32", "peak bytes at work": "peak_bytes",
}  # fmt: skip
_MOST_SPEAKERS = 20  # that are printed, those that change most first


def check_outcome_place(path: str | Path) -> Path:
    """Makes sure that an outcome may be written to a path; to be called before long work.

    Returns:
        The path, with links followed.

    Raises:
        ResultError: it is a folder, or cannot be written.
    """
    goal = Path(path).resolve()
    if goal.exists() and not goal.is_file():
        raise ResultError(f"The outcome cannot be written to {goal}: it is no file", "Name a file, as outcome.json.")
    there = next(parent for parent in goal.parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ResultError(
            f"The outcome cannot be written to {goal}: {there} cannot be written to", "Name another place."
        )
    return goal


def decoder_in_words(told: Mapping[str, Any]) -> str:
    """What `Decoder.describe` tells, in short.

    >>> decoder_in_words({"kind": "beam", "width": 25, "language_model": {"name": "news.arpa", "order": 4}})
    'beam (width 25, language model news.arpa)'
    """
    lm = told.get("language_model")
    more = [f"width {told['width']}"] if "width" in told else []
    more += [f"language model {lm.get('name', 'without a name')}"] if lm else []
    return str(told["kind"]) + (f" ({', '.join(more)})" if more else "")


def _metric_lines(name: str, change: Change) -> list[str]:
    found = change.difference
    chance = f"better with probability {found.probability_of_improvement:.3f}"
    sizes = f"{found.level:.0%} over {found.blocks} {found.by}s"
    ends = "" if found.low != found.low else f" [{found.low:+.4f}, {found.high:+.4f}]"
    lines = [
        f"{name:<8} {_with_ends(change.before)} -> {_with_ends(change.after)}  {found.unit}",
        f"{'':<8} {found.value:+.4f}{ends} ({sizes}), {chance}: {change.verdict}",
    ]
    if change.parts:
        kinds = (f"{before:g} -> {after:g} {kind}" for kind, (before, after) in change.parts.items())
        lines.append(f"{'':<8} " + ", ".join(kinds))
    if change.seeds is not None:
        lines.append(f"{'':<8} {change.seeds}")
    return lines


def _large(value: float) -> str:
    """Three digits, in thousands (k), millions (M) or American billions (G) where it is as large."""
    size, name = next(((size, name) for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= size), (1.0, ""))
    return f"{value / size:.3g} {name}".rstrip()


def _with_ends(found: Estimate) -> str:
    return f"{found.value:.4f}" + ("" if found.low != found.low else f" [{found.low:.4f}, {found.high:.4f}]")


def _speaker_lines(change: Change) -> list[str]:
    known = [one for one in change.speakers if one.before is not None and one.after is not None]
    if len(known) < 2:
        return []
    worst = sorted(known, key=lambda one: (-abs((one.after or 0) - (one.before or 0)), one.speaker))
    width = max(7, *(len(one.speaker) for one in worst[:_MOST_SPEAKERS]))
    lines = [f"{'speaker':<{width}}  {'before':>8}  {'after':>8}  {'change':>8}"]
    for one in worst[:_MOST_SPEAKERS]:
        before, after = one.before or 0.0, one.after or 0.0
        lines.append(f"{one.speaker:<{width}}  {before:8.4f}  {after:8.4f}  {after - before:+8.4f}")
    if len(worst) > _MOST_SPEAKERS:
        lines.append(f"... and {len(worst) - _MOST_SPEAKERS} speakers more")
    return lines


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, None for numbers that JSON has no word for."""
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in values.items()
    }


def _with_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values} | {name: float("nan") for name in ("low", "high") if values[name] is None}


def _invariance(told: Mapping[str, Any]) -> Invariance:
    largest = float("inf") if told["largest"] is None else told["largest"]
    changed: dict[str, tuple[str, str]] = {name: (pair[0], pair[1]) for name, pair in told["changed"].items()}
    return Invariance(**{**told, "largest": largest, "changed": changed})


def speaker_changes(rows: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[SpeakerChange, ...]:
    """Speakers' values of both sides from `Scores.by_speaker` of every model.

    Args:
        rows: before and after, each the rows of every model, one after the other.
    """
    found: dict[str, dict[str, list[float]]] = {}
    counts: dict[str, int] = {}
    for side, told in zip(SIDES, rows, strict=True):
        for row in told:
            if row["speaker"] is not None:
                values = found.setdefault(row["speaker"], {name: [] for name in SIDES})[side]
                counts[row["speaker"]] = row["utterances"]
                if row["value"] is not None:
                    values.append(row["value"])
    return tuple(
        SpeakerChange(
            name, counts[name], *(float(np.mean(found[name][side])) if found[name][side] else None for side in SIDES)
        )
        for name in sorted(found)
    )
