"""A plan as text: a line a treatment with what it saves, the evidence under it, and what was not prescribed."""

from __future__ import annotations

from collections.abc import Mapping

from otoscope.plans.plan import COSTS, Plan


def shown(plan: Plan, *, evidence: bool = True) -> str:
    """A plan as lines of text.

    Args:
        plan: the plan.
        evidence: with the evidence of every line.
    """
    name = plan.model.get("name", "any model that has the units")
    about = [f"{plan.model[key]} {key}" for key in ("layers",) if key in plan.model]
    family = plan.model.get("family")
    told = f"{name} ({', '.join([*([family] if family else []), *about])})" if family or about else str(name)
    lines = [f"Plan for {plan.goal}: {told}" if plan.goal else f"Plan: {told}"]
    if not plan.lines:
        lines.append("Nothing is prescribed.")
    width = max((len(str(line.treatment)) for line in plan.lines), default=0)
    for number, line in enumerate(plan.lines, start=1):
        lines.append(f"{number:>3}  {str(line.treatment).ljust(width)}  {saved(line.cost)}".rstrip())
        if evidence:
            lines += [f"       {one}" for one in line.evidence]
            lines += [f"       {line.expected}"] * bool(line.expected)
    if len(plan.lines) > 1 and plan.cost:
        lines.append(f"In all: {saved(plan.cost, plan.model)}")
    elif plan.lines and not plan.cost:
        lines.append("What all of it saves is not known from sizes alone; `otoscope treat --dry-run` counts it.")
    if plan.notes:
        lines += ["Notes:", *(f"  {note}" for note in plan.notes)]
    return "\n".join(lines)


def saved(cost: Mapping[str, float], whole: Mapping[str, object] | None = None) -> str:
    """What a cost says, in words.

    Args:
        cost: changes by a name of `COSTS`.
        whole: of the model, with the same names; shares are told where it has them.

    >>> saved({"parameters": -1000, "macs_per_second": 0}, {"parameters": 4000})
    '-1,000 parameters (-25.0 %)'
    >>> saved({"parameters": 0})
    'as many parameters'
    """
    parts = []
    for name, value in cost.items():
        if not value:
            continue
        of = (whole or {}).get(name)
        share = f" ({100 * value / of:+.1f} %)" if isinstance(of, int | float) and of else ""
        number = f"{value / 1e6:+,.1f} million" if name == "macs_per_second" else f"{value:+,.0f}"
        parts.append(f"{number} {COSTS[name]}{share}")
    if not parts and cost:
        return "as many " + " and ".join(COSTS[name] for name in cost)
    return ", ".join(parts)
