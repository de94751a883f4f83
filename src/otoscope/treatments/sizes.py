"""Sizes of a model, from which a treatment can be checked without the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Any

from otoscope.errors import SurgeryError, TreatmentError
from otoscope.models.absent import (
    borrowed_maps,
    branch_names,
    fixed_maps,
    kept_heads,
    removed_units,
    replaced_attention,
)
from otoscope.models.families import FAMILIES, Family
from otoscope.models.model import SpeechModel
from otoscope.surgery.patterns import alternatives, nearest
from otoscope.surgery.units import Parts, Unit

ALIKE = 0.7  # a word that is this like another is taken for a slip of the pen


@dataclass(frozen=True)
class Sizes:
    """What a model has: its layers, their branches and heads, by the names of the original.

    Attributes:
        family: name of the model's family.
        width: of the residual stream.
        head_names: numbers of the heads that each layer has, layer 1 first; none where a layer or its attention is gone.
        removed: layers and branches that were taken out, by name.
        maps: pairs of a layer and the earlier layer whose attention map it uses.
        fixed: layers whose map is the same whatever is heard.
        replaced: layers where a module of another kind stands in place of attention.
        total_heads: heads of every layer of the original; 0 is one more than the highest that is named.
    """

    family: str
    width: int
    head_names: tuple[tuple[int, ...], ...]
    removed: frozenset[str] = frozenset()
    maps: frozenset[tuple[int, int]] = field(default=frozenset())
    fixed: frozenset[int] = frozenset()
    replaced: frozenset[int] = frozenset()
    total_heads: int = 0

    def __post_init__(self) -> None:
        highest = max((head + 1 for kept in self.head_names for head in kept), default=0)
        object.__setattr__(self, "total_heads", max(self.total_heads, highest))

    @classmethod
    def of(cls, model: SpeechModel) -> Sizes:
        """The sizes of a model."""
        return cls.of_parts(Parts(model.encoder, model.family))

    @classmethod
    def of_parts(cls, parts: Parts) -> Sizes:
        """The sizes of an encoder that was taken apart."""
        layers, family = parts.layers, parts.family
        return cls(
            family.name, getattr(parts.config, family.size_names[0]), kept_heads(layers, family, parts.total_heads),
            frozenset(removed_units(layers, family)), frozenset(borrowed_maps(layers, family).items()),
            frozenset(fixed_maps(layers, family)), frozenset(replaced_attention(layers, family)), parts.total_heads,
        )  # fmt: skip

    @classmethod
    def of_description(cls, described: Mapping[str, Any]) -> Sizes:
        """The sizes that a diagnosis keeps of its model, see `SpeechModel.describe`.

        Raises:
            TreatmentError: it is no such description.
        """
        try:
            heads = tuple(int(count) for count in described["heads"])
            names = described.get("head_names") or [range(count) for count in heads]
            borrowed = {int(layer): int(source) for layer, source in dict(described.get("borrowed_maps", {})).items()}
            found = cls(
                str(described["family"]), int(described["width"]), tuple(tuple(map(int, kept)) for kept in names),
                frozenset(described.get("removed", ())), frozenset(borrowed.items()),
                frozenset(map(int, described.get("fixed_maps", ()))),
                frozenset(map(int, described.get("replaced_attention", ()))), int(described.get("original_heads", 0)),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise TreatmentError(
                f"The description of a model lacks what its treatment is checked by: {error}",
                "Diagnose the model again.",
            ) from error
        found.table  # noqa: B018 - refuses a family that there is none of
        return found

    @property
    def layers(self) -> int:
        """Number of layers of the original."""
        return len(self.head_names)

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of heads of each layer, layer 1 first."""
        return tuple(len(names) for names in self.head_names)

    @property
    def mapless(self) -> frozenset[int]:
        """Layers that make no map of their own, and so have neither queries nor keys."""
        return self.fixed | {layer for layer, _ in self.maps}

    @property
    def attending(self) -> frozenset[int]:
        """Layers that have attention, whether heads of it are left or not."""
        gone = {layer for layer in self.layers_left if f"layer.{layer}.attention" in self.removed}
        return frozenset(self.layers_left) - gone - self.replaced

    @property
    def layers_left(self) -> tuple[int, ...]:
        """Numbers of the layers that are left."""
        return tuple(k for k in range(1, self.layers + 1) if f"layer.{k}" not in self.removed)

    @property
    def table(self) -> Family:
        """The table of the family.

        Raises:
            TreatmentError: there is none.
        """
        for family in FAMILIES:
            if family.name == self.family:
                return family
        raise TreatmentError(
            f"There is no family {self.family!r}", f"The families are {', '.join(family.name for family in FAMILIES)}."
        )

    def headless(self, layers: Iterable[int]) -> Sizes:
        """The sizes once the attention of layers has no heads any more."""
        gone = set(layers)
        names = tuple(() if k in gone else kept for k, kept in enumerate(self.head_names, start=1))
        maps = frozenset(pair for pair in self.maps if pair[0] not in gone)
        return replace(self, head_names=names, maps=maps, fixed=self.fixed - gone)

    def without(self, units: Sequence[Unit]) -> Sizes:
        """The sizes once layers, branches and heads are taken out."""
        gone = {unit.name for unit in units if unit.head is None}
        cut = {(unit.layer, unit.head) for unit in units if unit.kind == "head"}
        names = tuple(
            tuple(head for head in kept if (layer, head) not in cut)
            for layer, kept in enumerate(self.head_names, start=1)
        )
        layers = {unit.layer or 0 for unit in units if unit.kind == "layer"}
        # A branch that was taken out before goes with its layer.
        removed = {name for name in self.removed if int(name.split(".")[1]) not in layers} | gone
        silent = {unit.layer or 0 for unit in units if unit.kind in ("layer", "attention")}
        left = replace(self, head_names=names, removed=frozenset(removed), replaced=self.replaced - silent)
        return left.headless(silent)

    def find(self, pattern: str, kinds: Sequence[str] | None = None, cut: bool = False) -> list[Unit]:
        """Units by name, as `Parts.find` finds them in the model itself.

        Names within a branch and outside the layers are the library's own, which sizes do not tell: they are let
        through where all kinds are allowed.

        Args:
            pattern: see `Parts.find`.
            kinds: kinds of units that are wanted; None is all.
            cut: heads that were cut before may be named.

        Raises:
            SurgeryError: a name or number matches nothing, or a unit of another kind.
        """
        there, gone = self._units()
        found: dict[str, Unit] = {}
        for name, expression in alternatives(pattern):
            matched = {key: unit for key, unit in there.items() if expression.fullmatch(key)}
            lost = {key: unit for key, unit in gone.items() if expression.fullmatch(key)}
            heads = {key: unit for key, unit in lost.items() if unit.head is not None and self._headed(unit)}
            if cut:
                matched |= heads
            if not matched and lost:
                first = next(iter(lost.values()))
                what = "a head that was cut" if heads else f"{first.name}, which was taken out"
                raise SurgeryError(f"{pattern!r} names {what} of this model", "Name a unit that is left.")
            if not matched and not (kinds is None and self._within(name, there, gone, pattern)):
                raise SurgeryError(
                    f"{pattern!r} matches no unit of this {self.family} model of {self.layers} layers with "
                    f"{self.total_heads} heads",
                    nearest(name, [*there, *gone]),
                )
            found |= matched
        for unit in found.values():
            if kinds is not None and unit.kind not in kinds:
                raise SurgeryError(
                    f"{unit.name} is of the kind {unit.kind!r}, on which this treatment does not act",
                    f"Name a unit of one of these kinds: {', '.join(kinds)}.",
                )
        return list(found.values())

    def _headed(self, unit: Unit) -> bool:
        """Whether the attention that a head was cut from is still there."""
        return not {f"layer.{unit.layer}", f"layer.{unit.layer}.attention"} & self.removed

    def _units(self) -> tuple[dict[str, Unit], dict[str, Unit]]:
        """Units of the layers that are there, and those that were taken out."""
        there: dict[str, Unit] = {}
        gone: dict[str, Unit] = {}
        for layer, kept in enumerate(self.head_names, start=1):
            whole = f"layer.{layer}"
            units = [Unit(whole, "layer", (), layer)]
            units += [Unit(f"{whole}.{key}", kind, (), layer) for key, kind in branch_names(self.table)]
            units += [Unit(f"{whole}.head.{head}", "head", (), layer, head) for head in range(self.total_heads)]
            for unit in units:
                lost = whole in self.removed or unit.name in self.removed
                lost |= unit.head is not None and unit.head not in kept
                (gone if lost else there)[unit.name] = unit
        return there, gone

    def _within(self, name: str, there: Mapping[str, Unit], gone: Mapping[str, Unit], pattern: str) -> bool:
        """Whether a name may be one of the library's own: outside the layers, or within a unit that is there.

        Raises:
            SurgeryError: it is within a unit that was taken out.
        """
        steps = name.split(".")
        if steps[0] != "layer":
            misspelt = len(steps) > 1 and SequenceMatcher(None, steps[0], "layer").ratio() > ALIKE
            return not misspelt and bool(re.fullmatch(r"[\w*.]+", name))
        if len(steps) < 3 or steps[2] == "head":
            return False
        for length in range(min(len(steps) - 1, 4), 1, -1):
            (_, expression), = alternatives(".".join(steps[:length]))  # fmt: skip
            if any(expression.fullmatch(key) for key in there):
                return True
            lost = next((key for key in gone if expression.fullmatch(key)), None)
            if lost is not None:
                raise SurgeryError(
                    f"{pattern!r} names {lost}, which was taken out of this model", "Name a unit that is left."
                )
        return False
