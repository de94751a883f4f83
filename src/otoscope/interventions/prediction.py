"""How well scores that cost one pass, or none, predict which units are critical."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

from otoscope.interventions.agreement import spearman
from otoscope.interventions.churn import NAME as CHURN
from otoscope.interventions.leave_one_out import NAME as LEFT_OUT
from otoscope.interventions.unit_gradients import FISHER
from otoscope.interventions.unit_gradients import RELATIVE as GRADIENT
from otoscope.measures.blocks.influence import DISTANCE, INFLUENCE
from otoscope.measures.measure import Result, Row
from otoscope.statistics.rank_correlation import FEWEST, rank_interval

NAME = "criticality-prediction"
CRITICALITY = "criticality"
LEAST = 3
"""Of fewer units there is no rank correlation."""

_SUB_MODULE = re.compile(r"layer\.\d+\.(attention|feed_forward(\.\d+)?|convolution|norms)")

Scores = Mapping[str, float]


def granularity_of(unit: str) -> str:
    """What kind of unit a name stands for.

    >>> [granularity_of(name) for name in ("layer.3", "layer.3.feed_forward.1", "layer.3.attention.q_proj.weight")]
    ['block', 'sub-module', 'tensor']
    """
    if re.fullmatch(r"layer\.\d+", unit):
        return "block"
    return "sub-module" if _SUB_MODULE.fullmatch(unit) else "tensor"


def criticality_prediction(rows: Iterable[Row]) -> Result:
    """Spearman's rho over units between every cheap score and every criticality.

    Cheap scores are block influence and angular distance (of single layers), the relative norm of the gradient, Fisher
    information, and churn by each of its distances; and what a metric loses without a layer or its attention, where that
    was taken. Criticality is the change of the metric under a mode, turned so that more is worse. Blocks, sub-modules
    and tensors are ranked apart, for what a block changes, its parts cannot but change less.

    Intervals are those of Bonett and Wright (see `rank_interval`): as if the units were drawn from many of their kind. How
    far either of the two scores would differ on other speech is not in them; such noise makes correlations smaller.

    Args:
        rows: of a diagnosis, or of the results of several measures; others than these are left aside.

    Returns:
        Rows of `criticality-prediction`: target is the cheap score ("block-influence", "churn-rms"; where it was taken
        against several checkpoints or of several losses, with which in brackets), other the mode, label the metric,
        stream the granularity, n the number of units. Value is None where one of the two is the same for all units; there
        is no interval for fewer than five units.
    """
    cheap: dict[tuple[str, str], dict[str, float]] = {}
    dear: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row.stream is None or row.head is not None or row.value is None or not math.isfinite(row.value):
            continue
        if row.measure == CRITICALITY:
            # All units reset together is the worst there is: where that lowers the metric, lower is worse.
            sign = -1.0 if row.ceiling is not None and row.ceiling < 0 else 1.0
            dear.setdefault((row.target or "", row.other or ""), {})[row.stream] = sign * row.value
        elif (key := _score(row)) is not None:
            unit = f"{row.stream}.{row.other}" if row.measure == LEFT_OUT and row.other else row.stream
            cheap.setdefault(key, {})[unit] = row.value
    found = []
    named = [name for name, _ in cheap]
    for (name, detail), scores in cheap.items():
        called = f"{name} ({detail})" if named.count(name) > 1 else name
        for (metric, mode), values in dear.items():
            for granularity in ("block", "sub-module", "tensor"):
                units = [unit for unit in values if unit in scores and granularity_of(unit) == granularity]
                if len(units) >= LEAST:
                    found.append(_row(called, granularity, mode, metric, units, scores, values))
    notes = {"interval": "Bonett and Wright 2000, over units", "fewest_units_for_an_interval": FEWEST}
    return Result(found, {}, {NAME: notes} if found else {})


def _score(row: Row) -> tuple[str, str] | None:
    """Name of a cheap score and what it is of; None of any other row."""
    if row.measure == INFLUENCE or (row.measure == DISTANCE and row.other is None):
        return row.measure, ""
    if row.measure in (GRADIENT, FISHER, LEFT_OUT):
        return row.measure, row.target or ""
    if row.measure == CHURN:
        return f"{CHURN}-{row.target}", row.other or ""
    return None


def _row(name: str, granularity: str, mode: str, metric: str, units: list[str], scores: Scores, values: Scores) -> Row:
    rho, _ = spearman(*(np.array([one[unit] for unit in units], np.float64) for one in (scores, values)))
    row = Row(NAME, granularity, target=name, other=mode, label=metric, n=len(units))
    if math.isfinite(rho):
        row.value = rho
        row.low, row.high = rank_interval(rho, len(units)) or (None, None)
    return row
