"""Readouts: small networks, one a fold, that are fitted all at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F

from otoscope.errors import MeasureError

FARTHEST = 10.0
"""Standard deviations at which inputs are cut off: a dimension that hardly varied may be anything where unseen."""


@dataclass(frozen=True)
class Readouts:
    """Networks of one shape, one for each fold.

    Attributes:
        mean: of the rows that each was fitted on, shape (K, 1, d).
        factor: one over their standard deviation; 0 for constant dimensions, shape (K, 1, d).
        layers: weights (K, a, b) and biases (K, 1, b) of each layer in turn.
    """

    mean: torch.Tensor
    factor: torch.Tensor
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    def __call__(self, x: torch.Tensor, fold: int) -> torch.Tensor:
        """Outputs for rows.

        Args:
            x: rows, shape (n, d).
            fold: whose network is asked, one that did not see these rows.

        Returns:
            Log odds of classes, or predicted values, shape (n, m).

        Raises:
            MeasureError: the rows have another width than those that it was fitted on.
        """
        if x.ndim != 2 or x.shape[1] != self.mean.shape[2]:
            raise MeasureError(
                f"Rows of shape {tuple(x.shape)} for probes of {self.mean.shape[2]} dimensions",
                "A frozen probe reads the stream that it was fitted on; cut heads leave its width as it is.",
            )
        with torch.no_grad():
            inputs = _standardised(x.float()[None], self.mean[fold : fold + 1], self.factor[fold : fold + 1])
            layers = [(weight[fold : fold + 1], bias[fold : fold + 1]) for weight, bias in self.layers]
            return _forward(inputs, layers)[0]


def fit_readouts(
    x: torch.Tensor,
    targets: torch.Tensor,
    rows: Sequence[torch.Tensor],
    classes: int | None = None,
    *,
    hidden: int = 96,
    steps: int = 200,
    batch: int = 256,
    rate: float = 0.01,
    seed: int = 0,
) -> Readouts:
    """Fits a network for each fold: linear, or with one hidden layer of ReLU units.

    Cross-entropy for classes, the mean absolute error for values; AdamW (decay 0.01) with a rate that falls to 0. Inputs
    are standardised by the rows that each network is fitted on. The last bias begins at the logarithms of the classes'
    frequencies, or at the values' medians, so that a network to which its input tells nothing names the most frequent
    class, or the median. The networks are independent; they are stepped together because that is quicker.

    Args:
        x: all rows, shape (N, d).
        targets: classes from 0, shape (N,), or values, shape (N, m).
        rows: numbers of the rows that each fold's network is fitted on, (n_k,) each.
        classes: how many classes there are; None for values.
        hidden: units of the hidden layer; 0 for a linear probe.
        steps: batches.
        batch: rows of a batch, for each network.
        rate: of the first step.
        seed: of first weights and batches; with one seed all calls on as many rows draw the same ones.

    Raises:
        MeasureError: the shapes disagree, a value is not finite, or a network would have no row.

    >>> one_hot = torch.eye(3).repeat(20, 1)
    >>> fitted = fit_readouts(one_hot, torch.arange(60) % 3, [torch.arange(30)], 3, steps=50)
    >>> bool((fitted(one_hot[30:], 0).argmax(1) == torch.arange(30) % 3).all())
    True
    """
    _check(x, targets, rows, classes)
    x = x.float()
    draw = torch.Generator().manual_seed(seed)
    outputs = targets.shape[1] if classes is None else classes
    mean, factor = zip(*(_moments(x[one]) for one in rows), strict=True)
    fitted = Readouts(torch.stack(mean), torch.stack(factor), _layers(len(rows), x.shape[1], hidden, outputs, draw))
    last = fitted.layers[-1][1]
    for k, one in enumerate(rows):
        last[k, 0] = constant(targets[one], classes)
    orders = torch.stack([_order(one, steps * batch, draw) for one in rows])  # (K, steps * batch)
    parameters = [tensor for layer in fitted.layers for tensor in layer]
    with torch.enable_grad():
        for tensor in parameters:
            tensor.requires_grad_()
        # With the usual 1e-8 the rounding of a gradient that is 0 would grow to steps of full size.
        optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, eps=1e-5)
        for step in range(steps):
            chosen = orders[:, step * batch : (step + 1) * batch]
            optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
            out = _forward(_standardised(x[chosen], fitted.mean, fitted.factor), fitted.layers)
            wanted = targets[chosen]
            # A sum over networks of each one's mean keeps them independent.
            if classes is None:
                loss = (out - wanted).abs().sum(2).mean(1).sum()
            else:
                loss = len(rows) * F.cross_entropy(out.flatten(0, 1), wanted.flatten())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for tensor in parameters:
        tensor.requires_grad_(False)
    return fitted


def constant(targets: torch.Tensor, classes: int | None) -> torch.Tensor:
    """What to say to every row alike: log frequencies of classes (one row added to each), or medians; shape (m,)."""
    if classes is None:
        return targets.float().median(dim=0).values
    counts = torch.bincount(targets, minlength=classes).float()
    return torch.log((counts + 1) / (counts.sum() + classes))


def _layers(
    folds: int, width: int, hidden: int, outputs: int, draw: torch.Generator
) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """First weights; folds begin alike."""
    sizes = (width, hidden, outputs) if hidden else (width, outputs)
    found = []
    for place, (a, b) in enumerate(pairwise(sizes)):
        # What stands before the outputs begins near 0, so that nothing is likely before anything is learnt.
        scale = math.sqrt(2 / a) * (0.1 if place == len(sizes) - 2 else 1)
        weight = torch.randn(a, b, generator=draw) * scale
        found.append((weight.repeat(folds, 1, 1), torch.zeros(folds, 1, b)))
    return tuple(found)


def _order(rows: torch.Tensor, count: int, draw: torch.Generator) -> torch.Tensor:
    """Rows in the order in which they are learnt from: all of them once, then once more, and so on; (count,)."""
    turns = -(-count // len(rows))
    return torch.cat([rows[torch.randperm(len(rows), generator=draw)] for _ in range(turns)])[:count]


def _forward(x: torch.Tensor, layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """(K, n, d) through the layers of K networks."""
    for place, (weight, bias) in enumerate(layers):
        x = torch.baddbmm(bias, torch.relu(x) if place else x, weight)
    return x


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and one over the standard deviation of each dimension, (1, d) each; 0 for constant dimensions."""
    mean, deviation = x.double().mean(0), x.double().std(0, correction=0)
    # What is left of a constant dimension is the rounding of its mean.
    varies = deviation > 1e-6 * x.abs().amax(0)
    factor = torch.where(varies, 1 / torch.where(varies, deviation, 1.0), 0.0)
    return mean.float()[None], factor.float()[None]


def _standardised(x: torch.Tensor, mean: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return ((x - mean) * factor).clamp(-FARTHEST, FARTHEST)


def _check(x: torch.Tensor, targets: torch.Tensor, rows: Sequence[torch.Tensor], classes: int | None) -> None:
    shapes = f"rows {tuple(x.shape)}, targets {tuple(targets.shape)}"
    if x.ndim != 2 or len(targets) != len(x) or targets.ndim != (2 if classes is None else 1):
        raise MeasureError(f"The shapes disagree: {shapes}", "Give (N, d) and (N,) classes or (N, m) values.")
    if not rows or any(not len(one) for one in rows):
        raise MeasureError("A probe has no row to be fitted on", "Give more speech, or fewer folds.")
    if not (bool(torch.isfinite(x).all()) and bool(torch.isfinite(targets).all())):
        raise MeasureError(f"Values that are not finite: {shapes}", "Check the model's weights for NaN and infinity.")
    if classes is not None and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise MeasureError(
            f"Labels between {int(targets.min())} and {int(targets.max())} for {classes} classes",
            "Number the labels from 0.",
        )
