"""Plans: from evidence to an ordered, editable list of treatments."""

from otoscope.plans.estimate import estimate
from otoscope.plans.limits import Limits
from otoscope.plans.plan import COSTS, GOALS, Evidence, Line, Plan
from otoscope.plans.prescribing import prescribe

__all__ = ["COSTS", "GOALS", "Evidence", "Limits", "Line", "Plan", "estimate", "prescribe"]
