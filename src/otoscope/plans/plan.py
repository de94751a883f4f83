"""A plan: treatments in order, each with what speaks for it, what is to be expected of it, and what it saves."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from otoscope.errors import PlanError
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment

GOALS = ("accuracy", "speed", "size", "training-cost")

MODEL = ("name", "family", "class", "layers", "heads", "width", "parameters", "macs_per_second", "fingerprint")
"""What a plan says of the model that it is for."""
COSTS = {
    "parameters": "parameters",
    "macs_per_second": "MACs a second",
    "trained_parameters": "trained parameters",
}
"""What a line may say that it changes, and how that is called where it is shown."""


@dataclass(frozen=True)
class Evidence:
    """One number that speaks for a treatment.

    Attributes:
        measure: name of the measure, as in the table of a diagnosis.
        units: what it was taken of, such as "layer.3".
        value: the number.
        low: lower end of its 95 % interval; None where it has none.
        high: upper end.
        threshold: what it was held against; None where it was not.
        note: what else is to be known of it: the metric, the intervention, a verdict.

    Raises:
        PlanError: a number is not finite.
    """

    measure: str
    units: str
    value: float
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "threshold"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise PlanError(
                    f"{name} of {self.measure} of {self.units} is {number}",
                    "Give a finite number, or leave the evidence out.",
                )

    def __str__(self) -> str:
        ends = "" if self.low is None or self.high is None else f" [{self.low:.4g}, {self.high:.4g}]"
        held = "" if self.threshold is None else f", held against {self.threshold:.4g}"
        return f"{self.measure} of {self.units}: {self.value:.4g}{ends}{held}" + (f" ({self.note})" * bool(self.note))


@dataclass(frozen=True)
class Line:
    """One treatment of a plan, and the grounds for it.

    Attributes:
        treatment: what is done.
        evidence: what speaks for it; empty where a person wrote the line.
        expected: what is to be expected of it, in words.
        cost: by a name of `COSTS`, the change that it brings, negative where it saves; what is not known is absent.
        rule: name of the rule that wrote it; empty where a person did.
        source: where the rule comes from.
        place: where it stands in a file, for messages; of no other meaning.

    Raises:
        PlanError: a cost has a name that there is none of, or is not finite.
    """

    treatment: Treatment
    evidence: tuple[Evidence, ...] = ()
    expected: str = ""
    cost: Mapping[str, float] = field(default_factory=dict)
    rule: str = ""
    source: str = ""
    place: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name, value in self.cost.items():
            if name not in COSTS or not math.isfinite(value):
                raise PlanError(f"The cost {name!r} is {value}", f"Give finite numbers of {', '.join(COSTS)}.")


@dataclass(frozen=True)
class Plan:
    """What is changed in a model, in order, and why.

    Attributes:
        lines: treatments with their evidence, in the order in which they are carried out.
        goal: one of `GOALS`, or empty where no rule wrote the plan.
        model: what the plan was made for: name, family, layers, heads, width, parameters, macs_per_second,
            fingerprint; empty where it is for any model that has the units.
        diagnosis: what it rests on: corpus, utterances, seconds, seed, versions and the like.
        notes: what rules looked at and did not act on, and why.

    Raises:
        PlanError: there is no such goal.
    """

    lines: tuple[Line, ...] = ()
    goal: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_goal(self.goal, empty=True)

    @property
    def treatments(self) -> tuple[Treatment, ...]:
        """What is done, in order."""
        return tuple(line.treatment for line in self.lines)

    @property
    def cost(self) -> dict[str, float]:
        """The change that all lines bring together; only what every line tells."""
        known = [name for name in COSTS if self.lines and all(name in line.cost for line in self.lines)]
        return {name: sum(line.cost[name] for line in self.lines) for name in known}

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, fit for JSON."""
        lines = [
            {
                **line.treatment.to_dict(), "evidence": [asdict(one) for one in line.evidence], "expected": line.expected,
                "cost": dict(line.cost), "rule": line.rule, "reference": line.source,
            }
            for line in self.lines
        ]  # fmt: skip
        return {
            "goal": self.goal, "model": dict(self.model), "diagnosis": dict(self.diagnosis), "treatments": lines,
            "cost": self.cost, "notes": list(self.notes),
        }  # fmt: skip

    def check(
        self,
        sizes: Sizes,
        fingerprint: str | None = None,
        *,
        same_sizes: bool = False,
        done: Sequence[Treatment] = (),
    ) -> Sizes:
        """Makes sure that a model can be treated by the plan, without the model.

        Args:
            sizes: of the model.
            fingerprint: of the model; None leaves its weights unchecked.
            same_sizes: allow a model of other weights than those that the plan was made for.
            done: what the model went through before.

        Returns:
            The sizes of the treated model.

        Raises:
            PlanError: the plan is for a model of another family, of other sizes or of other weights; units are not
                there; or its lines cannot go together.
        """
        from otoscope.plans.checks import check_lines, check_model

        check_model(self, sizes, fingerprint, same_sizes)
        return check_lines(self.lines, sizes, done)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the plan as TOML, whole or not at all.

        Returns:
            The path, with links followed.

        Raises:
            PlanError: it cannot be written there.
        """
        from otoscope.plans.toml import write_plan

        goal = check_plan_place(path)
        unfinished = goal.with_name(f".{goal.name}.{os.getpid()}.part")
        try:
            goal.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(write_plan(self), encoding="utf-8")
            unfinished.replace(goal)
        except OSError as error:
            raise _unwritable(path, error) from error
        finally:
            unfinished.unlink(missing_ok=True)
        return goal

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Reads a plan that `save` or a person wrote.

        Raises:
            PlanError: there is no such file, or it is no plan; with the line.
        """
        from otoscope.plans.toml import read_plan

        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(
                f"The plan {path} cannot be read: {getattr(error, 'strerror', None) or error}",
                "Name a file that `otoscope prescribe -o` wrote.",
            ) from error
        return read_plan(text, str(path))

    def __str__(self) -> str:
        from otoscope.plans.showing import shown

        return shown(self)


def check_goal(goal: str, *, empty: bool = False) -> str:
    """The goal, if there is such a one.

    Raises:
        PlanError: there is none.
    """
    if goal not in GOALS and not (empty and goal == ""):
        raise PlanError(f"There is no goal {goal!r}", f"The goals are {', '.join(GOALS)}.")
    return goal


def check_plan_place(path: str | os.PathLike[str]) -> Path:
    """Makes sure that a plan may be written to a path; to be called before long work.

    Returns:
        The path, with links followed.

    Raises:
        PlanError: it is a folder or a device, or cannot be written.
    """
    try:
        goal = Path(path).resolve()
        if goal.exists() and not goal.is_file():
            raise OSError("it is a folder" if goal.is_dir() else "it is no ordinary file")
        there = next(parent for parent in goal.parents if parent.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise OSError(f"{there} is no folder that can be written to")
    except (OSError, RuntimeError) as error:
        raise _unwritable(path, error) from error
    return goal


def _unwritable(path: str | os.PathLike[str], error: Exception) -> PlanError:
    reason = getattr(error, "strerror", None) or error
    return PlanError(
        f"The plan cannot be written to {path}: {reason}", "Name a file, plan.toml for example, where there is room."
    )
