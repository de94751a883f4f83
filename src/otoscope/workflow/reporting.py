"""Report: a diagnosis in, with the plan and the outcome where they are known; one HTML page out."""

from __future__ import annotations

import os
from pathlib import Path

from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import ResultError
from otoscope.evaluation.outcome import Outcome
from otoscope.plans.plan import Plan
from otoscope.plans.search import Search
from otoscope.reporting.treated import write_whole_report
from otoscope.reporting.values import Reportable


def report(
    diagnosis: Reportable | str | Path,
    plan: Plan | str | os.PathLike[str] | None = None,
    outcome: Outcome | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    search: Search | None = None,
) -> Path:
    """Writes one self-contained HTML page: what was found, what was prescribed, and what came of it.

    Args:
        diagnosis: what to report, or the folder in which it is saved.
        plan: what was prescribed from it; a path in its place is that of the page, as in `report(diagnosis, "x.html")`.
        outcome: what the treated model came to.
        path: the file to write, report.html by default; folders that are missing are made.
        search: among plans.

    Returns:
        The path.

    Raises:
        ResultError: the diagnosis cannot be read, the page cannot be written, or two paths are given.
    """
    if plan is not None and not isinstance(plan, Plan):
        if path is not None:
            raise ResultError(f"{plan} is no plan", "Pass what `Plan.load` read.")
        plan, path = None, plan
    found = Diagnosis.load(diagnosis) if isinstance(diagnosis, str | Path) else diagnosis
    return write_whole_report(found, path or "report.html", plan=plan, outcome=outcome, search=search)
