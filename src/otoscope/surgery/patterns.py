"""Patterns that name several parts of a model at once."""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator

from otoscope.errors import SurgeryError

_NUMBERS = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*")  # a longer one names nothing


def alternatives(pattern: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    """What a pattern stands for: one name for every combination of its numbers, "*" left in it.

    >>> [name for name, _ in alternatives("layer.1-2.head.0,3")]
    ['layer.1.head.0', 'layer.1.head.3', 'layer.2.head.0', 'layer.2.head.3']

    Args:
        pattern: a name, in which "*" stands for anything within one step, and a number may be a list or range such as
            3-5 or 0,2,7.

    Yields:
        The name, and the expression that the names of units must match.

    Raises:
        SurgeryError: it is no text, or a range in it is empty.
    """
    if not isinstance(pattern, str):
        raise SurgeryError(
            f"{pattern!r} names no unit",
            "Give one name or pattern, such as layer.3.head.0-2; an edit for each other.",
        )
    steps = [numbers(step, pattern) if _NUMBERS.fullmatch(step) else [step] for step in pattern.split(".")]
    for chosen in itertools.product(*steps):
        name = ".".join(chosen)
        yield name, re.compile(re.escape(name).replace(r"\*", "[^.]*"))


def nearest(name: str, names: Iterable[str]) -> str:
    """A sentence on the names that are most like one that there is not."""
    near = difflib.get_close_matches(name, list(names), n=4, cutoff=0.3)
    return f"The nearest names are {', '.join(near)}." if near else "Units are called layer.1, layer.1.head.0, conv.1."


def numbers(step: str, pattern: str) -> list[str]:
    """The numbers of a list or range, as text."""
    found: list[int] = []
    for part in step.split(","):
        first, _, last = part.partition("-")
        span = range(int(first), int(last or first) + 1)
        if not span:
            raise SurgeryError(f"The range {part} in {pattern!r} is empty", "Write the lower number first.")
        found.extend(span)
    return [str(number) for number in found]
