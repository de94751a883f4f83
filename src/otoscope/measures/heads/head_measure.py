"""What measures that give one number a head and utterance have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch

from otoscope.errors import StateError
from otoscope.measures.measure import Measure, Result, Row
from otoscope.statistics.grouped_mean import GroupedMean
from otoscope.statistics.partition import groups

if TYPE_CHECKING:
    from otoscope.models import Anatomy, Capture
    from otoscope.speech import Corpus


class HeadMeasure(Measure):
    """The plain mean over utterances of a number per head, with a jackknife interval over groups of utterances.

    Every utterance weighs the same whatever its length (Yang, Liu and Lee 2020, section 4).
    """

    @abstractmethod
    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """One utterance's number for each head of one layer, (heads,), from the tap's sums over its maps."""

    @property
    def streams(self) -> tuple[str, ...]:
        """None: everything comes from the tap."""
        return ()

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """See `Measure`."""
        self.heads, self.names = anatomy.heads, anatomy.head_names
        self.group_of = groups((utterance.id for utterance in corpus), seed)
        self.mean = GroupedMean(max(self.group_of.values()) + 1, (len(self.heads), max(self.heads)))

    def update(self, capture: Capture) -> None:
        """See `Measure`."""
        for k, utterance in enumerate(capture.utterances):
            values = np.zeros(self.mean.sums.shape[1:])
            for layer, found in capture.attention.items():
                values[layer - 1, : self.heads[layer - 1]] = self.observe(found[k]).cpu().numpy()
            self.mean.update(self.group_of[utterance.id], values)

    def merge(self, other: Measure) -> None:
        """See `Measure`."""
        self._same_kind(other)
        assert isinstance(other, HeadMeasure)
        if self.group_of != other.group_of:
            raise StateError(
                f"Two states of {self.name!r} were prepared with different corpora or seeds",
                "Prepare every part with the whole corpus and the same seed.",
            )
        self.mean.merge(other.mean)

    def compute(self) -> Result:
        """One row a head, by its number in the original model."""
        value, low, high = self.mean.interval()
        rows = [
            Row(
                self.name, stream=f"layer.{layer}", layer=layer, head=head, value=_number(value[layer - 1, k]),
                low=_number(low[layer - 1, k]), high=_number(high[layer - 1, k]), n=self.mean.n,
            )
            for layer, names in enumerate(self.names, start=1)
            for k, head in enumerate(names)
        ]  # fmt: skip
        return Result(rows, notes={"groups": len(self.mean.counts), "groups_by": "utterance"})

    def state(self) -> dict[str, np.ndarray]:
        """See `Measure`."""
        return self.mean.state()

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """See `Measure`."""
        self.mean.load_state(state)


def _number(value: float) -> float | None:
    """A float for the table; None where there is none."""
    return float(value) if np.isfinite(value) else None
