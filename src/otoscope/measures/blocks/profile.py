"""Relative-position profile of every block: how much attention goes how far back and ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.errors import MeasureError
from otoscope.measures.heads.head_measure import sums_of
from otoscope.measures.heads.maps import checked_maps
from otoscope.measures.measure import Measure, Result, Row
from otoscope.models.reductions import OffsetMean
from otoscope.statistics.grouped_mean import GroupedMean
from otoscope.statistics.partition import groups

if TYPE_CHECKING:
    from otoscope.models import Anatomy, Capture
    from otoscope.speech import Corpus

REACH = 50
"""Offsets from -REACH to REACH frames have a bin each; all beyond share a bin on either side."""


def relative_profile(attention: Any, radius: int = REACH) -> Any:
    """Mean attention at each key-minus-query offset; the definition is otoscope's own.

        mu(d) = 1/T sum_q A[q, q + d]        for |d| <= radius, tails summed

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.
        radius: largest offset with a bin of its own.

    Returns:
        (..., 2 * radius + 3): all below -radius, -radius ... radius, all above radius; sums to one.

    Raises:
        MeasureError: another shape, rows that do not sum to one, or a negative radius.
    """
    xp, maps = checked_maps(attention)
    if radius < 0:
        raise MeasureError(
            f"A radius of {radius} frames", "Give the largest offset that has a bin of its own, 0 or more."
        )
    frames = maps.shape[-1]
    mass = [xp.linalg.trace(maps, offset=d) / frames for d in range(1 - frames, frames)]
    near = min(radius, frames - 1)
    bins = {d: mass[frames - 1 + d] for d in range(-near, near + 1)}
    zero = xp.zeros_like(mass[0])
    below, above = sum(mass[: frames - 1 - near], zero), sum(mass[frames + near :], zero)
    return xp.stack([below, *(bins.get(d, zero) for d in range(-radius, radius + 1)), above], axis=-1)


def uniform_profile(frames: int, radius: int = REACH) -> np.ndarray:
    """The profile of uniform attention over `frames` frames, (T - |d|) / T^2, binned likewise."""
    d = np.arange(1 - frames, frames)
    return binned((frames - np.abs(d)) / frames**2, radius)


def binned(offsets: np.ndarray, radius: int) -> np.ndarray:
    """Mass at each offset, (..., 2 T - 1) with offset 0 in the middle, in the bins of a profile, (..., 2 radius + 3)."""
    frames = (offsets.shape[-1] + 1) // 2
    out = np.zeros((*offsets.shape[:-1], 2 * radius + 3))
    near = min(radius, frames - 1)
    centre = frames - 1
    out[..., radius + 1 - near : radius + 2 + near] = offsets[..., centre - near : centre + near + 1]
    out[..., 0] = offsets[..., : centre - near].sum(-1)
    out[..., -1] = offsets[..., centre + near + 1 :].sum(-1)
    return out


class RelativeProfile(Measure):
    """Profile of each block, averaged over heads and utterances, with that of uniform attention as its floor."""

    name = "relative-profile"
    reductions = (OffsetMean,)

    @property
    def streams(self) -> tuple[str, ...]:
        """None: everything comes from the tap."""
        return ()

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """See `Measure`."""
        self.group_of = groups((utterance.id for utterance in corpus), seed)
        self.there = [layer for layer, heads in enumerate(anatomy.heads) if heads]
        count = max(self.group_of.values()) + 1
        self.mean = GroupedMean(count, (anatomy.n_layers, 2 * REACH + 3))
        self.uniform = GroupedMean(count, (2 * REACH + 3,))

    def update(self, capture: Capture) -> None:
        """See `Measure`."""
        for k, utterance in enumerate(capture.utterances):
            # Heads are averaged first: the map of a block is the mean of its heads' maps.
            means = [found["offset-mean"].mean(0) for found in sums_of(capture, k, self)]
            offsets = torch.stack(means).cpu().numpy()
            group = self.group_of[utterance.id]
            self.mean.update(group, binned(offsets, REACH))
            self.uniform.update(group, uniform_profile((offsets.shape[-1] + 1) // 2))

    def merge(self, other: Measure) -> None:
        """See `Measure`."""
        self._same_kind(other)
        assert isinstance(other, RelativeProfile)
        self._same_groups(self.group_of, other.group_of)
        self.mean.merge(other.mean)
        self.uniform.merge(other.uniform)

    def compute(self) -> Result:
        """One row a block and offset (target "-50" ... "50", "<-50", ">50"); the same as arrays."""
        value, low, high = self.mean.interval()
        floor = self.uniform.mean()
        targets = [f"<{-REACH}", *(str(d) for d in range(-REACH, REACH + 1)), f">{REACH}"]

        def number(x: float) -> float | None:
            return float(x) if np.isfinite(x) else None

        rows = [
            Row(
                self.name, stream=f"layer.{layer + 1}", layer=layer + 1, target=target, value=number(value[layer, k]),
                low=number(low[layer, k]), high=number(high[layer, k]), floor=number(floor[k]), n=self.mean.n,
            )
            for layer in self.there
            for k, target in enumerate(targets)
        ]  # fmt: skip
        return Result(
            rows,
            arrays={self.name: value, f"{self.name}-uniform": floor},
            notes={"reach_frames": REACH, "groups": len(self.mean.counts)},
        )

    def state(self) -> dict[str, np.ndarray]:
        """See `Measure`."""
        return {
            **{f"mean.{k}": v for k, v in self.mean.state().items()},
            **{f"uniform.{k}": v for k, v in self.uniform.state().items()},
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """See `Measure`."""
        for part, held in (("mean.", self.mean), ("uniform.", self.uniform)):
            held.load_state({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})
