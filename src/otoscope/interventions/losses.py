"""Losses through which gradients flow, of each utterance of a batch by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from otoscope.errors import HeadError
from otoscope.evaluation.contrastive import contrastive_logits, contrastive_terms
from otoscope.evaluation.masked_prediction import FILE, read_prediction_head
from otoscope.evaluation.masking import SHARE, SPAN, draw_negatives, span_mask
from otoscope.evaluation.pretext import check_masking, own_generator
from otoscope.evaluation.reconstruction import check_reconstruction
from otoscope.evaluation.references import check_frames, reference_of
from otoscope.evaluation.self_supervised import labels_of
from otoscope.models.mockingjay.modelling import stack_frames
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser, ctc_head, recogniser_of
from otoscope.models.view import view_of
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance


@dataclass(frozen=True)
class Loss:
    """A loss that can be differentiated.

    Attributes:
        name: such as "ctc-loss".
        unit: such as "nats".
        of: from a model, utterances and their samples to the loss of each, shape (B,). It runs every utterance once, in
            order, one by one or several at a time, through `model.encode` or `model.source`; its gradients flow.
    """

    name: str
    unit: str
    of: Callable[[SpeechModel, Sequence[Utterance], Sequence[np.ndarray]], torch.Tensor]


def ctc_loss(
    model: SpeechModel | Recogniser, vocabulary: Vocabulary | Mapping[str, int] | str | Path | None = None
) -> Loss:
    """Nats of the transcript, summed over its tokens (Graves et al. 2006, equation 8).

    Args:
        model: has a CTC head.
        vocabulary: see `recogniser_of`.

    Raises:
        HeadError: there is no CTC head.
        VocabularyError: there is no vocabulary, or it does not fit.
    """
    known = recogniser_of(model, vocabulary).vocabulary

    def of(variant: SpeechModel, utterances: Sequence[Utterance], samples: Sequence[np.ndarray]) -> torch.Tensor:
        recogniser = Recogniser(variant, known)
        head = view_of(ctc_head(variant)).eval()
        # An adapter that shortens time mixes frames, and would mix padding with them.
        whole = all(recogniser.frames(len(one)) == variant.frontend.frames(len(one)) for one in samples)
        found = []
        for group in [list(range(len(samples)))] if whole else [[k] for k in range(len(samples))]:
            scores = torch.log_softmax(head(variant.encode([samples[k] for k in group])).double(), -1)
            for row, k in zip(scores, group, strict=True):
                reference = reference_of(recogniser, utterances[k])
                check_frames(recogniser, utterances[k], reference)
                tokens = torch.tensor([list(reference.tokens)], dtype=torch.long, device=row.device)
                frames = recogniser.frames(len(samples[k]))
                found.append(
                    F.ctc_loss(
                        row[:frames, None], tokens, torch.tensor([frames]), torch.tensor([tokens.shape[1]]),
                        known.blank, reduction="sum",
                    )
                )  # fmt: skip
        return torch.stack(found)

    return Loss("ctc-loss", "nats", of)


def contrastive_loss(share: float = SHARE, span: int = SPAN, seed: int = 0) -> Loss:
    """Nats of the true frame among its negatives, summed over masked frames (Baevski et al. 2020, equation 3).

    Masks and negatives are those of the metric of the same name.

    Args:
        share: see `span_mask`.
        span: frames a mask.
        seed: of masks and negatives.
    """

    def of(variant: SpeechModel, utterances: Sequence[Utterance], samples: Sequence[np.ndarray]) -> torch.Tensor:
        source: Any = variant.source
        if not all(hasattr(source, part) for part in ("quantizer", "project_hid", "project_q")):
            raise HeadError(
                f"{variant.name} ({type(source).__name__}) has no quantiser for a contrastive loss",
                "Name a model as it came out of pre-training.",
            )
        check_masking(source)
        found = []
        for utterance, one in zip(utterances, samples, strict=True):
            mask, draw = _mask(variant, utterance, one, share, span, seed)
            out = source.eval()(**_inputs(variant, one), mask_time_indices=mask)
            negatives = draw_negatives(int(mask.sum()), int(source.config.num_negatives), draw)
            targets = out.projected_quantized_states[mask]
            logits = contrastive_logits(
                out.projected_states[mask], targets, targets, torch.from_numpy(negatives).to(mask.device),
                source.config.contrastive_logits_temperature,
            )  # fmt: skip
            found.append(contrastive_terms(logits)[0].double().sum())
        return torch.stack(found)

    return Loss("contrastive-loss", "nats", of)


def prediction_loss(
    model: SpeechModel,
    corpus: Corpus,
    head: str | Path | None = None,
    share: float = SHARE,
    span: int = SPAN,
    seed: int = 0,
) -> Loss:
    """Nats of the clusters of masked frames, summed over them (Hsu et al. 2021, equation 1, masked frames alone).

    Args:
        model: the encoder.
        corpus: all utterances that the loss will be taken of.
        head: folder with the head and the clusters; by default the one that the model was read from.
        share: see `span_mask`.
        span: frames a mask.
        seed: of the masks.

    Raises:
        CheckpointError: there is no head for masked prediction.
        HeadError: the model masks nothing.
    """
    linear, clusters = read_prediction_head(Path(head or str(getattr(model.source, "name_or_path", ""))))
    linear = linear.to(model.device)
    check_masking(model.family.encoder(model.source))
    labels = labels_of(clusters, model, corpus)

    def of(variant: SpeechModel, utterances: Sequence[Utterance], samples: Sequence[np.ndarray]) -> torch.Tensor:
        encoder = variant.family.encoder(variant.source).eval()
        found = []
        for utterance, one in zip(utterances, samples, strict=True):
            mask, _ = _mask(variant, utterance, one, share, span, seed)
            states = encoder(**_inputs(variant, one), mask_time_indices=mask).last_hidden_state
            wanted = torch.from_numpy(labels[utterance.id]).to(mask.device)[mask[0]]
            found.append(F.cross_entropy(linear(states[mask]).double(), wanted, reduction="sum"))
        return torch.stack(found)

    return Loss("masked-prediction-loss", "nats", of)


def reconstruction_loss() -> Loss:
    """Mean absolute difference over features, summed over frames, of what a Mockingjay's head gives back, unmasked.

    The metric of the same name takes it over all frames (Yang, Liu and Lee 2020, section 7).
    """

    def of(variant: SpeechModel, utterances: Sequence[Utterance], samples: Sequence[np.ndarray]) -> torch.Tensor:
        source: Any = variant.source
        check_reconstruction(source)
        found = []
        for one in samples:
            inputs = _inputs(variant, one)
            given = source.eval()(**inputs).reconstruction
            heard = stack_frames(inputs["input_features"], source.config.frame_stack)
            distances = (given.double() - heard.double()).abs().mean(-1)[0]
            found.append(distances[: variant.frontend.frames(len(one))].sum())
        return torch.stack(found)

    return Loss("reconstruction", "mean absolute difference times frames", of)


def own_loss(model: SpeechModel | Recogniser, corpus: Corpus) -> Loss:
    """The loss that a model's head was trained with.

    Raises:
        HeadError: the model has no head.
    """
    ready = model.model if isinstance(model, Recogniser) else model
    if isinstance(model, Recogniser) or _has_ctc(ready):
        return ctc_loss(model)
    if hasattr(ready.source, "quantizer"):
        return contrastive_loss()
    if hasattr(ready.source, "reconstruction_head"):
        return reconstruction_loss()
    folder = Path(str(getattr(ready.source, "name_or_path", "")) or "/")
    if (folder / FILE).exists():
        return prediction_loss(ready, corpus)
    raise HeadError(
        f"{ready.name} ({type(ready.source).__name__}) has no head, and so no loss of its own",
        "Give a loss: any function of the model's output that can be differentiated.",
    )


def _has_ctc(model: SpeechModel) -> bool:
    try:
        ctc_head(model)
    except HeadError:
        return False
    return True


def _inputs(model: SpeechModel, samples: np.ndarray) -> dict[str, torch.Tensor]:
    """What the model under its head is called with, for one utterance."""
    weights = next(model.source.parameters())
    return {
        name: value.to(weights.device, weights.dtype if value.is_floating_point() else None)
        for name, value in model.frontend.inputs([samples]).items()
    }


def _mask(
    model: SpeechModel, utterance: Utterance, samples: np.ndarray, share: float, span: int, seed: int
) -> tuple[torch.Tensor, np.random.Generator]:
    """The mask of an utterance, (1, T), and the generator that its negatives come from."""
    draw = own_generator(seed, utterance.id, "mask")
    drawn = span_mask(model.frontend.frames(len(samples)), share, draw, span)
    return torch.from_numpy(drawn)[None].to(model.device), draw
