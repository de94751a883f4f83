"""The weighted sum over layers: which layers a probe of all of them listens to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from otoscope.errors import MeasureError
from otoscope.measures.layers.probes import checked_rows, learn, like, standardised


@dataclass(frozen=True)
class WeightedLayers:
    """A probe of a weighted sum of layers.

    Attributes:
        weights: of the layers, shape (L,), positive, with sum 1.
        log_probabilities: ln p of each class for each held-out row, shape (M, K), of the same kind as the layers.
    """

    weights: Float[np.ndarray, " layers"]
    log_probabilities: Any


def weighted_layers(
    layers: Any, labels: Any, held_out: Any, classes: int | None = None, *, steps: int = 300, seed: int = 0
) -> WeightedLayers:
    """Fits a linear classifier of a weighted sum of layers, weights and classifier at once.

        z = sum_l softmax(a)_l norm(x_l),   p(label | z) = softmax(W z + b)

    That is the weighted sum of SUPERB (Yang et al. 2021), whose weights say nothing about layers while the layers
    differ in size: a layer of small norm needs a great weight to be heard. Here every dimension is standardised on the
    rows that are fitted on and `norm` is a layer norm without scale and shift, so all layers' rows have the same norm.
    Fitted by AdamW on batches of 128 rows, from equal weights.

    Args:
        layers: rows to fit on, one set for each layer, shape (L, N, d), torch or numpy.
        labels: of these rows, whole numbers from 0, shape (N,).
        held_out: rows to apply it to, shape (L, M, d).
        classes: how many classes K there are; one more than the greatest label where None.
        steps: batches it learns from.
        seed: of the batches.

    Returns:
        The layers' weights and what the probe makes of the held-out rows.

    Raises:
        MeasureError: the shapes disagree, a value is not finite, or a label is not in 0..K-1.
    """
    if len(layers) != len(held_out) or not len(layers):
        raise MeasureError(
            f"{len(layers)} layers to fit on and {len(held_out)} held out", "Give one set of rows for each layer."
        )
    fitted, apart = [], []
    for one, other in zip(layers, held_out, strict=True):
        rows, y, held, k = checked_rows(one, labels, other, classes)
        rows, held = standardised(rows, held)
        fitted.append(_normed(rows))
        apart.append(_normed(held))
    # Rows first, so that a batch is one piece of memory.
    inputs, targets = torch.from_numpy(np.stack(fitted, axis=1)), torch.from_numpy(y)
    draw = torch.Generator().manual_seed(seed)
    parameters = [torch.zeros(len(fitted)), torch.zeros(inputs.shape[2], k), torch.zeros(k)]

    def logits(rows: torch.Tensor) -> torch.Tensor:
        mixing, classifier, bias = parameters
        mixed = torch.einsum("l,nld->nd", torch.softmax(mixing, 0), rows)
        return torch.addmm(bias, mixed, classifier)

    learn(parameters, lambda chosen: (logits(inputs[chosen]), targets[chosen]), len(y), steps, draw, rate=0.02)
    with torch.no_grad():
        found = torch.log_softmax(logits(torch.from_numpy(np.stack(apart, axis=1))).double(), dim=1)
        weights = torch.softmax(parameters[0].double(), 0).numpy()
    return WeightedLayers(weights, like(layers[0], found.numpy()))


def _normed(x: np.ndarray) -> np.ndarray:
    """Each row less its mean and over its standard deviation; a row of one value becomes 0."""
    x = x.astype(np.float32)
    x = x - x.mean(1, keepdims=True)
    return x / np.maximum(x.std(1, keepdims=True), 1e-6)
