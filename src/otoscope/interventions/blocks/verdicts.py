"""What interventions say of abnormal blocks: harmful, dispensable, needed, or undecided; otoscope's own rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from otoscope.errors import EvaluationError
from otoscope.measures.measure import Result, Row
from otoscope.statistics.multiple import holm

NAME = "block-verdict"
CHANGE = "block-intervention"
NORMAL, HARMFUL, DISPENSABLE, NEEDED, UNDECIDED = VERDICTS = ("normal", "harmful", "dispensable", "needed", "undecided")
LEVEL = 0.95


@dataclass(frozen=True)
class Criterion:
    """What changes of a metric are held against.

    Attributes:
        metric: its name.
        higher_is_better: which way is better.
        margin: the change for the worse that counts as none, in the metric's unit.
        blocks: how many speakers (or utterances) the intervals were drawn over.

    Raises:
        EvaluationError: the margin is negative or not a number.
    """

    metric: str
    higher_is_better: bool
    margin: float
    blocks: int

    def __post_init__(self) -> None:
        if not 0 <= self.margin < float("inf"):
            raise EvaluationError(
                f"The margin of {self.metric} is {self.margin}", "Give a finite number, zero or more."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Judged:
    """The verdict on a block.

    Attributes:
        label: one of `VERDICTS` but "normal".
        by: the row of the intervention that decided, None where none did.
    """

    label: str
    by: Row | None


@dataclass(frozen=True)
class _Change:
    """A change for the worse, and its interval; ends are NaN where there is none."""

    row: Row
    value: float
    low: float
    high: float


def verdicts(abnormal: Mapping[int, bool], changes: Sequence[Row], criteria: Sequence[Criterion]) -> list[Row]:
    """A verdict on each block by each metric.

    A block that is not abnormal is "normal". One that is, is

    - "harmful" where an intervention makes the metric better: its interval lies on the better side, and its p-value,
      corrected by Holm's method over all interventions on all abnormal blocks, is below 5 %;
    - "dispensable" where none does, and one does not make it worse by more than the margin: the interval's end on the
      worse side is not beyond the margin;
    - "needed" where every intervention makes it worse by more than the margin, to the better end of the interval;
    - "undecided" otherwise.

    So "abnormal" alone is no evidence of harm. The rule is otoscope's own: Chen and Asgari (2021) assume that abnormal
    patterns have a negative influence. Margins are not corrected for how many interventions there are, which makes
    "dispensable" the easier the more there are; `controls` says how often it comes out for normal blocks.

    Args:
        abnormal: layer, from 1 -> whether its pattern is abnormal.
        changes: rows `block-intervention`; one without an interval whose value is zero changed nothing, and counts as
            an interval of zero to zero: it does not worsen and never improves.
        criteria: for each metric, what its changes are held against.

    Returns:
        Rows `block-verdict`: other, value and interval are those of the intervention that decided; where none did, for the
        block is normal or the verdict undecided, of the one that is mildest by the worse end of its interval.

    Raises:
        EvaluationError: a block was intervened on and is neither normal nor abnormal, or there are no rows of a metric.
    """
    rows = []
    for criterion in criteria:
        mine = rows_of(changes, criterion.metric)
        unknown = sorted({row.layer for row in mine if row.layer is not None} - set(abnormal))
        if unknown or not mine:
            raise EvaluationError(
                f"Block {unknown[0]} was intervened on, and nothing says whether it is abnormal"
                if unknown
                else f"No intervention was taken by {criterion.metric}",
                "Give the abnormality of every block." if unknown else "Name a metric that was taken.",
            )
        found = judge([row for row in mine if abnormal[row.layer or 0]], criterion)
        for layer in sorted(abnormal):
            one = found.get(layer, Judged(UNDECIDED, None) if abnormal[layer] else Judged(NORMAL, None))
            rows.append(_row(layer, criterion, one, [row for row in mine if row.layer == layer]))
    return rows


def judge(changes: Sequence[Row], criterion: Criterion) -> dict[int, Judged]:
    """The rule of `verdicts`, on every block that the rows are of, whether abnormal or not.

    Args:
        changes: rows of one metric; Holm's correction is over all of them.
        criterion: what they are held against.
    """
    taken = [_change(row, criterion.higher_is_better) for row in changes]
    better = {
        id(one)
        for one, p in zip(taken, holm(_p_values(taken, criterion.blocks)), strict=True)
        if p < 1 - LEVEL and one.high < 0
    }
    by_layer: dict[int, list[_Change]] = {}
    for one in taken:
        by_layer.setdefault(one.row.layer or 0, []).append(one)
    return {layer: _judged(ones, better, criterion.margin) for layer, ones in by_layer.items()}


def _judged(changes: Sequence[_Change], better: set[int], margin: float) -> Judged:
    improving = [one for one in changes if id(one) in better]
    if improving:
        return Judged(HARMFUL, min(improving, key=lambda one: one.value).row)
    spared = [one for one in changes if one.high <= margin]
    if spared:
        # An intervention that changes nothing says less than one that does.
        return Judged(DISPENSABLE, min(spared, key=lambda one: (one.row.low is None, one.high)).row)
    if all(one.low > margin for one in changes):
        return Judged(NEEDED, min(changes, key=lambda one: one.low).row)
    return Judged(UNDECIDED, None)


def _change(row: Row, higher_is_better: bool) -> _Change:
    """A row turned so that more is worse."""
    if row.value is None:
        raise EvaluationError(f"An intervention on block {row.layer} has no value", "Give rows of block_interventions.")
    sign = -1.0 if higher_is_better else 1.0
    if row.low is None or row.high is None:
        end = 0.0 if row.value == 0 else float("nan")
        return _Change(row, sign * row.value, end, end)
    low, high = sorted((sign * row.low, sign * row.high))
    return _Change(row, sign * row.value, low, high)


def _p_values(changes: Sequence[_Change], blocks: int) -> np.ndarray:
    """The p-values that intervals imply, 1 where there is none.

    An interval is value +- t(0.975, G - 1) s, over G speakers; its p-value is that of value / s under the same
    Student's distribution, so that it is below 5 % where the interval leaves zero out.
    """
    degrees = max(blocks - 1, 1)
    values = np.array([one.value for one in changes], dtype=np.float64)
    spreads = np.array([one.high - one.low for one in changes]) / 2 / student.ppf(0.5 + LEVEL / 2, degrees)
    # What has no spread is either no change or a change without an interval.
    known = spreads > 0
    p = np.ones(len(values))
    p[known] = 2 * student.sf(np.abs(values[known]) / spreads[known], degrees)
    return p


def abnormal_of(rows: Sequence[Row]) -> dict[int, bool]:
    """Whether each block is abnormal, by layer, from rows `abnormality`; others may be among them.

    Blocks without heads have no pattern and no such row, and are not to be intervened on.
    """
    return {
        row.layer: row.label == "abnormal" for row in rows if row.measure == "abnormality" and row.layer is not None
    }


def rows_of(rows: Sequence[Row], metric: str) -> list[Row]:
    """The rows `block-intervention` of a metric."""
    return [row for row in rows if row.measure == CHANGE and row.target == metric]


def criteria_of(found: Result) -> list[Criterion]:
    """What changes are held against, from the notes of `block_interventions`."""
    return [Criterion(**told["criterion"]) for told in found.notes[CHANGE]["metrics"].values()]


def _row(layer: int, criterion: Criterion, one: Judged, mine: Sequence[Row]) -> Row:
    known = [found for found in (_change(row, criterion.higher_is_better) for row in mine) if found.high == found.high]
    # What changes nothing tells nothing of a block that is as it should be.
    mildest = min(known, key=lambda found: (found.row.low is None, found.high)).row if known else None
    by = one.by or mildest
    return Row(
        NAME, f"layer.{layer}", layer, target=criterion.metric, other=None if by is None else by.other,
        value=None if by is None else by.value, low=None if by is None else by.low,
        high=None if by is None else by.high, label=one.label, n=mine[0].n if mine else None,
    )  # fmt: skip
