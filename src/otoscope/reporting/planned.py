"""A plan in the report: every treatment with what speaks for it, what is expected of it and what it saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otoscope.plans.plan import Evidence, Plan
from otoscope.plans.showing import saved
from otoscope.reporting.values import finite


@dataclass(frozen=True)
class Ground:
    """One piece of evidence as the page shows it.

    Attributes:
        measure: name of the measure, with the units it was taken of.
        value: the number with its interval.
        threshold: what it was held against; empty where it was not.
        note: what else is to be known.
    """

    measure: str
    value: str
    threshold: str
    note: str


@dataclass(frozen=True)
class PlanLine:
    """One treatment.

    Attributes:
        kind: of the treatment.
        units: what is treated, with the values beside them.
        grounds: evidence.
        expected: what is to be expected.
        cost: what it saves, in words.
        rule: who wrote the line.
        source: where the rule comes from.
    """

    kind: str
    units: str
    grounds: Sequence[Ground]
    expected: str
    cost: str
    rule: str
    source: str


@dataclass(frozen=True)
class PlanPanel:
    """What the report says of a plan.

    Attributes:
        sentence: goal, number of treatments and what they save together.
        lines: the treatments in order.
        notes: what was looked at and not prescribed.
        stated: where the plan is for another model than the page is of.
    """

    sentence: str
    lines: Sequence[PlanLine]
    notes: Sequence[str]
    stated: str


def plan_panel(plan: Plan | None, model: Mapping[str, Any]) -> PlanPanel | None:
    """The section of a plan; None where there is none.

    Args:
        plan: the plan.
        model: description of the model that was diagnosed.
    """
    if plan is None:
        return None
    lines = [
        PlanLine(
            line.treatment.kind, str(line.treatment).removeprefix(f"{line.treatment.kind} "),
            [_ground(one) for one in line.evidence], line.expected, saved(line.cost), line.rule or "by hand", line.source,
        )
        for line in plan.lines
    ]  # fmt: skip
    goal = f" for {plan.goal}" if plan.goal else ""
    if not lines:
        sentence = f"The plan{goal} prescribes nothing."
    else:
        number = "one treatment" if len(lines) == 1 else f"{len(lines)} treatments, in this order"
        cost = f": {saved(plan.cost, plan.model)} in all" if plan.cost else ""
        sentence = f"The plan{goal} has {number}{cost}."
    wanted, have = plan.model.get("fingerprint"), model.get("fingerprint")
    other = wanted is not None and have is not None and wanted != have
    stated = f"The plan was made for another model: {plan.model.get('name', 'without a name')}." if other else ""
    return PlanPanel(sentence, lines, plan.notes, stated)


def _ground(one: Evidence) -> Ground:
    ends = "" if one.low is None or one.high is None else f" [{_short(one.low)}, {_short(one.high)}]"
    return Ground(f"{one.measure} of {one.units}", _short(one.value) + ends, _short(one.threshold), one.note)


def _short(value: float | None) -> str:
    found = finite(value)
    return "" if found is None else f"{found:.4g}".replace("-", "−")
