"""What `prescribe --search` does: tries plans, prints those that win, and draws them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from otoscope.errors import PlanError


def run_search(
    diagnosis: Path,
    output: Path | None,
    goal: str,
    *,
    model: str,
    dev: str | None,
    train: str | None,
    exam: str | None,
    budget: float | None,
    cost: str | None,
    steps: str,
    dev_seconds: str,
    limits: Mapping[str, Any],
    seed: int,
    skip_bad: bool,
    as_json: bool,
) -> None:
    """Tries plans under a budget, and writes a folder: search.json, the plans, and front.html.

    Args:
        diagnosis: folder of the diagnosis.
        output: folder of the search.
        goal: of the plans.
        model: what is treated.
        dev: development speech.
        train: speech to fine-tune on.
        exam: examination speech, which is not touched.
        budget: largest cost as a share of the original's.
        cost: parameters or time.
        steps: of fine-tuning in each round, separated by commas.
        dev_seconds: how much of the development speech is used; "all" is all of it.
        limits: of the rules.
        seed: of the search.
        skip_bad: leave out utterances that cannot be used.
        as_json: print the result as JSON rather than as text.

    Raises:
        PlanError: a folder or speech is not named, or see `search`.
    """
    from otoscope.reporting.front import write_front
    from otoscope.workflow.searching import search

    if output is None or dev is None or train is None:
        lacking = next(name for name, given in {"-o": output, "--dev": dev, "--train": train}.items() if given is None)
        raise PlanError(f"A search needs {lacking}", "Name a folder (-o), development speech (--dev) and --train.")
    try:
        rounds = [int(one) for one in steps.split(",")]
    except ValueError as error:
        raise PlanError(f"The steps {steps!r} are no numbers", "Write them as 0,60,240.") from error
    console = Console(stderr=as_json)
    found = search(
        model, diagnosis, dev, train, output, goal, budget=budget, cost=cost, steps=rounds, limits=limits, exam=exam,
        dev_seconds=None if dev_seconds == "all" else dev_seconds, seed=seed, skip_bad=skip_bad,
        tell=lambda line: console.print(f"[dim]{line}[/dim]", highlight=False),
    )  # fmt: skip
    page = write_front(found, output / "front.html")
    if as_json:
        told = {"front": list(found.front), "left": list(found.left), "failed": dict(found.failed)}
        trials = [asdict(one) for one in found.trials]
        print(json.dumps({**told, "trials": trials, **found.provenance, "output": str(output)}, ensure_ascii=False))
        return
    console.print(str(found), highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"\nPlans in [bold]{output / 'plans'}[/bold], the front in [bold]{page}[/bold].",
        highlight=False,
        soft_wrap=True,
    )
