"""Peak of a head's relative profile: which offset it attends to most, and how much of its attention lies there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.errors import MeasureError
from otoscope.measures.blocks.profile import relative_profile
from otoscope.measures.heads.head_measure import sums_of
from otoscope.measures.measure import Measure, Result, Row
from otoscope.models.reductions import OffsetMean
from otoscope.statistics.grouped_mean import GroupedMean
from otoscope.statistics.intervals import jackknife
from otoscope.statistics.partition import groups

if TYPE_CHECKING:
    from otoscope.models import Anatomy, Capture
    from otoscope.speech import Corpus

REACH = 100
"""The farthest offset, in frames, at which a peak is looked for."""

BREADTH = 1
"""Offsets on either side of the peak that count to its mass."""

RESAMPLES = 1000
"""Bootstrap samples of the groups for the interval of the peak's offset."""


def profile_peak(attention: Any, radius: int = REACH) -> tuple[np.ndarray, np.ndarray]:
    """The offset that gets the most attention, and the attention on it and its two neighbours.

        delta* = argmax_d mu(d),   mass = mu(delta* - 1) + mu(delta*) + mu(delta* + 1),   mu(d) = 1/T sum_q A[q, q + d]

    Diagonality counts against a head that its diagonal is shifted; these two do not. Of equal peaks the one nearest
    to the query counts, and of two as near the one behind it.

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.
        radius: the farthest offset that is looked at.

    Returns:
        Offsets in frames (key minus query) and masses, each of shape (...).

    Raises:
        MeasureError: another shape, rows that do not sum to one, or a negative radius.

    >>> offset, mass = profile_peak(np.eye(10)[[2, 3, 4, 5, 6, 7, 8, 9, 9, 9]])
    >>> int(offset), round(float(mass), 2)
    (2, 0.9)
    """
    if radius < 0:
        raise MeasureError(f"A radius of {radius} frames", "Give the farthest offset to look at, 0 or more.")
    profile = relative_profile(attention, radius + BREADTH)
    if hasattr(profile, "detach"):
        profile = profile.detach().cpu().numpy()
    return _peak(np.asarray(profile, np.float64)[..., 1:-1])


