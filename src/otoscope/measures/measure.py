"""What every measure is: a state that is prepared, updated batch by batch, merged, and computed into rows.

A measure never runs a model. It is handed what a pass captured, keeps sums of fixed size, and turns them into
rows of the diagnosis table. States of parts of a corpus merge to the state of the whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.errors import StateError
from otoscope.models.anatomy import Anatomy
from otoscope.speech import Corpus

if TYPE_CHECKING:
    from otoscope.models.capture import Capture, Transform
    from otoscope.models.reductions import Reduction


@dataclass
class Row:
    """One number of the diagnosis table; what does not apply is None.

    Attributes:
        measure: canonical name of the measure, such as "cca-phone".
        stream: name of the stream, such as "layer.4".
        layer: the layer, counted from 1.
        head: the head, counted from 0.
        target: what the stream is compared with, such as "phone".
        other: the second stream or model of a comparison.
        value: the score.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        floor: the score's zero: permuted labels or a random network.
        ceiling: the highest score there could be.
        label: a word where the result is one: a category, a verdict.
        n: how many rows (frames, segments, utterances) the value rests on.
    """

    measure: str
    stream: str | None = None
    layer: int | None = None
    head: int | None = None
    target: str | None = None
    other: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    ceiling: float | None = None
    label: str | None = None
    n: int | None = None


@dataclass
class Result:
    """What a measure computes.

    Attributes:
        rows: rows of the diagnosis table.
        arrays: arrays that stand beside the table, each under a name that starts with the measure's.
        notes: what was left out and how much of it, and the choices made (folds, ridge, seed), as values that
            JSON can hold.
    """

    rows: list[Row] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


class Measure(ABC):
    """A measure that one pass over a corpus gives.

    The order of calls is `prepare` once, `update` for every batch, `merge` with the states of other parts of
    the same corpus, `compute`. All parts are prepared with the whole corpus and the same seed, so that
    labels, folds and groups are the same for all.

    Attributes:
        name: canonical name of the measure.
        tiers: names of the tiers that utterances must have.
        reductions: makers of the sums over attention maps that it wants from the tap; makers of the same sum are the
            same object, and other sums have other names.
    """

    name: str
    tiers: tuple[str, ...] = ()
    reductions: tuple[Callable[[], Reduction], ...] = ()

    def transforms(self, anatomy: Anatomy) -> dict[str, Transform]:
        """What may be done to streams as soon as they are computed; the measure sees the result.

        Args:
            anatomy: the model's streams and grids.
        """
        return {}

    @property
    @abstractmethod
    def streams(self) -> tuple[str, ...]:
        """Names of the streams it wants captured; known once it is prepared."""

    @property
    def streams_of_other(self) -> tuple[str, ...]:
        """Names of the streams it wants captured of another model, where it compares two."""
        return ()

    @abstractmethod
    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """Fixes labels, folds and groups and allocates the whole state.

        Args:
            anatomy: the model's streams, widths and grids.
            corpus: the whole corpus, also where only a part of it will be seen.
            seed: seed of every random choice.

        Raises:
            MeasureError: no right number can come of this model and corpus.
            CorpusError: the corpus lacks a tier that the measure needs.
        """

    @abstractmethod
    def update(self, capture: Capture) -> None:
        """Adds one batch to the state; memory does not grow."""

    @abstractmethod
    def merge(self, other: Measure) -> None:
        """Adds another part's state to this one, in place.

        Raises:
            StateError: the two were prepared differently.
        """

    @abstractmethod
    def compute(self) -> Result:
        """Turns the state into rows, leaving the state as it is."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Returns the state as named arrays, fit for a safetensors file."""

    @abstractmethod
    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over a state that `state` returned; the measure must have been prepared in the same way.

        Raises:
            StateError: an array is missing, has another shape, or comes from another preparation.
        """

    def _same_kind(self, other: Measure) -> None:
        """Refuses a measure of another kind or name."""
        if type(self) is not type(other) or self.name != other.name:
            raise StateError(
                f"A state of {other.name!r} ({type(other).__name__}) cannot be merged into one of "
                f"{self.name!r} ({type(self).__name__})",
                "Merge states of the same measure only.",
            )

    def _same_groups(self, mine: object, theirs: object) -> None:
        """Refuses a state whose utterances were dealt into other groups, or that has other labels beside these."""
        if mine != theirs:
            raise StateError(
                f"Two states of {self.name!r} were prepared with different corpora or seeds",
                "Prepare every part with the whole corpus and the same seed.",
            )
