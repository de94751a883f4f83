"""One measure of a diagnosis along the streams: relative depth, the best stream, and what cannot be told from it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from otoscope.diagnosis.catalogue import CATALOGUE
from otoscope.diagnosis.result import Diagnosis
from otoscope.statistics.intervals import corrected_t

_ENTRIES = {entry.name: entry for entry in CATALOGUE}
_NOT_ALONG_STREAMS = ("heads", "relations", "segmentation", "blocks", "noise", "importance", "spans", "mixing")
_ALONG_BLOCKS = ("block-influence", "block-summary", "neighbour-deviation")
_LOW_IS_GOOD = re.compile(r"\b(error|distance|codelength|loss|lower is better)\b")
WHOLE_MODEL = "all streams"
"""In place of a stream where a score is of all of them together."""

Key = tuple[str, str]
"""A measure and its target; the target is empty where the rows name a second stream instead."""

FOLDS, UNPAIRED = "folds", "unpaired"
"""How an interval of a difference came about: fold by fold, or from the two intervals."""


def unit_of(measure: str) -> str:
    """What the values of a measure are, without their range; "score" where the catalogue does not know it.

    >>> unit_of("cca-phone")
    'PWCCA'
    """
    return _ENTRIES[measure].unit.split(",")[0] if measure in _ENTRIES else "score"


def group_of(measure: str) -> str:
    """The group of a measure; empty where the catalogue does not know it."""
    return _ENTRIES[measure].group if measure in _ENTRIES else ""


def along_streams(measure: str) -> bool:
    """Whether a measure gives numbers of streams, rather than of heads or of offsets."""
    # Curves over what was changed have names of their own for every metric.
    return group_of(measure) not in _NOT_ALONG_STREAMS and not measure.startswith(("pruning-", "span-"))


def titles(keys: Iterable[Key]) -> dict[Key, str]:
    """What to call measures and targets: the measure alone, unless it has several targets.

    >>> titles([("awd", "dtw"), ("awd", "pooled"), ("cca-phone", "phone")])
    {('awd', 'dtw'): 'awd (dtw)', ('awd', 'pooled'): 'awd (pooled)', ('cca-phone', 'phone'): 'cca-phone'}
    """
    keys = list(keys)
    several = {measure for measure, count in Counter(measure for measure, _ in keys).items() if count > 1}
    return {(m, t): f"{m} ({t})" if m in several and t else m for m, t in keys}


@dataclass(frozen=True)
class Depth:
    """Where the streams of a model lie: `input` at 0, `layer.l` at l / L, `final_norm` at 1, convolutions below 0.

    Attributes:
        layers: how many layers the model has.
        convolutions: how many convolutional streams.
    """

    layers: int
    convolutions: int

    @classmethod
    def of(cls, diagnosis: Diagnosis) -> Depth:
        """The depth of a diagnosed model, from its description and the streams of its table."""
        model = diagnosis.provenance.get("model", {})
        streams = [*model.get("streams", ()), *diagnosis.table["stream"].drop_nulls().unique().to_list()]
        places = [_split(stream) for stream in streams]
        layers = max((n for kind, n in places if kind == "layer"), default=0)
        return cls(max(layers, int(model.get("layers") or 0)), max((n for k, n in places if k == "conv"), default=0))

    def __call__(self, stream: str) -> float | None:
        """Relative depth; None for a stream of another name.

        >>> [Depth(12, 7)(stream) for stream in ("conv.7", "input", "layer.6", "final_norm")]
        [-0.14285714285714285, 0.0, 0.5, 1.0]
        """
        kind, number = _split(stream)
        if kind == "conv":
            return (number - 1 - self.convolutions) / self.convolutions
        if kind == "layer":
            return number / self.layers
        return {"input": 0.0, "final_norm": 1.0}.get(stream)

    def matched(self, stream: str, other: Depth) -> str:
        """The stream of another model at the relative depth of one of this model.

        Layers go by l / L, rounded to the nearest (a half up), and convolutions in the same way; the input to the input,
        the final norm to the final norm.

        >>> [Depth(12, 7).matched(stream, Depth(24, 7)) for stream in ("conv.2", "input", "layer.1", "layer.12")]
        ['conv.2', 'input', 'layer.2', 'layer.24']
        """
        kind, number = _split(stream)
        if kind == "layer" and other.layers:
            return f"layer.{max(1, int(number / self.layers * other.layers + 0.5))}"
        if kind == "conv" and other.convolutions:
            return f"conv.{max(1, int(number / self.convolutions * other.convolutions + 0.5))}"
        return stream


def _split(stream: str) -> tuple[str, int]:
    found = re.fullmatch(r"(conv|layer)\.(\d+)", stream)
    return (found[1], int(found[2])) if found else (stream, 0)


@dataclass(frozen=True)
class Curve:
    """The numbers of one measure and target along the streams of one diagnosis.

    Attributes:
        measure: its canonical name.
        target: what streams are compared with; empty where rows name a second stream instead.
        rows: rows of the diagnosis table with a value, by stream, in the order of the table.
        scores: score of each stream in each held-out fold, shape (folds,) each; empty where there are none.
        low_is_good: the best score is the lowest, as of error rates.
    """

    measure: str
    target: str
    rows: Mapping[str, Mapping[str, Any]]
    scores: Mapping[str, np.ndarray]
    low_is_good: bool

    @property
    def key(self) -> Key:
        """Measure and target."""
        return self.measure, self.target

    def best(self) -> str:
        """The stream of the best score; the first where two are equal."""
        sign = -1 if self.low_is_good else 1
        return max(self.rows, key=lambda stream: sign * self.rows[stream]["value"])

    def as_good(self) -> tuple[list[str], str | None]:
        """Streams that cannot be told from the best one, and how that was found out.

        A stream is told from the best where the 95 % interval of its difference lies on one side of zero, fold by fold
        where there are scores of folds, else from the two intervals.

        Returns:
            Names in the order of the table, and "folds", "unpaired" or, where there is no interval, None.
        """
        best, sign = self.best(), -1 if self.low_is_good else 1
        found, ways = [], []
        for stream in self.rows:
            if stream == best:
                continue
            lead = difference(self, stream, self, best)
            if lead.pairing is not None:
                ways.append(lead.pairing)
                if min(sign * lead.low, sign * lead.high) <= 0:
                    found.append(stream)
        how = None if not ways else FOLDS if all(way == FOLDS for way in ways) else UNPAIRED
        return found, how

    def above_floor(self) -> bool | None:
        """Whether the best score's interval lies beyond its floor; None where either is not known."""
        row = self.rows[self.best()]
        end = row["high"] if self.low_is_good else row["low"]
        if end is None or row["floor"] is None:
            return None
        return bool(end < row["floor"] if self.low_is_good else end > row["floor"])


