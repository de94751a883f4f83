"""Report: a diagnosis or a federated training in, with the plan and the outcome where they are known; one HTML page out."""

from __future__ import annotations

import os
from pathlib import Path

from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import ResultError
from otoscope.evaluation.outcome import Outcome
from otoscope.federation.result import RESULT, FederationResult
from otoscope.plans.plan import Plan
from otoscope.plans.search import Search
from otoscope.reporting.federated import write_federated_report
from otoscope.reporting.treated import write_whole_report
from otoscope.reporting.values import Reportable


def report(
    diagnosis: Reportable | FederationResult | str | Path,
    plan: Plan | str | os.PathLike[str] | None = None,
    outcome: Outcome | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    search: Search | None = None,
    federation: FederationResult | str | Path | None = None,
) -> Path:
    """Writes one self-contained HTML page: what was found, what was prescribed, and what came of it.

    Args:
        diagnosis: what to report, or the folder in which it is saved; or a federated training, or its folder.
        plan: what was prescribed from it; a path in its place is that of the page, as in `report(diagnosis, "x.html")`.
        outcome: what the treated model came to.
        path: the file to write, report.html by default; folders that are missing are made.
        search: among plans.
        federation: training that began with the model that was diagnosed, or its folder; labels of the diagnosis then
            stand beside what clients were sent.

    Returns:
        The path.

    Raises:
        ResultError: the diagnosis cannot be read, the page cannot be written, two paths are given, or a plan or a search
            has no diagnosis to stand beside.
        FederationError: the federated training cannot be read.
    """
    if plan is not None and not isinstance(plan, Plan):
        if path is not None:
            raise ResultError(f"{plan} is no plan", "Pass what `Plan.load` read.")
        plan, path = None, plan
    goal = path or "report.html"
    found = _read(diagnosis)
    if isinstance(found, FederationResult):
        if not (plan is None and search is None and federation is None):
            raise ResultError(
                "A plan, a search and a second training stand beside a diagnosis, and there is none",
                "Pass the diagnosis first, and the federated training as `federation`.",
            )
        return write_federated_report(found, goal, outcome=outcome)
    trained = FederationResult.load(Path(federation)) if isinstance(federation, str | Path) else federation
    return write_whole_report(found, goal, plan=plan, outcome=outcome, search=search, federation=trained)


def _read(given: Reportable | FederationResult | str | Path) -> Reportable | FederationResult:
    """What is in a folder, where one is given."""
    if not isinstance(given, str | Path):
        return given
    return FederationResult.load(Path(given)) if (Path(given) / RESULT).exists() else Diagnosis.load(given)
