"""What measures that give one number a head and utterance have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch

from otoscope.errors import MeasureError
from otoscope.measures.measure import Measure, Result, Row
from otoscope.statistics.grouped_mean import GroupedMean
from otoscope.statistics.partition import groups
from otoscope.statistics.state import matching

if TYPE_CHECKING:
    from otoscope.models import Anatomy, Capture
    from otoscope.speech import Corpus

SHARES = ("column-mean", "offset-mean")
"""Sums of the tap whose entries are shares of all attention."""


class HeadMeasure(Measure):
    """The plain mean over utterances of a number per head, with a jackknife interval over groups of utterances.

    Every utterance weighs the same whatever its length (Yang, Liu and Lee 2020, section 4). The floor, where there is
    one, is the number that maps with permuted keys have on average.

    Attributes:
        fewest_frames: an utterance of fewer frames has no value; it is left out and counted.
    """

    fewest_frames = 1

    @abstractmethod
    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """One utterance's number for each head of one layer, (heads,), from the tap's sums over its maps."""

    def of_permuted(self, found: dict[str, torch.Tensor]) -> float:
        """The number that maps of this utterance's size have on average where their keys are permuted; NaN for no floor.

        A key then has the weight 1 / T in expectation, so that a number that is linear in the weights has the
        expectation that uniform attention has. Entropies and largest weights are not linear.
        """
        return math.nan

    @staticmethod
    def frames(found: dict[str, torch.Tensor]) -> int:
        """Frames of an utterance, from whichever of its sums tells."""
        return found["column-mean"].shape[-1] if "column-mean" in found else found["offset-mean"].shape[-1] // 2 + 1

    @property
    def streams(self) -> tuple[str, ...]:
        """None: everything comes from the tap."""
        return ()

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """See `Measure`."""
        self.heads, self.names = anatomy.heads, anatomy.head_names
        self.group_of = groups((utterance.id for utterance in corpus), seed)
        self.mean = GroupedMean(max(self.group_of.values()) + 1, (len(self.heads), max(self.heads)))
        self.too_short, self.permuted = 0, np.zeros(1)  # a sum over utterances

    def update(self, capture: Capture) -> None:
        """See `Measure`.

        Raises:
            MeasureError: the capture lacks a sum that was asked for, or has one of maps that are no attention.
        """
        for k, utterance in enumerate(capture.utterances):
            layers = sums_of(capture, k, self)
            if self.fewest_frames > 1 and self.frames(layers[0]) < self.fewest_frames:
                self.too_short += 1
                continue
            values = np.zeros(self.mean.sums.shape[1:])
            for layer, found in enumerate(layers):
                values[layer, : self.heads[layer]] = self.observe(found).cpu().numpy()
            self.mean.update(self.group_of[utterance.id], values)
            self.permuted += self.of_permuted(layers[0])

    def merge(self, other: Measure) -> None:
        """See `Measure`."""
        self._same_kind(other)
        assert isinstance(other, HeadMeasure)
        self._same_groups(self.group_of, other.group_of)
        self.mean.merge(other.mean)
        self.permuted += other.permuted
        self.too_short += other.too_short

    def compute(self) -> Result:
        """One row a head, by its number in the original model."""
        value, low, high = self.mean.interval()
        floor = _number(self.permuted[0] / self.mean.n) if self.mean.n else None
        rows = [
            Row(
                self.name, stream=f"layer.{layer}", layer=layer, head=head, value=_number(value[layer - 1, k]),
                low=_number(low[layer - 1, k]), high=_number(high[layer - 1, k]), floor=floor, n=self.mean.n,
            )
            for layer, names in enumerate(self.names, start=1)
            for k, head in enumerate(names)
        ]  # fmt: skip
        notes = {"groups": len(self.mean.counts), "groups_by": "utterance"}
        if self.fewest_frames > 1:
            notes |= {"too_short": self.too_short, "fewest_frames": self.fewest_frames}
        return Result(rows, notes=notes)

    def state(self) -> dict[str, np.ndarray]:
        """See `Measure`."""
        return {**self.mean.state(), "permuted": self.permuted, "too_short": np.array([self.too_short])}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """See `Measure`."""
        matching(self.state(), state)
        self.mean.load_state({name: state[name] for name in self.mean.state()})
        self.permuted, self.too_short = state["permuted"].copy(), int(state["too_short"][0])


def sums_of(capture: Capture, k: int, measure: Measure) -> list[dict[str, torch.Tensor]]:
    """The tap's sums over the maps of utterance k, layer 1 first.

    Raises:
        MeasureError: the capture lacks a sum that the measure asks for, or has one that is not finite or comes from rows
            that do not sum to one.
    """
    wanted = [make().name for make in measure.reductions]
    utterance = capture.utterances[k].id
    layers = {layer: capture.attention[layer][k] for layer in sorted(capture.attention)}
    lacking = [name for name in wanted if not layers or any(name not in found for found in layers.values())]
    if lacking:
        raise MeasureError(
            f"No attention was captured for {measure.name}: the sum {lacking[0]!r} is missing for utterance {utterance!r}",
            "Pass the measure's `reductions` to `capture`.",
        )
    for layer, found in layers.items():
        for name in wanted:
            one, shares = found[name], name in SHARES
            # Written so that NaN fails as well.
            if not bool(((one.sum(-1) - 1).abs() < 1e-3).all() if shares else one.isfinite().all()):
                raise MeasureError(
                    f"The attention of layer {layer} for utterance {utterance!r} has "
                    f"{'rows that do not sum to one' if shares else 'values that are not finite'} ({name!r})",
                    "Run the model in float32, check its weights, and sum over valid frames only.",
                )
    return list(layers.values())


def _number(value: float) -> float | None:
    """A float for the table; None where there is none."""
    return float(value) if np.isfinite(value) else None
