"""Pre-training by predicting the clusters of masked frames, as HuBERT and WavLM do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from otoscope.errors import TrainingError
from otoscope.evaluation.clusters import Clusters
from otoscope.evaluation.masked_prediction import write_prediction_head
from otoscope.evaluation.masking import SHARE, SPAN, check_mask, span_mask
from otoscope.evaluation.pretext import check_masking, prediction_values
from otoscope.models.frontends import Frontend
from otoscope.speech.utterance import Utterance
from otoscope.training.augmentation import Augmentation
from otoscope.training.objective import Objective, frame_mask


class MaskedPrediction(Objective):
    """HuBERT: the cluster of every masked frame is predicted.

    Source: Hsu et al. 2021 (arXiv 2106.07447), equation 1 with alpha = 1 (masked frames alone), a linear head in place
    of the cosine one. With noise in the augmentation it is WavLM's denoising task (Chen et al. 2022, arXiv 2110.13900),
    since clusters are those of the clean speech.

    Args:
        model: a bare transformers encoder that takes `mask_time_indices`.
        head: from its width to the clusters.
        frontend: prepares its input.
        clusters: what the labels are clusters of; stored with the model.
        labels: cluster of each frame of every utterance, by id.
        share: see `span_mask`.
        span: frames a mask.
        augmentation: what is done to the speech that the model hears; its speed must be 1.

    Raises:
        TrainingError: the augmentation changes the speed.
        HeadError: the model masks nothing.
        EvaluationError: share or span cannot be drawn.
    """

    name = "clusters"

    def __init__(
        self,
        model: nn.Module,
        head: nn.Linear,
        frontend: Frontend,
        clusters: Clusters,
        labels: Mapping[str, np.ndarray],
        share: float = SHARE,
        span: int = SPAN,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        check_mask(share, span)
        check_masking(model)
        if augmentation is not None and augmentation.speed != (1.0, 1.0):
            raise TrainingError(
                "Clusters are those of speech at its own speed, and the augmentation changes it",
                "Leave the speed as it is for the objective clusters.",
            )
        self.model, self.head, self.frontend, self.clusters = model, head, frontend, clusters
        self.labels, self.share, self.span = dict(labels), share, span
        self.augmentation = augmentation or Augmentation()

    def assemble(
        self, utterances: Sequence[Utterance], waves: Sequence[np.ndarray], draw: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """See `Objective`; `labels` are those of the masked frames of the batch in order."""
        heard = [self.augmentation.apply(wave, draw)[0] for wave in waves]
        masks = [span_mask(self.frontend.frames(len(wave)), self.share, draw, self.span) for wave in heard]
        labels = [self.labels[u.id][mask] for u, mask in zip(utterances, masks, strict=True)]
        return {
            **self.frontend.inputs(heard),
            "mask_time_indices": frame_mask(masks),
            "labels": torch.from_numpy(np.concatenate(labels)),
        }

    def forward(self, progress: torch.Tensor, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """See `Objective`."""
        labels = batch.pop("labels")
        out = self.model(**batch)
        logits = self.head(out.last_hidden_state[batch["mask_time_indices"]]).float()
        return {
            "loss": F.cross_entropy(logits, labels),
            "accuracy": (logits.argmax(-1) == labels).float().mean(),
        }

    def held_out(self, utterances: Sequence[Utterance]) -> dict[str, float]:
        """Cross-entropy in nats a masked frame, accuracy, and that of always guessing the commonest cluster."""
        values = prediction_values(
            self.model, self.head, self.frontend, utterances, self.labels, share=self.share, span=self.span
        )
        frames = values["frames"].sum()
        every = np.concatenate([self.labels[u.id] for u in utterances])
        return {
            "loss": float(values["loss"].sum() / frames),
            "accuracy": float(values["hits"].sum() / frames),
            "commonest": float(np.bincount(every).max() / len(every)),
        }

    def write(self, folder: Path) -> None:
        """See `Objective`; the head and the clusters' centres lie beside the encoder."""
        super().write(folder)
        write_prediction_head(self.head, self.clusters, folder)

    def describe(self) -> dict[str, Any]:
        """See `Objective`."""
        return {
            "objective": self.name,
            "mask": self.share,
            "mask_span": self.span,
            "targets": self.clusters.source,
            "clusters": len(self.clusters.centres),
            "augmentation": asdict(self.augmentation),
        }
