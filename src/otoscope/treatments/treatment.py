"""What every treatment is: a few plain values, the edits that they stand for, and what they ask of a training."""

from __future__ import annotations

import difflib
from abc import ABC
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, get_type_hints

from otoscope.errors import TreatmentError
from otoscope.surgery.edit import Edit
from otoscope.surgery.patterns import alternatives
from otoscope.surgery.units import Parts
from otoscope.treatments.sizes import Sizes

_TYPES: dict[type, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,)}


@dataclass(frozen=True)
class Training:
    """What a treatment changes about training; nothing about what a model gives.

    Attributes:
        frozen: names of parameters that are not trained.
        rates: factor on the learning rate by name of the parameter; 1 for all others.
    """

    frozen: frozenset[str] = frozenset()
    rates: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.frozen or self.rates)

    def then(self, later: Training) -> Training:
        """This and what another asks for, which holds where they differ."""
        return Training(self.frozen | later.frozen, {**self.rates, **later.rates})


@dataclass(frozen=True)
class Treatment(ABC):
    """A change of a model that stays with it: it can be stored, read, taken back and trained with.

    A treatment sets something, whatever it was before: to apply one twice is to apply it once.

    Attributes:
        units: what is treated, by names of the original model; see `Parts.find` for patterns.
    """

    kind: ClassVar[str]
    units: str

    def __post_init__(self) -> None:
        for name, wanted in get_type_hints(type(self)).items():
            value = None if name == "kind" else getattr(self, name)
            if name != "kind" and (not isinstance(value, _TYPES[wanted]) or isinstance(value, bool)):
                raise TreatmentError(
                    f"{name} of the treatment {self.kind!r} is {value!r}",
                    f"Give a value of the type {wanted.__name__}.",
                )
        if not self.units.strip():
            raise TreatmentError(f"The treatment {self.kind!r} names no unit", "Give units, such as layer.3.head.0-2.")
        list(alternatives(self.units))
        self.edits()  # an edit refuses values that it cannot take

    def __str__(self) -> str:
        """One line, such as `limit-span layer.3.head.0 (radius 8)`; values that stand by themselves are left out."""
        shown = [
            f"{one.name} {getattr(self, one.name)}"
            for one in fields(self)
            if one.name != "units" and (one.default is MISSING or getattr(self, one.name) != one.default)
        ]
        return f"{self.kind} {self.units}" + (f" ({', '.join(shown)})" if shown else "")

    def edits(self) -> tuple[Edit, ...]:
        """The edits of the model that the treatment stands for, in order; none where only its training changes."""
        return ()

    def training(self, parts: Parts) -> Training:
        """What the treatment asks of a training.

        Args:
            parts: the treated encoder; parameters are named by their paths within it.
        """
        return Training()

    def check(self, sizes: Sizes) -> None:
        """Makes sure that a model of these sizes can be treated so, without the model.

        Raises:
            SurgeryError: the units do not exist, or are of another kind.
            TreatmentError: the treatment does not fit the model, or what was done to it before.
        """
        sizes.find(self.units)

    def left(self, sizes: Sizes) -> Sizes:
        """The sizes of the treated model, for a treatment that was checked."""
        return sizes

    def to_dict(self) -> dict[str, Any]:
        """The treatment as plain values, which JSON and TOML can hold."""
        return {"treatment": self.kind} | {one.name: getattr(self, one.name) for one in fields(self)}

    def __deepcopy__(self, memo: dict[int, Any]) -> Treatment:
        return self  # nothing of it can change


_KINDS: dict[str, type[Treatment]] = {}


def registered(cls: type[Treatment]) -> type[Treatment]:
    """Makes a treatment's class known to `from_dict`."""
    _KINDS[cls.kind] = cls
    return cls


def kinds() -> dict[str, type[Treatment]]:
    """The classes of all treatments by kind, in alphabetical order."""
    import otoscope.treatments  # noqa: F401 - registers them

    return dict(sorted(_KINDS.items()))


def from_dict(values: Mapping[str, Any]) -> Treatment:
    """The treatment that `Treatment.to_dict` wrote.

    Raises:
        TreatmentError: there is no such treatment, or its values are not those that it takes.
        SurgeryError: a value is none that its edit can take.
    """
    given, known = dict(values), kinds()
    kind = given.pop("treatment", None)
    if kind not in known:
        near = difflib.get_close_matches(str(kind), known, n=1)
        raise TreatmentError(
            f"There is no treatment {kind!r}",
            f"Did you mean {near[0]}?" if near else f"The treatments are {', '.join(known)}.",
        )
    wanted = {one.name: one.default is MISSING for one in fields(known[kind])}
    strange = sorted(set(given) - set(wanted))
    if strange:
        near = difflib.get_close_matches(strange[0], wanted, n=1)
        raise TreatmentError(
            f"The treatment {kind!r} takes no {strange[0]!r}",
            f"Did you mean {near[0]}?" if near else f"It takes {', '.join(wanted)}.",
        )
    lacking = [name for name, needed in wanted.items() if needed and name not in given]
    if lacking:
        raise TreatmentError(f"The treatment {kind!r} lacks {lacking[0]!r}", f"It takes {', '.join(wanted)}.")
    return known[kind](**given)


def fit(treatments: Iterable[Treatment], sizes: Sizes, done: Iterable[Treatment] = ()) -> Sizes:
    """Makes sure that a model of these sizes can go through treatments one after another, without the model.

    Args:
        treatments: in order.
        sizes: of the model before them.
        done: treatments that it has been through already: to apply one again does nothing.

    Returns:
        The sizes of the treated model.

    Raises:
        SurgeryError: units do not exist, were taken out before, or are of another kind.
        TreatmentError: a treatment does not fit the model, or what was done to it before.
    """
    before = set(done)
    for treatment in treatments:
        if treatment not in before:
            treatment.check(sizes)
            sizes = treatment.left(sizes)
            before.add(treatment)
    return sizes
