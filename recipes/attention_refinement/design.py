"""What is run: orders of heads, spans, the points that are fine-tuned, seeds and sizes; refused before any work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from otoscope.errors import EvaluationError
from otoscope.interventions.orders import Order
from otoscope.interventions.spans import RADII
from otoscope.surgery import Edit, Gate, Span
from otoscope.treatments import LimitSpan, PruneHeads
from otoscope.treatments.treatment import Treatment

METRICS = ("globalness", "verticality", "diagonality")  # removed from high to low
WEIGHTS = ("max-weight", "confidence")  # the two readings of "weight", removed from low to high
LEFT_OUT = "importance-loo"
RANDOM = "random"
FORMS = ("literal", "banded")
WHOLE = "whole"

POINTS = ("globalness:1", "diagonality:1", "globalness:3", "importance-loo:3", "random-0:3", "banded:15")


@dataclass(frozen=True, order=True)
class Point:
    """A refined model: heads that go first in an order are taken out, or the spans of all heads are limited.

    Attributes:
        by: name of the order, or form of the span.
        amount: step of the order, or frames on either side.
    """

    by: str
    amount: int

    @classmethod
    def named(cls, name: str) -> "Point":
        """The point of a name such as "globalness:3" or "banded:15".

        Raises:
            EvaluationError: it is no such name.
        """
        by, _, amount = name.strip().partition(":")
        if not amount.isascii() or not amount.isdigit():
            raise EvaluationError(f"{name!r} is no point", "Write ORDER:STEP or FORM:RADIUS, as globalness:3.")
        return cls(by, int(amount))

    @property
    def name(self) -> str:
        """As `named` reads it."""
        return f"{self.by}:{self.amount}"

    @property
    def span(self) -> bool:
        """Whether spans are limited, rather than heads taken out."""
        return self.by in FORMS

    def edits(self, orders: Mapping[str, Order], steps: int) -> list[Edit]:
        """The model as it is at this point, by gates and spans.

        Args:
            orders: by name.
            steps: of each order.
        """
        if self.span:
            return [Span("layer.*", self.amount, self.by)]
        order = orders[self.by]
        return order.edits(order.steps(steps)[self.amount])

    def treatments(self, orders: Mapping[str, Order], steps: int) -> list[Treatment]:
        """The same for good: heads are gone with their weights, and a banded span saves time."""
        if self.span:
            return [LimitSpan("layer.*", self.amount, self.by)]
        return [PruneHeads(edit.units) for edit in self.edits(orders, steps) if isinstance(edit, Gate)]

    def words(self, steps: int, heads: int | None = None) -> str:
        """What is done, in words; with the number of heads where that is known."""
        if self.span:
            return f"spans of all heads within {self.amount} frames, {self.by}"
        share = f"{self.amount}/{steps} of the heads"
        if heads is not None:
            share = f"{removed(self.amount, steps, heads)} of {heads} heads"
        return f"{share} taken out by {self.by}"


@dataclass(frozen=True)
class Run:
    """One fine-tuning: of a point, or of the whole model, which is the control of all points.

    Attributes:
        point: what is done before; None is the whole model.
        seed: of batches, masks and noise.
    """

    point: Point | None
    seed: int

    @property
    def of(self) -> str:
        """The point's name."""
        return WHOLE if self.point is None else self.point.name

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.of.replace(':', '-')}-seed-{self.seed}"


