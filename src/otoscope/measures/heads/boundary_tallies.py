"""How many true boundaries the kernel-Gram matrix of one utterance's frames finds, for a grid of settings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int

from otoscope.errors import MeasureError
from otoscope.measures.heads.kernel_gram import KernelGram, minima
from otoscope.measures.layers.boundaries import claims
from otoscope.models.anatomy import Grid
from otoscope.models.reductions import Reduction
from otoscope.speech.mel import HOP
from otoscope.speech.utterance import Utterance

TOLERANCE = 320
"""Samples by which a hit may be off: 20 ms."""

ALPHAS = (0.1, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0)
"""Widths of the kernel, in multiples of the mean distance between two frames of the utterance."""

BETAS = (0.25, 0.5, 0.7, 0.85, 1.0, 1.1, 1.2, 1.3, 1.4, 1.55, 1.7, 2.0, 2.4, 2.8, 4.0, 6.0)
"""Thresholds, in multiples of a row's mean."""

TALLIES = ("hits", "found", "even")
"""What is counted: true boundaries hit; boundaries found; true ones that as many evenly spaced boundaries hit."""


def true_boundaries(utterance: Utterance, tier: str) -> Int[np.ndarray, " n"]:
    """Samples at which an interval of a tier begins or ends, but not those at the ends of the recording."""
    edges = np.unique([(x.start, x.end) for x in utterance.tiers.get(tier, ())]).astype(np.int64)
    return edges[(edges > 0) & (edges < utterance.n_samples)]


def tallies(
    frames: Float[torch.Tensor, "t d"], grid: Grid, true: Int[np.ndarray, " n"], n_samples: int
) -> Int[np.ndarray, "a b 3"]:
    """Counts for every alpha and beta.

    Frames stand for as many label frames of 10 ms as their hop has. A boundary at the middle of frame t is where the
    middle of what the frame sees is. Hits are one to one: see `boundary_scores`.

    Args:
        frames: valid frames of an utterance, or the rows of one head's map.
        grid: how they lie over the samples.
        true: samples of the true boundaries, ascending.
        n_samples: length of the utterance.

    Returns:
        Counts by alpha, beta and kind (see `TALLIES`); nothing is found where all frames are the same.
    """
    repeat = grid.hop // HOP if grid.hop % HOP == 0 else 1
    gram = KernelGram(frames, repeat)
    counts = np.zeros((len(ALPHAS), len(BETAS), len(TALLIES)), dtype=np.int64)
    if not gram.scale > 0:
        return counts
    curves = gram.curves([share * gram.scale for share in ALPHAS], BETAS)
    setting, twice = minima(curves.reshape(-1, curves.shape[-1]))
    middle_of_first = grid.offset + grid.field // 2
    places = np.arange(2 * curves.shape[-1] + 1)  # minima lie on whole and half label frames
    samples = middle_of_first + (places - repeat) * grid.hop // (2 * repeat)
    nearest, within = claims(true, samples, TOLERANCE)
    claimed = within[twice]
    pairs = np.unique(setting[claimed] * len(true) + nearest[twice][claimed])
    flat = counts.reshape(-1, len(TALLIES))
    flat[:, 0] = np.bincount(pairs // max(len(true), 1), minlength=len(flat))
    flat[:, 1] = np.bincount(setting, minlength=len(flat))
    numbers, back = np.unique(flat[:, 1], return_inverse=True)
    flat[:, 2] = np.array([_even(int(n), true, n_samples) for n in numbers])[back]
    return counts


def _even(n: int, true: np.ndarray, n_samples: int) -> int:
    """How many true boundaries are hit by n boundaries that cut an utterance into equal parts."""
    at = (np.arange(1, n + 1) * n_samples) // (n + 1)
    nearest, within = claims(true, at, TOLERANCE)
    return len(np.unique(nearest[within]))


class HeadTallies(Reduction):
    """`tallies` of every head's map, int64 (heads, alphas, betas, 3), for some utterances; empty for all others.

    One map of one layer is held at a time.

    Args:
        true: samples of the true boundaries of the utterances that are looked at, by id.
    """

    name = "head-tallies"

    def __init__(self, true: Mapping[str, np.ndarray]) -> None:
        self._all = true
        self._true: np.ndarray | None = None

    def meet(self, utterance: Utterance, grid: Grid) -> None:
        """See `Reduction`."""
        self._true, self._grid, self._samples = self._all.get(utterance.id), grid, utterance.n_samples

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        self._map = like.new_zeros((heads, frames, frames) if self._true is not None else 0)

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """See `Reduction`."""
        if self._true is not None:
            self._map[:, first : first + weights.shape[1]] = weights

    def finish(self) -> torch.Tensor:
        """See `Reduction`.

        Raises:
            MeasureError: a map holds weights that are not finite.
        """
        maps, self._map = self._map, self._map.new_zeros(0)
        if self._true is None:
            return torch.zeros(0, dtype=torch.int64)
        if not bool(torch.isfinite(maps).all()):
            raise MeasureError("An attention map holds weights that are not finite", "Check the model's weights.")
        found = [tallies(rows, self._grid, self._true, self._samples) for rows in maps]
        shape = (0, len(ALPHAS), len(BETAS), len(TALLIES))
        return torch.from_numpy(np.stack(found) if found else np.zeros(shape, dtype=np.int64))
