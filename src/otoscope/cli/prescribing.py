"""The commands that change a model by what was found: prescribe, treat."""

import json
from pathlib import Path
from shlex import quote
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from otoscope.cli.app import Flag, Json, Output, app, use_threads
from otoscope.cli.searching import run_search
from otoscope.errors import PlanError


@app.command
def prescribe(
    diagnosis: Path,
    *,
    goal: str = "size",
    output: Output = None,
    dry_run: Flag = False,
    margin: float | None = None,
    metric: str | None = None,
    blocks: float | None = None,
    heads: float | None = None,
    guesses: Annotated[bool | None, Parameter(negative="--no-guesses")] = None,
    mass: float | None = None,
    top: int | None = None,
    freeze: str | None = None,
    rank: int | None = None,
    search: Flag = False,
    model: str = "embedded",
    dev: str | None = None,
    train: str | None = None,
    exam: str | None = None,
    budget: float | None = None,
    cost: str | None = None,
    steps: str = "0,60,240",
    dev_seconds: str = "5min",
    seed: int = 0,
    skip_bad: Flag = False,
    as_json: Json = False,
) -> None:
    """Write a plan by stated rules: what is changed in a model, in order, each line with its evidence.

    The plan is TOML, for a person to read and edit; `otoscope treat` carries it out. A rule without evidence says what
    to measure. Where nothing is worth changing, the plan is empty.

    Examples:

        otoscope prescribe result --goal size -o plan.toml
        otoscope prescribe result --goal speed --margin 4 --dry-run
        otoscope prescribe result --goal training-cost --rank 8 -o plan.toml
        otoscope prescribe result --search --model embedded --train speech/train --dev speech/dev -o tried

    Parameters
    ----------
    diagnosis
        Folder that `otoscope diagnose -o` wrote.
    goal
        accuracy, speed, size or training-cost.
    output
        File for the plan, such as plan.toml. Without it the plan is only printed.
    dry_run
        Only print the plan, and what the model would come to.
    margin
        What all changes together may cost, in tolerances of their metric (usually 1; of an error rate 2 % of its value or
        0.1 point, of a loss 2 % of its value or 1 % of what there is to lose).
    metric
        Metric that changes are judged by. Default: the loss of the model's own head where it was taken.
    blocks
        At most so large a share of the layers is taken out (usually 0.5).
    heads
        At most so large a share of the heads is pruned where nothing but their maps is known (usually 1/6).
    guesses
        Whether rules may act by the shape of attention alone, without having seen what a change costs.
    mass
        Share of attention that must lie within a span that is limited by the shape of attention (usually 0.99).
    top
        At most so many top layers are re-initialised (usually 3).
    freeze
        ambient, or all-but-critical layers.
    rank
        Rank of low-rank adapters on critical layers; 0 is none.
    search
        Try plans of several strengths on the model, those that do well with more and more fine-tuning; -o is then a
        folder for the front of WER against cost, as a plot and as plans. The options below are for it alone.
    model
        The model that was diagnosed: folder, Hub name or embedded.
    dev
        Development speech, on which plans are judged.
    train
        Speech to fine-tune on.
    exam
        Examination speech, only to make sure that none of it is in dev or train.
    budget
        Largest cost as a share of the original's.
    cost
        parameters or time. Default: what the goal is about.
    steps
        Steps of fine-tuning in each round.
    dev_seconds
        How much of the development speech is used, such as 90, 5min or all.
    seed
        Of the search.
    skip_bad
        Leave out utterances that cannot be used.
    as_json
        Print the plan, or what the search found, as JSON rather than as text.
    """
    from otoscope.plans.plan import check_goal, check_plan_place
    from otoscope.plans.showing import saved
    from otoscope.workflow.prescribing import prescribe as run

    check_goal(goal)
    named = {
        "margin": margin, "metric": metric, "blocks": blocks, "heads": heads, "guesses": guesses, "mass": mass, "top": top,
        "freeze": freeze, "rank": rank,
    }  # fmt: skip
    given = {name: value for name, value in named.items() if value is not None}
    if search:
        run_search(
            diagnosis, output, goal, model=model, dev=dev, train=train, exam=exam, budget=budget, cost=cost, steps=steps,
            dev_seconds=dev_seconds, limits=given, seed=seed, skip_bad=skip_bad, as_json=as_json,
        )  # fmt: skip
        return
    if dev is not None or train is not None or exam is not None:
        raise PlanError(
            "Speech is named, and no plan is tried on it", "Add --search, or leave --dev, --train, --exam out."
        )
    if output is not None and not dry_run:
        check_plan_place(output)
    plan = run(diagnosis, goal, **given)
    place = plan.save(output) if output is not None and not dry_run else None
    if as_json:
        print(json.dumps({**plan.to_dict(), "output": None if place is None else str(output)}, ensure_ascii=False))
        return
    console = Console()
    console.print(str(plan), highlight=False, markup=False, soft_wrap=True)
    if dry_run and plan.cost:
        for name in ("parameters", "macs_per_second"):
            before = plan.model.get(name)
            if before is not None and name in plan.cost:
                after = saved({name: plan.cost[name]}, plan.model) or "no change"
                console.print(
                    f"{name}: {before:,} before, {before + plan.cost[name]:,.0f} after ({after})", highlight=False
                )
    if place is not None:
        console.print(f"\nSaved in [bold]{output}[/bold].", highlight=False, soft_wrap=True)


