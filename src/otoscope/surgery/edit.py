"""What every edit is: a few plain values and a way to change a copy of a model by them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from otoscope.errors import SurgeryError
from otoscope.surgery.units import Parts

RECORD = "otoscope_record"  # on an edited encoder: its edits, and the fingerprint of the original


@dataclass(frozen=True)
class Edit(ABC):
    """A change of a model.

    An edit sets something, whatever it was before: to apply one twice is to apply it once, and of two edits that set
    the same thing the later one holds.

    Attributes:
        units: what is changed, by name; see `Parts.find` for patterns.
        structural: whether it changes more than the values of weights, which a state dict holds by itself.
    """

    kind: ClassVar[str]
    structural: ClassVar[bool] = True
    units: str

    @abstractmethod
    def apply(self, parts: Parts) -> None:
        """Changes the encoder of a copy.

        Raises:
            SurgeryError: the units do not exist, or the edit does not fit them.
        """

    def to_dict(self) -> dict[str, Any]:
        """The edit as plain values, which JSON and TOML can hold."""
        return {"edit": self.kind} | {field.name: getattr(self, field.name) for field in fields(self)}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Edit":
        return self  # nothing of it can change


_KINDS: dict[str, type[Edit]] = {}


def registered(cls: type[Edit]) -> type[Edit]:
    """Makes an edit's class known to `from_dict`."""
    _KINDS[cls.kind] = cls
    return cls


def from_dict(values: Mapping[str, Any]) -> Edit:
    """The edit that `Edit.to_dict` wrote.

    Raises:
        SurgeryError: there is no such edit, or its values are not those that it takes.
    """
    given = dict(values)
    kind = given.pop("edit", None)
    if kind not in _KINDS:
        raise SurgeryError(f"There is no edit {kind!r}", f"The edits are {', '.join(sorted(_KINDS))}.")
    wanted = {field.name for field in fields(_KINDS[kind])}
    strange = sorted(set(given) - wanted)
    if strange:
        raise SurgeryError(f"The edit {kind!r} takes no {strange[0]!r}", f"It takes {', '.join(sorted(wanted))}.")
    try:
        return _KINDS[kind](**given)
    except TypeError as error:
        raise SurgeryError(
            f"The edit {kind!r} lacks a value: {error}", f"It takes {', '.join(sorted(wanted))}."
        ) from error


def finite(value: float, what: str) -> float:
    """The value, if it is a finite number.

    Raises:
        SurgeryError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SurgeryError(f"{what} is {value!r}", "Give a finite number.")
    return float(value)


def frames(value: int, what: str) -> int:
    """The value, if it is a number of frames.

    Raises:
        SurgeryError: it is negative or no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SurgeryError(f"{what} is {value!r}", "Give a whole number of frames, zero or more.")
    return value
