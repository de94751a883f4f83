"""Gradient importance of heads: how a loss would change with a gate on each head's output."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from otoscope.errors import EvaluationError
from otoscope.evaluation.bootstrap import block_bootstrap, blocks_of
from otoscope.interventions.engine import Progress
from otoscope.interventions.losses import Loss
from otoscope.measures.measure import Result, Row
from otoscope.models.model import SpeechModel
from otoscope.speech.batching import read_batches
from otoscope.speech.corpus import Corpus
from otoscope.surgery import prepared
from otoscope.surgery.units import Parts

BY_FRAME, SUMMED = "importance-gradient", "importance-gradient-sum"


def gradient_importance(
    model: SpeechModel,
    corpus: Corpus,
    loss: Loss,
    *,
    by_layer: bool = False,
    seed: int = 0,
    batch_seconds: float = 10.0,
    progress: Progress | None = None,
) -> Result:
    """Michel, Levy and Neubig 2019 (arXiv 1905.10650), equation 2: I_h = E |d L / d g_h| for gates g of one.

    The derivative for one frame is the product of the head's output before the output projection with the gradient that
    reaches it. Two forms, both divided by frames in every layer, since every frame of speech bears on the loss:
    `importance-gradient` takes the absolute value frame by frame, and then the sum, as the authors' program does;
    `importance-gradient-sum` sums first, as their equation does, so that it is the derivative by the gate. Where an
    encoder attends to silence that it was padded with (Whisper), the gate bears on that too; frame by frame only the
    frames of the utterance count.

    Args:
        model: the model; in eval mode, nothing of it is changed.
        corpus: the speech.
        loss: what is differentiated.
        by_layer: whether values are divided by the root of the sum of their squares within a layer (l2), as the authors
            do; orders over the whole model then compare heads by their share of their layer.
        seed: of the bootstrap.
        batch_seconds: budget of a batch, in seconds of padded speech.
        progress: called after each batch with the seconds done and in all.

    Returns:
        Two rows a head, target is the loss: value in its unit for a frame, interval at 95 % over speakers; n frames.

    Raises:
        EvaluationError: the corpus is empty, the loss does not run every utterance once, or a gradient is not finite.
        SpeechError: an utterance cannot be read or used.
    """
    base = prepared(model)
    reader = read_batches(corpus, batch_seconds)
    gathered: dict[str, tuple[dict[int, np.ndarray], int]] = {}
    done = 0.0
    for batch in reader:
        for utterance, one in zip(batch.utterances, batch.samples, strict=True):
            base.frontend.check(len(one), f"Utterance {utterance.id!r}")
        with torch.enable_grad(), head_outputs(base) as outputs:
            losses = loss.of(base, batch.utterances, batch.samples)
            frames_of = [base.frontend.frames(len(one)) for one in batch.samples]
            products = _products(base, outputs, losses, loss.name, frames_of)
        for k, (utterance, count) in enumerate(zip(batch.utterances, frames_of, strict=True)):
            gathered[utterance.id] = ({layer: found[k] for layer, found in products.items()}, count)
        done += batch.seconds
        if progress is not None:
            progress(done, reader.seconds)
    if not gathered:
        raise EvaluationError(f"Corpus {corpus.name} holds no utterance", "Choose a corpus with speech.")
    frames = np.array([gathered[one.id][1] for one in corpus], np.float64)
    rows = []
    for k, name in enumerate((BY_FRAME, SUMMED)):
        for layer, heads in enumerate(base.anatomy.head_names, start=1):
            table = np.array([gathered[one.id][0][layer][k] for one in corpus]).reshape(len(corpus), len(heads))
            found = [
                interval_row(
                    Row(name, f"layer.{layer}", layer, head, loss.name), corpus, table[:, position], frames, seed
                )
                for position, head in enumerate(heads)
            ]
            rows += _normed(found) if by_layer else found
    unit = f"{loss.unit} per frame"
    notes = {"loss": loss.name, "unit": "share of the layer" if by_layer else unit, "by_layer": by_layer, "seed": seed}
    return Result(rows, {}, {BY_FRAME: notes})


@contextlib.contextmanager
def head_outputs(
    model: SpeechModel, change: Callable[[int, torch.Tensor], torch.Tensor] | None = None
) -> Iterator[dict[int, list[torch.Tensor]]]:
    """What enters the output projections of a model's attention, with gradients, while the context lasts.

    Args:
        model: hooked in its view and in the model under its head: a loss runs either.
        change: from the layer and its heads' outputs (B, T, H D) to what goes on in their place.

    Yields:
        layer -> outputs of each pass, (B, T, H D), filled as passes run.
    """
    outputs: dict[int, list[torch.Tensor]] = {}
    handles = []

    def listen(layer: int) -> Callable[..., tuple[Any, ...]]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            states = args[0] if change is None else change(layer, args[0])
            if torch.is_grad_enabled() and not states.requires_grad:
                states = states.detach().requires_grad_()
            outputs.setdefault(layer, []).append(states)
            return (states, *args[1:])

        return hook

    for encoder in (model.encoder, model.family.encoder(model.source)):
        parts = Parts(encoder, model.family)
        for layer, attention in parts.attentions().items():
            projection = getattr(attention, model.family.projections[3])
            handles.append(projection.register_forward_pre_hook(listen(layer)))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _products(
    model: SpeechModel, outputs: dict[int, list[torch.Tensor]], losses: torch.Tensor, name: str, frames: list[int]
) -> dict[int, list[np.ndarray]]:
    """For each layer and utterance, of so many frames each, both sums of output times gradient, (2, H)."""
    batch = len(frames)
    layers = [layer for layer, heads in enumerate(model.anatomy.head_names, start=1) if heads]
    rows = {layer: sum(len(one) for one in outputs.get(layer, [])) for layer in layers}
    if losses.shape != (batch,) or any(count != batch for count in rows.values()):
        raise EvaluationError(
            f"The loss {name!r} has the shape {tuple(losses.shape)} for {batch} utterances, and ran "
            f"{', '.join(f'{n} in layer {k}' for k, n in rows.items())}",
            "Give a loss that runs every utterance once, in order, and has one value for each.",
        )
    if not losses.requires_grad:
        raise EvaluationError(
            f"No gradient flows from the loss {name!r}", "Compute it from the model's output without `no_grad`."
        )
    flat = [(layer, one) for layer in layers for one in outputs[layer]]
    gradients = torch.autograd.grad(losses.sum(), [one for _, one in flat], allow_unused=True)
    found: dict[int, list[np.ndarray]] = {layer: [np.zeros((2, 0))] * batch for layer in model_layers(model)}
    for layer in layers:
        found[layer] = []
    for (layer, one), gradient in zip(flat, gradients, strict=True):
        heads = len(model.anatomy.head_names[layer - 1])
        product = torch.zeros_like(one) if gradient is None else gradient * one.detach()
        by_frame = product.detach().double().view(*one.shape[:2], heads, -1).sum(-1)
        own = frames[len(found[layer]) : len(found[layer]) + len(one)]
        sizes = torch.stack([row[:count].abs().sum(0) for row, count in zip(by_frame, own, strict=True)])
        sums = torch.stack([sizes, by_frame.sum(1).abs()], 1)  # (B, 2, H)
        if not bool(torch.isfinite(sums).all()):
            raise EvaluationError(
                f"The gradient of the loss {name!r} at layer {layer} is not finite", "Check the model and the speech."
            )
        found[layer] += list(sums.cpu().numpy())
    return found


def model_layers(model: SpeechModel) -> range:
    """Numbers of a model's layers."""
    return range(1, model.anatomy.n_layers + 1)


