"""The report of a diagnosis with what came of it: the plan, its outcome, the search, and federated training."""

from __future__ import annotations

import os
from pathlib import Path

from otoscope.evaluation.outcome import Outcome
from otoscope.federation.result import FederationResult
from otoscope.plans.plan import Plan
from otoscope.plans.search import Search
from otoscope.reporting import facts
from otoscope.reporting.federated import federated_panel
from otoscope.reporting.front import front_panel
from otoscope.reporting.outcome import COLOURS, outcome_panel
from otoscope.reporting.page import Beside, render_page, write_page
from otoscope.reporting.planned import plan_panel
from otoscope.reporting.values import Reportable


def write_whole_report(
    diagnosis: Reportable,
    path: str | os.PathLike[str],
    *,
    plan: Plan | None = None,
    outcome: Outcome | None = None,
    search: Search | None = None,
    federation: FederationResult | None = None,
) -> Path:
    """Writes the report of a diagnosis, with the plan and its outcome, as one HTML page that loads nothing from anywhere.

    Args:
        diagnosis: what to report.
        path: the file to write; folders that are missing are made.
        plan: what was prescribed from it.
        outcome: what the treated model came to.
        search: among plans.
        federation: training that began with the model that was diagnosed.

    Returns:
        The path.

    Raises:
        ResultError: the file cannot be written there.
    """
    return write_page(lambda: render_page(diagnosis, beside(diagnosis, plan, outcome, search, federation)), path)


def beside(
    diagnosis: Reportable,
    plan: Plan | None,
    outcome: Outcome | None,
    search: Search | None,
    federation: FederationResult | None = None,
) -> Beside:
    """The sections of a plan, an outcome, a search and a federated training; those that are None are left away."""
    planned = plan_panel(plan, facts.part(diagnosis.provenance, "model"))
    came, front, federated = outcome_panel(outcome), front_panel(search), federated_panel(federation, diagnosis)
    figures = [*(came.figures if came is not None else ()), *((front.figure,) if front is not None else ())]
    sentences = [*(came.sentences if came is not None else ())]
    if federated is not None:
        figures += federated.figures
        sentences += federated.sentences
    sections = {
        "plan": planned, "outcome": came, "front": front, "federated": federated, "outcome_colours": COLOURS
    }  # fmt: skip
    return Beside(sections, figures, sentences)
