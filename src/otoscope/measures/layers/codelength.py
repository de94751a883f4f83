"""Minimum description length: how many bits a probe needs to tell the labels of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from otoscope.errors import MeasureError
from otoscope.measures.layers.probes import checked_rows, logistic, standardised

TIMESTAMPS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.25, 12.5, 25.0, 50.0, 100.0)
"""Per cent of the rows after which the online code learns anew (Voita and Titov 2020, section 3.2)."""

_RIDGES = (0.1, 0.01)


@dataclass(frozen=True)
class Codelength:
    """What it costs to send the labels of rows to someone who has the rows.

    Attributes:
        bits: of each row's label by the online code, shape (N,).
        blocks: number of the block that each row was sent in, shape (N,).
        uniform: bits of one label where all classes are equally likely, log2 K.
    """

    bits: Float[np.ndarray, " n"]
    blocks: Int[np.ndarray, " n"]
    uniform: float

    @property
    def online(self) -> float:
        """Bits of all labels by the online code."""
        return float(self.bits.sum())

    @property
    def compression(self) -> float:
        """Bits of all labels where classes are equally likely, over those of the online code."""
        return self.uniform * len(self.bits) / self.online


def online_codelength(
    x: Any,
    labels: Any,
    classes: int | None = None,
    *,
    timestamps: Sequence[float] = TIMESTAMPS,
    ridges: Sequence[float] = _RIDGES,
    seed: int = 0,
) -> Codelength:
    """Minimum description length of labels given rows, by the online (prequential) code of Voita and Titov (2020).

    Rows are sent in a random order in blocks. The first block is sent with all classes equally likely; then, before
    every further block, probes are fitted on all that was sent:

        L_online = t_1 log2 K - sum_(i = 1..S-1) log2 p_i(y_(t_i + 1 .. t_(i+1)) | x_(t_i + 1 .. t_(i+1)))

    p_i is the Bayes mixture of `linear_probe` with each of some ridges, the frequencies of the classes so far, and
    equally likely classes; in every block the weights begin equal and follow from the rows before. So what cannot be
    learnt costs no more than the uniform code and at most log2(number of parts) bits a block.

    Args:
        x: rows, shape (N, d), torch or numpy.
        labels: of these rows, whole numbers from 0, shape (N,).
        classes: how many classes K there are; one more than the greatest label where None.
        timestamps: ends of the blocks in per cent of N, rising, the last one 100.
        ridges: of the linear probes, see there; with none the rows do not matter, only the frequencies of the labels.
        seed: of the order.

    Returns:
        Bits of each row, in the order of the rows.

    Raises:
        MeasureError: as `linear_probe`; there are fewer than two classes; or the timestamps do not rise to 100.
    """
    rows, y, _, k = checked_rows(x, labels, x, classes)
    if k < 2:
        raise MeasureError("One class alone costs no bits", "Give rows of two labels or more.")
    if not timestamps or timestamps[-1] != 100 or timestamps[0] <= 0 or any(np.diff(timestamps) <= 0):
        raise MeasureError(f"Timestamps {tuple(timestamps)} do not rise from above 0 to 100", "Give per cent.")
    order = np.random.default_rng(seed).permutation(len(y))
    ends = np.unique([max(1, math.ceil(len(y) * t / 100)) for t in timestamps])
    bits, blocks = np.empty(len(y)), np.zeros(len(y), dtype=np.int64)
    bits[order[: ends[0]]] = math.log2(k)
    for block, (start, end) in enumerate(pairwise(ends), start=1):
        past, now = order[:start], order[start:end]
        fitted, sent = standardised(rows[past], rows[now])
        frequency = np.log((np.bincount(y[past], minlength=k) + 1 / k) / (start + 1))
        parts = [np.full(len(now), -math.log(k)), frequency[y[now]]]
        for ridge in ridges:
            parts.append(logistic(fitted, y[past], sent, k, ridge)[np.arange(len(now)), y[now]])
        bits[now], blocks[now] = _mixed(np.array(parts)), block
    return Codelength(bits, blocks, math.log2(k))


def _mixed(logs: Float[np.ndarray, "parts n"]) -> Float[np.ndarray, " n"]:
    """Bits of rows sent one after the other by the Bayes mixture of parts, from each part's ln p."""
    total = np.logaddexp.reduce(np.cumsum(logs, axis=1), axis=0) - math.log(len(logs))
    return -np.diff(total, prepend=0.0) / math.log(2)
