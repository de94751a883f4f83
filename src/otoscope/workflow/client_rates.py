"""What is asked of the clients of a federated training, and the share of every unit that they keep by it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from otoscope.diagnosis.result import Diagnosis
from otoscope.errors import FederationError
from otoscope.federation.channels import exchanged, groups_of
from otoscope.federation.evidence import Evidence
from otoscope.federation.fitting import StepPeak, at_memory
from otoscope.federation.partition import Share
from otoscope.federation.schedules import (
    BUDGET,
    FROM_DIAGNOSIS,
    FULL,
    NAMES,
    RANDOM,
    fixed,
    refuse_size,
    schedule,
    size,
)
from otoscope.federation.settings import FederationSettings
from otoscope.models.recogniser import Recogniser

_FLOAT32 = 4
_UNITS = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Asked:
    """What clients shall keep, as a person says it; see `otoscope.federate`.

    Attributes:
        schedule: by name, a TOML file, or units with their shares.
        keep: share that is kept of the units that the schedule aims at.
        diagnosis: of the model, or its folder.
        mode: of criticality.
        layers: of the schedule "random".
        client_size: share of the model, or bytes.
        client_memory: bytes of a training step.

    Raises:
        FederationError: something is given that the schedule does not go by.
    """

    schedule: str | Mapping[str, float] = FULL
    keep: float = 0.5
    diagnosis: Diagnosis | str | Path | None = None
    mode: str | None = None
    layers: int | None = None
    client_size: float | str | None = None
    client_memory: str | None = None

    def __post_init__(self) -> None:
        if self.client_size is not None and self.client_memory is not None:
            raise FederationError("Both a size and a memory of clients are given", "Give one of them.")
        if self.layers is not None and self.schedule != RANDOM:
            raise FederationError(
                f"{self.layers} layers are asked for, and only the schedule 'random' draws layers",
                "Leave the number out, or choose 'random'.",
            )
        if self.diagnosis is None and self.mode is not None:
            raise FederationError(f"A mode, {self.mode!r}, is given and no diagnosis", "Name the diagnosis.")
        if self.diagnosis is not None and self.schedule not in (*FROM_DIAGNOSIS, RANDOM):
            raise FederationError(
                "A diagnosis is given, and the schedule goes by none",
                f"Leave it out, or choose one of {', '.join(FROM_DIAGNOSIS)}.",
            )

    def rates(
        self, recogniser: Recogniser, shares: Sequence[Share], settings: FederationSettings
    ) -> tuple[dict[str, float], int | None]:
        """The share of every group of units that clients keep, and the most bytes that their training steps hold.

        The latter are None where no memory was asked for.

        Args:
            recogniser: the server's.
            shares: each client's speech.
            settings: of the training.

        Raises:
            FederationError: there is no such schedule or unit, or the size or memory cannot be met.
        """
        groups = groups_of(recogniser.model)
        if not isinstance(self.schedule, str):
            if self.client_size is not None or self.client_memory is not None:
                refuse_size("A mapping of units to shares")
            return fixed(groups, self.schedule), None
        total = sum(tensor.numel() for tensor in exchanged(recogniser.model).values())
        solve = partial(
            schedule, self.schedule, groups, keep=self.keep, evidence=self._evidence, layers=self.layers,
            seed=settings.seed, elsewhere=total - size(groups, {}),
        )  # fmt: skip
        if self.client_memory is None:
            return solve(elements=None if self.client_size is None else elements_of(self.client_size, total)), None
        memory, peak = bytes_in(self.client_memory), StepPeak(recogniser, shares, settings)
        rates = at_memory(lambda elements: solve(elements=elements), peak, memory, total)
        return rates, peak(rates)

    def told(self) -> dict[str, Any]:
        """As plain values, what the rates do not depend on left out."""
        if not isinstance(self.schedule, str):
            return {"schedule": dict(self.schedule)}
        solved = self.client_size is not None or self.client_memory is not None
        fixed_shares = self.schedule in (FULL, BUDGET) or self.schedule not in NAMES
        told: dict[str, Any] = {
            "schedule": self.schedule, "keep": None if solved or fixed_shares else self.keep,
            "layers": self.layers, "client_size": self.client_size, "client_memory": self.client_memory,
        }  # fmt: skip
        if self._read is not None and self._evidence is not None:
            told |= {
                "diagnosed": self._read.provenance["model"].get("fingerprint"),
                "mode": self._evidence.mode, "metric": self._evidence.metric,
            }  # fmt: skip
        return {name: value for name, value in told.items() if value is not None}

    @cached_property
    def _read(self) -> Diagnosis | None:
        return Diagnosis.load(self.diagnosis) if isinstance(self.diagnosis, str | Path) else self.diagnosis

    @cached_property
    def _evidence(self) -> Evidence | None:
        return None if self._read is None else Evidence.from_diagnosis(self._read, self.mode)


def elements_of(client_size: float | str, total: int) -> int:
    """Elements of a client: a share of the model's, or as many float32 as fit into some bytes.

    Raises:
        FederationError: it is neither.

    >>> elements_of(0.5, 1000), elements_of("0.5", 1000), elements_of("2KiB", 1000)
    (500, 500, 512)
    """
    number, unit = _amount(client_size)
    if unit in _UNITS and number > 0:
        return int(number * _UNITS[unit] // _FLOAT32)
    if unit or not 0 < number <= 1:
        raise FederationError(
            f"The size of a client is {client_size!r}",
            "Give a share of the model above 0, up to 1, or bytes that a client is sent, such as 8MiB.",
        )
    return int(number * total)


def bytes_in(amount: str) -> int:
    """Bytes of memory, from words.

    Raises:
        FederationError: these are none.

    >>> bytes_in("1.5 KiB")
    1536
    """
    number, unit = _amount(amount)
    if unit not in _UNITS or not number > 0:
        raise FederationError(f"The memory of a client is {amount!r}", "Give bytes, such as 200MiB.")
    return int(number * _UNITS[unit])


def _amount(told: float | str) -> tuple[float, str]:
    """A number and its unit, in capitals; not a number where it is none."""
    found = re.fullmatch(r"([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([a-zA-Z]*)", str(told).strip())
    try:
        number = float(found.group(1)) if found else math.nan
    except ValueError:
        number = math.nan
    return number, found.group(2).upper() if found else ""
