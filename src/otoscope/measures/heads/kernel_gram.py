"""Boundaries where the kernel-Gram matrix of frames falls apart into blocks: phone segmentation without training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from otoscope.errors import MeasureError

_SAME = 1e-14
"""Squared distance, relative to the squared lengths, below which two frames are the same: what rounding leaves."""


def kernel_gram_curve(features: Any, alpha: float, beta: float, *, repeat: int = 1) -> Any:
    """Score curve of the kernel-Gram matrix of frames (Yang, Liu and Lee 2020, supplement, eq. 1-4).

        K[i, j]   = exp(-||v_i - v_j|| / alpha)
        eps_i     = beta / T sum_j K[i, j]
        K_f[i, j] = 1 where K[i, k] > eps_i for every k from i to j, else 0
        S[t]      = sum_k K_f[t - k, t + k],        outside the matrix 0

    Args:
        features: (..., T, d), floating point, torch or numpy: frames, or the rows of attention maps (d = T).
        alpha: width of the kernel, in the unit of the features' distances.
        beta: threshold, in multiples of a row's mean.
        repeat: label frames that each frame stands for. The curve is that of features each repeated so often, which is
            how the authors bring layers to the rate of their labels. They up-sample maps, each weight into a block of
            repeat x repeat with rows brought back to one; the rows are then nearer to each other by the square root
            of `repeat`, so that the authors' alpha for maps is to be multiplied by that root.

    Returns:
        (..., T * repeat), whole numbers in float64, of the input's kind.

    Raises:
        MeasureError: another shape or type, values that are not finite, or a parameter that is not positive.

    >>> frames = np.repeat(np.eye(2), 3, axis=0)
    >>> kernel_gram_curve(frames, alpha=0.1, beta=1.0)
    array([1., 3., 1., 1., 3., 1.])
    """
    flat, shape = _checked(features, (alpha, beta), repeat)
    curves = [KernelGram(frames, repeat).curves((alpha,), (beta,))[0, 0] for frames in flat]
    stacked = np.stack(curves) if curves else np.zeros((0, shape[-2] * repeat))
    return _as_given(stacked.reshape(*shape[:-2], shape[-2] * repeat).astype(np.float64), features)


def kernel_gram_boundaries(features: Any, alpha: float, beta: float, *, repeat: int = 1) -> Any:
    """Boundaries at the local minima of the score curve (Yang, Liu and Lee 2020, supplement, section 2.1).

    Where several frames in a row share a minimum the boundary is in their middle; the authors leave that open. A
    minimum that reaches the first or the last frame is no boundary.

    Args:
        features: as for `kernel_gram_curve`.
        alpha: as for `kernel_gram_curve`.
        beta: as for `kernel_gram_curve`; a larger one gives more boundaries.
        repeat: as for `kernel_gram_curve`.

    Returns:
        Ascending positions in frames of the input, float64, of the input's kind, shape (b,); frame t lies from t to
        t + 1, so the middle of frame t is t + 0.5. For (..., T, d) nested lists of them.

    Raises:
        MeasureError: as `kernel_gram_curve`.

    >>> blocks = np.kron(np.eye(2), np.ones((4, 4)))
    >>> blocks[3, 4] = blocks[4, 3] = 1.0
    >>> kernel_gram_boundaries(blocks / blocks.sum(1, keepdims=True), alpha=0.3, beta=1.0)
    array([4.])
    """
    flat, shape = _checked(features, (alpha, beta), repeat)
    found: list[Any] = []
    for frames in flat:
        curve = KernelGram(frames, repeat).curves((alpha,), (beta,))[0]
        _, twice = minima(curve)
        found.append(_as_given(twice / (2 * repeat), features))
    for size in reversed(shape[1:-2]):
        found = [found[k : k + size] for k in range(0, len(found), size)]
    return found if len(shape) > 2 else found[0]


class KernelGram:
    """Distances between the frames of one utterance, from which curves follow for many alphas and betas at once.

    K[i, k] > eps_i says that the distance is below -alpha ln eps_i. So how far a run of row i reaches is read off the
    running maximum of the distances to either side, and every setting costs T log T beside one exponential an alpha.
    Memory is four matrices of T x T in float64.

    Args:
        frames: (T, d), T at least 1.
        repeat: see `kernel_gram_curve`.
    """

    def __init__(self, frames: torch.Tensor, repeat: int = 1) -> None:
        wide = frames.double()
        squares = torch.linalg.vecdot(wide, wide)
        apart = squares[:, None] + squares
        squared = torch.addmm(apart, wide, wide.T, alpha=-2)
        # Equal frames are exactly 0 apart, so that rounding does not decide where the threshold is K = 1.
        squared.masked_fill_(squared <= _SAME * apart, 0)
        squared.fill_diagonal_(0)
        self.distances = squared.sqrt_()
        self.frames, self.repeat = len(frames), repeat
        self._ahead = _running_maxima(self.distances)
        self._back = _running_maxima(self.distances.flip(0, 1))

    @property
    def scale(self) -> float:
        """Mean distance between two different frames, 0 where all are the same."""
        pairs = self.frames * (self.frames - 1)
        return float(self.distances.sum()) / pairs if pairs else 0.0

    def curves(self, alphas: Sequence[float], betas: Sequence[float]) -> np.ndarray:
        """Score curves for every alpha and beta, (A, B, T * repeat), int64."""
        limits = torch.stack([self._limits(alpha, betas) for alpha in alphas])  # (A, B, T)
        flat = limits.flatten(0, 1).T.contiguous()
        own = torch.arange(self.frames, device=flat.device)[:, None]
        # Frames from i on in the run of row i; 0 where not even i itself is above the threshold.
        ahead = torch.searchsorted(self._ahead, flat) - own
        back = torch.searchsorted(self._back, flat.flip(0).contiguous()) - own
        runs = torch.stack([ahead.T, back.flip(0).T]).clamp(min=0).cpu().numpy()
        return _accumulated(runs[0], runs[1], self.repeat).reshape(len(alphas), len(betas), -1)

    def _limits(self, alpha: float, betas: Sequence[float]) -> torch.Tensor:
        """Distances below which frames are above their row's threshold, (B, T)."""
        logs = (self.distances / -alpha).exp_().mean(1).log()
        return torch.stack([-alpha * (logs + math.log(beta)) for beta in betas])


