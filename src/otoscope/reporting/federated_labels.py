"""Labels of a diagnosis beside the units of a federated training's schedule: ambient, intermediate, critical."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from otoscope.diagnosis.metric_words import called
from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import FederationError
from otoscope.federation.evidence import Evidence
from otoscope.federation.result import FederationResult
from otoscope.reporting.criticality import mode_name
from otoscope.reporting.facts import part
from otoscope.reporting.values import Reportable, finite

_UNIT = re.compile(r"layer\.(\d+)\.(.+)")


def place_of(unit: str) -> tuple[int, str] | None:
    """Layer and branch of a unit of a schedule; None where its name is of another kind.

    >>> place_of("layer.3.feed_forward.1")
    (3, 'feed_forward.1')
    """
    found = _UNIT.fullmatch(unit)
    return (int(found[1]), found[2]) if found else None


@dataclass(frozen=True)
class Labels:
    """What a diagnosis says of units.

    Attributes:
        by_unit: labels of layers or of their branches.
        shares: normalised deviation, by the same names.
        notes: of what they are, or why there are none.
    """

    by_unit: Mapping[str, str] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def known(self) -> bool:
        """Whether there are any."""
        return bool(self.by_unit)

    def label(self, unit: str) -> str:
        """That of a branch where it was reset by itself, else that of its layer; empty where neither has one."""
        return self.by_unit.get(unit, self.by_unit.get(_layer(unit), ""))

    def importance(self, unit: str) -> float | None:
        """Share of what resetting all units changes, of a branch or its layer."""
        return self.shares.get(unit, self.shares.get(_layer(unit)))


def labels_of(diagnosis: Reportable, result: FederationResult) -> Labels:
    """The labels that a schedule would go by, where the diagnosis is of a model with the same layers.

    Args:
        diagnosis: of the model that the training began with.
        result: of the training.
    """
    model = part(diagnosis.provenance, "model")
    layers = finite(model.get("layers"))
    if layers is None:
        return Labels()
    try:
        evidence = Evidence.from_diagnosis(Diagnosis(diagnosis.table, {}, dict(diagnosis.provenance)))
    except FederationError:
        return Labels(notes=("The diagnosis has no criticality, so that no labels stand beside the shares.",))
    there = {place[0] for place in map(place_of, result.schedule) if place is not None}
    told = {int(unit.split(".")[1]) for unit in evidence.labels}
    if max(there, default=0) > layers or told - there:
        return Labels(notes=("The diagnosis is of a model with other layers, so that its labels are left away.",))
    notes = [
        f"Labels are those of the diagnosis, by {called(evidence.metric)} with one unit {mode_name(evidence.mode)} at a "
        "time; importance is the share of what resetting all layers changes."
    ]
    name = str(model.get("name") or "")
    if name != result.model:
        notes.append(f"The diagnosis names its model {name or 'nothing'}, the training {result.model}.")
    return Labels(evidence.labels, evidence.importance, notes)


def _layer(unit: str) -> str:
    place = place_of(unit)
    return f"layer.{place[0]}" if place is not None else ""
