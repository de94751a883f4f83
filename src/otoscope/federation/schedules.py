"""Rates of federated dropout: the share of every group of units that clients keep."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from otoscope.errors import FederationError, SurgeryError
from otoscope.federation.channels import Group
from otoscope.federation.drawing import units_kept
from otoscope.federation.evidence import Evidence
from otoscope.interventions.criticality.labels import AMBIENT, CRITICAL
from otoscope.plans.places import line_numbers, line_of
from otoscope.statistics.hashing import uniform as drawn
from otoscope.surgery.patterns import alternatives, nearest

Rates = dict[str, float]
Groups = Mapping[str, Group]

FULL, UNIFORM, RANDOM, LINEAR, BUDGET = "full", "uniform", "random", "linear", "budget"
NAMES = (FULL, UNIFORM, RANDOM, AMBIENT, CRITICAL, LINEAR, BUDGET)
FROM_DIAGNOSIS = (AMBIENT, CRITICAL, LINEAR, BUDGET)
_TABLE = "keep"
_FLOAT32 = 4  # bytes of an element
_STEPS = 60  # halvings of the interval that a share is looked for in: beyond these a float has no more


def uniform(groups: Groups, keep: float) -> Rates:
    """The same share of every group."""
    return _targeted(groups, keep, groups)


def random_layers(groups: Groups, keep: float, layers: int, seed: int) -> Rates:
    """A share of the groups of some layers that are drawn by hash, the same in all rounds; other layers are whole.

    Raises:
        FederationError: there are not so many layers.
    """
    there = sorted({group.layer for group in groups.values()})
    if not 1 <= layers <= len(there):
        raise FederationError(
            f"{layers} layers are to be drawn at random",
            f"Give a number from 1 to {len(there)}, of this model's layers.",
        )
    chosen = sorted(there, key=lambda layer: drawn(seed, f"layer.{layer}", purpose="federation: random layers"))[
        :layers
    ]
    return _targeted(groups, keep, [name for name, group in groups.items() if group.layer in chosen])


def ambient(groups: Groups, keep: float, evidence: Evidence) -> Rates:
    """A share of the groups that a diagnosis calls ambient (Zhou et al. 2022); others are whole."""
    return _targeted(groups, keep, evidence.labelled(groups, AMBIENT))


def critical(groups: Groups, keep: float, evidence: Evidence) -> Rates:
    """A share of the groups that a diagnosis calls critical: the negative control of `ambient`."""
    return _targeted(groups, keep, evidence.labelled(groups, CRITICAL))


def linear(groups: Groups, lowest: float, evidence: Evidence, by: str = "rank") -> Rates:
    """Shares that grow with importance, from `lowest` for the least important unit to 1 for the most.

    By "rank" they are lowest + (1 - lowest) (k - 1) / (U - 1) for the unit of rank k among U, where units of the same
    importance share the mean of their ranks. By "value" they are lowest + (1 - lowest) max(N_u, 0) / max N. Where all
    units matter as much as one another, all keep the mean of both ends.
    """
    if by not in ("rank", "value"):
        raise FederationError(f"Rates cannot be linear in {by!r}", "They are linear in rank or value.")
    units = evidence.units(groups)
    values = {unit: max(evidence.importance[unit], 0.0) for unit in units}
    ordered = sorted(values.values())
    least, most = ordered[0], ordered[-1]
    rates: Rates = {}
    for unit, names in units.items():
        if least == most:
            place = 0.5
        elif by == "value":
            place = values[unit] / most
        else:
            below = sum(value < values[unit] for value in ordered)
            place = (below + (ordered.count(values[unit]) - 1) / 2) / (len(ordered) - 1)
        rates |= dict.fromkeys(names, _share(lowest) + (1 - lowest) * place)
    return {name: rates[name] for name in groups}


def budget(groups: Groups, evidence: Evidence, elements: int, elsewhere: int = 0) -> Rates:
    """The rates of least loss at a given size of the client.

    Minimises sum_u r_u N_u, r_u the share of unit u that is left out, under sum_u r_u size_u >= what has to go: a
    fractional knapsack, whose exact solution leaves out first what matters least for its size, and one unit at most in
    part. One row, head or channel of every group stays, and the client is smaller than the size by less than one of
    these.

    Args:
        groups: of the server's model.
        evidence: importance N_u of layers or branches; below zero it counts as zero.
        elements: of the client's tensors, at most.
        elsewhere: elements that belong to no group, which every client holds.

    Raises:
        FederationError: a client with one unit of every group is larger still, or importance is not known.
    """
    units = evidence.units(groups)
    sizes = {unit: sum(groups[name].elements for name in names) for unit, names in units.items()}
    dispensable = sorted(units, key=lambda unit: max(evidence.importance[unit], 0.0) / sizes[unit])
    gone: list[str] = []
    for unit in dispensable:
        gone.extend(units[unit])
        if size(groups, _least(groups, gone), elsewhere) <= elements or unit == dispensable[-1]:
            before = gone[: -len(units[unit])]
            return at_size(partial(_in_part, groups, before, units[unit]), groups, elements, elsewhere)
    return uniform(groups, 1.0)


def _in_part(groups: Groups, gone: list[str], names: tuple[str, ...], keep: float) -> Rates:
    """Rates at which some groups are all but gone, others are kept in part, and the rest is whole."""
    return _least(groups, gone) | dict.fromkeys(names, keep)


def fixed(groups: Groups, keep: Mapping[str, float]) -> Rates:
    """Rates that are given, by names or patterns of layers and branches; of two for the same group the later holds.

    Args:
        groups: of the server's model.
        keep: such as {"layer.*": 0.5, "layer.3-5.feed_forward": 0.25}; what is not named is whole.

    Raises:
        FederationError: a name or pattern matches nothing, or a share leaves its range.
    """
    rates = uniform(groups, 1.0)
    for pattern, share in keep.items():
        rates |= _named(groups, pattern, share)
    return rates


def _named(groups: Groups, pattern: str, share: Any) -> Rates:
    """The share of every group that a pattern names.

    Raises:
        FederationError: it matches nothing, or the share leaves its range.
    """
    try:
        expressions = list(alternatives(pattern))
    except SurgeryError as error:
        raise FederationError(error.problem, error.cure) from error
    found: list[str] = []
    for name, expression in expressions:
        matched = [group for group in groups if any(map(expression.fullmatch, _outer(group)))]
        if not matched:
            names = dict.fromkeys(outer for group in groups for outer in _outer(group))
            raise FederationError(f"{pattern!r} names no unit that can be left out in part", nearest(name, names))
        found += matched
    return dict.fromkeys(found, _share(share, pattern))


def read_fixed(path: str | Path, groups: Groups) -> Rates:
    """Rates from a TOML file: names or patterns of units, each with the share that is kept, in a table `keep`.

    Raises:
        FederationError: it cannot be read, has other keys, or a unit or share is refused; the line is named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise FederationError(
            f"The schedule {path} cannot be read: {error}", 'Write a table [keep] of lines such as "layer.3" = 0.5.'
        ) from error
    table: Any = content.get(_TABLE)
    strange = [key for key in content if key != _TABLE]
    if strange or not isinstance(table, dict) or not table:
        raise FederationError(
            f"The schedule {path} has {repr(strange[0]) if strange else 'no table [keep] with a unit'}",
            'Write a table [keep] of lines such as "layer.3" = 0.5, and nothing else.',
        )
    lines = line_numbers(text)
    rates = uniform(groups, 1.0)
    for pattern, share in table.items():
        try:
            rates |= _named(groups, pattern, share)
        except FederationError as error:
            line = line_of(lines, (_TABLE, pattern))
            raise FederationError(f"{path}, line {line}: {error.problem}", error.cure) from error
    return rates


