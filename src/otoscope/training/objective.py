"""What a model is trained for: how batches are made, the loss, and how the result is stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from otoscope.models.frontends import Frontend
from otoscope.speech.utterance import Utterance
from otoscope.training.folders import write_frontend


class Objective(nn.Module, ABC):
    """A model together with what it is trained for.

    Attributes:
        name: of the objective.
        model: the transformers model that is trained.
        frontend: prepares its input.
    """

    name: str
    model: nn.Module
    frontend: Frontend
    # Losses are means over a batch: the Trainer divides them by the batches of an update, whatever a batch holds.
    accepts_loss_kwargs = False

    @abstractmethod
    def assemble(
        self, utterances: Sequence[Utterance], waves: Sequence[np.ndarray], draw: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """A batch: the arguments of `forward` but for `progress`.

        Args:
            utterances: what is in the batch.
            waves: their samples, float32 at 16 kHz, shape (n,) each.
            draw: where noise and masks come from.
        """

    @abstractmethod
    def forward(self, progress: torch.Tensor, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss under "loss", and its parts and whatever is worth watching, each a mean over the batch.

        Args:
            progress: how much of the run is done, from 0 to 1.
            batch: what `assemble` made.
        """

    @abstractmethod
    def held_out(self, utterances: Sequence[Utterance]) -> dict[str, float]:
        """Figures on speech that is not trained on, by name; the same for the same weights."""

    def write(self, folder: Path) -> None:
        """Stores the model in an empty folder as transformers does, with all that is needed to use it."""
        self.model.save_pretrained(folder)  # type: ignore[operator]
        write_frontend(self.frontend, folder)

    def describe(self) -> dict[str, Any]:
        """Settings of the objective, as plain values; a run is taken up only with the same ones."""
        return {"objective": self.name}


def frame_mask(masks: Sequence[np.ndarray]) -> torch.Tensor:
    """Masks of several utterances, shape (B, longest), False beyond the end of each."""
    return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(mask) for mask in masks], batch_first=True)
