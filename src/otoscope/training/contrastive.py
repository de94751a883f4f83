"""Pre-training by the contrastive loss of wav2vec 2.0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from otoscope.errors import TrainingError
from otoscope.evaluation.contrastive import contrastive_logits, contrastive_terms, diversity_loss
from otoscope.evaluation.masking import SHARE, SPAN, check_mask, draw_negatives, span_mask
from otoscope.evaluation.pretext import check_masking, contrastive_values
from otoscope.models.frontends import Frontend
from otoscope.speech.utterance import Utterance
from otoscope.training.augmentation import Augmentation
from otoscope.training.objective import Objective, frame_mask

HOTTEST, COLDEST = 2.0, 0.5


class Contrastive(Objective):
    """wav2vec 2.0: the quantised frame under the mask is told from others of the same utterance.

    Source: Baevski et al. 2020 (arXiv 2006.11477), sections 3.2 and 4.2. The temperature of the quantiser's choice
    falls geometrically from 2 to 0.5 over the run.

    Args:
        model: a transformers model for pre-training, with quantiser and projections.
        frontend: prepares its input.
        share: see `span_mask`.
        span: frames a mask.
        augmentation: what is done to the speech that the model hears.

    Raises:
        TrainingError: the model has no quantiser.
        HeadError: the model masks nothing.
        EvaluationError: share or span cannot be drawn.
    """

    name = "contrastive"

    def __init__(
        self,
        model: nn.Module,
        frontend: Frontend,
        share: float = SHARE,
        span: int = SPAN,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        if not all(hasattr(model, part) for part in ("quantizer", "project_hid", "project_q")):
            raise TrainingError(
                f"{type(model).__name__} has no quantiser for a contrastive loss",
                "Pre-train a wav2vec 2.0 model, or choose the objective clusters.",
            )
        check_mask(share, span)
        check_masking(model)
        self.model, self.frontend, self.share, self.span = model, frontend, share, span
        self.augmentation = augmentation or Augmentation()

    def assemble(
        self, utterances: Sequence[Utterance], waves: Sequence[np.ndarray], draw: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """See `Objective`; `negatives` count the masked frames of the batch in order."""
        heard = [self.augmentation.apply(wave, draw)[0] for wave in waves]
        frames = [self.frontend.frames(len(wave)) for wave in heard]
        masks = [span_mask(n, self.share, draw, self.span) for n in frames]
        count = int(self.model.config.num_negatives)  # type: ignore[union-attr,arg-type]
        negatives, first = [], 0
        for mask in masks:
            negatives.append(first + draw_negatives(int(mask.sum()), count, draw))
            first += int(mask.sum())
        return {
            **self.frontend.inputs(heard),
            "mask_time_indices": frame_mask(masks),
            "negatives": torch.from_numpy(np.concatenate(negatives)),
        }

    def forward(self, progress: torch.Tensor, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """See `Objective`."""
        negatives = batch.pop("negatives")
        self.model.set_gumbel_temperature(HOTTEST * (COLDEST / HOTTEST) ** float(progress))  # type: ignore[operator]
        out = self.model(**batch)
        mask = batch["mask_time_indices"]
        predicted, targets = out.projected_states[mask], out.projected_quantized_states[mask]
        config: Any = self.model.config
        logits = contrastive_logits(predicted, targets, targets, negatives, config.contrastive_logits_temperature)
        loss, hits = contrastive_terms(logits)
        codes = config.num_codevectors_per_group * config.num_codevector_groups
        spread = diversity_loss(out.codevector_perplexity, codes)
        return {
            "loss": loss.mean() + config.diversity_loss_weight * spread,
            "contrastive": loss.mean(),
            "accuracy": hits.mean(),
            "perplexity": out.codevector_perplexity,
        }

    def held_out(self, utterances: Sequence[Utterance]) -> dict[str, float]:
        """Contrastive loss in nats a masked frame, and accuracy."""
        values = contrastive_values(self.model, self.frontend, utterances, share=self.share, span=self.span)
        frames = values["frames"].sum()
        return {"loss": float(values["loss"].sum() / frames), "accuracy": float(values["hits"].sum() / frames)}

    def describe(self) -> dict[str, Any]:
        """See `Objective`."""
        return {
            "objective": self.name,
            "mask": self.share,
            "mask_span": self.span,
            "augmentation": asdict(self.augmentation),
        }