def schedule(
    name: str,
    groups: Groups,
    *,
    keep: float = 0.5,
    evidence: Evidence | None = None,
    layers: int | None = None,
    seed: int = 0,
    elements: int | None = None,
    elsewhere: int = 0,
) -> Rates:
    """A schedule by name.

    Args:
        name: one of `NAMES`, or a TOML file for `read_fixed`.
        groups: of the server's model.
        keep: share that is kept of what the schedule aims at; of "linear", the lowest share.
        evidence: for "ambient", "critical", "linear" and "budget".
        layers: of "random", how many; None is as many as the evidence calls ambient.
        seed: of "random".
        elements: size of the client; the share is then solved for. "budget" needs it.
        elsewhere: elements that belong to no group.

    Returns:
        Share that is kept, for every group.

    Raises:
        FederationError: there is no such schedule, it lacks what it needs, it says itself what is kept and a size is given
            too, or the size cannot be met.
    """
    if elements is not None and (name == FULL or (name not in NAMES and Path(name).suffix == ".toml")):
        refuse_size(f"The schedule {name!r}")
    if name not in NAMES:
        if Path(name).suffix == ".toml":
            return read_fixed(name, groups)
        near = difflib.get_close_matches(name, NAMES, n=1)
        raise FederationError(
            f"There is no schedule {name!r}",
            f"{f'Did you mean {near[0]}? ' if near else ''}The schedules are {', '.join(NAMES)}, or a TOML file.",
        )
    if name == FULL:
        return uniform(groups, 1.0)
    if name == UNIFORM:
        make: Callable[[float], Rates] = partial(uniform, groups)
    elif name == RANDOM:
        make = partial(random_layers, groups, layers=_count(groups, layers, evidence), seed=seed)
    elif evidence is None:
        raise FederationError(
            f"The schedule {name!r} goes by a diagnosis, and there is none",
            "Pass a diagnosis with criticality, or use uniform or random.",
        )
    elif name == BUDGET:
        if elements is None:
            raise FederationError(
                "The schedule 'budget' needs the size of a client", "Give elements, bytes or a memory."
            )
        return budget(groups, evidence, elements, elsewhere)
    else:
        aimed: dict[str, Callable[[Groups, float, Evidence], Rates]] = {
            AMBIENT: ambient, CRITICAL: critical, LINEAR: linear
        }  # fmt: skip
        make = partial(_by, aimed[name], groups, evidence)
    return make(keep) if elements is None else at_size(make, groups, elements, elsewhere)


