"""Pre-training by reconstructing mel frames that are hidden in runs, as Mockingjay does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import nn

from otoscope.errors import TrainingError
from otoscope.evaluation.pretext import own_generator
from otoscope.evaluation.reconstruction import check_reconstruction, reconstruction_terms
from otoscope.models.frontends import Frontend
from otoscope.models.mockingjay.modelling import stack_frames
from otoscope.speech.utterance import Utterance
from otoscope.training.augmentation import Augmentation
from otoscope.training.objective import Objective, frame_mask

SHARE, RUN = 0.15, 3
FILLINGS = ("zero", "mixed")


class MaskedReconstruction(Objective):
    """Mockingjay: frames are hidden in runs, and the mel features of the hidden frames are reconstructed.

    The loss is the mean absolute difference over all features of the hidden frames. Where noise is added, it is added to
    what the model hears alone.

    Source: Liu et al. 2020 (arXiv 1910.12638), section 2; runs of C_num frames as in Yang, Liu and Lee 2020
    (arXiv 2006.03265), section 2.

    Args:
        model: a Mockingjay with its head.
        frontend: prepares its input.
        share: share of the stacked frames that would be hidden if runs did not overlap.
        run: consecutive stacked frames a run (C_num).
        filling: what stands in hidden frames: "zero", zeros (Yang, Liu and Lee), or "mixed", drawn for each utterance:
            zeros with a chance of 0.8, runs of frames from elsewhere in the utterance with 0.1, and the frames
            themselves with 0.1 (Mockingjay as released).
        augmentation: what is done to the speech that the model hears; its speed must be 1.

    Raises:
        TrainingError: share, run or filling cannot be, or the augmentation changes the speed.
        HeadError: the model does not reconstruct its input.
    """

    name = "reconstruction"

    def __init__(
        self,
        model: nn.Module,
        frontend: Frontend,
        share: float = SHARE,
        run: int = RUN,
        filling: str = "mixed",
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        check_reconstruction(model)
        if not 0 < share <= 1 or run < 1:
            raise TrainingError(
                f"A share of {share} cannot be hidden in runs of {run} frames",
                "Give a share above 0 and at most 1, and runs of one frame or more.",
            )
        if filling not in FILLINGS:
            raise TrainingError(f"Hidden frames cannot be filled by {filling!r}", f"Choose {' or '.join(FILLINGS)}.")
        if augmentation is not None and augmentation.speed != (1.0, 1.0):
            raise TrainingError(
                "Reconstructed features are those of speech at its own speed, and the augmentation changes it",
                "Leave the speed as it is for the objective reconstruction.",
            )
        self.model, self.frontend, self.share, self.run, self.filling = model, frontend, share, run, filling
        self.augmentation = augmentation or Augmentation()
        self._stack = int(model.config.frame_stack)  # type: ignore[union-attr,arg-type]

    def assemble(
        self, utterances: Sequence[Utterance], waves: Sequence[np.ndarray], draw: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """See `Objective`; `labels` are the clean features of each stacked frame."""
        heard = [self.augmentation.apply(wave, draw)[0] for wave in waves]
        batch = self.frontend.inputs(heard)
        same = all(one is wave for one, wave in zip(heard, waves, strict=True))
        clean = batch["input_features"] if same else self.frontend.inputs(waves)["input_features"]
        labels = stack_frames(clean, self._stack)
        stacked = stack_frames(
            batch["input_features"], self._stack
        ).clone()  # labels may be a view of the same features
        masks = []
        for k, wave in enumerate(heard):
            frames = self.frontend.frames(len(wave))
            mask = run_mask(frames, self.share, self.run, draw)
            stacked[k, :frames] = filled(stacked[k, :frames], mask, self.filling, draw)
            masks.append(mask)
        mel_frames = stacked.shape[1] * self._stack
        return {
            "input_features": stacked.reshape(len(waves), mel_frames, -1),
            "attention_mask": batch["attention_mask"][:, :mel_frames],
            "labels": labels,
            "mask_time_indices": frame_mask(masks),
        }

    def forward(self, progress: torch.Tensor, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """See `Objective`."""
        return {"loss": self.model(**batch).loss}

    @torch.no_grad()
    def held_out(self, utterances: Sequence[Utterance]) -> dict[str, float]:
        """Mean absolute difference over hidden frames (zeros stand there), and over all frames where none is hidden."""
        device = next(self.model.parameters()).device
        hidden, frames, heard, heard_frames = 0.0, 0, 0.0, 0
        was = self.model.training
        self.model.eval()
        try:
            for utterance in utterances:
                samples = utterance.read()
                inputs = {name: value.to(device) for name, value in self.frontend.inputs([samples]).items()}
                labels = stack_frames(inputs["input_features"], self._stack)
                mask = run_mask(labels.shape[1], self.share, self.run, own_generator(0, utterance.id, "mask"))
                where = torch.from_numpy(mask)[None].to(device)
                shown = torch.where(where[..., None], 0.0, labels).reshape(1, labels.shape[1] * self._stack, -1)
                out = self.model(shown, labels=labels, mask_time_indices=where)
                hidden, frames = hidden + float(out.loss) * int(mask.sum()), frames + int(mask.sum())
                for total, count in reconstruction_terms(self.model, self.frontend, [samples]):
                    heard, heard_frames = heard + total, heard_frames + count
        finally:
            self.model.train(was)
        return {"loss": hidden / frames, "reconstruction": heard / heard_frames}

    def describe(self) -> dict[str, Any]:
        """See `Objective`."""
        return {
            "objective": self.name,
            "mask": self.share,
            "mask_run": self.run,
            "filling": self.filling,
            "augmentation": asdict(self.augmentation),
        }


def run_mask(frames: int, share: float, run: int, draw: np.random.Generator) -> Bool[np.ndarray, " frames"]:
    """Hides runs of consecutive frames that may overlap or touch.

    Starts are drawn without replacement, `share * frames / run` of them, rounded up or down by chance so that their
    expected number is that; at least one, so that every utterance is trained on. An utterance shorter than two runs is
    hidden by halves of itself.

    Args:
        frames: stacked frames of the utterance, two or more.
        share: of the frames that would be hidden if runs did not overlap.
        run: frames a run.
        draw: where starts come from.
    """
    run = max(1, min(run, frames // 2))
    starts = frames - run + 1
    count = min(starts, max(1, int(share * frames / run + draw.random())))
    first = draw.choice(starts, count, replace=False)
    mask = np.zeros(frames, bool)
    mask[(first[:, None] + np.arange(run)).ravel()] = True
    return mask


def filled(
    features: Float[torch.Tensor, "frames d"],
    mask: Bool[np.ndarray, " frames"],
    filling: str,
    draw: np.random.Generator,
) -> Float[torch.Tensor, "frames d"]:
    """Features of an utterance with something else in the hidden frames.

    Args:
        features: of stacked frames.
        mask: which are hidden.
        filling: see `MaskedReconstruction`.
        draw: where chances and places come from.
    """
    chance = draw.random() if filling == "mixed" else 0.0
    if chance >= 0.9:
        return features
    found = features.clone()
    hidden = np.flatnonzero(mask)
    if chance < 0.8:
        found[hidden] = 0.0
        return found
    # What comes in is as consecutive as what it stands for.
    edges = np.flatnonzero(np.diff(hidden) != 1) + 1
    for piece in np.split(hidden, edges):
        first = int(draw.integers(0, len(mask) - len(piece) + 1))
        found[piece] = features[first : first + len(piece)]
    return found
