"""Which stages of an examination of importance the measures that are asked for need."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from otoscope.errors import MeasureError
from otoscope.interventions.agreement import KENDALL, SPEARMAN
from otoscope.interventions.attribution import NAME as ATTRIBUTED
from otoscope.interventions.gradients import BY_FRAME, SUMMED
from otoscope.interventions.leave_one_out import NAME as LEFT_OUT
from otoscope.interventions.signs import ORDERS
from otoscope.interventions.spans import PLACES
from otoscope.interventions.weights import NAME as WEIGHTS
from otoscope.training.probes import TASKS

VERDICT, SIGNS = "pruning-verdict", "sign-test"
PRUNED, SPANNED = (tuple(f"{kind}-{task}" for task in TASKS) for kind in ("pruning", "span"))
VALUES = (LEFT_OUT, BY_FRAME, SUMMED, ATTRIBUTED, WEIGHTS)
NAMES = (*VALUES, KENDALL, SPEARMAN, *PRUNED, *SPANNED, VERDICT, SIGNS)
"""All that an examination gives where nothing is named; spans by layer and by head are taken only by name."""


def base_name(measure: str) -> str:
    """A measure's name without what tells its kinds of rows apart.

    >>> base_name("span-phone-frozen-change")
    'span-phone'
    """
    return measure.removesuffix("-change").removesuffix("-frozen")


@dataclass(frozen=True)
class Needs:
    """What is to be done for the measures that are wanted.

    Attributes:
        names: of the measures whose rows are given, and of the pruning curves of metrics.
        tasks: of the probes that may be trained, in order.
    """

    names: frozenset[str]
    tasks: tuple[str, ...]

    @classmethod
    def of(cls, wanted: Collection[str] | None, tasks: Sequence[str], metrics: Sequence[str]) -> Needs:
        """Needs of measures by name.

        Args:
            wanted: names; None for `NAMES`.
            tasks: of the probes that may be trained.
            metrics: that are taken beside the probes; they have pruning curves where probes have.

        Raises:
            MeasureError: a name is unknown, or there is none.
        """
        curves = {f"pruning-{metric}" for metric in metrics}
        if wanted is None:
            return cls(frozenset({*NAMES, *curves}), tuple(tasks))
        known = {*NAMES, *PLACES, *curves}
        unknown = sorted(set(wanted) - known)
        if unknown or not wanted:
            near = get_close_matches(unknown[0], sorted(known), 3) if unknown else []
            raise MeasureError(
                f"No examination of importance gives {unknown[0]!r}" if unknown else "No measure was asked for",
                f"Did you mean {' or '.join(near)}?" if near else f"Name some of {', '.join(sorted(known))}.",
            )
        return cls(frozenset(wanted) | (curves if set(PRUNED) & set(wanted) else set()), tuple(tasks))

    def gives(self, measure: str) -> bool:
        """Whether rows of this measure were asked for."""
        return base_name(measure) in self.names

    @property
    def places(self) -> tuple[str, ...]:
        """Spans by place that are wanted."""
        return tuple(name for name in PLACES if name in self.names)

    @property
    def agreement(self) -> bool:
        """Whether rankings are compared."""
        return bool(self.names & {KENDALL, SPEARMAN})

    @property
    def orders(self) -> frozenset[str] | None:
        """Orders by which heads are removed; None for all of them, which need every value."""
        if any(name.startswith("pruning-") for name in self.names - {VERDICT}):
            return None
        verdict = {"diagonality", "globalness"} if VERDICT in self.names else set()
        return frozenset(verdict | (set(ORDERS) if SIGNS in self.names else set()))

    @property
    def shapes(self) -> bool:
        """Whether heads are ordered by their maps."""
        return self.agreement or self.orders is None or bool(self.orders)

    def takes(self, *values: str) -> bool:
        """Whether one of these values of heads is taken."""
        return self.agreement or self.orders is None or bool(self.names & set(values))

    @property
    def measured(self) -> bool:
        """Whether a metric is taken of variants one by one."""
        return self.takes(LEFT_OUT) or bool(self.places)

    @property
    def loss(self) -> bool:
        """Whether the model's own loss is used."""
        return self.measured or self.takes(BY_FRAME, SUMMED, ATTRIBUTED)

    @property
    def probed(self) -> tuple[str, ...]:
        """Tasks of the curves."""
        for_verdicts = {VERDICT: {"phone"}, SIGNS: {"phone", "speaker"}}
        also = {task for name, tasks in for_verdicts.items() if name in self.names for task in tasks}
        return tuple(t for t in self.tasks if t in also or self.names & {f"pruning-{t}", f"span-{t}"})

    def forms(self, forms: Sequence[str]) -> tuple[str, ...]:
        """Forms of the span curves: those that are asked for, the paper's alone for sign tests, or none."""
        if self.names & set(SPANNED):
            return tuple(forms)
        return ("literal",) if SIGNS in self.names else ()
