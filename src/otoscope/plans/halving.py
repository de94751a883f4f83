"""Successive halving over candidates that have an error and a cost, and the front of those that none betters."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from otoscope.errors import OtoscopeError, PlanError, StorageError

Candidate = TypeVar("Candidate")


@dataclass(frozen=True)
class Point:
    """What a candidate comes to; of both numbers less is better.

    Attributes:
        error: such as the word error rate.
        cost: such as parameters, or the ratio of times.
    """

    error: float
    cost: float

    def betters(self, other: Point) -> bool:
        """Whether it is nowhere worse than another, and somewhere better."""
        nowhere_worse = self.error <= other.error and self.cost <= other.cost
        return nowhere_worse and (self.error < other.error or self.cost < other.cost)


@dataclass
class Halving:
    """What a run of successive halving found.

    Attributes:
        rounds: for each round its budget and what each candidate came to in it.
        failed: candidates that are out because they could not be evaluated, with the reason.
        left: candidates that went through the last round, the best first.
    """

    rounds: list[tuple[float, dict[str, Point]]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    @property
    def points(self) -> dict[str, Point]:
        """What those that are left came to in the last round."""
        return {name: self.rounds[-1][1][name] for name in self.left}

    @property
    def front(self) -> list[str]:
        """Those of them that none of the others betters, by rising cost."""
        return pareto_front(self.points)


def successive_halving(
    candidates: Mapping[str, Candidate],
    evaluate: Callable[[Candidate, float], Point],
    budgets: Sequence[float],
    *,
    eta: float = 2.0,
    fewest: int = 1,
    seed: int = 0,
) -> Halving:
    """Evaluates all candidates on a small budget, the better part of them on a larger one, and so on.

    Source: Jamieson and Talwalkar 2016. Since candidates have two numbers, they are sorted by fronts: first those that no
    other betters, then those that only these better, and so on; within a front the loneliest come first, so that its ends
    are kept (crowding distance, Deb et al. 2002, section III). What is still equal is ordered by the seed.

    Args:
        candidates: by name.
        evaluate: what a candidate comes to with a budget. An otoscope error, a RuntimeError of torch or a number that is
            not finite keeps it out from then on. A full disk speaks against no candidate, and ends all.
        budgets: of the rounds, rising: seconds of speech, or steps of training.
        eta: 1 / eta of the candidates go on to the next round, rounded up.
        fewest: so many go on at least, where there are so many.
        seed: of the order of equals.

    Raises:
        PlanError: no candidates, no budgets that rise, or an eta that keeps all.
        StorageError: what `evaluate` makes cannot be stored.
    """
    if not candidates:
        raise PlanError("There is no candidate to be tried", "Give one or more.")
    if not budgets or any(b <= a for a, b in pairwise(budgets)):
        raise PlanError(
            f"The budgets {list(budgets)} do not rise", "Give one or more, each larger than the one before."
        )
    if eta <= 1 or fewest < 1:
        raise PlanError(f"eta is {eta} and {fewest} go on at least", "Give an eta above 1, and one or more that go on.")
    found = Halving(left=list(candidates))
    shuffled = random.Random(seed).sample(sorted(candidates), len(candidates))
    for k, budget in enumerate(budgets):
        points: dict[str, Point] = {}
        for name in found.left:
            try:
                point = evaluate(candidates[name], budget)
            except StorageError:
                raise
            except (OtoscopeError, RuntimeError) as error:
                found.failed[name] = str(error)
                continue
            if math.isfinite(point.error) and math.isfinite(point.cost):
                points[name] = point
            else:
                found.failed[name] = f"It comes to an error of {point.error} at a cost of {point.cost}"
        found.rounds.append((budget, points))
        order = sorted_by_fronts({name: points[name] for name in shuffled if name in points})
        last = k == len(budgets) - 1
        found.left = order if last else order[: max(fewest, math.ceil(len(order) / eta))]
    return found


def pareto_front(points: Mapping[str, Point]) -> list[str]:
    """Names of the points that no other betters, by rising cost; equal points are all there.

    >>> pareto_front({"a": Point(0.2, 5.0), "b": Point(0.1, 9.0), "c": Point(0.3, 6.0)})
    ['a', 'b']
    """
    front = [name for name, one in points.items() if not any(other.betters(one) for other in points.values())]
    return sorted(front, key=lambda name: (points[name].cost, points[name].error, name))


def sorted_by_fronts(points: Mapping[str, Point]) -> list[str]:
    """Names by front, and within a front the loneliest first; equals stay in the order in which they are given."""
    left, order = dict(points), list[str]()
    while left:
        front = set(pareto_front(left))
        mine = [name for name in left if name in front]
        lonely = crowding_distances([left[name] for name in mine])
        order += [name for _, name in sorted(zip(lonely, mine, strict=True), key=lambda pair: -pair[0])]
        left = {name: one for name, one in left.items() if name not in front}
    return order


def crowding_distances(points: Sequence[Point]) -> list[float]:
    """How far the neighbours of each point of a front lie apart, over the front's extent; infinite at its ends.

    Source: Deb et al. 2002, section III B.
    """
    distances = [0.0] * len(points)
    for name in ("error", "cost"):
        values = [getattr(one, name) for one in points]
        order = sorted(range(len(points)), key=values.__getitem__)
        extent = values[order[-1]] - values[order[0]]
        for k in (order[0], order[-1]):
            distances[k] = math.inf
        for before, k, after in zip(order, order[1:], order[2:], strict=False):
            if extent:
                distances[k] += (values[after] - values[before]) / extent
    return distances
