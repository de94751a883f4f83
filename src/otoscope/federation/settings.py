"""Everything that a federated training depends on, but for the model, the speech and the rates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from otoscope.errors import FederationError
from otoscope.federation.client import LocalSettings
from otoscope.federation.drawing import Drawing
from otoscope.federation.encoding import DTYPES
from otoscope.federation.server_updates import SERVERS
from otoscope.federation.submodels import COHORT, COVERAGE, DENOMINATORS

PER = ("model", "layer")


@dataclass(frozen=True)
class PrivacySettings:
    """Differential privacy for each client: its delta is clipped, and noise is added to the mean.

    Attributes:
        norm: to which a delta is clipped.
        multiplier: standard deviation of the noise over `norm`, before it is divided by the number of clients.
        delta: probability for which epsilon need not hold; below one over the number of clients.
        per: clip the "model" as a whole, or each "layer" to its share of the norm.
        seed: of the noise, never sent to clients: who knows it can take the noise away. None draws noise that nobody can
            draw again, so that the same training twice, or resumed, does not give the same numbers.

    Raises:
        FederationError: a number is out of its range.
    """

    norm: float = 1.0
    multiplier: float = 1.0
    delta: float = 1e-5
    per: str = "model"
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (0 < self.norm < float("inf") and 0 < self.multiplier < float("inf")):
            raise FederationError(
                f"The norm {self.norm} and the noise {self.multiplier} give no privacy",
                "Give finite numbers above zero.",
            )
        if not 0 < self.delta < 1:
            raise FederationError(f"delta is {self.delta}", "Give a probability between 0 and 1, such as 1e-5.")
        if self.per not in PER:
            raise FederationError(f"Nothing is clipped per {self.per!r}", f"Choose one of {', '.join(PER)}.")


@dataclass(frozen=True)
class FederationSettings:
    """How many rounds, by whom, and how what they learnt comes together.

    Attributes:
        rounds: of training.
        cohort: clients that train in a round, drawn by seed and round; 0 has all of them train.
        seed: of cohorts, of what clients draw, and of the sub-models where `drawing` names no other.
        tolerance: share of a round's clients that may fail; the round goes on without them. If all fail the run stops.
        server: "fedavg", "fedadam" or "lamb"; see `otoscope.federation.server_updates`.
        rate: of the server's step; None takes the server's usual one.
        dtype: of the deltas that clients send: "float32", "bfloat16" or "float16".
        denominator: what an element's mean is over: "coverage", those clients that held it, or "cohort", all of them.
        drawing: how sub-models are drawn; None draws them at random for each client and round.
        local: how clients train.
        evaluate_every: rounds between evaluations on held-out speech; the last round is always evaluated.
        keep: complete rounds whose state is kept.
        timeout: seconds that a round waits for its clients; where clients take turns, seconds that each may take.
        privacy: clipping and noise, or None. It wants "cohort" as denominator, so that one client's weight in the mean
            does not depend on what others hold.

    Raises:
        FederationError: a number is out of its range, or two settings contradict each other.
    """

    rounds: int = 10
    cohort: int = 0
    seed: int = 0
    tolerance: float = 0.0
    server: str = "fedavg"
    rate: float | None = None
    dtype: str = "float32"
    denominator: str = COVERAGE
    drawing: Drawing | None = None
    local: LocalSettings = field(default_factory=LocalSettings)
    evaluate_every: int = 1
    keep: int = 2
    timeout: float = 600.0
    privacy: PrivacySettings | None = None

    def __post_init__(self) -> None:
        for name in ("rounds", "evaluate_every", "keep"):
            if getattr(self, name) < 1:
                raise FederationError(f"{name} is {getattr(self, name)}", "Give one or more.")
        for name in ("cohort", "seed"):
            if getattr(self, name) < 0:
                raise FederationError(f"{name} is {getattr(self, name)}", "Give zero or more.")
        if not 0 <= self.tolerance < 1:
            raise FederationError(f"The tolerance is {self.tolerance}", "Give a share from 0 to below 1.")
        if not 0 < self.timeout < float("inf"):
            raise FederationError(f"The timeout is {self.timeout}", "Give a finite number of seconds above zero.")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise FederationError(f"The server's rate is {self.rate}", "Give a finite number above zero.")
        for name, given, known in (
            ("server", self.server, tuple(SERVERS)),
            ("dtype", self.dtype, tuple(DTYPES)),
            ("denominator", self.denominator, DENOMINATORS),
        ):
            if given not in known:
                raise FederationError(f"There is no {name} {given!r}", f"Choose one of {', '.join(known)}.")
        if self.privacy is not None and self.denominator != COHORT:
            raise FederationError(
                f"With the denominator {self.denominator!r} what one client can change is not bounded, so there is no "
                "privacy to account for",
                "Take the denominator 'cohort'.",
            )
        if self.drawing is None:
            object.__setattr__(self, "drawing", Drawing(self.seed))

    @property
    def draws(self) -> Drawing:
        """How sub-models are drawn."""
        assert self.drawing is not None  # set above
        return self.drawing

    def to_dict(self) -> dict[str, Any]:
        """As plain values, the same as they come back from JSON."""
        return dict(json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> FederationSettings:
        """What `to_dict` gave, also by way of JSON.

        Raises:
            FederationError: a setting is unknown, or out of its range.
        """
        parts: dict[str, Any] = dict(told)
        parts["local"] = of_plain(LocalSettings, parts["local"])
        parts["drawing"] = of_plain(Drawing, parts["drawing"])
        if parts["privacy"] is not None:
            parts["privacy"] = of_plain(PrivacySettings, parts["privacy"])
        return of_plain(cls, parts)


def of_plain(kind: type, told: Mapping[str, Any]) -> Any:
    """Settings from plain values, with lists as tuples.

    Raises:
        FederationError: a setting is unknown or absent.
    """
    known = {one.name for one in fields(kind)}
    if set(told) != known:
        name = min(set(told) ^ known)
        raise FederationError(
            f"Settings {'lack' if name in known else 'hold an unknown'} {name!r} ({kind.__name__})",
            "Use the same version of otoscope on all machines.",
        )
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in told.items()})
