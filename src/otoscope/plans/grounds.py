"""What rules go by and write into: the diagnosis, the limits, and the plan as it grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from otoscope.diagnosis.result import Diagnosis
from otoscope.measures.measure import Row
from otoscope.plans.changes import Change, changes_of
from otoscope.plans.estimate import Estimate
from otoscope.plans.limits import Limits
from otoscope.plans.plan import Evidence, Line
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import Treatment, fit

Head = tuple[int, int]  # layer, from 1, and number in the original model, from 0


@dataclass(frozen=True)
class Rule:
    """A way from evidence to treatments.

    Attributes:
        name: as it stands in plans.
        goals: those that it serves.
        source: where it comes from.
        act: looks at the grounds and prescribes; what it did not do, and why, it gives back in words.
    """

    name: str
    goals: tuple[str, ...]
    source: str
    act: Callable[[Grounds], Sequence[str]]


@dataclass
class Grounds:
    """What a rule goes by, and the plan that rules write one after another.

    Attributes:
        diagnosis: what was found.
        goal: of the plan.
        limits: how far rules may go.
        sizes: of the model as the lines so far leave it.
        estimate: what parts of the model cost; None where the diagnosis does not tell.
        rule: the rule whose turn it is.
        lines: the plan so far.
        spent: what the changes so far may cost together, in tolerances.
        done: layers by the kinds of treatments that the lines so far give them.
    """

    diagnosis: Diagnosis
    goal: str
    limits: Limits
    sizes: Sizes
    estimate: Estimate | None = None
    rule: Rule | None = None
    lines: list[Line] = field(default_factory=list)
    spent: float = 0.0
    done: dict[str, set[int]] = field(default_factory=dict)

    def rows(self, measure: str, target: str | None = None, other: str | None = None) -> list[Row]:
        """Rows of a measure that have a value."""
        found = [Row(**one) for one in self.diagnosis.measure(measure).to_dicts()]
        return [
            row
            for row in found
            if row.value is not None and target in (None, row.target) and other in (None, row.other)
        ]

    def changes(self, measure: str, other: str | None = None) -> list[Change]:
        """Changes of the metric that the plan goes by, the least costly first; see `changes_of`."""
        found = changes_of(self.diagnosis, measure, self.limits.metric, other)
        return sorted(found, key=lambda one: (one.cost, one.row.layer or 0, one.row.head or 0))

    def affordable(self, change: Change) -> bool:
        """Whether a change surely costs no more than what the changes so far leave of the margin."""
        return self.spent + change.cost <= self.limits.margin

    def prescribe(
        self, treatment: Treatment, evidence: Sequence[Evidence], expected: str, *, changes: Sequence[Change] = ()
    ) -> None:
        """Adds a line.

        Args:
            treatment: what is done; it fits what the lines so far leave of the model.
            evidence: what speaks for it.
            expected: what is to be expected, in words.
            changes: what it costs of the margin.

        Raises:
            SurgeryError: the treatment names what is not there.
            TreatmentError: the treatment does not fit.
        """
        after = fit([treatment], self.sizes)
        layers = {unit.layer for unit in self.sizes.find(treatment.units) if unit.layer is not None}
        self.done.setdefault(treatment.kind, set()).update(layers)
        earlier = [line.treatment for line in self.lines]
        cost = {} if self.estimate is None else self.estimate.cost(treatment, self.sizes, after, earlier)
        name, source = ("", "") if self.rule is None else (self.rule.name, self.rule.source)
        self.lines.append(Line(treatment, tuple(evidence), expected, cost, name, source))
        self.spent += sum(change.cost for change in changes)
        self.sizes = after

    def attends(self, layer: int) -> bool:
        """Whether a layer has attention with heads."""
        return bool(self.sizes.head_names[layer - 1])

    def touched(self, layer: int, *kinds: str) -> bool:
        """Whether a line so far gives a layer one of these kinds of treatments."""
        return any(layer in self.done.get(kind, ()) for kind in kinds)

    def heads(self) -> list[Head]:
        """All heads that are left."""
        return [(layer, head) for layer, kept in enumerate(self.sizes.head_names, start=1) for head in kept]


def named_heads(heads: Sequence[Head]) -> dict[int, str]:
    """Heads as one name a layer, such as "layer.3.head.0,2".

    >>> named_heads([(3, 2), (1, 1), (3, 0)])
    {1: 'layer.1.head.1', 3: 'layer.3.head.0,2'}
    """
    layers = {layer: sorted(head for k, head in heads if k == layer) for layer, _ in sorted(heads)}
    return {layer: f"layer.{layer}.head.{','.join(map(str, found))}" for layer, found in layers.items()}


def absent(measures: str, why: str = "") -> str:
    """A note on what has to be measured before a rule can act."""
    return f"nothing to go by{f' ({why})' if why else ''}: take `otoscope diagnose --measures {measures}`"