def _peak(profile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offset and mass of the peak of (..., 2 R + 1 + 2 BREADTH), offset 0 in the middle, within R."""
    centre = profile.shape[-1] // 2
    near = sorted(range(BREADTH - centre, centre + 1 - BREADTH), key=lambda d: (abs(d), d))
    offset = np.asarray(np.array(near)[profile[..., [centre + d for d in near]].argmax(-1)])
    places = centre + offset[..., None] + np.arange(-BREADTH, BREADTH + 1)
    return offset, np.asarray(np.take_along_axis(profile, places, -1).sum(-1))


class ProfilePeak(Measure):
    """Offset of the peak of every head's mean relative profile, in frames, and the mass around it.

    The profile is the mean over utterances, each of the same weight; the peak is looked for within `REACH` frames. The
    interval of the offset holds 95 % of the peaks of bootstrap samples of the groups; that of the mass leaves one group
    out at a time, with the peak sought anew. The floor of the mass is that of uniform attention at the same offset.
    """

    name = "peak-offset"
    yields = ("peak-offset", "peak-mass")
    reductions = (OffsetMean,)

    @property
    def streams(self) -> tuple[str, ...]:
        """None: everything comes from the tap."""
        return ()

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """See `Measure`; the state takes 8 bytes for each group, head and offset, 4.7 MB for 144 heads."""
        self.heads, self.names, self.seed = anatomy.heads, anatomy.head_names, seed
        self.group_of = groups((utterance.id for utterance in corpus), seed)
        count, width = max(self.group_of.values()) + 1, 2 * (REACH + BREADTH) + 1
        self.mean = GroupedMean(count, (len(self.heads), max(self.heads), width))
        self.uniform = GroupedMean(count, (width,))

    def update(self, capture: Capture) -> None:
        """See `Measure`.

        Raises:
            MeasureError: the capture lacks a sum that was asked for.
        """
        for k, utterance in enumerate(capture.utterances):
            values = np.zeros(self.mean.sums.shape[1:])
            for layer, found in enumerate(sums_of(capture, k, self)):
                values[layer, : self.heads[layer]] = _within(found["offset-mean"].cpu().numpy())
            frames = found["offset-mean"].shape[-1] // 2 + 1
            offsets = np.arange(1 - frames, frames)
            group = self.group_of[utterance.id]
            self.mean.update(group, values)
            self.uniform.update(group, _within((frames - np.abs(offsets)) / frames**2))

    def merge(self, other: Measure) -> None:
        """See `Measure`."""
        self._same_kind(other)
        assert isinstance(other, ProfilePeak)
        self._same_groups(self.group_of, other.group_of)
        self.mean.merge(other.mean)
        self.uniform.merge(other.uniform)

    def compute(self) -> Result:
        """Two rows a head, by its number in the original model."""
        used = self.mean.counts > 0
        if not used.any():
            raise MeasureError("No utterance has a relative profile", "Give at least one utterance.")
        sums, counts = self.mean.sums[used], self.mean.counts[used]
        profile, uniform = self.mean.mean(), self.uniform.mean()
        offset, mass = _peak(profile)
        low = high = np.full((2, *offset.shape), np.nan)
        if used.sum() > 1:
            left = (counts.sum() - counts)[:, None, None, None]
            masses = jackknife(mass, _peak((sums.sum(0) - sums) / left)[1], counts)
            ends = np.stack([self._resampled(sums[:, layer]) for layer in range(len(self.heads))], 1)
            low, high = np.stack([ends[0], masses[0]]), np.stack([ends[1], masses[1]])
        floor = _around(uniform, offset)
        rows = [
            Row(
                measure, stream=f"layer.{layer}", layer=layer, head=head, value=float(value[layer - 1, k]),
                low=_end(low[which, layer - 1, k]), high=_end(high[which, layer - 1, k]),
                floor=float(floor[layer - 1, k]) if which else None, n=self.mean.n,
            )
            for which, (measure, value) in enumerate(zip(self.yields, (offset, mass), strict=True))
            for layer, names in enumerate(self.names, start=1)
            for k, head in enumerate(names)
        ]  # fmt: skip
        notes = {
            "reach_frames": REACH, "breadth_frames": BREADTH, "groups": len(self.mean.counts),
            "resamples": RESAMPLES, "seed": self.seed,
        }  # fmt: skip
        return Result(rows, notes=notes)

    def _resampled(self, sums: np.ndarray) -> np.ndarray:
        """Ends (2, heads) of the interval of one layer's peaks; the groups' sums are (groups, heads, offsets)."""
        draw = np.random.default_rng(self.seed)
        times = draw.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES).astype(np.float64)
        # A sum has the peak of its mean. Heads take turns, for one head's samples are a megabyte or two.
        peaks = np.stack([_peak(times @ sums[:, head])[0] for head in range(sums.shape[1])], 1)
        return np.quantile(peaks, (0.025, 0.975), axis=0, method="inverted_cdf")

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


def _within(mass: np.ndarray) -> np.ndarray:
    """From (..., 2 T - 1) to the offsets that are kept, with zeros where an utterance has no such offset."""
    farthest, centre = REACH + BREADTH, mass.shape[-1] // 2
    near = min(farthest, centre)
    out = np.zeros((*mass.shape[:-1], 2 * farthest + 1))
    out[..., farthest - near : farthest + near + 1] = mass[..., centre - near : centre + near + 1]
    return out


def _around(profile: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The mass of one profile around each offset."""
    places = profile.shape[-1] // 2 + offset[..., None] + np.arange(-BREADTH, BREADTH + 1)
    return profile[places].sum(-1)


def _end(value: float) -> float | None:
    """An end of an interval for the table; None where there is none."""
    return float(value) if np.isfinite(value) else None
