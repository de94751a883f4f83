"""The items with the least keys among any number, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Least(Generic[T]):
    """Keeps those items whose keys are least.

    Args:
        most: how many are kept; all where None.

    >>> least = Least(2)
    >>> for key, item in ((3, "c"), (1, "a"), (2, "b")):
    ...     least.add(key, item)
    >>> list(least.items())
    [(1, 'a'), (2, 'b')]
    """

    def __init__(self, most: int | None) -> None:
        self.most = most
        self._held: list[tuple[Any, T]] = []

    def add(self, key: Any, item: T) -> None:
        """Takes an item; keys are compared, and must differ."""
        self._held.append((key, item))
        # Twice as many as are kept are sorted at a time: few comparisons an item, and no heap of negated keys.
        if self.most is not None and len(self._held) > 2 * self.most + 16:
            self._cut()

    def items(self) -> Iterator[tuple[Any, T]]:
        """Keys and items that are kept, the least key first."""
        self._cut()
        yield from self._held

    def _cut(self) -> None:
        self._held.sort(key=lambda one: one[0])
        if self.most is not None:
            del self._held[self.most :]
