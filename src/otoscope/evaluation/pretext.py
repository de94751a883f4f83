"""Self-supervised losses of each utterance by itself, with masks and negatives that its name fixes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from otoscope.errors import HeadError
from otoscope.evaluation.contrastive import contrastive_logits, contrastive_terms
from otoscope.evaluation.masking import SHARE, SPAN, draw_negatives, span_mask
from otoscope.models.frontends import Frontend
from otoscope.speech.utterance import RATE, Utterance
from otoscope.statistics.hashing import uniform


def check_masking(model: nn.Module) -> None:
    """Makes sure that a model hides what masks name: some families cannot, and some configurations say not to.

    Raises:
        HeadError: it would not.
    """
    config: Any = model.config
    embedding = any(name.endswith("masked_spec_embed") for name, _ in model.named_parameters())
    if "mask_time_indices" not in inspect.signature(model.forward).parameters or not embedding:
        raise HeadError(
            f"{type(model).__name__} has no vector that stands for masked frames",
            "Use a model of the wav2vec 2.0, HuBERT or WavLM kind whose mask_time_prob is above zero.",
        )
    if not getattr(config, "apply_spec_augment", True):
        raise HeadError(
            f"The configuration of {type(model).__name__} turns masks off (apply_spec_augment is false)",
            "Use the model as it came out of pre-training, or set apply_spec_augment in its config.json.",
        )


def own_generator(seed: int, utterance: str, purpose: str) -> np.random.Generator:
    """Random numbers that an utterance's name and the seed fix, whatever else is in the corpus."""
    return np.random.default_rng(int(uniform(seed, utterance, purpose=purpose) * 2**53))


@torch.no_grad()
def contrastive_values(
    model: nn.Module,
    frontend: Frontend,
    utterances: Sequence[Utterance],
    seed: int = 0,
    share: float = SHARE,
    span: int = SPAN,
    progress: Callable[[float, float], None] | None = None,
) -> dict[str, np.ndarray]:
    """Contrastive loss and hits, one utterance at a time, in eval mode: codes are the likeliest, nothing is dropped.

    Args:
        model: a transformers model for pre-training, with quantiser; its mode is put back afterwards.
        frontend: prepares its input.
        utterances: the speech.
        seed: of masks and negatives.
        share: see `span_mask`.
        span: frames a mask.
        progress: called after each utterance with the seconds done and in all.

    Returns:
        "loss" (nats, summed), "hits" and "frames" (masked ones), each of shape (utterances,).
    """
    config: Any = model.config
    rows = []
    with _evaluating(model) as device:
        for utterance in _told(utterances, progress):
            samples = utterance.read()
            draw = own_generator(seed, utterance.id, "mask")
            mask = span_mask(frontend.frames(len(samples)), share, draw, span)
            negatives = torch.from_numpy(draw_negatives(int(mask.sum()), int(config.num_negatives), draw)).to(device)
            where = torch.from_numpy(mask)[None].to(device)
            out = model(**_inputs(model, frontend, samples, device), mask_time_indices=where)
            targets = out.projected_quantized_states[where]
            logits = contrastive_logits(
                out.projected_states[where], targets, targets, negatives, config.contrastive_logits_temperature
            )
            loss, hits = contrastive_terms(logits)
            rows.append((float(loss.double().sum()), float(hits.double().sum()), float(mask.sum())))
    return dict(zip(("loss", "hits", "frames"), np.array(rows).T, strict=True))


@torch.no_grad()
def prediction_values(
    model: nn.Module,
    head: nn.Module,
    frontend: Frontend,
    utterances: Sequence[Utterance],
    labels: dict[str, np.ndarray],
    seed: int = 0,
    share: float = SHARE,
    span: int = SPAN,
    progress: Callable[[float, float], None] | None = None,
) -> dict[str, np.ndarray]:
    """Cross-entropy of the clusters under the mask and hits, one utterance at a time, in eval mode.

    Args:
        model: a bare transformers encoder; its mode is put back afterwards.
        head: from its last stream to the clusters.
        frontend: prepares its input.
        utterances: the speech.
        labels: cluster of each frame, by utterance id.
        seed: of the masks.
        share: see `span_mask`.
        span: frames a mask.
        progress: called after each utterance with the seconds done and in all.

    Returns:
        "loss" (nats, summed), "hits" and "frames" (masked ones), each of shape (utterances,).
    """
    rows = []
    with _evaluating(model) as device:
        for utterance in _told(utterances, progress):
            samples = utterance.read()
            mask = span_mask(frontend.frames(len(samples)), share, own_generator(seed, utterance.id, "mask"), span)
            where = torch.from_numpy(mask)[None].to(device)
            out = model(**_inputs(model, frontend, samples, device), mask_time_indices=where)
            logits = head(out.last_hidden_state[where]).float()
            wanted = torch.from_numpy(labels[utterance.id][mask]).to(device)
            loss = F.cross_entropy(logits, wanted, reduction="none")
            hits = (logits.argmax(-1) == wanted).double()
            rows.append((float(loss.double().sum()), float(hits.sum()), float(mask.sum())))
    return dict(zip(("loss", "hits", "frames"), np.array(rows).T, strict=True))


def _told(utterances: Sequence[Utterance], progress: Callable[[float, float], None] | None) -> Iterator[Utterance]:
    """The utterances one by one; progress is told after each."""
    total, done = sum(u.n_samples for u in utterances) / RATE, 0.0
    for utterance in utterances:
        yield utterance
        done += utterance.n_samples / RATE
        if progress is not None:
            progress(done, total)


def _inputs(model: nn.Module, frontend: Frontend, samples: np.ndarray, device: torch.device) -> dict[str, Any]:
    kind = next(model.parameters()).dtype
    return {
        name: (value.to(kind) if value.is_floating_point() else value).to(device)
        for name, value in frontend.inputs([samples]).items()
    }


class _evaluating:  # noqa: N801 - used as a function
    """Eval mode for the length of a block; gives the model's device."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._was = model, model.training

    def __enter__(self) -> torch.device:
        self._model.eval()
        return next(self._model.parameters()).device

    def __exit__(self, *error: object) -> None:
        self._model.train(self._was)
