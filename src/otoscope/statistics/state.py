"""What makes a saved state fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from otoscope.errors import StateError


def matching(expected: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> None:
    """Makes sure that a saved state has the arrays that are expected, in their shapes.

    Raises:
        StateError: arrays are missing, are too many, or have other shapes; names the first.
    """
    missing, extra = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    if missing or extra:
        raise StateError(
            f"A state lacks {len(missing)} arrays {missing[:3]} and has {len(extra)} too many {extra[:3]}",
            "Load the state into a measure that was prepared with the same model, corpus and seed.",
        )
    for name, array in expected.items():
        if array.shape != given[name].shape:
            raise StateError(
                f"Array {name!r} of a state has shape {given[name].shape}, not {array.shape}",
                "Load the state into a measure that was prepared with the same model, corpus and seed.",
            )


def take_over(own: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], what: str) -> None:
    """Copies a saved state into the arrays of one that was prepared in the same way.

    Args:
        own: arrays that are written to, and under "prepared" the digest of how they were prepared.
        given: what was saved.
        what: whose state it is, for the error.

    Raises:
        StateError: an array is missing, has another shape, or comes from another preparation; nothing is then changed.
    """
    matching(own, given)
    if not np.array_equal(own["prepared"], given["prepared"]):
        raise StateError(
            f"A state of {what} was prepared with another model, corpus or seed",
            "Prepare with the same model, the whole corpus and the same seed.",
        )
    for name, array in own.items():
        if name != "prepared":
            array[...] = given[name]
