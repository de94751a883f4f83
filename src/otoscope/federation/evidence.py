"""What a diagnosis says of how much each unit matters, as schedules go by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import FederationError
from otoscope.federation.channels import Group
from otoscope.interventions.criticality.labels import AMBIENT, CRITICAL, LABELS
from otoscope.interventions.criticality.resets import NAME, NORMALISED
from otoscope.measures.measure import Row

COMMAND = "otoscope diagnose --measures criticality,criticality-normalised"
# The modes that a schedule goes by, the first that was taken: what training gave a unit comes before what it does.
MODES = ("rewind", "re-initialise", "re-randomise", "bypass", "mean")


@dataclass(frozen=True)
class Evidence:
    """How much units matter, by one mode of `criticality` and one metric.

    Attributes:
        labels: "ambient", "intermediate" or "critical", by unit: a layer or one of its branches, by name.
        importance: normalised deviation N_u by unit: what a reset of the unit changes the metric by, over what a reset
            of all layers does. Absent where the latter makes nothing worse.
        layers: of the model that was diagnosed.
        mode: such as "rewind:pretrained".
        metric: such as "wer".
    """

    labels: Mapping[str, str]
    importance: Mapping[str, float]
    layers: int
    mode: str
    metric: str

    @classmethod
    def from_diagnosis(cls, diagnosis: Diagnosis, mode: str | None = None) -> Evidence:
        """What a saved diagnosis says.

        Args:
            diagnosis: with the measure `criticality`, of layers or of their branches.
            mode: such as "bypass" or "rewind:pretrained"; None is the first of `MODES` that was taken.

        Raises:
            FederationError: the diagnosis has no criticality, or not in this mode.
        """
        rows = [Row(**one) for one in diagnosis.measure(NAME).to_dicts()]
        labelled = [row for row in rows if row.label in LABELS and row.layer is not None and row.head is None]
        taken = sorted({row.other or "" for row in labelled}, key=lambda one: (_place(one), one))
        if not taken:
            raise FederationError(
                "The diagnosis does not say how critical layers are",
                f"Take `{COMMAND}` of the server's model, or use a schedule that needs no diagnosis: uniform or random.",
            )
        chosen = taken[0] if mode is None else mode
        if chosen not in taken:
            raise FederationError(
                f"The diagnosis has no criticality in the mode {chosen!r}", f"It has {', '.join(taken)}."
            )
        labelled = [row for row in labelled if row.other == chosen]
        metric = labelled[0].target or ""
        shares = [Row(**one) for one in diagnosis.measure(NORMALISED).to_dicts()]
        importance = {
            str(row.stream): row.value
            for row in shares
            if row.other == chosen and row.target == metric and row.value is not None
        }
        labels = {str(row.stream): str(row.label) for row in labelled}
        return cls(labels, importance, int(diagnosis.provenance["model"]["layers"]), chosen, metric)

    def labelled(self, groups: Mapping[str, Group], label: str) -> tuple[str, ...]:
        """The groups of units that have a label.

        Raises:
            FederationError: the evidence is of another model, or there is no such unit.
        """
        self.check(groups)
        found = tuple(
            name for name, group in groups.items() if self.labels.get(self._unit(group, self.labels)) == label
        )
        if not found:
            other = CRITICAL if label == AMBIENT else AMBIENT
            there = f", {other}" if other in self.labels.values() else ""
            raise FederationError(
                f"The diagnosis calls no unit {label} ({self.mode}, by {self.metric}), so that none can be aimed at",
                f"Use a schedule that needs no such unit: uniform, random, linear, budget{there}; or diagnose by more "
                "speech, where intervals are narrower.",
            )
        return found

    def units(self, groups: Mapping[str, Group]) -> dict[str, tuple[str, ...]]:
        """The groups of each unit whose importance is known, in the order of the signal.

        Raises:
            FederationError: the evidence is of another model, or does not tell the importance of every group.
        """
        self.check(groups)
        found: dict[str, tuple[str, ...]] = {}
        for name, group in groups.items():
            unit = self._unit(group, self.importance)
            if unit not in self.importance:
                raise FederationError(
                    f"The diagnosis does not tell the importance of {name} ({self.mode}, by {self.metric})",
                    f"Take `{COMMAND}` of all layers, on speech on which a reset of all of them surely makes things worse.",
                )
            found[unit] = (*found.get(unit, ()), name)
        return found

    def check(self, groups: Mapping[str, Group]) -> None:
        """Makes sure that the evidence may be of the model that the groups are of.

        Raises:
            FederationError: it has other layers.
        """
        there = {group.layer for group in groups.values()}
        told = {int(unit.split(".")[1]) for unit in self.labels}
        if max(there, default=0) > self.layers or told - there:
            raise FederationError(
                f"The diagnosis is of another model: one of {self.layers} layers, with "
                f"{max(told, default=0)} as the last that was reset, and the last of this one is {max(there, default=0)}",
                "Use a diagnosis of this model.",
            )

    @staticmethod
    def _unit(group: Group, known: Mapping[str, object]) -> str:
        """The unit that says most of a group: its branch where that was reset by itself, else its layer."""
        return group.name if group.name in known else f"layer.{group.layer}"


def _place(mode: str) -> int:
    kind = mode.partition(":")[0]
    return MODES.index(kind) if kind in MODES else len(MODES)
