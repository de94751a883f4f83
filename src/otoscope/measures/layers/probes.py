"""Probes: what a small classifier reads from rows."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import log_softmax

from otoscope.errors import MeasureError

RIDGE = 0.01
_ITERATIONS = 100
_FARTHEST = 10.0


def linear_probe(x: Any, labels: Any, held_out: Any, classes: int | None = None, ridge: float = RIDGE) -> Any:
    """Fits a multinomial logistic regression and applies it to held-out rows.

    It minimises the mean of -ln p(label | x) + ridge / 2 |W|^2 (scikit-learn's L-BFGS, at most 100 iterations), on
    inputs standardised by the mean and standard deviation of the rows that are fitted on and cut off at ten deviations.
    One more row, at their mean and spread evenly over all classes, keeps classes that never occur possible.

    Args:
        x: rows to fit on, shape (N, d), torch or numpy.
        labels: of these rows, whole numbers from 0, shape (N,).
        held_out: rows to apply it to, shape (M, d).
        classes: how many classes K there are; one more than the greatest label where None.
        ridge: how strongly weights are held back; for a standardised input it is on one scale.

    Returns:
        ln p of each class for each held-out row, shape (M, K), float64, of the same kind as `x`.

    Raises:
        MeasureError: the shapes disagree, a value is not finite, there is no row, or a label is not in 0..K-1.

    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> linear_probe(x, np.array([0, 0, 1, 1]), np.array([[-1.0], [4.0]])).argmax(1)
    array([0, 1])
    """
    rows, y, apart, k = checked_rows(x, labels, held_out, classes)
    rows, apart = standardised(rows, apart)
    return like(x, logistic(rows, y, apart, k, ridge))


def mlp_probe(
    x: Any,
    labels: Any,
    held_out: Any,
    classes: int | None = None,
    *,
    hidden: int = 64,
    steps: int = 200,
    seed: int = 0,
) -> Any:
    """Fits a network with one hidden layer and applies it to held-out rows.

    ReLU units, cross-entropy, AdamW (rate 0.005 that falls to 0, decay 0.01) on batches of 128 rows; inputs are
    standardised as by `linear_probe`.

    Args:
        x: rows to fit on, shape (N, d), torch or numpy.
        labels: of these rows, whole numbers from 0, shape (N,).
        held_out: rows to apply it to, shape (M, d).
        classes: how many classes K there are; one more than the greatest label where None.
        hidden: units of the hidden layer.
        steps: batches it learns from.
        seed: of the first weights and the batches.

    Returns:
        ln p of each class for each held-out row, shape (M, K), float64, of the same kind as `x`.

    Raises:
        MeasureError: as `linear_probe`.
    """
    rows, y, apart, k = checked_rows(x, labels, held_out, classes)
    rows, apart = standardised(rows, apart)
    draw = torch.Generator().manual_seed(seed)
    inputs, targets = torch.from_numpy(rows.astype(np.float32)), torch.from_numpy(y)
    sizes = (rows.shape[1], hidden, k)
    weights = [torch.randn(a, b, generator=draw) * math.sqrt(2 / a) for a, b in pairwise(sizes)]
    weights[1] *= 0.1  # so that no class is likely before anything is learnt
    parameters = [*weights, torch.zeros(hidden), torch.zeros(k)]

    def logits(batch: torch.Tensor) -> torch.Tensor:
        first, second, bias, last = parameters
        return torch.addmm(last, torch.relu(torch.addmm(bias, batch, first)), second)

    learn(parameters, lambda chosen: (logits(inputs[chosen]), targets[chosen]), len(y), steps, draw)
    with torch.no_grad():
        found = torch.log_softmax(logits(torch.from_numpy(apart.astype(np.float32))).double(), dim=1)
    return like(x, found.numpy())


def learn(
    parameters: list[torch.Tensor],
    batch_of: Any,
    rows: int,
    steps: int,
    draw: torch.Generator,
    rate: float = 0.005,
    batch: int = 128,
) -> None:
    """Fits parameters in place by AdamW on cross-entropy, with a rate that falls to 0.

    Args:
        parameters: what is fitted.
        batch_of: from the numbers of a batch's rows to logits (b, K) and targets (b,).
        rows: how many there are.
        steps: batches.
        draw: of the order of the rows.
        rate: of the first step.
        batch: rows of a batch.
    """
    with torch.enable_grad():
        for one in parameters:
            one.requires_grad_()
        # With the usual 1e-8 the rounding of a gradient that is 0 would grow to steps of full size.
        optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, eps=1e-5)
        order = torch.empty(0, dtype=torch.int64)
        for step in range(steps):
            if len(order) < min(batch, rows):
                order = torch.randperm(rows, generator=draw)
            chosen, order = order[:batch], order[batch:]
            optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
            loss = torch.nn.functional.cross_entropy(*batch_of(chosen))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for one in parameters:
        one.requires_grad_(False)


def logistic(
    x: Float[np.ndarray, "n d"],
    y: Int[np.ndarray, " n"],
    held_out: Float[np.ndarray, "m d"],
    classes: int,
    ridge: float,
) -> Float[np.ndarray, "m k"]:
    """`linear_probe` on standardised rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if classes == 1:
        return np.zeros((len(held_out), 1))
    n, d = x.shape
    weights = np.concatenate([np.ones(n), np.full(classes, 1 / classes)])
    model = LogisticRegression(C=1 / (ridge * (n + 1)), max_iter=_ITERATIONS, tol=1e-3)
    with warnings.catch_warnings():
        # The iterations are bounded on purpose, and the first blocks of an online code hold few rows of many classes.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes")
        model.fit(
            np.concatenate([x, np.zeros((classes, d), x.dtype)]), np.concatenate([y, np.arange(classes)]), weights
        )
    scores = model.decision_function(held_out).astype(np.float64)
    if scores.ndim == 1:  # of two classes scikit-learn gives the second's alone
        scores = np.column_stack([np.zeros_like(scores), scores])
    return np.asarray(log_softmax(scores, axis=1))


def standardised(x: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both less the mean of the first and over its standard deviation, within ten; constant dimensions become 0."""
    mean, scale = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    # What is left of a constant dimension is the rounding of its mean.
    varies = scale > 1e-6 * np.abs(x).max(0)
    factor = np.where(varies, 1 / np.where(varies, scale, 1), 0)
    # A dimension that hardly varied may be anything where it was not seen.
    first, second = (np.clip((one - mean) * factor, -_FARTHEST, _FARTHEST).astype(x.dtype) for one in (x, held_out))
    return first, second


def checked_rows(
    x: Any, labels: Any, held_out: Any, classes: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Rows in single or double precision, labels and held-out rows as numpy arrays, and the number of classes."""
    rows, y, apart = (_numpy(one) for one in (x, labels, held_out))
    shapes = f"rows {rows.shape}, labels {y.shape}, held-out rows {apart.shape}"
    if rows.ndim != 2 or y.shape != rows.shape[:1] or apart.ndim != 2 or apart.shape[1] != rows.shape[1]:
        raise MeasureError(f"The shapes disagree: {shapes}", "Give (N, d), (N,) and (M, d).")
    if not len(rows) or not rows.shape[1]:
        raise MeasureError(f"There is nothing to learn from: {shapes}", "Give at least one row and one column.")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or (classes is not None and y.max() >= classes):
        raise MeasureError(
            f"Labels of type {y.dtype} between {y.min()} and {y.max()} for {classes or 'any number of'} classes",
            "Number the labels from 0.",
        )
    if not (np.isfinite(rows).all() and np.isfinite(apart).all()):
        raise MeasureError(f"Values that are not finite: {shapes}", "Remove rows with NaN or infinity.")
    if rows.dtype != np.float64:
        rows, apart = rows.astype(np.float32), apart.astype(np.float32)
    return rows, y.astype(np.int64), apart.astype(rows.dtype), int(y.max()) + 1 if classes is None else classes


def _numpy(array: Any) -> np.ndarray:
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def like(x: Any, found: np.ndarray) -> Any:
    """The array as a torch tensor where `x` is one, on its device."""
    return torch.from_numpy(found).to(x.device) if isinstance(x, torch.Tensor) else found
