"""Self-supervised losses of each utterance by itself, with masks and negatives that its name fixes."""

from __future__ import annotations

import contextlib
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
from otoscope.evaluation.metric import Progress
from otoscope.models.frontends import Frontend
from otoscope.speech.utterance import RATE, Utterance
from otoscope.statistics.hashing import uniform

_Terms = tuple[torch.Tensor, torch.Tensor]


def has_mask_vector(model: nn.Module) -> bool:
    """Whether a model has the vector that stands for masked frames; what masks name would not be hidden without."""
    return any(name.endswith("masked_spec_embed") for name, _ in model.named_parameters())


def check_masking(model: nn.Module) -> None:
    """Makes sure that a model hides what masks name: some families cannot, and some configurations say not to.

    Raises:
        HeadError: it would not.
    """
    config: Any = model.config
    if "mask_time_indices" not in inspect.signature(model.forward).parameters or not has_mask_vector(model):
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


def contrastive_values(
    model: nn.Module,
    frontend: Frontend,
    utterances: Sequence[Utterance],
    seed: int = 0,
    share: float = SHARE,
    span: int = SPAN,
    progress: Progress | None = None,
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

    def terms(out: Any, utterance: Utterance, mask: torch.Tensor, draw: np.random.Generator) -> _Terms:
        negatives = torch.from_numpy(draw_negatives(int(mask.sum()), int(config.num_negatives), draw)).to(mask.device)
        targets = out.projected_quantized_states[mask]
        logits = contrastive_logits(
            out.projected_states[mask], targets, targets, negatives, config.contrastive_logits_temperature
        )
        return contrastive_terms(logits)

    return _values(model, frontend, utterances, terms, seed, share, span, progress)


def prediction_values(
    model: nn.Module,
    head: nn.Module,
    frontend: Frontend,
    utterances: Sequence[Utterance],
    labels: dict[str, np.ndarray],
    seed: int = 0,
    share: float = SHARE,
    span: int = SPAN,
    progress: Progress | None = None,
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

    def terms(out: Any, utterance: Utterance, mask: torch.Tensor, draw: np.random.Generator) -> _Terms:
        logits = head(out.last_hidden_state[mask]).float()
        wanted = torch.from_numpy(labels[utterance.id]).to(mask.device)[mask[0]]
        return F.cross_entropy(logits, wanted, reduction="none"), logits.argmax(-1) == wanted

    return _values(model, frontend, utterances, terms, seed, share, span, progress)


@torch.no_grad()
def _values(
    model: nn.Module,
    frontend: Frontend,
    utterances: Sequence[Utterance],
    terms: Callable[[Any, Utterance, torch.Tensor, np.random.Generator], _Terms],
    seed: int,
    share: float,
    span: int,
    progress: Progress | None,
) -> dict[str, np.ndarray]:
    """Runs each utterance under its own mask, and sums what `terms` gives for it.

    Args:
        model: takes `mask_time_indices`; its mode is put back afterwards.
        frontend: prepares its input.
        utterances: the speech.
        terms: from the model's output, the utterance, its mask (1, T) and its generator to loss and hit of each masked
            frame.
        seed: of masks, and of what `terms` draws.
        share: see `span_mask`.
        span: frames a mask.
        progress: called after each utterance with the seconds done and in all.
    """
    total, done = sum(u.n_samples for u in utterances) / RATE, 0.0
    weights = next(model.parameters())
    rows = []
    with _eval_mode(model):
        for utterance in utterances:
            samples = utterance.read()
            draw = own_generator(seed, utterance.id, "mask")
            drawn = span_mask(frontend.frames(len(samples)), share, draw, span)
            mask = torch.from_numpy(drawn)[None].to(weights.device)
            inputs = {
                name: value.to(weights.device, weights.dtype if value.is_floating_point() else None)
                for name, value in frontend.inputs([samples]).items()
            }
            loss, hits = terms(model(**inputs, mask_time_indices=mask), utterance, mask, draw)
            # Nothing is likelier than what is not a number: without this it would pass for a frame that was missed.
            hits = torch.where(loss.isfinite(), hits.double(), torch.nan)
            rows.append((float(loss.double().sum()), float(hits.double().sum()), float(mask.sum())))
            done += utterance.n_samples / RATE
            if progress is not None:
                progress(done, total)
    return dict(zip(("loss", "hits", "frames"), np.array(rows).T, strict=True))


@contextlib.contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)
