"""What a model is trained for: how batches are made, the loss, and how the result is stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from otoscope.models.frontends import Frontend, write_frontend
from otoscope.speech.utterance import Utterance
from otoscope.treatments.folders import has_record, save_treated


class Objective(nn.Module, ABC):
    """A model together with what it is trained for.

    Attributes:
        name: of the objective.
        model: the transformers model that is trained.
        frontend: prepares its input.
        judged_by: the figure on held-out speech that is lower for a better model, where a training can be stopped by one.
        judged_from: step up to which that figure is not judged.
    """

    name: str
    model: nn.Module
    frontend: Frontend
    judged_by: str | None = None
    judged_from: int = 0
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

    def begin_step(self, step: int) -> None:
        """Called on every process before an update.

        Args:
            step: number of updates that are done.
        """

    def train(self, mode: bool = True) -> Objective:
        """As of every module; a batch norm whose weights are frozen keeps its statistics too."""
        super().train(mode)
        for module in self.modules():
            weights = list(module.parameters(recurse=False))
            if isinstance(module, _BatchNorm) and weights and not any(one.requires_grad for one in weights):
                module.eval()
        return self

    @abstractmethod
    def held_out(self, utterances: Sequence[Utterance]) -> dict[str, float]:
        """Figures on speech that is not trained on, by name; the same for the same weights."""

    def write(self, folder: Path) -> None:
        """Stores the model in an empty folder as transformers does, with all that is needed to use it.

        A treated model is stored with its treatments, so that `otoscope.load` reads it.
        """
        if has_record(self.model):
            save_treated(self.model, folder, frontend=self.frontend)
            return
        self.model.save_pretrained(folder)  # type: ignore[operator]
        write_frontend(self.frontend, folder)

    def describe(self) -> dict[str, Any]:
        """Settings of the objective, as plain values; a run is taken up only with the same ones."""
        return {"objective": self.name}


def frame_mask(masks: Sequence[np.ndarray]) -> torch.Tensor:
    """Masks of several utterances, shape (B, longest), False beyond the end of each."""
    return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(mask) for mask in masks], batch_first=True)
