"""Trainings of a recipe: how they are listed, carried out side by side, and kept apart from those of other settings."""

import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from otoscope.errors import OtoscopeError, TrainingError
from otoscope.training.folders import replace_text, without_bars
from otoscope.training.settings import TrainingSettings
from recipes.trials.tables import table

ROOT = Path(__file__).resolve().parents[2]
CLAIM = "settings.json"


@dataclass(frozen=True)
class Run:
    """One training, as a dry run lists it.

    Attributes:
        name: of its folder.
        model: what it begins with.
        plan: what is changed before, in words.
        speech: what it hears, in words.
        seconds: how much speech that is.
        settings: of the training.
    """

    name: str
    model: str
    plan: str
    speech: str
    seconds: float
    settings: TrainingSettings


def run_arguments(parser: ArgumentParser, seeds: int, batch_seconds: float) -> None:
    """Adds the options of trainings.

    Args:
        parser: gets them.
        seeds: how many, where it is not asked for.
        batch_seconds: of padded speech in a batch, where it is not asked for.
    """
    group = parser.add_argument_group("runs")
    group.add_argument("--seeds", type=int, default=seeds, help="0, 1, ... so many")
    group.add_argument("--batch-seconds", type=float, default=batch_seconds)
    group.add_argument("--accumulate", type=int, default=1, help="batches an update")
    group.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
    group.add_argument("--workers", type=int, default=2, help="trainings at a time, each in a process of its own")
    group.add_argument("--only", help="carry out the training of this name alone, and write no page")
    group.add_argument("--dry-run", action="store_true", help="list every training, and do nothing")


def run_recipe(
    given: Sequence[str] | None,
    parsed: Callable[[Sequence[str]], Namespace],
    check: Callable[[Namespace], None],
    told: Callable[[Namespace], str],
    carry_out: Callable[[Namespace, Sequence[str]], None],
) -> None:
    """Runs a recipe, or with `--dry-run` prints what it would run.

    Args:
        given: options; None takes those of the program.
        parsed: takes options apart.
        check: refuses options that make no sense, before anything is done.
        told: what would be run.
        carry_out: runs it, by options taken apart and as they were given.

    Raises:
        SystemExit: an option makes no sense, or a training failed.
    """
    options = list(sys.argv[1:] if given is None else given)
    arguments = parsed(options)
    try:
        check(arguments)
        if arguments.dry_run:
            print(told(arguments))
            return
        with without_bars():
            carry_out(arguments, options)
    except OtoscopeError as error:
        raise SystemExit(str(error)) from error


def settings_of(arguments: Namespace, steps: int, rate: float, seed: int) -> TrainingSettings:
    """Of one training; all of a kind have the same but for the seed.

    Raises:
        TrainingError: a number is out of its range.
    """
    return TrainingSettings(
        steps=steps, batch_seconds=arguments.batch_seconds, accumulate=arguments.accumulate, learning_rate=rate,
        precision=arguments.precision, seed=seed, warmup=0.1, hold=0.4, log_every=max(1, steps // 20),
        evaluate_every=max(1, steps // 2), save_every=max(1, steps // 4),
    )  # fmt: skip


def check_runs(arguments: Namespace) -> None:
    """Refuses numbers of seeds and workers that make no sense.

    Raises:
        TrainingError: there is none.
    """
    for name in ("seeds", "workers"):
        if getattr(arguments, name) < 1:
            raise TrainingError(f"--{name} is {getattr(arguments, name)}", "Give one or more.")


def listed(runs: Sequence[Run]) -> str:
    """A line a training: model, plan, speech, seed, steps, and how many hours it hears, each batch counted."""
    rows = [
        [
            one.name, one.model, one.plan, f"{one.speech} ({one.seconds / 3600:.2f} h)", str(one.settings.seed),
            str(one.settings.steps), f"{heard(one.settings) / 3600:.2f}",
        ]
        for one in runs
    ]  # fmt: skip
    total = sum(heard(one.settings) for one in runs) / 3600
    head = ["run", "model", "plan", "speech", "seed", "steps", "hours heard"]
    return f"{table(head, rows)}\n{len(runs)} trainings, which hear at most {total:.1f} hours of speech."


def heard(settings: TrainingSettings) -> float:
    """Seconds of padded speech in all batches of a training, at the most."""
    return settings.steps * settings.accumulate * settings.batch_seconds


def carry_out(module: str, options: Sequence[str], names: Sequence[str], work: Path, workers: int) -> list[str]:
    """Carries trainings out in processes of their own, `--only NAME`, with a log beside the models.

    Args:
        module: of the recipe.
        options: of the command.
        names: of the trainings.
        work: gets the logs.
        workers: processes at a time.

    Returns:
        The trainings that failed.
    """
    work.mkdir(parents=True, exist_ok=True)

    def one(name: str) -> int:
        command = [sys.executable, "-m", module, *options, "--only", name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (work / f"{name}.log").open("a") as log:
            return subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False).returncode

    with ThreadPoolExecutor(workers) as pool:
        return [name for name, end in zip(names, pool.map(one, names), strict=True) if end]


def chosen(names: Sequence[str], only: str) -> str:
    """The training that `--only` names.

    Raises:
        TrainingError: there is none of that name.
    """
    if only not in names:
        raise TrainingError(f"There is no training {only!r}", f"Name one of {', '.join(names)}.")
    return only


def claim(work: Path, facts: Mapping[str, Any]) -> None:
    """Makes a folder that of one recipe and its settings, lest models of others be taken for what these would give.

    Raises:
        TrainingError: it holds models of other settings.
    """
    place, told = work / CLAIM, json.loads(json.dumps(dict(facts), default=str))
    if not place.exists():
        work.mkdir(parents=True, exist_ok=True)
        replace_text(place, json.dumps(told, indent=1) + "\n")
        return
    held = json.loads(place.read_text())
    for name in [*told, *held]:
        if held.get(name) != told.get(name):
            raise TrainingError(
                f"{work} holds models with {name} {held.get(name)}, not {told.get(name)}",
                "Name another folder (--work), or remove this one.",
            )


def facts_of(arguments: Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Arguments by name, fit for `claim`."""
    return {name: getattr(arguments, name) for name in names}


def one_thread() -> None:
    """Leaves the other cores to other trainings, unless there is a GPU."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)


def told(row: dict[str, Any]) -> None:
    """Prints a line of a log."""
    short = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    print(json.dumps(short), flush=True)


def plain_settings(settings: TrainingSettings) -> dict[str, Any]:
    """All but the seed, for `claim`."""
    return {name: value for name, value in asdict(settings).items() if name != "seed"}
