"""What a training run gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otoscope.speech.corpus import LeftOut


@dataclass(frozen=True)
class Trained:
    """What a run came to.

    Attributes:
        held_out: figures of the kept weights on speech that was not trained on, by name.
        step: that the kept weights are of.
    """

    held_out: Mapping[str, float]
    step: int


@dataclass(frozen=True)
class TrainingOutcome:
    """A finished training.

    Attributes:
        folder: with the trained model; `initial` and `step-N` in it hold the models along the way.
        objective: what was trained for.
        held_out: figures on speech that was not trained on, by name.
        trained_on: number of utterances.
        watched: number of utterances held out that the figures come from.
        left_out: utterances that could not be used.
        step: that the model is of; earlier than the last where a run was stopped, or its best weights were kept.
    """

    folder: Path
    objective: str
    held_out: Mapping[str, float]
    trained_on: int
    watched: int
    left_out: tuple[LeftOut, ...] = ()
    step: int = 0

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in self.held_out.items())
        lost = f"; {len(self.left_out)} left out" if self.left_out else ""
        heard = f"{self.trained_on} utterance{'s' * (self.trained_on != 1)}"
        return (
            f"{self.folder}: {self.objective}, {heard}{lost}, step {self.step}; on {self.watched} held out: {figures}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "folder": str(self.folder),
            "objective": self.objective,
            "held_out": dict(self.held_out),
            "trained_on": self.trained_on,
            "watched": self.watched,
            "step": self.step,
            "left_out": [[one.id, one.reason] for one in self.left_out],
        }
