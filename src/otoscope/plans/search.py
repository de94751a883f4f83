"""A search among plans: what is tried, what each came to, and the plans that no other betters."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import PlanError
from otoscope.plans.plan import Plan
from otoscope.plans.prescribing import prescribe

FORMAT = 1
ORIGINAL = "original"
RESULT = "search.json"
COSTS = ("parameters", "time")

LEVELS: tuple[Mapping[str, Any], ...] = (
    {"margin": 0.0, "guesses": False},
    {"margin": 0.5, "guesses": False},
    {"margin": 1.0},
    {"margin": 2.0, "heads": 1 / 4},
    {"margin": 4.0, "heads": 1 / 3},
    {"margin": 8.0, "heads": 1 / 2, "blocks": 0.6, "mass": 0.97},
    {"margin": 16.0, "heads": 2 / 3, "blocks": 0.7, "mass": 0.95},
)
"""Limits of the rules, from the strictest on; see `plans.limits.Limits`."""


@dataclass(frozen=True)
class Trial:
    """What a plan came to with one budget.

    Attributes:
        plan: its name, or `ORIGINAL`.
        steps: of fine-tuning after the treatment.
        value: error rate on development speech.
        low: lower end of its 95 % interval; None where there is none.
        high: upper end.
        parameters: of the treated model, as a share of the original's.
        time: its running time as a share of the original's; None where it was not taken.
    """

    plan: str
    steps: int
    value: float
    low: float | None
    high: float | None
    parameters: float
    time: float | None = None


@dataclass(frozen=True)
class Search:
    """A finished search.

    Attributes:
        plans: what was tried, by name.
        trials: what each came to, in the order in which they were run; those of the original among them.
        failed: plans that are out, with the reason.
        left: plans that went through the last round, the best first.
        front: those of them that no other betters in error and cost, by rising cost.
        cost: "parameters" or "time".
        metric: the error rate.
        provenance: model, speech, limits, budget, steps, seed, versions, command.
    """

    plans: Mapping[str, Plan]
    trials: tuple[Trial, ...]
    failed: Mapping[str, str]
    left: tuple[str, ...]
    front: tuple[str, ...]
    cost: str
    metric: str = "wer"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def last(self) -> dict[str, Trial]:
        """The last trial of every plan, and of the original."""
        return {trial.plan: trial for trial in self.trials}

    def cost_of(self, trial: Trial) -> float:
        """What a trial's model costs, as a share of the original."""
        return float(trial.parameters if self.cost == "parameters" or trial.time is None else trial.time)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes search.json, and a TOML file for every plan, search.json last.

        Raises:
            PlanError: it cannot be written.
        """
        place = Path(folder)
        try:
            for name, plan in self.plans.items():
                plan.save(place / "plans" / f"{name}.toml")
            told = {
                "format": FORMAT, "plans": list(self.plans), "trials": [asdict(one) for one in self.trials],
                "failed": dict(self.failed), "left": list(self.left), "front": list(self.front), "cost": self.cost,
                "metric": self.metric, "provenance": dict(self.provenance),
            }  # fmt: skip
            write_json(place / RESULT, told)
        except OSError as error:
            raise PlanError(
                f"The search cannot be written to {place}: {error}",
                "Name a folder that you may write to and that has room.",
            ) from error
        return place

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Search:
        """Reads what `save` wrote.

        Raises:
            PlanError: the folder holds no finished search.
        """
        place = Path(folder)
        try:
            told = json.loads((place / RESULT).read_text(encoding="utf-8"))
            if told["format"] != FORMAT:
                raise ValueError(f"its format is {told['format']}, not {FORMAT}")
            return cls(
                {name: Plan.load(place / "plans" / f"{name}.toml") for name in told["plans"]},
                tuple(Trial(**one) for one in told["trials"]), told["failed"], tuple(told["left"]), tuple(told["front"]),
                told["cost"], told["metric"], told["provenance"],
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PlanError(
                f"{place} holds no search that can be read: {error}", "Name a folder that a finished search wrote."
            ) from error

    def __str__(self) -> str:
        width = max([len("plan"), *map(len, self.last)])
        lines = [f"{'plan':<{width}}  {'steps':>6}  {self.metric:>8}  {self.cost:>10}  "]
        shown = [*self.front, *(name for name in self.left if name not in self.front)]
        for name in [ORIGINAL, *shown]:
            one = self.last.get(name)
            if one is not None:
                mark = "on the front" if name in self.front else ""
                lines.append(
                    f"{name:<{width}}  {one.steps:>6}  {one.value:>8.4f}  {100 * self.cost_of(one):>8.1f} %  {mark}".rstrip()
                )
        out = len(self.plans) - len(shown)
        return "\n".join([*lines, *([f"{out} plans went out before the last round"] if out else [])])


def candidates(
    diagnosis: Diagnosis, goal: str, levels: Sequence[Mapping[str, Any]] = LEVELS, **limits: Any
) -> dict[str, Plan]:
    """Plans to choose from: what the rules write at several levels of strictness, and the first parts of the longest.

    Args:
        diagnosis: what was found.
        goal: see `prescribe`.
        levels: limits of each level.
        limits: that hold for all of them.

    Returns:
        Plans by name, each with other treatments; empty plans are left away.

    Raises:
        PlanError: see `prescribe`.
    """
    made = {f"level-{k}": prescribe(diagnosis, goal, **{**level, **limits}) for k, level in enumerate(levels, start=1)}
    name, longest = max(made.items(), key=lambda item: len(item[1].lines), default=("", Plan()))
    for share in (3, 2, 1):
        count = len(longest.lines) * share // 4
        part = Plan(longest.lines[:count], longest.goal, longest.model, longest.diagnosis, longest.notes)
        made[f"{name}-first-{count}"] = part
    found: dict[str, Plan] = {}
    seen: set[tuple[Any, ...]] = {()}
    for name, plan in made.items():
        if plan.treatments not in seen:
            seen.add(plan.treatments)
            found[name] = plan
    return found


def write_json(path: Path, told: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_text(json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
