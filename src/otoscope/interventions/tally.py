"""What is known of many variants as batch after batch comes in: which have stopped, and what was not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from otoscope.errors import NotFiniteError
from otoscope.interventions.engine import BASE
from otoscope.interventions.kept_parts import Columns
from otoscope.interventions.sequential import Stopping


class Tally:
    """Settles what batches gave, in the order in which they were run.

    Args:
        names: of the variants.
        stop: when a variant is stopped; None never.
        chance: the variant whose values take the place of those that are not finite; it is not stopped.

    Attributes:
        running: variants that are to be run on the next batch.
        replaced: variant -> how many of its values were not finite.
    """

    def __init__(self, names: Sequence[str], stop: Stopping | None = None, chance: str | None = None) -> None:
        self.running = tuple(names)
        self.replaced: dict[str, int] = {}
        self._stop, self._chance = stop, chance
        self._sums: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        self._stopped: dict[str, None] = {}

    @property
    def stopped(self) -> tuple[str, ...]:
        """Variants that were left out of a batch."""
        return tuple(self._stopped)

    def settle(self, ids: Sequence[str], found: Mapping[str, Columns]) -> dict[str, Columns]:
        """Takes in a batch.

        Args:
            ids: its utterances.
            found: what the unedited model and every running variant gave.

        Returns:
            The same, with finite numbers.

        Raises:
            NotFiniteError: a value is not finite, and no variant stands for chance, or that one's is not either.
        """
        self._stopped |= dict.fromkeys(name for name in self._sums if name not in found)
        settled = {name: self._finite(name, ids, found) for name in found}
        if self._stop is None:
            return settled
        before = settled[BASE]
        for name in self.running:
            after = settled[name]
            change = np.subtract(after["numerator"], before["numerator"]).sum()
            self._sums[name].append((float(change), float(np.sum(before["denominator"]))))
        self.running = tuple(name for name in self.running if name == self._chance or not self._decided(name))
        return settled

    def _decided(self, name: str) -> bool:
        changes, units = np.array(self._sums[name], np.float64).T
        return self._stop is not None and self._stop.decided(changes, units)

    def _finite(self, name: str, ids: Sequence[str], found: Mapping[str, Columns]) -> Columns:
        """A variant's numbers, with those of chance where they are not finite."""
        values = list(found[name]["numerator"])
        bad = [k for k, value in enumerate(values) if not math.isfinite(value)]
        for k in bad:
            instead = found[self._chance]["numerator"][k] if self._chance is not None else math.nan
            if not math.isfinite(instead):
                of_chance = (
                    "" if self._chance is None else f", and so is that of {self._chance!r}, which stands for chance"
                )
                raise NotFiniteError(
                    f"The value of the variant {name!r} for utterance {ids[k]!r} is not finite{of_chance}",
                    "Name a variant whose values are those of chance, such as one with all units reset."
                    if self._chance is None
                    else "Let a variant stand for chance that gives finite values, or leave this one out.",
                )
            values[k] = instead
        if bad:
            self.replaced[name] = self.replaced.get(name, 0) + len(bad)
        return {**found[name], "numerator": values}