@dataclass(frozen=True)
class Design:
    """Everything that the outcome depends on but the speech.

    Attributes:
        model: a recogniser: an embedded one, a folder, or a name on the Hub.
        steps: in which each order takes out all heads.
        radii: of spans, in frames of the model.
        random: orders drawn at random.
        points: that are fine-tuned, by name.
        seeds: of fine-tuning; each trains every point, and the whole model.
        updates: of fine-tuning.
        batch_seconds: of speech in an update.
        learning_rate: of fine-tuning.
        subset: how much speech to fine-tune on, such as "10min"; None is all.
        teacher: whether the unpruned model is a teacher beside the transcripts.
        ranked_seconds: of development speech that heads are ranked on.
        repeats: pairs of timed runs.

    Raises:
        EvaluationError: a number is out of range, or a point is not there.
    """

    model: str = "embedded:wavlm"
    steps: int = 6
    radii: tuple[int, ...] = RADII
    random: int = 3
    points: tuple[str, ...] = POINTS
    seeds: int = 2
    updates: int = 40
    batch_seconds: float = 24.0
    learning_rate: float = 5e-4
    subset: str | None = None
    teacher: bool = False
    ranked_seconds: float = 120.0
    repeats: int = 7

    def __post_init__(self) -> None:
        least = {"steps": 2, "random": 1, "seeds": 1, "updates": 1, "repeats": 6}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise EvaluationError(f"{name} is {getattr(self, name)}", f"Give {bound} or more.")
        for name in ("batch_seconds", "learning_rate", "ranked_seconds"):
            if not getattr(self, name) > 0:
                raise EvaluationError(f"{name} is {getattr(self, name)}", "Give a number above zero.")
        if not self.radii or len(set(self.radii)) < len(self.radii) or min(self.radii) < 0:
            raise EvaluationError(f"The radii {list(self.radii)} give no curve", "Give each once, none below 0.")
        if len(set(self.points)) < len(self.points):
            raise EvaluationError(f"A point is there twice among {', '.join(self.points)}", "Name each once.")
        for point in self.trained:
            bounds = self._amounts(point.by)
            if point.amount not in bounds:
                raise EvaluationError(
                    f"There is no point {point.name}", f"{point.by} has {', '.join(map(str, bounds))}."
                )

    @property
    def orders(self) -> tuple[str, ...]:
        """Names of all orders."""
        return (*METRICS, *WEIGHTS, LEFT_OUT, *(f"{RANDOM}-{k}" for k in range(self.random)))

    @property
    def trained(self) -> tuple[Point, ...]:
        """The points that are fine-tuned."""
        return tuple(map(Point.named, self.points))

    @property
    def curves(self) -> tuple[Point, ...]:
        """All points that are looked at without training."""
        pruned = [Point(order, step) for order in self.orders for step in range(1, self.steps + 1)]
        return (*pruned, *(Point(form, radius) for form in FORMS for radius in self.radii))

    @property
    def costed(self) -> tuple[Point, ...]:
        """The points whose size and time is taken: one order for all, banded spans, and whatever is fine-tuned."""
        pruned = [Point(METRICS[0], step) for step in range(1, self.steps + 1)]
        banded = [Point("banded", radius) for radius in self.radii]
        return tuple(dict.fromkeys([*pruned, *banded, *self.trained]))

    @property
    def runs(self) -> tuple[Run, ...]:
        """All fine-tunings, the control first."""
        return tuple(Run(point, seed) for point in (None, *self.trained) for seed in range(self.seeds))

    def run(self, name: str) -> Run:
        """The fine-tuning of this name.

        Raises:
            EvaluationError: there is none.
        """
        found = {run.name: run for run in self.runs}
        if name not in found:
            raise EvaluationError(f"There is no run {name!r}", f"The runs are {', '.join(found)}.")
        return found[name]

    def check_heads(self, heads: int) -> None:
        """Refuses more steps than a model has heads."""
        if self.steps > heads:
            raise EvaluationError(f"{heads} heads are not taken out in {self.steps} steps", "Take fewer steps.")

    def kept(self) -> dict[str, Any]:
        """What every stored outcome depends on: a folder holds outcomes of one such."""
        names = ("model", "steps", "updates", "batch_seconds", "learning_rate", "subset", "teacher", "ranked_seconds")
        return {name: getattr(self, name) for name in names}

    def _amounts(self, by: str) -> tuple[int, ...]:
        if by in FORMS:
            return self.radii
        if by not in self.orders:
            raise EvaluationError(f"Nothing is called {by!r}", f"There are {', '.join([*self.orders, *FORMS])}.")
        return tuple(range(1, self.steps + 1))


def removed(step: int, steps: int, heads: int) -> int:
    """How many heads are taken out at a step: see `Order.steps`."""
    return Order("", tuple((1, k) for k in range(heads))).steps(steps)[step]
