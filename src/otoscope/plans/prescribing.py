"""From a diagnosis to a plan, by the rules that serve a goal."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any

from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import PlanError
from otoscope.plans.checks import check_lines
from otoscope.plans.estimate import Estimate
from otoscope.plans.grounds import Grounds
from otoscope.plans.limits import Limits
from otoscope.plans.plan import MODEL, Plan, check_goal
from otoscope.plans.rules import RULES
from otoscope.treatments.sizes import Sizes

_MEASURES = ("criticality", "block-intervention", "importance-loo", "span-layer-change", "gradient-norm-relative")


def prescribe(diagnosis: Diagnosis, goal: str, **limits: Any) -> Plan:
    """Writes a plan by the rules that serve a goal.

    Rules take their turn in the order of `rules.RULES`. What may cost accuracy shares one margin: each change counts with
    the worse end of its interval, and nothing is prescribed that the margin does not cover. So a plan may be empty.

    Args:
        diagnosis: what was found; no model is needed.
        goal: "accuracy", "speed", "size" or "training-cost".
        limits: how far rules may go, see `Limits`.

    Raises:
        PlanError: there is no such goal or limit, or the diagnosis holds no change of the metric that is named.
        TreatmentError: the diagnosis does not tell the sizes of its model.
    """
    check_goal(goal)
    bounds = _limits(limits)
    about = diagnosis.provenance["model"]
    sizes = Sizes.of_description(about)
    taken = {name: set(diagnosis.measure(name)["target"].drop_nulls().to_list()) for name in _MEASURES}
    known = sorted(set().union(*taken.values()))
    if bounds.metric is not None and bounds.metric not in known:
        raise PlanError(
            f"The diagnosis holds no change of the metric {bounds.metric!r}",
            f"It has {', '.join(known)}."
            if known
            else "Take `otoscope diagnose --measures blocks,importance` with that metric (--metrics).",
        )
    parts = about.get("parts")
    grounds = Grounds(diagnosis, goal, bounds, sizes, None if parts is None else Estimate(parts, sizes))
    notes: list[str] = []
    for rule in RULES:
        if goal in rule.goals:
            grounds.rule = rule
            notes += [f"{rule.name}: {note}" for note in rule.act(grounds)]
    check_lines(grounds.lines, sizes)
    return Plan(tuple(grounds.lines), goal, _model(about), _diagnosis(diagnosis, bounds), tuple(notes))


def _limits(given: dict[str, Any]) -> Limits:
    """Limits by name; None stands for what is usual.

    Raises:
        PlanError: there is no such limit, or its value is none.
    """
    names = [one.name for one in fields(Limits)]
    strange = sorted(set(given) - set(names))
    if strange:
        near = difflib.get_close_matches(strange[0], names, n=1)
        raise PlanError(
            f"There is no limit {strange[0]!r}", f"Did you mean {near[0]}?" if near else f"They are {', '.join(names)}."
        )
    return Limits(**given)


def _model(about: dict[str, Any]) -> dict[str, Any]:
    """What a plan keeps of the model that it is for."""
    return {name: about[name] for name in MODEL if about.get(name) is not None}


def _diagnosis(diagnosis: Diagnosis, limits: Limits) -> dict[str, Any]:
    """What a plan keeps of the diagnosis that it rests on, and of the limits that are not the usual ones."""
    told = diagnosis.provenance
    corpus = told.get("corpus", {})
    found = {name: corpus.get(name) for name in ("name", "utterances", "speakers", "seconds", "fingerprint")}
    found = {("corpus" if name == "name" else name): value for name, value in found.items()}
    found |= {"seed": told.get("seed"), "otoscope": told.get("versions", {}).get("otoscope")}
    found |= {"command": told.get("command"), "finished": told.get("finished")}
    usual = Limits()
    changed = {
        one.name: getattr(limits, one.name)
        for one in fields(Limits)
        if getattr(limits, one.name) != getattr(usual, one.name)
    }
    return {name: value for name, value in found.items() if value is not None} | (
        {"limits": changed} if changed else {}
    )
