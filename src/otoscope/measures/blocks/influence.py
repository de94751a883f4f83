"""How far layers turn what passes through them: block influence and angular distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from array_api_compat import array_namespace

from otoscope.errors import MeasureError
from otoscope.measures.measure import Measure, Result, Row
from otoscope.statistics.intervals import ratio_jackknife
from otoscope.statistics.partition import groups
from otoscope.statistics.state import matching

if TYPE_CHECKING:
    from otoscope.models import Anatomy, Capture
    from otoscope.speech import Corpus

INFLUENCE, DISTANCE = "block-influence", "angular-distance"

PIECE = 1 << 21
"""Values of all streams together that are compared at once, 16 MB."""


def block_influence(before: Any, after: Any) -> Any:
    """Block influence of Men et al. 2024 (ShortGPT, arXiv 2403.03853): how far a block turns its frames.

        BI = 1 - mean_t cos(x_t, y_t)

    It is taken as half the squared distance of the two directions, which is exact where they are nearly one; frames
    that are the same before and after give exactly 0.

    Args:
        before: frames that enter, (..., T, d), torch or numpy, in the precision that is wanted.
        after: frames that come out, of the same shape.

    Returns:
        (...), 0 to 2.

    Raises:
        MeasureError: the shapes differ, or a frame is zero or not finite, so that it has no direction.

    >>> float(block_influence(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [1.0, 0.0]])))
    0.5
    """
    xp, u, v = _directions(before, after)
    return xp.mean(((u - v) ** 2).sum(-1), axis=-1) / 2


def angular_distance(before: Any, after: Any) -> Any:
    """Angular distance of Gromov et al. 2024 (arXiv 2403.17887), as the mean over frames.

        d = 1/T sum_t arccos(cos(x_t, y_t)) / pi

    The authors take the last token of a text; a frame of speech is as good as any other, so the mean over frames is
    otoscope's own choice. The angle is 2 atan2(|u - v|, |u + v|) for directions u and v (Kahan), which is exact where
    they are nearly one; frames that are the same before and after give exactly 0.

    Args:
        before: frames that enter, (..., T, d), torch or numpy, in the precision that is wanted.
        after: frames that come out, of the same shape.

    Returns:
        (...), 0 to 1.

    Raises:
        MeasureError: the shapes differ, or a frame is zero or not finite, so that it has no direction.

    >>> float(angular_distance(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [1.0, 0.0]])))
    0.25
    """
    xp, u, v = _directions(before, after)
    apart, along = ((one**2).sum(-1) ** 0.5 for one in (u - v, u + v))
    return xp.mean(2 * xp.atan2(apart, along), axis=-1) / np.pi


def _directions(before: Any, after: Any) -> tuple[Any, Any, Any]:
    """The library of both, and their frames brought to length one."""
    xp = array_namespace(before, after)
    if before.shape != after.shape or len(before.shape) < 2 or 0 in before.shape[-2:]:
        raise MeasureError(
            f"Frames of shape {tuple(before.shape)} and {tuple(after.shape)}", "Give both as (..., T, d), of one shape."
        )
    found = []
    for frames in (before, after):
        # Divided by the largest value first, lest squares overflow or vanish.
        largest = xp.max(xp.abs(frames), axis=-1, keepdims=True)
        if not bool(xp.all(xp.isfinite(largest) & (largest > 0))):
            raise MeasureError("A frame is zero or not finite: it has no direction", "Leave such frames out.")
        scaled = frames / largest
        found.append(scaled / (scaled**2).sum(-1)[..., None] ** 0.5)
    return xp, found[0], found[1]


class BlockInfluence(Measure):
    """Block influence of every layer, and angular distance over every run of layers, all frames of the same weight.

    Frames of all utterances weigh the same; what enters layer 1 is the stream `input`, and what enters any other layer
    is the stream of the layer before it. Frames that are zero have no direction: they are left out, and counted in the
    notes. Intervals leave one group of utterances out at a time.

    The state takes 32 bytes for each group and run of layers: 50 kB for 12 layers, 0.8 MB for 48.
    """

    name = INFLUENCE
    yields = (INFLUENCE, DISTANCE)

    @property
    def streams(self) -> tuple[str, ...]:
        """What enters layer 1 and what comes out of every layer."""
        return ("input", *(f"layer.{k}" for k in self.layers))

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """See `Measure`."""
        self.layers = anatomy.layers
        self.group_of = groups((utterance.id for utterance in corpus), seed)
        # A run of n layers and the first of them; of a model's layers at least one is left.
        count = len(self.layers)
        self.runs = [(n, first) for n in range(1, max(1, count - 1) + 1) for first in self.layers[: count - n + 1]]
        count = max(self.group_of.values()) + 1
        self.turned = np.zeros((count, 2, len(self.runs)))  # sums over frames of 1 - cos and of angles
        self.frames = np.zeros((count, len(self.runs)))
        self.undirected = np.zeros(len(self.streams))

    def update(self, capture: Capture) -> None:
        """See `Measure`.

        Raises:
            MeasureError: a stream holds values that are not finite.
        """
        for k, utterance in enumerate(capture.utterances):
            group = self.group_of[utterance.id]
            streams = [capture.frames(name, k) for name in self.streams]
            piece = max(1, PIECE // (len(streams) * streams[0].shape[1]))
            for start in range(0, len(streams[0]), piece):
                rows = torch.stack([stream[start : start + piece] for stream in streams]).double()
                self._take(group, rows, utterance.id)

    def _take(self, group: int, rows: torch.Tensor, name: str) -> None:
        """Adds frames of all streams, (streams, T, d)."""
        largest = rows.abs().amax(-1, keepdim=True)
        if not bool(torch.isfinite(largest).all()):
            raise MeasureError(
                f"A stream of utterance {name!r} holds values that are not finite",
                "Load the model in float32, and check its weights and the recording.",
            )
        there = (largest > 0)[..., 0]
        self.undirected += (~there).sum(1).cpu().numpy()
        scaled = rows / torch.where(largest > 0, largest, 1)
        lengths = scaled.square().sum(-1, keepdim=True).sqrt()
        directions = scaled / torch.where(lengths > 0, lengths, 1)
        found = []
        for n in range(1, self.runs[-1][0] + 1):
            known = there[n:] & there[:-n]
            apart = (directions[n:] - directions[:-n]).square().sum(-1)
            along = (directions[n:] + directions[:-n]).square().sum(-1)
            angle = 2 / np.pi * torch.atan2(apart.sqrt(), along.sqrt())
            found.append(torch.stack([(apart / 2 * known).sum(1), (angle * known).sum(1), known.double().sum(1)]))
        sums = torch.cat(found, 1).cpu().numpy()
        self.turned[group] += sums[:2]
        self.frames[group] += sums[2]

    def merge(self, other: Measure) -> None:
        """See `Measure`."""
        self._same_kind(other)
        assert isinstance(other, BlockInfluence)
        self._same_groups(self.group_of, other.group_of)
        self.turned += other.turned
        self.frames += other.frames
        self.undirected += other.undirected

    def compute(self) -> Result:
        """A row a layer of both; angular distance over n > 1 layers names the first of them, with n as `other`."""
        if not self.frames.any():
            raise MeasureError("No frame has a direction before and after a layer", "Give at least one utterance.")
        rows = []
        for which, measure in enumerate(self.yields):
            value, low, high = ratio_jackknife(self.turned[:, which], self.frames)
            low, high = np.maximum(low, 0), np.minimum(high, 2 - which)
            for k, (n, first) in enumerate(self.runs):
                if measure == INFLUENCE and n > 1:
                    continue
                rows.append(
                    Row(
                        measure, f"layer.{first}", first, other=None if n == 1 else str(n), value=_number(value[k]),
                        low=_number(low[k]), high=_number(high[k]), n=int(self.frames[:, k].sum()),
                    )
                )  # fmt: skip
        without = {name: int(n) for name, n in zip(self.streams, self.undirected, strict=True) if n}
        return Result(rows, notes={"groups": len(self.frames), "frames_without_direction": without})

    def state(self) -> dict[str, np.ndarray]:
        """See `Measure`."""
        return {"turned": self.turned, "frames": self.frames, "undirected": self.undirected}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """See `Measure`."""
        matching(self.state(), state)
        self.turned, self.frames, self.undirected = (state[name].copy() for name in ("turned", "frames", "undirected"))


def _number(value: float) -> float | None:
    """A number for the table; None where there is none."""
    return float(value) if np.isfinite(value) else None
