"""How far rules may go: what a person sets, and a search varies."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any

from otoscope.errors import PlanError

FREEZE = ("ambient", "all-but-critical")
_TYPES: dict[str, Any] = {
    "float": (int, float), "int": int, "bool": bool, "str": str, "str | None": (str, NoneType),
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """How far rules may go.

    Attributes:
        margin: what all changes of a plan together may cost, in tolerances of their metric (of an error rate 2 % of its
            value or 0.1 point, of a loss 2 % of its value or 1 % of what there is to lose). Each change counts with the
            worse end of its interval, and changes are taken to add up.
        metric: the metric that changes are judged by; None is the loss of the model's own head where it was taken, and
            else the first of error rates and probes.
        blocks: at most so large a share of the layers is taken out.
        heads: at most so large a share of the heads is pruned where nothing but their maps is known. 24 of 144 are the
            first step of Yang, Liu and Lee (2020, section 7.1).
        guesses: whether rules may act without having seen what a change costs, by the shape of attention alone.
        mass: the share of attention that must lie within a span that is limited by the shape of attention.
        top: at most so many layers are re-initialised (Pasad, Chou and Livescu 2021 try 1 to 3).
        freeze: "ambient" layers, or "all-but-critical".
        rank: of low-rank adapters on critical layers; 0 is none.

    Raises:
        PlanError: a value is none that a rule could go by.
    """

    margin: float = 1.0
    metric: str | None = None
    blocks: float = 0.5
    heads: float = 1 / 6
    guesses: bool = True
    mass: float = 0.99
    top: int = 3
    freeze: str = FREEZE[0]
    rank: int = 0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, _TYPES[str(one.type)]) or (isinstance(value, bool) and one.type != "bool"):
                raise PlanError(f"The limit {one.name!r} is {value!r}", f"Give a value of the type {one.type}.")
        for name in ("blocks", "heads", "mass"):
            if not 0 <= getattr(self, name) <= 1:
                raise PlanError(f"The limit {name!r} is {getattr(self, name)}", "Give a share from 0 to 1.")
        if not 0 <= self.margin < math.inf:
            raise PlanError(f"The margin is {self.margin}", "Give how many tolerances a plan may cost, zero or more.")
        for name in ("top", "rank"):
            if getattr(self, name) < 0:
                raise PlanError(f"The limit {name!r} is {getattr(self, name)}", "Give zero or more.")
        if self.freeze not in FREEZE:
            raise PlanError(f"{self.freeze!r} names no layers to freeze", f"Freeze {' or '.join(FREEZE)}.")
