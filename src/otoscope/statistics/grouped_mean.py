"""A mean over utterances whose sums are kept apart by group, so that it has an interval."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from otoscope.errors import StateError
from otoscope.statistics.intervals import ratio_jackknife
from otoscope.statistics.state import matching


class GroupedMean:
    """Sums and counts of an array-valued observation, by group.

    Every observation weighs the same. Memory is groups x shape, whatever the number of observations.

    Args:
        groups: how many groups are kept apart.
        shape: of one observation.
    """

    def __init__(self, groups: int, shape: tuple[int, ...]) -> None:
        self.sums = np.zeros((groups, *shape))
        self.counts = np.zeros(groups)

    def update(self, group: int, observation: np.ndarray) -> None:
        """Adds one observation, float, of the given shape."""
        self.sums[group] += observation
        self.counts[group] += 1

    def merge(self, other: GroupedMean) -> None:
        """Adds another part's sums.

        Raises:
            StateError: the shapes differ.
        """
        if self.sums.shape != other.sums.shape:
            raise StateError(
                f"Sums of shape {other.sums.shape} cannot be added to sums of shape {self.sums.shape}",
                "Merge states that were prepared with the same model, corpus and seed.",
            )
        self.sums += other.sums
        self.counts += other.counts

    @property
    def n(self) -> int:
        """How many observations there are."""
        return int(self.counts.sum())

    def mean(self) -> np.ndarray:
        """Mean over all observations; NaN where there is none."""
        with np.errstate(invalid="ignore"):
            return self.sums.sum(0) / self.counts.sum()

    def interval(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, lower and upper end of its 95 % interval by the delete-one-group jackknife."""
        return ratio_jackknife(self.sums, self.counts)

    def state(self) -> dict[str, np.ndarray]:
        """Named arrays for a safetensors file."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes over a saved state.

        Raises:
            StateError: an array is missing or has another shape.
        """
        matching(self.state(), state)
        self.sums, self.counts = state["sums"].copy(), state["counts"].copy()