def refuse_size(which: str) -> NoReturn:
    """Refuses the size of a client for rates that are given.

    Raises:
        FederationError: always.
    """
    raise FederationError(
        f"{which} says itself what clients keep, and is not solved for a size",
        "Leave out the size of a client, or choose another schedule.",
    )


def at_size(make: Callable[[float], Rates], groups: Groups, elements: int, elsewhere: int = 0) -> Rates:
    """The rates of a schedule at which a client has a given size.

    The greatest share is taken whose client is not larger; single units of groups that are not whole are then added in
    turn, as long as they fit. The client is smaller than the size by less than one of these.

    Args:
        make: from the share that is kept to rates, which do not fall as it grows.
        groups: of the server's model.
        elements: of the client's tensors, at most.
        elsewhere: elements that belong to no group, which every client holds.

    Raises:
        FederationError: even with one unit left of everything that the schedule aims at the client is larger.
    """
    low, high = 1e-12, 1.0  # so small a share leaves one unit
    smallest = size(groups, make(low), elsewhere)
    if smallest > elements:
        raise FederationError(
            f"A client of {elements} elements is smaller than this schedule can make one: {smallest} with one unit left "
            "of each group that it aims at",
            f"Give a client {smallest * _FLOAT32}B (bytes of float32) or more, or a schedule that aims at more layers.",
        )
    if size(groups, make(high), elsewhere) <= elements:
        return make(high)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if size(groups, make(middle), elsewhere) <= elements else (low, middle)
    most = make(1.0)
    counts = {name: units_kept(rate, groups[name].count) for name, rate in make(low).items()}
    room = elements - size(groups, make(low), elsewhere)
    open_groups = [
        name for name, count in counts.items() if count < units_kept(most[name], groups[name].count)
    ]  # fmt: skip
    while open_groups:
        open_groups = [
            name
            for name in open_groups
            if counts[name] < units_kept(most[name], groups[name].count) and _unit(groups[name]) <= room
        ]
        for name in open_groups:
            if _unit(groups[name]) <= room:
                counts[name] += 1
                room -= _unit(groups[name])
    return {name: counts[name] / groups[name].count for name in counts}


def size(groups: Groups, rates: Mapping[str, float], elsewhere: int = 0) -> int:
    """Elements of a client at given rates, where shares of units are rounded down.

    Args:
        groups: of the server's model.
        rates: by group; groups that are absent are whole.
        elsewhere: elements that belong to no group.
    """
    return elsewhere + sum(
        _unit(group) * units_kept(rates.get(name, 1.0), group.count) for name, group in groups.items()
    )


def _unit(group: Group) -> int:
    """Elements of one unit."""
    return group.elements // group.count


def _least(groups: Groups, names: list[str]) -> Rates:
    """Rates at which one unit is left of some groups, and others are whole."""
    return uniform(groups, 1.0) | {name: 1 / groups[name].count for name in names}


def _by(aimed: Callable[[Groups, float, Evidence], Rates], groups: Groups, evidence: Evidence, keep: float) -> Rates:
    return aimed(groups, keep, evidence)


def _count(groups: Groups, layers: int | None, evidence: Evidence | None) -> int:
    """How many layers are drawn at random: those that were asked for, or as many as are ambient."""
    if layers is not None:
        return layers
    if evidence is None:
        raise FederationError(
            "The schedule 'random' does not know how many layers it shall aim at",
            "Give their number, or a diagnosis, of whose ambient layers it then takes the number.",
        )
    return len({groups[name].layer for name in evidence.labelled(groups, AMBIENT)})


def _targeted(groups: Groups, keep: float, names: Any) -> Rates:
    return dict.fromkeys(groups, 1.0) | dict.fromkeys(names, _share(keep))


def _share(value: Any, unit: str = "") -> float:
    """A share that can be kept.

    Raises:
        FederationError: it is not above 0 and at most 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise FederationError(
            f"The share that is kept{f' of {unit}' if unit else ''} is {value!r}", "Give a number above 0, up to 1."
        )
    return float(value)


def _outer(name: str) -> list[str]:
    """A group's name and those of what it is part of: its layer, and both feed-forwards together.

    >>> _outer("layer.3.feed_forward.1")
    ['layer.3', 'layer.3.feed_forward', 'layer.3.feed_forward.1']
    """
    steps = name.split(".")
    return [".".join(steps[:k]) for k in range(2, len(steps) + 1)]
