"""Whether a plan belongs to a model, and whether its lines can go together; without the model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from otoscope.errors import OtoscopeError, PlanError
from otoscope.plans.plan import Line, Plan
from otoscope.treatments.freeze import Freeze
from otoscope.treatments.learning_rate import LearningRate
from otoscope.treatments.reinitialise import Reinitialise
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment, fit


def check_model(plan: Plan, sizes: Sizes, fingerprint: str | None = None, same_sizes: bool = False) -> None:
    """Makes sure that a plan was made for a model.

    A plan that names no model fits any.

    Args:
        plan: the plan.
        sizes: of the model.
        fingerprint: of the model; None leaves its weights unchecked.
        same_sizes: allow other weights.

    Raises:
        PlanError: the family, the layers and heads, the width or the weights are others.
    """
    about = dict(plan.model)
    if isinstance(about.get("heads"), int):  # of every layer
        about["heads"] = [about["heads"]] * sizes.layers
    theirs = {"family": sizes.family, "layers": sizes.layers, "heads": list(sizes.heads), "width": sizes.width}
    for name, value in theirs.items():
        if name in about and about[name] != value:
            raise PlanError(
                f"The plan is for a model of another architecture, with {name} = {plan.model[name]!r}; here it is {value!r}",
                "Diagnose this model and prescribe anew.",
            )
    if fingerprint is not None and about.get("fingerprint", fingerprint) != fingerprint and not same_sizes:
        raise PlanError(
            f"The plan was made for {about.get('name', 'a model')} with other weights (fingerprint "
            f"{str(about['fingerprint'])[:12]}..., that of the model {fingerprint[:12]}...)",
            "Its evidence is not of this model. Prescribe anew, or allow it with `--any-weights` (any_weights=True).",
        )


def check_lines(lines: Sequence[Line], sizes: Sizes, done: Sequence[Treatment] = ()) -> Sizes:
    """Makes sure that treatments can be carried out one after another.

    Args:
        lines: the treatments.
        sizes: of the model.
        done: what it went through before; the same again may name what is gone.

    Returns:
        The sizes of the treated model.

    Raises:
        PlanError: units are not there, or were taken out by an earlier line; or two lines contradict each other.
    """
    left = sizes
    for k, line in enumerate(lines):
        try:
            left = fit([line.treatment], left, [*done, *(one.treatment for one in lines[:k])])
        except OtoscopeError as error:
            raise at_line(k, line, error) from error
        for j, earlier in enumerate(lines[:k]):
            _check_pair((j, earlier), (k, line), sizes)
    return left


def _check_pair(first: tuple[int, Line], second: tuple[int, Line], sizes: Sizes) -> None:
    """Refuses two lines of which one would undo or contradict the other."""
    (j, earlier), (k, line) = first, second
    before, after = earlier.treatment, line.treatment
    kinds = {type(before), type(after)}
    reason = ""
    if kinds == {Reinitialise} and before != after:
        reason = "re-initialise the same unit, so that nothing is left of the first"
    elif kinds == {Freeze, LearningRate}:
        reason = "freeze a unit and give it a learning rate"
    if not reason:
        return
    shared = _meeting(before, after, sizes)
    if shared:
        raise PlanError(
            f"{_named(k, line)}: this and {_named(j, earlier)} {reason} ({shared})",
            "Delete one of them, or name others.",
        )


def _meeting(before: Treatment, after: Treatment, sizes: Sizes) -> str:
    """A unit that two treatments have in common; empty where there is none."""
    names: list[set[str]] = []
    for treatment in (before, after):
        units, but = treatment.units, treatment.but if isinstance(treatment, Freeze) else ""
        kept = _names(but, sizes) if but else set()
        names.append({name for name in _names(units, sizes) if not any(_within(name, one) for one in kept)})
    for one in sorted(names[0]):
        for other in sorted(names[1]):
            if _within(one, other) or _within(other, one):
                return max(one, other, key=len)
    return ""


def _names(pattern: str, sizes: Sizes) -> set[str]:
    """Names of units that a pattern finds; its own words where sizes do not tell."""
    found = {unit.name for unit in sizes.find(pattern)}
    return found or {pattern}


def _within(name: str, whole: str) -> bool:
    """Whether a unit is another or a part of it; "*" stands for anything."""
    name, whole = (one.replace(".head.", ".attention.head.") for one in (name, whole))
    expression = re.escape(whole).replace(r"\*", "[^.]*")
    return whole == "*" or re.match(rf"{expression}(\.|$)", name) is not None


def at_line(k: int, line: Line, error: OtoscopeError) -> PlanError:
    """What is wrong with a line, counted from 0, with the line's place."""
    return PlanError(f"{_named(k, line)}: {error.problem}", error.cure)


def _named(k: int, line: Line) -> str:
    return line.place or f"line {k + 1} ({line.treatment})"