def _running_maxima(distances: torch.Tensor) -> torch.Tensor:
    """Largest distance from frame i to any of the frames i to j, for j >= i; -1 for j < i. Rows ascend."""
    upper = torch.ones_like(distances, dtype=torch.bool).triu_()
    return distances.masked_fill(~upper, -1.0).cummax(1).values


def _accumulated(ahead: np.ndarray, back: np.ndarray, repeat: int) -> np.ndarray:
    """Score curves from the lengths of runs.

    Row i of K_f holds ones from i - l to i + r. K_f[t - k, t + k] is in row i for t = i + k, so that row adds one to
    S[t] for t from i - l // 2 to i + r // 2: two steps for each row, and a running sum.

    Args:
        ahead: r + 1 for each row, (n, T), 0 where the row is empty.
        back: l + 1 for each row, (n, T).
        repeat: label frames for each frame.
    """
    n, frames = ahead.shape
    total = frames * repeat
    there = np.repeat(ahead > 0, repeat, axis=1)
    within = np.tile(np.arange(repeat), frames)
    right = np.repeat(ahead * repeat, repeat, axis=1) - 1 - within
    left = np.repeat((back - 1) * repeat, repeat, axis=1) + within
    place = np.arange(total)
    steps = np.zeros(n * (total + 1), dtype=np.int64)
    row = np.arange(n)[:, None] * (total + 1)
    first, last = row + place - left // 2, row + place + right // 2 + 1
    steps += np.bincount(first[there], minlength=len(steps)) - np.bincount(last[there], minlength=len(steps))
    return steps.reshape(n, total + 1).cumsum(axis=1)[:, :total]


def minima(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Local minima of curves, plateaus by their middles.

    Args:
        curves: (n, T).

    Returns:
        Which curve each minimum is of, ascending, and twice its position, where frame t lies from t to t + 1: an
        integer; both of shape (m,).
    """
    n, frames = curves.shape
    change = np.ones((n, frames), dtype=bool)
    change[:, 1:] = curves[:, 1:] != curves[:, :-1]
    curve, first = np.nonzero(change)
    last = np.append(first[1:], 0) - 1
    # The last stretch of each curve ends with it.
    last[np.append(curve[1:] != curve[:-1], True)] = frames - 1
    inner = (first > 0) & (last < frames - 1)
    curve, first, last = curve[inner], first[inner], last[inner]
    level = curves[curve, first]
    low = (curves[curve, first - 1] > level) & (curves[curve, last + 1] > level)
    return curve[low], (first + last)[low] + 1


def _checked(features: Any, parameters: Sequence[float], repeat: int) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Features as (n, T, d), and their shape as given."""
    if any(not (math.isfinite(value) and value > 0) for value in parameters):
        raise MeasureError(
            f"A kernel-Gram matrix with alpha {parameters[0]} and beta {parameters[1]}", "Give two positive numbers."
        )
    if repeat < 1:
        raise MeasureError(f"A frame cannot stand for {repeat} label frames", "Give 1 or more.")
    if not isinstance(features, np.ndarray | torch.Tensor):
        raise MeasureError(
            f"Frames are a {type(features).__name__}", "Pass a numpy array or a torch tensor of shape (..., T, d)."
        )
    tensor = torch.as_tensor(features).detach()
    if tensor.ndim < 2 or tensor.shape[-2] < 1 or not tensor.is_floating_point():
        raise MeasureError(
            f"Frames have shape {tuple(tensor.shape)} and type {tensor.dtype}, not (..., T, d) in floating point",
            "Pass frames, or the rows of attention maps, with one frame or more.",
        )
    if not bool(torch.isfinite(tensor).all()):
        raise MeasureError(
            f"Frames of shape {tuple(tensor.shape)} hold values that are not finite",
            "Check the model's weights and the recordings for NaN and infinity.",
        )
    return tensor.reshape(-1, *tensor.shape[-2:]), tuple(tensor.shape)


def _as_given(array: np.ndarray, features: Any) -> Any:
    """The array, or a tensor of it where the features are one."""
    return torch.from_numpy(array).to(features.device) if isinstance(features, torch.Tensor) else array
