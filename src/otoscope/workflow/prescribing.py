"""Prescribe: a diagnosis in, a plan out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from otoscope.diagnosis.result import Diagnosis
from otoscope.plans.plan import Plan
from otoscope.plans.prescribing import prescribe as by_rules


def prescribe(diagnosis: Diagnosis | str | Path, goal: str = "size", **limits: Any) -> Plan:
    """Writes a plan by stated rules: what is changed in the model, in order, each line with its evidence.

    What a change may cost is held against the worse end of its interval, and all changes of a plan together against one
    margin; so a plan may be empty. What rules looked at and did not act on stands in `Plan.notes`.

    Args:
        diagnosis: what was found, or the folder in which it is saved; no model is needed.
        goal: "accuracy", "speed", "size" or "training-cost".
        limits: how far rules may go, see `otoscope.plans.Limits`: margin, metric, blocks, heads, guesses, mass, top, freeze,
            rank.

    Raises:
        ResultError: the folder holds no diagnosis.
        PlanError: there is no such goal or limit, or the diagnosis holds no change of the metric that is named.
        TreatmentError: the diagnosis does not tell the sizes of its model.
    """
    return by_rules(diagnosis if isinstance(diagnosis, Diagnosis) else Diagnosis.load(diagnosis), goal, **limits)