@dataclass(frozen=True)
class Difference:
    """A difference of two scores with its 95 % interval.

    Attributes:
        value: second less first.
        low: lower end; NaN where there is no interval.
        high: upper end.
        pairing: "folds", "unpaired", or None where there is no interval.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    pairing: str | None = None


def difference(first: Curve, stream: str, second: Curve, other: str, paired: bool = True) -> Difference:
    """The second curve's score at `other` less the first curve's at `stream`.

    Fold by fold the interval is the corrected resampled t (Nadeau and Bengio 2003). From two intervals it is
    d - sqrt((b - b_low)^2 + (a_high - a)^2) and d + sqrt((b_high - b)^2 + (a - a_low)^2), which holds for independent
    scores (Zou and Donner 2008) and is too wide for scores on the same speech, which rise and fall together.

    Args:
        first: the curve that is subtracted.
        stream: a stream of the first curve.
        second: the curve that is subtracted from.
        other: a stream of the second curve.
        paired: scores of folds belong together: the folds are the same.
    """
    a, b = first.rows[stream], second.rows[other]
    value = b["value"] - a["value"]
    ours, theirs = first.scores.get(stream), second.scores.get(other)
    if paired and ours is not None and theirs is not None and ours.shape == theirs.shape:
        known = np.isfinite(ours)
        if known.sum() >= 2 and np.array_equal(known, np.isfinite(theirs)):
            # Of k folds one is tested, one chooses the ridge, and k - 2 are trained on.
            _, low, high = corrected_t(theirs[known] - ours[known], 1 / max(int(known.sum()) - 2, 1))
            return Difference(value, float(low), float(high), FOLDS)
    if any(row[end] is None for row in (a, b) for end in ("low", "high")):
        return Difference(value)
    below = math.hypot(b["value"] - b["low"], a["high"] - a["value"])
    above = math.hypot(b["high"] - b["value"], a["value"] - a["low"])
    return Difference(value, value - below, value + above, UNPAIRED)


def curves(
    table: pl.DataFrame,
    arrays: Mapping[str, np.ndarray] | None = None,
    *,
    whole: bool = False,
    blocks: bool = False,
) -> dict[Key, Curve]:
    """The curves of a diagnosis by measure and target, in the order of the catalogue; measures unknown to it follow.

    Of measures that relate streams to streams only those are curves that set one stream against each; maps of all
    streams against all are none.

    Args:
        table: a diagnosis' table.
        arrays: its arrays, of which `<measure>.scores` hold the score of every row in every fold.
        whole: also take scores of all streams together, as curves of the one stream "all streams".
        blocks: also take what blocks do to their input and how they attend, one number a block.
    """
    found: dict[Key, list[dict[str, Any]]] = {}
    places: dict[str, list[str | None]] = {}
    for row in table.to_dicts():
        measure = row["measure"]
        places.setdefault(measure, []).append(row["stream"])
        along = along_streams(measure) or (blocks and measure in _ALONG_BLOCKS)
        if row["head"] is not None or not along or (row["stream"] is None and not whole):
            continue
        row["stream"] = row["stream"] or WHOLE_MODEL
        for column in ("value", "low", "high", "floor", "ceiling"):
            if row[column] is not None and not math.isfinite(row[column]):
                row[column] = None
        if row["value"] is not None:
            found.setdefault((measure, "" if row["other"] else row["target"] or ""), []).append(row)
    made = {}
    for (measure, target), rows in found.items():
        by_stream = {row["stream"]: row for row in rows}
        if len(by_stream) == len(rows):
            scores = _scores((arrays or {}).get(f"{measure}.scores"), places[measure])
            made[measure, target] = Curve(measure, target, by_stream, scores, _low_is_good(measure, rows))
    order = {name: place for place, name in enumerate(_ENTRIES)}
    return dict(sorted(made.items(), key=lambda item: order.get(item[0][0], len(order))))


def _scores(scores: np.ndarray | None, streams: Sequence[str | None]) -> dict[str, np.ndarray]:
    """Scores of folds by stream, where the array has one line for each row of the measure and stream."""
    if scores is None or scores.ndim != 2 or len(scores) != len(streams) or len(set(streams)) != len(streams):
        return {}
    return {stream: line for stream, line in zip(streams, scores, strict=True) if stream is not None}


def _low_is_good(measure: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """The ceiling is the best score there could be: below the floor, low is good; without one the unit says it."""
    for row in rows:
        beside = row["floor"] if row["floor"] is not None else row["value"]
        if row["ceiling"] is not None and row["ceiling"] != beside:
            return bool(row["ceiling"] < beside)
    return measure in _ENTRIES and _LOW_IS_GOOD.search(_ENTRIES[measure].unit) is not None