@app.command
def treat(
    model: str,
    plan: Path,
    *,
    output: Output = None,
    dry_run: Flag = False,
    any_weights: Flag = False,
    corpus: str = "embedded",
    repeats: int = 15,
    device: str | None = None,
    threads: int | None = None,
    as_json: Json = False,
) -> None:
    """Carry out a plan on a copy of a model, and store it.

    The folder holds the model (safetensors only), the plan and a model card; every command takes it for MODEL. Where
    transformers can express the change, its own from_pretrained reads the folder too.

    Examples:

        otoscope treat embedded plan.toml -o treated
        otoscope treat my-model plan.toml --dry-run
        otoscope treat my-other-seed plan.toml --any-weights -o treated

    Parameters
    ----------
    model
        Folder, Hub name, or `embedded`.
    plan
        File that `otoscope prescribe -o` or a person wrote.
    output
        Folder for the treated model.
    dry_run
        Write nothing; say what parameters, multiply-accumulates and time would come to.
    any_weights
        Take a plan that was made for a model of the same sizes and other weights.
    corpus
        Speech that is timed in a dry run: folder, manifest, recording, or `embedded`.
    repeats
        Pairs of timed runs in a dry run.
    device
        Where the model runs, such as cpu or cuda.
    threads
        Threads on the CPU; for small models, or beside other work, one is the quickest.
    as_json
        Print the result as JSON rather than as text.
    """
    from otoscope.workflow.treating import check_folder, try_plan
    from otoscope.workflow.treating import treat as run

    if output is None and not dry_run:
        raise PlanError("There is no folder for the treated model", "Give one with -o, or try the plan with --dry-run.")
    use_threads(threads)
    console = Console(stderr=as_json)
    if dry_run:
        trial = try_plan(model, plan, corpus, repeats=repeats, any_weights=any_weights, device=device)
        if as_json:
            print(json.dumps({**trial.to_dict(), "output": None}, ensure_ascii=False))
        else:
            console.print(str(trial), highlight=False, markup=False, soft_wrap=True)
        return
    assert output is not None
    check_folder(output)
    made = run(model, plan, output, any_weights=any_weights, device=device)
    if as_json:
        print(json.dumps({"model": made.describe(), "output": str(output)}, ensure_ascii=False))
        return
    console.print(str(made), highlight=False, markup=False, soft_wrap=True)
    console.print(f"\nSaved in [bold]{output}[/bold].", highlight=False, soft_wrap=True)
    place = quote(str(output))
    train, verify = f"otoscope finetune {place} CORPUS -o DIR", f"otoscope verify {quote(model)} {place}"
    console.print(f"Next: [bold]{train}[/bold], and [bold]{verify}[/bold].", highlight=False, soft_wrap=True)
