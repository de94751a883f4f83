"""Orders in which heads are removed: by a value of each head, in the direction that its source prunes in, or at random."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from otoscope.errors import EvaluationError
from otoscope.measures.measure import Row
from otoscope.surgery import Edit, Gate

Head = tuple[int, int]  # layer, from 1, and number in the original model, from 0
Values = Mapping[Head, float]

HIGH_FIRST = {
    "globalness", "verticality", "diagonality", "globalness-normalised", "verticality-normalised",
}  # fmt: skip
"""Values of which the highest are pruned first (Yang, Liu and Lee 2020, section 7.1)."""

LOW_FIRST = {
    "max-weight", "confidence", "importance-gradient", "importance-gradient-sum", "importance-attribution",
    "importance-l1",
}  # fmt: skip
"""Values of which the lowest are pruned first: they say how much a head matters."""


@dataclass(frozen=True)
class Order:
    """Heads in the order in which they are removed.

    Attributes:
        name: what it is by.
        heads: layer and head, the first to be removed first.
    """

    name: str
    heads: tuple[Head, ...]

    def edits(self, count: int) -> list[Edit]:
        """Removes the first `count` heads: their output is zero, the bias of the output projection stays.

        Raises:
            EvaluationError: there are not so many.
        """
        if not 0 <= count <= len(self.heads):
            raise EvaluationError(
                f"{count} heads are to be removed by {self.name}, which orders {len(self.heads)}",
                "Remove no more than there are.",
            )
        layers: dict[int, list[int]] = {}
        for layer, head in self.heads[:count]:
            layers.setdefault(layer, []).append(head)
        return [Gate(f"layer.{k}.head.{','.join(map(str, sorted(layers[k])))}") for k in sorted(layers)]

    def steps(self, steps: int = 6) -> tuple[int, ...]:
        """Numbers of heads that are removed at each step, from none to all: 0, 24, ..., 144 for six steps over 144.

        >>> Order("x", tuple((1, k) for k in range(4))).steps(3)
        (0, 1, 3, 4)
        """
        if steps < 1:
            raise EvaluationError(f"{steps} steps", "Take one step or more.")
        counts = (math.floor(k * len(self.heads) / steps + 0.5) for k in range(steps + 1))
        return tuple(dict.fromkeys(counts))


def order_by(name: str, values: Values, *, high_first: bool | None = None) -> Order:
    """Heads by a value of each; of equal values the lower layer and head comes first.

    Args:
        name: of the value; it says which end is pruned first, where that is known.
        values: (layer, head) -> value.
        high_first: which end is pruned first, for values under another name.

    Raises:
        EvaluationError: a value is not finite, or nothing says which end is pruned first.
    """
    if high_first is None:
        if name not in HIGH_FIRST | LOW_FIRST:
            raise EvaluationError(
                f"Nothing says whether heads of high or of low {name} are pruned first", "Give high_first."
            )
        high_first = name in HIGH_FIRST
    bad = [head for head, value in values.items() if not math.isfinite(value)]
    if bad or not values:
        what = f"of layer {bad[0][0]}, head {bad[0][1]} is {values[bad[0]]}" if bad else "is given for no head"
        raise EvaluationError(f"The {name} {what}", "Give a finite value of every head.")
    sign = -1 if high_first else 1
    return Order(name, tuple(sorted(values, key=lambda head: (sign * values[head], head))))


def order_by_loss(values: Values, *, higher_is_better: bool, name: str = "importance-loo") -> Order:
    """Heads by what a metric loses without them, the least first.

    Args:
        values: (layer, head) -> metric without the head less metric with it.
        higher_is_better: which way the metric is better.
        name: of the order.

    Raises:
        EvaluationError: see `order_by`.
    """
    return order_by(name, values, high_first=higher_is_better)


def random_orders(heads: Iterable[Head], seed: int = 0, count: int = 3) -> list[Order]:
    """Orders drawn at random: the control of every other order.

    Args:
        heads: all heads.
        seed: of the draws.
        count: how many orders.
    """
    ordered = sorted(heads)
    draws = [np.random.default_rng([seed, k]).permutation(len(ordered)) for k in range(count)]
    return [Order(f"random-{k}", tuple(ordered[i] for i in draw)) for k, draw in enumerate(draws)]


def values_of(rows: Sequence[Row], measure: str, target: str | None = None) -> dict[Head, float]:
    """Values of each head from rows of the table.

    Args:
        rows: rows of a result or a diagnosis.
        measure: which of them.
        target: which of them, where a measure has several.

    Raises:
        EvaluationError: a head has two values, or none has any.
    """
    found: dict[Head, float] = {}
    for row in rows:
        if row.measure != measure or row.layer is None or row.head is None or row.value is None:
            continue
        if target is not None and row.target != target:
            continue
        if (row.layer, row.head) in found:
            raise EvaluationError(
                f"Layer {row.layer}, head {row.head} has several values of {measure}", "Name their target."
            )
        found[row.layer, row.head] = row.value
    if not found:
        raise EvaluationError(f"No head has a value of {measure}", "Measure it first.")
    return found
