"""Statistics of streams that several measures read: kept once, however many there are."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import numpy as np

from otoscope.errors import StateError
from otoscope.measures.measure import Measure
from otoscope.models.anatomy import Anatomy
from otoscope.models.capture import Capture, Transform
from otoscope.statistics.state import take_over


@runtime_checkable
class Part(Protocol):
    """A state that merges."""

    def merge(self, other: Any) -> None:
        """Adds another state."""

    def state(self) -> dict[str, np.ndarray]:
        """Named arrays."""


class Source(ABC):
    """A state that measures share.

    Sources with one key hold the same rows. Those of several measures become one before anything is seen: `absorb` adds
    what another measure wants. Memory is taken up by `allocate`.

    Attributes:
        key: names rows, folds and seed.
        streams: names of the streams that it wants captured.
        streams_of_other: names of the streams that it wants captured of another model.
        memory: what measures have computed of the states as they are, for each other's use.
    """

    key: str
    streams: tuple[str, ...]
    streams_of_other: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._digest = ""
        self.memory: dict[str, Any] = {}

    def transforms(self, anatomy: Anatomy) -> dict[str, Transform]:
        """What may be done to streams as soon as they are computed."""
        return {}

    @abstractmethod
    def absorb(self, other: Source) -> None:
        """Takes over what another source of the same key is to keep."""

    @abstractmethod
    def prepared_as(self) -> Any:
        """All that the state depends on, as JSON can hold it."""

    @abstractmethod
    def make(self) -> dict[str, Part]:
        """Allocates the states, by name."""

    @abstractmethod
    def add(self, capture: Capture) -> None:
        """Adds one batch to the states."""

    @property
    def parts(self) -> dict[str, Part]:
        """The states by name; allocated when first asked for."""
        if not self._digest:
            self._parts = self.make()
            told = json.dumps([self.key, self.prepared_as()], sort_keys=True)
            self._digest = hashlib.sha256(told.encode()).hexdigest()
        return self._parts

    def update(self, capture: Capture) -> None:
        """Adds one batch."""
        _ = self.parts
        self.memory.clear()
        self.add(capture)

    def merge(self, other: Source) -> None:
        """Adds another part's states, in place.

        Raises:
            StateError: the two were prepared differently.
        """
        mine, theirs = self.parts, other.parts
        if self._digest != other._digest:
            raise StateError(
                f"Two states of {self.key} were prepared with different models, corpora or seeds",
                "Prepare all parts with the same model, the whole corpus and one seed.",
            )
        self.memory.clear()
        for name, part in mine.items():
            part.merge(theirs[name])

    def state(self) -> dict[str, np.ndarray]:
        """The states as named float64 arrays (not copies), and the digest of how they were prepared (bytes)."""
        arrays = {f"{name}/{key}": a for name, part in self.parts.items() for key, a in part.state().items()}
        return arrays | {"prepared": np.frombuffer(bytes.fromhex(self._digest), dtype=np.uint8)}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over a state; the source must have been prepared in the same way.

        Raises:
            StateError: an array is missing, has another shape, or comes from another preparation.
        """
        take_over(self.state(), state, self.key)
        self.memory.clear()

    @property
    def bytes(self) -> int:
        """Memory that the states take."""
        return sum(array.nbytes for array in self.state().values())


class SourcedMeasure(Measure):
    """A measure whose whole state is a source's.

    By itself it updates, merges and saves the source. Where a pass has taken the source over, to share it between
    measures, the pass does so.

    Attributes:
        source: what it reads; set by `prepare`.
        shared: a pass has taken the source over.
    """

    source: Source | None = None
    shared: bool = False

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams it wants captured; known once it is prepared."""
        return self.source.streams if self.source else ()

    @property
    def streams_of_other(self) -> tuple[str, ...]:
        """Names of the streams it wants captured of another model, where it compares two."""
        return self.source.streams_of_other if self.source else ()

    def transforms(self, anatomy: Anatomy) -> dict[str, Transform]:
        """What may be done to streams as soon as they are computed."""
        return self.source.transforms(anatomy) if self.source else {}

    def update(self, capture: Capture) -> None:
        """Adds one batch to the source, unless a pass does."""
        source = self.require_prepared()
        if not self.shared:
            source.update(capture)

    def merge(self, other: Measure) -> None:
        """Adds another part's state to this one, in place, unless a pass does.

        Raises:
            StateError: the two were prepared differently.
        """
        self._same_kind(other)
        assert isinstance(other, SourcedMeasure)
        source, theirs = self.require_prepared(), other.require_prepared()
        if not self.shared:
            source.merge(theirs)

    def state(self) -> dict[str, np.ndarray]:
        """The source's state; nothing where a pass keeps it."""
        source = self.require_prepared()
        return {} if self.shared else source.state()

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over a state; the measure must have been prepared in the same way.

        Raises:
            StateError: an array is missing, has another shape, or comes from another preparation.
        """
        source = self.require_prepared()
        if not self.shared:
            source.load_state(state)

    def require_prepared(self) -> Source:
        """The source.

        Raises:
            StateError: the measure was not prepared.
        """
        if self.source is None:
            raise StateError(f"{self.name} was not prepared", "Call prepare(anatomy, corpus, seed) first.")
        return self.source