def interval_row(row: Row, corpus: Corpus, tops: np.ndarray, bottoms: np.ndarray, seed: int) -> Row:
    """Fills a row with a ratio of sums over utterances and its 95 % interval over speakers, where there is a spread.

    Args:
        row: place of the number.
        corpus: the utterances.
        tops: numerators, shape (n,).
        bottoms: denominators, shape (n,).
        seed: of the bootstrap.
    """
    row.value, row.n = float(tops.sum() / bottoms.sum()), int(bottoms.sum())
    blocks = blocks_of([u.id for u in corpus], [u.speaker for u in corpus])
    sums = np.stack([blocks.sums(tops), blocks.sums(bottoms)])
    if len(blocks) > 1 and np.ptp(sums[0] / sums[1]) > 0:
        positive = bool((tops > 0).all())
        found = block_bootstrap(sums, lambda total: total[0] / total[1], blocks.by, seed=seed, positive=positive)
        row.low, row.high = found.estimate.low, found.estimate.high
    return row


def _normed(rows: list[Row]) -> list[Row]:
    """Rows of a layer, divided by the root of the sum of squares of their values."""
    norm = float(np.sqrt(sum((row.value or 0.0) ** 2 for row in rows)))
    for row in rows if norm > 0 else ():
        for name in ("value", "low", "high"):
            value = getattr(row, name)
            setattr(row, name, None if value is None else value / norm)
    return rows
