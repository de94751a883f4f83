"""Context mixing of one utterance: what every frame or word takes from every other, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from otoscope.errors import MeasureError
from otoscope.interventions.mixing.norms import norms_of
from otoscope.interventions.mixing.rollout import rollout
from otoscope.interventions.mixing.sublayers import MAX_FRAMES, Sublayer, attention_sublayers
from otoscope.interventions.mixing.zeroing import zeroing_distances
from otoscope.measures.layers.labels import NO_LABELS
from otoscope.models.anatomy import Grid
from otoscope.models.model import SpeechModel
from otoscope.speech.utterance import Interval, Utterance

METHODS = ("attention", "norm", "value-zeroing", "attention-rollout", "norm-rollout", "value-zeroing-rollout")
SPANS = ("frame", "word")
NOTHING = 1e-11
"""Sum of a row of cosine distances that float32 leaves where nothing changes."""


@dataclass(frozen=True, eq=False)
class Mixing:
    """Who takes how much from whom.

    Attributes:
        method: one of `METHODS`.
        maps: (L, n, n) float32; rows take, columns give, and rows sum to one. A row to which nothing is handed on
            stands for itself alone.
        spans: (n, 2), first frame and one past the last of each word; None where rows and columns are frames.
        labels: the words; empty for frames.
        ratio: (L, frames), share of other frames in what each frame becomes (see `norms_of`); of "norm" only.
        outside: (L,), share that silence behind the utterance gives, in models of fixed input length; it is left out of
            the maps.
    """

    method: str
    maps: np.ndarray
    spans: np.ndarray | None
    labels: tuple[str, ...]
    ratio: np.ndarray | None
    outside: np.ndarray


def norm_based(
    model: SpeechModel,
    utterance: Utterance,
    *,
    through: str | None = None,
    spans: str = "frame",
    max_frames: int = MAX_FRAMES,
) -> Mixing:
    """Contributions by the norm of what frames hand on (Kobayashi et al. 2020, 2021).

    In Conformers it is that of the attention part alone: their convolution mixes frames too.

    Args:
        model: left as it is.
        utterance: the speech.
        through: how far the vectors are followed: see `norms_of`.
        spans: "frame", or "word": mean over a word's frames of the sum over another's.
        max_frames: see `attention_sublayers`.

    Raises:
        MeasureError: see `attention_sublayers` and `norms_of`; or the utterance has no words.
    """
    return mix(model, utterance, ("norm",), spans=spans, through=through, max_frames=max_frames)["norm"]


def value_zeroing(
    model: SpeechModel,
    utterance: Utterance,
    *,
    spans: str = "frame",
    pool: str = "mean",
    max_frames: int = MAX_FRAMES,
) -> Mixing:
    """Contributions by what changes where a frame's or word's values are zero (Mohebbi et al. 2023).

    The last layer is compared after the norm that follows it, where there is one. Frames cost as many runs of every
    layer as the utterance has frames; words, as it has words.

    Args:
        model: left as it is.
        utterance: the speech.
        spans: "frame", or "word": all frames of a word are zeroed at once.
        pool: "mean" or "max" over the frames of the word that takes.
        max_frames: see `attention_sublayers`.

    Raises:
        MeasureError: see `attention_sublayers` and `zeroing_distances`; or the utterance has no words.
    """
    return mix(model, utterance, ("value-zeroing",), spans=spans, pool=pool, max_frames=max_frames)["value-zeroing"]


def mix(
    model: SpeechModel,
    utterance: Utterance,
    methods: Sequence[str] = ("norm",),
    *,
    spans: str = "frame",
    through: str | None = None,
    pool: str = "mean",
    max_frames: int = MAX_FRAMES,
) -> dict[str, Mixing]:
    """Several methods in one walk over the layers; see `norm_based`, `value_zeroing` and `rollout`.

    "attention" is the mean over heads of the weights. Rollouts add the identity to attention only: the other methods
    hold the residual connection.

    Raises:
        MeasureError: a method, span or pooling is unknown; or see `norm_based` and `value_zeroing`.
    """
    told = {"method": (methods, METHODS), "span": ([spans], SPANS), "pooling": ([pool], ("mean", "max"))}
    for what, (asked, known) in told.items():
        for one in asked:
            if one not in known:
                raise MeasureError(f"No {what} is called {one!r}", f"Choose from {', '.join(known)}.")
    bare = tuple(dict.fromkeys(one.removesuffix("-rollout") for one in methods))
    if through == "attention" and "norm-rollout" in methods:
        raise MeasureError("A rollout of norms needs what each frame keeps of itself", 'Take through="residual".')
    frames = model.frontend.frames(utterance.n_samples)
    words = word_spans_of(utterance, model.anatomy.grid, frames) if spans == "word" else None
    if words is not None and not words:
        raise MeasureError(
            f"Utterance {utterance.id!r} has no word in which a frame begins",
            "Take frames, or give words with their times.",
        )
    maps: dict[str, list[np.ndarray]] = {one: [] for one in bare}
    ratios: list[np.ndarray] = []
    outside: dict[str, list[float]] = {one: [] for one in bare}
    for sublayer in attention_sublayers(model, utterance, max_frames=max_frames):
        for one in bare:
            if one == "value-zeroing":
                found, share = _zeroed(sublayer, words, pool), 0.0
            else:
                lengths, ratio = (_mean_weights(sublayer), None) if one == "attention" else norms_of(sublayer, through)
                total = float(lengths.sum())
                share = float(lengths[:, frames:].sum()) / total if total > 0 else 0.0
                found = _rows_to_one(lengths[:, :frames].double().cpu().numpy(), 0.0)
                found = found if words is None else _pooled(found, words)
                if ratio is not None:
                    ratios.append(ratio.cpu().numpy())
            maps[one].append(found.astype(np.float32))
            outside[one].append(share)
    result = {}
    for method in methods:
        one = method.removesuffix("-rollout")
        stacked = np.stack(maps[one])
        if method != one:
            stacked = rollout(stacked.astype(np.float64), residual=one == "attention").astype(np.float32)
        result[method] = Mixing(
            method,
            stacked,
            None if words is None else np.array([span for span, _ in words]),
            () if words is None else tuple(label for _, label in words),
            np.stack(ratios) if method == "norm" else None,
            np.array(outside[one]),
        )
    return result


def _mean_weights(sublayer: Sublayer) -> torch.Tensor:
    """Mean over heads of the weights, (frames, T); zeros where a layer has lost all its heads."""
    return sublayer.maps[:, : sublayer.frames].sum(0) / max(len(sublayer.maps), 1)


def _zeroed(sublayer: Sublayer, words: list[tuple[tuple[int, int], str]] | None, pool: str) -> np.ndarray:
    """Value zeroing of one layer, rows at one."""
    distances = zeroing_distances(sublayer, None if words is None else [span for span, _ in words])
    if words is not None:
        reduce = torch.Tensor.amax if pool == "max" else torch.Tensor.mean
        distances = torch.stack([reduce(distances[first:last], 0) for (first, last), _ in words])
    return _rows_to_one(distances.cpu().numpy(), NOTHING)


def word_spans_of(utterance: Utterance, grid: Grid, frames: int) -> list[tuple[tuple[int, int], str]]:
    """Words with the frames that begin in them: ceil of start and end, so that no frame is of two words.

    Words in which no frame begins, pauses and noises are left out.
    """

    def span(word: Interval) -> tuple[int, int]:
        return min(-(-word.start // grid.hop), frames), min(-(-word.end // grid.hop), frames)

    found = [(span(word), word.label) for word in utterance.tier("word") if word.label not in NO_LABELS]
    return [((first, last), label) for (first, last), label in found if first < last]


def _pooled(frames: np.ndarray, words: list[tuple[tuple[int, int], str]]) -> np.ndarray:
    """Mean over the frames that take, sum over those that give; rows at one among the words."""
    gives = np.stack([frames[:, first:last].sum(1) for (first, last), _ in words], axis=1)
    return _rows_to_one(np.stack([gives[first:last].mean(0) for (first, last), _ in words]), 0.0)


def _rows_to_one(rows: np.ndarray, nothing: float) -> np.ndarray:
    """Rows over their sums; those that sum to `nothing` or less stand for themselves alone."""
    sums = rows.sum(1, keepdims=True)
    empty = sums[:, 0] <= nothing
    out = rows / np.where(sums > nothing, sums, 1.0)
    out[empty] = np.eye(len(rows))[empty]
    return out
