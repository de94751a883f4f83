"""What a federated training came to, round by round: a table, and a file of its own that is always true."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from otoscope.errors import FederationError
from otoscope.training.folders import replace_text

RESULT = "federation.json"
RUNNING, COMPLETED, FAILED = STATUSES = ("running", "completed", "failed")
FORMAT = 1
_MIB = 2**20


@dataclass(frozen=True)
class RoundRow:
    """One round.

    Attributes:
        round: its number, from 1.
        clients: those whose deltas were taken, in order of name.
        failures: why others were not, by client.
        loss: mean of the clients' training losses, weighted as their deltas are.
        download: bytes of the tensors that a client was sent, the mean over `clients`.
        upload: bytes of the tensors that it sent back, the mean.
        share: elements that a client held over those of the whole model, the mean.
        memory: peak bytes of a training step, the largest of any client; None where no client told.
        seconds: that the round took, without the evaluation.
        held_out: figures of the model after the round on speech that no client has, by name; empty where none were taken.
        epsilon: privacy spent so far; None without privacy.
    """

    round: int
    clients: tuple[str, ...]
    failures: Mapping[str, str]
    loss: float
    download: float
    upload: float
    share: float
    memory: int | None
    seconds: float
    held_out: Mapping[str, float] = field(default_factory=dict)
    epsilon: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "clients": list(self.clients)}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> RoundRow:
        """What `to_dict` gave."""
        return cls(**{**told, "clients": tuple(told["clients"])})

    def __str__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        figures = "".join(f"  {name} {value:.3f}" for name, value in self.held_out.items())
        spent = f"  epsilon {self.epsilon:.2f}" if self.epsilon is not None else ""
        return (
            f"round {self.round:>4}  {len(self.clients)} client{'s' * (len(self.clients) != 1)}{failed}  "
            f"loss {self.loss:.3f}{figures}  down {self.download / _MIB:.2f} MiB  up {self.upload / _MIB:.2f} MiB  "
            f"share {self.share:.2f}  {self.seconds:.1f} s{spent}"
        )


@dataclass(frozen=True)
class FederationResult:
    """A federated training, finished or not.

    Attributes:
        model: its name.
        clients: names of all of them.
        runner: "local", "ray" or "deploy".
        schedule: rates by unit, the share of it that clients are sent.
        settings: of the training, as plain values.
        initial: figures on held-out speech before the first round.
        rows: one a round that was completed.
        status: "running", "completed" or "failed".
        reason: why it failed; empty otherwise.
        asked: how the rates were come by: the schedule's name and what it was given, as far as it was told.
        fingerprint: of the model that the training began with, see `SpeechModel.fingerprint`.
    """

    model: str
    clients: tuple[str, ...]
    runner: str
    schedule: Mapping[str, float]
    settings: Mapping[str, Any]
    initial: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[RoundRow, ...] = ()
    status: str = RUNNING
    reason: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise FederationError(f"There is no status {self.status!r}", f"Choose one of {', '.join(STATUSES)}.")

    @property
    def last(self) -> dict[str, float]:
        """The latest figures on held-out speech."""
        taken = [row.held_out for row in self.rows if row.held_out]
        return dict(taken[-1] if taken else self.initial)

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Round and value of a figure on held-out speech, wherever it was taken; round 0 is before the first."""
        taken = [(0, self.initial), *((row.round, row.held_out) for row in self.rows)]
        return [(number, figures[name]) for number, figures in taken if name in figures]

    def with_row(self, row: RoundRow) -> FederationResult:
        """With one more round."""
        return replace(self, rows=(*self.rows, row))

    def ended(self, reason: str = "") -> FederationResult:
        """As completed, or as failed for a reason."""
        return replace(self, status=FAILED if reason else COMPLETED, reason=reason)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        told |= {"clients": list(self.clients), "rows": [row.to_dict() for row in self.rows]}
        told |= {name: dict(told[name]) for name in ("schedule", "settings", "asked", "initial")}
        return {"format": FORMAT, **told}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> FederationResult:
        """What `to_dict` gave.

        Raises:
            FederationError: it is of another format.
        """
        if told.get("format") != FORMAT:
            raise FederationError(
                f"The result of a federated training has format {told.get('format')!r}, not {FORMAT}",
                "Read it with the version of otoscope that wrote it.",
            )
        parts = {name: value for name, value in told.items() if name != "format"}
        rows = tuple(RoundRow.from_dict(row) for row in parts["rows"])
        return cls(**{**parts, "clients": tuple(parts["clients"]), "rows": rows})

    def save(self, folder: Path) -> Path:
        """Writes the result file of a folder, whole or not at all.

        Returns:
            Where it lies.

        Raises:
            FederationError: it cannot be written.
        """
        path = folder / RESULT
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise FederationError(f"{path} cannot be written ({error})", "Choose another folder.") from error
        return path

    @classmethod
    def load(cls, folder: Path) -> FederationResult:
        """Reads the result file of a folder.

        Raises:
            FederationError: there is none, or it cannot be read.
        """
        path = folder / RESULT
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(told, dict):
                raise ValueError("it holds no object")
            return cls.from_dict(told)
        except FederationError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FederationError(
                f"{path} is no result of a federated training ({error})", "Name the folder of one."
            ) from error

    def __str__(self) -> str:
        held = ", ".join(f"{name} {value:.3f}" for name, value in self.last.items())
        before = ", ".join(f"{name} {value:.3f}" for name, value in self.initial.items())
        told = f" on held-out speech: {held} (before: {before})" if before else ""
        why = f": {self.reason}" if self.reason else ""
        rounds = f"{len(self.rows)} round{'s' * (len(self.rows) != 1)}"
        return (
            f"{self.model}, {len(self.clients)} clients, {rounds} ({self.runner}), {self.status}{why};"
            f"{told or ' not evaluated'}"
        )
