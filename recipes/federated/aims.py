"""Which layers a schedule is aimed at, by the diagnosis of the server's model, so that a client has the size asked for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from otoscope.errors import FederationError, TrainingError
from otoscope.federation.channels import Group
from otoscope.federation.evidence import Evidence
from otoscope.federation.schedules import Rates, at_size, random_layers, size, uniform
from otoscope.interventions.criticality.labels import AMBIENT, CRITICAL
from otoscope.training.folders import replace_text

FULL, UNIFORM, RANDOM = "full", "uniform", "random"
SCHEDULES = (FULL, UNIFORM, RANDOM, AMBIENT, CRITICAL)
AIMED = (AMBIENT, CRITICAL)


@dataclass(frozen=True)
class Aim:
    """What a schedule does to the layers.

    Attributes:
        layers: those of which clients are sent a part.
        called: those among them that the diagnosis calls by the schedule's name; empty where others stand in, or the
            schedule goes by no diagnosis.
        added: those that were added, since the ones before cannot make a client as small as it is to be.
        rates: share that is kept, by group.
        share: of the model's elements, that a client holds.
    """

    layers: tuple[int, ...]
    called: tuple[int, ...]
    added: tuple[int, ...]
    rates: Rates
    share: float

    @property
    def stands_in(self) -> tuple[int, ...]:
        """Layers in the place of ones that the diagnosis would call by the schedule's name."""
        return tuple(layer for layer in self.layers if layer not in (*self.called, *self.added))


@dataclass(frozen=True)
class Choice:
    """What all schedules do, by the diagnosis of the server's model of one seed.

    Attributes:
        importance: normalised deviation by layer: what its reset changes the metric by, over what a reset of all does.
        labels: "ambient", "intermediate" or "critical", by layer.
        mode: of the reset.
        metric: that importance is measured by.
        aims: by schedule.
    """

    importance: Mapping[int, float]
    labels: Mapping[int, str]
    mode: str
    metric: str
    aims: Mapping[str, Aim]

    def save(self, place: Path) -> None:
        """Writes a file, whole or not at all."""
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_text(place, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, place: Path) -> "Choice":
        """What `save` wrote.

        Raises:
            TrainingError: there is no such file.
        """
        if not place.exists():
            raise TrainingError(
                f"There is no {place.name}, which tells the layers to aim at", "Run the recipe without --only."
            )
        told: dict[str, Any] = json.loads(place.read_text())
        importance, labels = ({int(layer): one for layer, one in told[key].items()} for key in ("importance", "labels"))
        aims = {
            name: Aim(*(tuple(one[key]) for key in ("layers", "called", "added")), one["rates"], one["share"])
            for name, one in told["aims"].items()
        }
        return cls(importance, labels, told["mode"], told["metric"], aims)


def choose(groups: Mapping[str, Group], evidence: Evidence, elements: int, elsewhere: int, seed: int) -> Choice:
    """All schedules at one size of the client.

    Args:
        groups: of the server's model.
        evidence: of a diagnosis of its layers.
        elements: of a client of all schedules but "full", at most.
        elsewhere: elements that belong to no group.
        seed: of the random layers, as many as "ambient" is aimed at.

    Raises:
        TrainingError: the diagnosis does not tell how much every layer matters.
        FederationError: no client is as small as that.
    """
    evidence.check(groups)
    layers = sorted({group.layer for group in groups.values()})
    names = {layer: f"layer.{layer}" for layer in layers}
    untold = [name for name in names.values() if name not in evidence.importance or name not in evidence.labels]
    if untold:
        raise TrainingError(
            f"The diagnosis does not tell how much {untold[0]} matters ({evidence.mode}, by {evidence.metric})",
            "Train the server's model for longer: a reset of all layers must make it worse.",
        )
    importance = {layer: evidence.importance[name] for layer, name in names.items()}
    labels = {layer: evidence.labels[name] for layer, name in names.items()}
    total = size(groups, {}, elsewhere)

    def made(layers: Sequence[int], called: Sequence[int], added: Sequence[int], rates: Rates) -> Aim:
        return Aim(tuple(layers), tuple(called), tuple(added), rates, size(groups, rates, elsewhere) / total)

    even = at_size(partial(uniform, groups), groups, elements, elsewhere)
    aims = {FULL: made((), (), (), uniform(groups, 1.0)), UNIFORM: made(layers, (), (), even)}
    ordered = sorted(layers, key=lambda layer: (importance[layer], layer))
    for name, order in ((AMBIENT, ordered), (CRITICAL, ordered[::-1])):
        called = [layer for layer in order if labels[layer] == name]
        aims[name] = made(*_reaching(groups, order, called, elements, elsewhere))
    count = len(aims[AMBIENT].layers)
    drawn = at_size(partial(_random, groups, count, seed), groups, elements, elsewhere)
    aims[RANDOM] = made(_layers(groups, random_layers(groups, 0.5, count, seed)), (), (), drawn)
    return Choice(importance, labels, evidence.mode, evidence.metric, {name: aims[name] for name in SCHEDULES})


def _reaching(
    groups: Mapping[str, Group], order: Sequence[int], called: Sequence[int], elements: int, elsewhere: int
) -> tuple[list[int], list[int], list[int], Rates]:
    """The layers that are called, else the first in the order, and as many of the next as make a client small enough.

    Raises:
        FederationError: all layers together do not.
    """
    begun = list(called) or [order[0]]
    chosen, waiting = list(begun), [layer for layer in order if layer not in begun]
    while True:
        try:
            rates = at_size(partial(_of_layers, groups, chosen), groups, elements, elsewhere)
        except FederationError:
            if not waiting:
                raise
            chosen.append(waiting.pop(0))
        else:
            return sorted(chosen), sorted(called), sorted(set(chosen) - set(begun)), rates


def _of_layers(groups: Mapping[str, Group], layers: Sequence[int], keep: float) -> Rates:
    return {name: keep if group.layer in layers else 1.0 for name, group in groups.items()}


def _random(groups: Mapping[str, Group], count: int, seed: int, keep: float) -> Rates:
    return random_layers(groups, keep, count, seed)


def _layers(groups: Mapping[str, Group], rates: Rates) -> list[int]:
    """Layers of which not all is kept."""
    return sorted({groups[name].layer for name, rate in rates.items() if rate < 1})
