"""Names of the parts of a model, and where each part lies in its encoder."""

import copy
import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from otoscope.errors import SurgeryError
from otoscope.models import tap
from otoscope.models.edits import BRANCH, HEADS, BranchEdit, HeadEdits, head_edits, head_names
from otoscope.models.families import Family, submodule

SUB_MODULES = ("attention", "feed_forward", "convolution", "norms")
GRANULARITIES = ("block", "sub-module", "tensor")

_NUMBERS = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*")  # a longer one names nothing


@dataclass(frozen=True)
class Unit:
    """A part of a model.

    Attributes:
        name: its name, that of the original model.
        kind: "layer", "attention", "feed_forward", "convolution", "norms", "head", "conv", or "weights" for any other
            module or tensor.
        paths: the modules or tensors that it consists of, within the encoder.
        layer: the layer that it belongs to, from 1, or None.
        head: a head's number in the original model, from 0, or None.
    """

    name: str
    kind: str
    paths: tuple[str, ...]
    layer: int | None = None
    head: int | None = None


class Parts:
    """An encoder taken apart: its units by name, and the modules and tensors that they consist of.

    Names are `layer.3`, `layer.3.attention`, `layer.3.feed_forward` (`.feed_forward.1` and `.2` in Conformers),
    `layer.3.convolution`, `layer.3.norms` (the layer norms that stand between these), `layer.3.head.2`, `conv.4`, and
    below them, and everywhere else, the library's own names of modules and tensors, as in
    `layer.3.attention.q_proj.weight` or `encoder.pos_conv_embed`.

    Args:
        encoder: the encoder module.
        family: its family's table.

    Attributes:
        total_heads: heads of every layer of the original model.
        units: units by name, in the order of the signal; heads that were cut are in `lost`.
        repeated: whether the edit that is applied was applied before: heads that it names may have been cut since, and
            nothing is left to be done to them.
    """

    def __init__(self, encoder: nn.Module, family: Family) -> None:
        self.encoder, self.family = encoder, family
        self.config: Any = encoder.config
        self.total_heads: int = getattr(self.config, family.size_names[1])
        self.layers: list[nn.Module] = list(submodule(encoder, family.layers).children())  # type: ignore[union-attr]
        self.units: dict[str, Unit] = {}
        self.lost: dict[str, Unit] = {}
        self.repeated = False
        self._name_layers()
        self._name_weights()

    def _name_layers(self) -> None:
        family = self.family
        for number, layer in enumerate(self.layers, start=1):
            place, name = f"{family.layers}.{number - 1}", f"layer.{number}"
            norms = tuple(f"{place}.{key}" for key, one in layer.named_children() if isinstance(one, nn.LayerNorm))
            branches: list[tuple[str, str, tuple[str, ...]]] = [
                ("attention", "attention", (f"{place}.{family.attention}",))
            ]
            for k, modules in enumerate(family.feed_forwards, start=1):
                numbered = "feed_forward" if len(family.feed_forwards) == 1 else f"feed_forward.{k}"
                branches.append((numbered, "feed_forward", tuple(f"{place}.{module}" for module in modules)))
            if family.convolution is not None:
                branches.append(("convolution", "convolution", (f"{place}.{family.convolution}",)))
            for key, kind, paths in [("", "layer", (place,)), *branches, ("norms", "norms", norms)]:
                called = f"{name}.{key}" if key else name
                self.units[called] = Unit(called, kind, paths, number)
            kept = head_names(self.attention(number), self.total_heads)
            for head in range(self.total_heads):
                unit = Unit(f"{name}.head.{head}", "head", (f"{place}.{family.attention}",), number, head)
                there = self.units if head in kept else self.lost
                there[unit.name] = unit

    def _name_weights(self) -> None:
        convs = f"{self.family.conv_layers}."
        for path in [*(path for path, _ in self.encoder.named_modules()), *self.encoder.state_dict()]:
            if not path or HEADS in path or BRANCH in path:
                continue
            name = self._canonical(path)
            kind = "conv" if re.fullmatch(r"conv\.\d+", name) and path.startswith(convs) else "weights"
            layer = re.match(r"layer\.(\d+)\.", name)
            self.units.setdefault(name, Unit(name, kind, (path,), int(layer.group(1)) if layer else None))

    def _canonical(self, path: str) -> str:
        """A path in the encoder as a unit's name."""
        family = self.family
        found = re.fullmatch(rf"{re.escape(family.layers)}\.(\d+)(?:\.(.+))?", path)
        if found is None:
            found = re.fullmatch(rf"{re.escape(str(family.conv_layers))}\.(\d+)(\..+)?", path)
            return path if found is None else f"conv.{int(found.group(1)) + 1}{found.group(2) or ''}"
        rest = f"{found.group(2) or ''}."
        ffns = family.feed_forwards
        renamed = {family.attention: "attention", family.convolution: "convolution"}
        renamed |= {
            modules[0]: "feed_forward" if len(ffns) == 1 else f"feed_forward.{k}"
            for k, modules in enumerate(ffns, start=1)
            if len(modules) == 1
        }
        for own, name in renamed.items():
            if own is not None and rest.startswith(f"{own}."):
                rest = name + rest[len(own) :]
                break
        return f"layer.{int(found.group(1)) + 1}.{rest}".rstrip(".")

    def find(self, pattern: str, kinds: Sequence[str] | None = None, lost: bool = False) -> list[Unit]:
        """Units by name.

        Args:
            pattern: a name, in which "*" stands for anything within one step, and a number may be a list or range
                such as 3-5 or 0,2,7.
            kinds: kinds of units that are wanted here; None is all.
            lost: heads that were cut may be named too.

        Raises:
            SurgeryError: a name or number matches nothing, or a unit of another kind.
        """
        if not isinstance(pattern, str):
            raise SurgeryError(
                f"{pattern!r} names no unit",
                "Give one name or pattern, such as layer.3.head.0-2; an edit for each other.",
            )
        steps = []
        for step in pattern.split("."):
            if _NUMBERS.fullmatch(step):
                steps.append(_numbers(step, pattern))
            else:
                steps.append([re.escape(step).replace(r"\*", "[^.]*")])
        found: dict[str, Unit] = {}
        for alternative in itertools.product(*steps):
            expression = re.compile(r"\.".join(alternative))
            matched = {name: unit for name, unit in self.units.items() if expression.fullmatch(name)}
            gone = {name: unit for name, unit in self.lost.items() if expression.fullmatch(name)}
            if lost:
                matched |= gone
            if not matched and not (gone and self.repeated):
                self._refuse(pattern, ".".join(alternative).replace("\\", ""), bool(gone))
            found |= matched
        for unit in found.values():
            if kinds is not None and unit.kind not in kinds:
                raise SurgeryError(
                    f"{unit.name} is of the kind {unit.kind!r}, on which this edit does not act",
                    f"Name a unit of one of these kinds: {', '.join(kinds)}.",
                )
        return list(found.values())

    def _refuse(self, pattern: str, name: str, gone: bool) -> None:
        if gone:
            raise SurgeryError(f"{pattern!r} names a head that was cut from this model", "Name a head that is left.")
        near = difflib.get_close_matches(name, [*self.units, *self.lost], n=4, cutoff=0.3)
        raise SurgeryError(
            f"{pattern!r} matches no unit of this {self.family.name} model of {len(self.layers)} layers with "
            f"{self.total_heads} heads",
            f"The nearest names are {', '.join(near)}."
            if near
            else "Units are called layer.1, layer.1.head.0, conv.1.",
        )

    def heads(self, pattern: str) -> dict[int, list[int]]:
        """Heads by layer: those named, and all that are left of layers and attention modules that are named.

        Returns:
            layer -> positions in the order of the tensors.

        Raises:
            SurgeryError: see `find`.
        """
        chosen: dict[int, list[int]] = {}
        for unit in self.find(pattern, ("head", "attention", "layer")):
            assert unit.layer is not None
            names = head_names(self.attention(unit.layer), self.total_heads)
            wanted = range(len(names)) if unit.head is None else [names.index(unit.head)]
            chosen.setdefault(unit.layer, []).extend(k for k in wanted if k not in chosen.get(unit.layer, []))
        return chosen

    def attention(self, layer: int) -> Any:
        """The attention module of a layer, from 1."""
        return submodule(self.layers[layer - 1], self.family.attention)

    def edits_of(self, layer: int) -> HeadEdits:
        """The changes of a layer's attention; from then on it goes through otoscope's attention function."""
        attention = self.attention(layer)
        edits = head_edits(attention)
        if edits is None:
            query = getattr(attention, self.family.projections[0])
            edits = HeadEdits(self.total_heads, query.out_features // self.total_heads, query.weight)
            edits.number = layer
            setattr(attention, HEADS, edits)
            if self.family.own_attention == "wavlm":
                tap.by_head(attention)
            else:
                edits.hook(attention, tap.NAME)
                if self.config._attn_implementation != tap.NAME:
                    self.encoder.set_attn_implementation(tap.NAME)  # type: ignore[operator]
        return edits

    def own_config(self, attention: Any) -> Any:
        """A configuration of an attention module's own, for sizes that other layers do not share."""
        if attention.config is self.config:
            attention.config = copy.copy(attention.config)
        return attention.config

    def branch(self, unit: Unit) -> BranchEdit:
        """What is changed about the output of a layer or a branch."""
        module: Any = submodule(self.encoder, unit.paths[-1])
        edit = getattr(module, BRANCH, None)
        if edit is None:
            edit = BranchEdit(unit.kind == "layer")
            setattr(module, BRANCH, edit)
            edit.hook(module)
        return edit

    def tensors(self, unit: Unit) -> dict[str, torch.Tensor]:
        """Parameters and saved buffers of a unit, by their path within the encoder."""
        state: Mapping[str, torch.Tensor] = self.encoder.state_dict()
        return {
            name: value
            for name, value in state.items()
            if any(name == path or name.startswith(f"{path}.") for path in unit.paths)
        }

    def replace(self, path: str, value: torch.Tensor) -> None:
        """Puts a tensor in place of a parameter or buffer; the old one, which another model may hold, is left."""
        head, _, name = path.rpartition(".")
        module: Any = submodule(self.encoder, head)
        if name in module._parameters:
            kept = module._parameters[name].requires_grad
            module._parameters[name] = nn.Parameter(value.contiguous(), requires_grad=kept)
        else:
            module._buffers[name] = value.contiguous()


def units_of(
    parts: Parts, granularity: str | Sequence[str] = "block", layers: Sequence[int] | None = None
) -> tuple[Unit, ...]:
    """The units that a model is examined in.

    Args:
        parts: the model's encoder.
        granularity: "block" (layers); "sub-module" (attention, feed-forwards, convolution, and the norms between
            these); "tensor" (every weight and bias of the layers; statistics of batch norms go with whole modules); or
            names or patterns, see `Parts.find`.
        layers: only units of these layers, from 1; None is all, and with patterns what lies outside layers too.

    Returns:
        Units, layer by layer.

    Raises:
        SurgeryError: there is no such layer, a pattern matches nothing, or nothing is left.
    """
    strange = [layer for layer in layers or () if not 1 <= layer <= len(parts.layers)]
    if strange:
        raise SurgeryError(
            f"There is no layer {strange[0]} in a {parts.family.name} model of {len(parts.layers)} layers",
            f"Layers are numbered 1 to {len(parts.layers)}.",
        )
    if granularity in GRANULARITIES:
        kinds = {"block": ("layer",), "sub-module": SUB_MODULES, "tensor": ("weights",)}[str(granularity)]
        weights = {path for path, _ in parts.encoder.named_parameters()}
        units = [
            unit
            for unit in parts.units.values()
            if unit.layer is not None and unit.kind in kinds and unit.paths
            and (granularity != "tensor" or unit.paths[0] in weights)
        ]  # fmt: skip
    else:
        patterns = [granularity] if isinstance(granularity, str) else granularity
        named = {unit.name: unit for pattern in patterns for unit in parts.find(pattern)}
        units = list(named.values())
    kept = tuple(unit for unit in units if layers is None or unit.layer in layers)
    if not kept:
        raise SurgeryError(
            f"{granularity!r} names no unit of layers {list(layers or ())}",
            f"Name one of {', '.join(GRANULARITIES)}, or units of these layers.",
        )
    return kept


def _numbers(step: str, pattern: str) -> list[str]:
    """The numbers of a list or range, as text."""
    numbers: list[int] = []
    for part in step.split(","):
        first, _, last = part.partition("-")
        span = range(int(first), int(last or first) + 1)
        if not span:
            raise SurgeryError(f"The range {part} in {pattern!r} is empty", "Write the lower number first.")
        numbers.extend(span)
    return [str(number) for number in numbers]
