"""What a metric changed by when something was changed in the model, and the tolerance that this is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otoscope.diagnosis.result import Diagnosis
from otoscope.evaluation.catalogue import RECOGNITION, SELF_SUPERVISED
from otoscope.interventions.criticality.labels import tolerance
from otoscope.measures.measure import Row
from otoscope.plans.plan import Evidence

_PREFERRED = (
    "ctc-loss", "contrastive-loss", "masked-prediction-loss", "reconstruction", "wer", "cer", "probe-phone",
)  # fmt: skip
_LOWER_IS_BETTER = ("probe-mel",)
ERROR_RATES = ("wer", "cer")

_Place = tuple[str | None, int | None, str | None]  # stream, head and what was done


@dataclass(frozen=True)
class Change:
    """A change of a metric, turned so that more is worse.

    Attributes:
        row: the row of the diagnosis.
        worst: the worse end of its interval, in tolerances; None where there is no interval, so that nothing is known of
            what the change may cost.
        tolerance: the change for the worse that counts as none, in the metric's unit.
        base: the metric before; None where the diagnosis does not tell.
        vetoed: an error rate that surely gets worse by more than it tolerates, whatever the loss says; else empty.
    """

    row: Row
    worst: float | None
    tolerance: float
    base: float | None = None
    vetoed: str = ""

    @property
    def cost(self) -> float:
        """What it takes of a plan's margin: nothing where the whole interval lies on the better side."""
        return float("inf") if self.worst is None or self.vetoed else max(self.worst, 0.0)

    @property
    def words(self) -> str:
        """What the metric changes by, as a sentence begins."""
        row = self.row
        ends = "" if row.low is None or row.high is None else f", at 95 % by {row.low:+.3g} to {row.high:+.3g}"
        base = "" if self.base is None else f" from {self.base:.3g}"
        return f"Without training anew {row.target} changes{base} by {row.value:+.3g}{ends}"

    @property
    def evidence(self) -> Evidence:
        """The row as evidence for a treatment."""
        row, others = self.row, [self.row.target, self.row.other]
        units = f"{row.stream}.head.{row.head}" if row.head is not None else str(row.stream)
        note = ", ".join(one for one in (*others, row.label) if one)
        return Evidence(row.measure, units, row.value or 0.0, row.low, row.high, self.tolerance, note)


def changes_of(diagnosis: Diagnosis, measure: str, metric: str | None, other: str | None = None) -> list[Change]:
    """Changes of one metric, in the order of the table.

    Args:
        diagnosis: what was found.
        measure: "criticality", "block-intervention", "importance-loo", "span-layer-change" or "span-head-change".
        metric: name of the metric; None is the one that is preferred.
        other: what was done, such as "bypass"; None is anything.

    Returns:
        None of them where the metric was not taken, or nothing says what it is to be held against.
    """
    taken = [Row(**one) for one in diagnosis.measure(measure).to_dicts()]
    chosen = metric or preferred({row.target for row in taken if row.target})
    rows = [row for row in taken if row.target == chosen and row.value is not None and other in (None, row.other)]
    if chosen is None:
        return []
    sign = -1.0 if higher_is_better(chosen) else 1.0
    vetoes = _vetoes(diagnosis, taken, other) if chosen in RECOGNITION else {}
    found = []
    for row in rows:
        limit, base = _tolerance(diagnosis, row, chosen)
        if limit is not None:
            found.append(Change(row, _worst(row, sign, limit), limit, base, vetoes.get(_place(row), "")))
    return found


def _vetoes(diagnosis: Diagnosis, rows: Sequence[Row], other: str | None) -> dict[_Place, str]:
    """Where an error rate surely gets worse by more than it tolerates: a loss may tolerate what errors show."""
    found: dict[_Place, str] = {}
    for row in rows:
        if row.target in ERROR_RATES and row.low is not None and other in (None, row.other):
            limit, _ = _tolerance(diagnosis, row, row.target)
            if limit is not None and row.low > limit:
                found[_place(row)] = row.target
    return found


def _place(row: Row) -> _Place:
    return row.stream, row.head, row.other


def preferred(metrics: set[str]) -> str | None:
    """The metric that a plan goes by where none was named: a loss tells small changes apart that error rates do not."""
    known = [name for name in _PREFERRED if name in metrics]
    return known[0] if known else min(metrics, default=None)


def higher_is_better(metric: str) -> bool:
    """Which way a metric is better; those of probes are shares that are right, but for that of the spectrum."""
    known = {**RECOGNITION, **SELF_SUPERVISED}
    if metric in known:
        return known[metric].higher_is_better
    return metric.startswith("probe-") and metric not in _LOWER_IS_BETTER


def note_of(diagnosis: Diagnosis, name: str) -> Mapping[str, Any]:
    """What a diagnosis notes under a name, on its own or within the notes of the measure of that name."""
    notes = diagnosis.provenance.get("notes", {})
    found = notes.get(name, {})
    inner = found.get(name) if isinstance(found, Mapping) else None
    return inner if isinstance(inner, Mapping) else found


def lost_without(diagnosis: Diagnosis, metric: str) -> float | None:
    """What a metric changes by with all attention gone: what there is to lose by a change of attention."""
    told = note_of(diagnosis, "block-intervention").get("metrics", {}).get(metric, {})
    if "all_bypassed" in told:
        return float(told["all_bypassed"]["value"])
    points = diagnosis.measure(f"pruning-{metric}-change").to_dicts()
    furthest = max(points, key=lambda row: int(row["other"] or 0), default=None)
    heads = sum(diagnosis.provenance["model"]["heads"])
    return furthest["value"] if furthest is not None and int(furthest["other"] or 0) == heads else None


def _tolerance(diagnosis: Diagnosis, row: Row, metric: str) -> tuple[float | None, float | None]:
    """The change for the worse that counts as none, by the definition that the diagnosis went by; and the metric before."""
    if row.measure == "criticality":
        note = note_of(diagnosis, "criticality")
        given = note.get("tolerance", {}).get(metric, {}).get(row.other)
        base, ceiling = note.get("before", {}).get(metric), row.ceiling
    elif row.measure == "block-intervention":
        told = note_of(diagnosis, "block-intervention").get("metrics", {}).get(metric, {})
        given, base = told.get("criterion", {}).get("margin"), told.get("before")
        ceiling = row.ceiling
    else:
        note = note_of(diagnosis, f"{row.measure.removesuffix('-change')} on {metric}")
        given, base, ceiling = None, note.get("before"), lost_without(diagnosis, metric)
    if given is None and base is not None:
        given = tolerance(metric, float(base), ceiling)
    return (None if given is None else float(given) or None), (None if base is None else float(base))


def _worst(row: Row, sign: float, limit: float) -> float | None:
    ends: Sequence[float | None] = (row.low, row.high)
    if any(end is None for end in ends):
        return 0.0 if row.value == 0 else None  # a change of nothing has no interval, and costs nothing
    return max(sign * end for end in ends if end is not None) / limit
