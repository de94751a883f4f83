"""Names of the parts of a model, and where each part lies in its encoder."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from otoscope.errors import SurgeryError
from otoscope.models import tap
from otoscope.models.absent import Absent, attention_of, branch_modules, branch_names
from otoscope.models.edits import ADAPTED, BRANCH, HEADS, BranchEdit, HeadEdits, head_edits, head_names
from otoscope.models.families import Family, submodule
from otoscope.surgery.patterns import alternatives, nearest

SUB_MODULES = ("attention", "feed_forward", "convolution", "norms")
GRANULARITIES = ("block", "sub-module", "tensor")


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
        units: units by name, in the order of the signal; what was taken out is in `lost`.
        repeated: whether what is applied was applied before: what it names may have been taken out since, and nothing is
            left to be done to it.
    """

    def __init__(self, encoder: nn.Module, family: Family) -> None:
        self.encoder, self.family = encoder, family
        self.config: Any = encoder.config
        self.total_heads: int = getattr(self.config, family.size_names[1])
        self._in_layer = re.compile(rf"{re.escape(family.layers)}\.(\d+)(?:\.(.+))?")
        self._in_convs = re.compile(rf"{re.escape(str(family.conv_layers))}\.(\d+)(\..+)?")
        self._renamed = _renamed(family)
        self.layers: list[nn.Module] = []
        self.units: dict[str, Unit] = {}
        self.lost: dict[str, Unit] = {}
        self.repeated = False
        self.reread()

    def reread(self) -> None:
        """Names the units anew, after modules were put in place of others."""
        self.layers = list(submodule(self.encoder, self.family.layers).children())  # type: ignore[union-attr]
        self.units, self.lost = {}, {}
        self._name_layers()
        self._name_weights()

    def _name_layers(self) -> None:
        family = self.family
        for number, layer in enumerate(self.layers, start=1):
            place, name = f"{family.layers}.{number - 1}", f"layer.{number}"
            norms = tuple(f"{place}.{key}" for key, one in layer.named_children() if isinstance(one, nn.LayerNorm))
            modules = branch_modules(family)
            for key, kind in [("", "layer"), *branch_names(family)]:
                called = f"{name}.{key}" if key else name
                paths = tuple(f"{place}.{path}" for path in modules.get(key, ()))
                paths = norms if kind == "norms" else paths or (place,)
                absent = isinstance(layer, Absent) or any(
                    isinstance(submodule(self.encoder, path), Absent) for path in paths
                )
                (self.lost if absent else self.units)[called] = Unit(called, kind, paths, number)
            attention = attention_of(layer, family)
            kept = () if attention is None else head_names(attention, self.total_heads)
            for head in range(self.total_heads):
                unit = Unit(f"{name}.head.{head}", "head", (f"{place}.{family.attention}",), number, head)
                there = self.units if head in kept else self.lost
                there[unit.name] = unit

    def _name_weights(self) -> None:
        convs = f"{self.family.conv_layers}."
        modules = [path for path, one in self.encoder.named_modules() if not isinstance(one, Absent)]
        for path in [*modules, *self.encoder.state_dict()]:
            if not path or HEADS in path or BRANCH in path:
                continue
            name = self._canonical(path.replace(f".{ADAPTED}", ""))
            kind = "conv" if re.fullmatch(r"conv\.\d+", name) and path.startswith(convs) else "weights"
            layer = re.match(r"layer\.(\d+)\.", name)
            self.units.setdefault(name, Unit(name, kind, (path,), int(layer.group(1)) if layer else None))

    def _canonical(self, path: str) -> str:
        """A path in the encoder as a unit's name."""
        found = self._in_layer.fullmatch(path)
        if found is None:
            found = self._in_convs.fullmatch(path)
            return path if found is None else f"conv.{int(found.group(1)) + 1}{found.group(2) or ''}"
        rest = f"{found.group(2) or ''}."
        for own, name in self._renamed.items():
            if rest.startswith(f"{own}."):
                rest = name + rest[len(own) :]
                break
        return f"layer.{int(found.group(1)) + 1}.{rest}".rstrip(".")

    def find(self, pattern: str, kinds: Sequence[str] | None = None, lost: bool = False) -> list[Unit]:
        """Units by name.

        Args:
            pattern: a name, in which "*" stands for anything within one step, and a number may be a list or range
                such as 3-5 or 0,2,7.
            kinds: kinds of units that are wanted here; None is all.
            lost: what was taken out may be named too.

        Raises:
            SurgeryError: a name or number matches nothing, or a unit of another kind.
        """
        if not isinstance(pattern, str):
            raise SurgeryError(
                f"{pattern!r} names no unit",
                "Give one name or pattern, such as layer.3.head.0-2; an edit for each other.",
            )
        found: dict[str, Unit] = {}
        for name, expression in alternatives(pattern):
            matched = {key: unit for key, unit in self.units.items() if expression.fullmatch(key)}
            gone = {key: unit for key, unit in self.lost.items() if expression.fullmatch(key)}
            if lost:
                matched |= gone
            if not matched and not self.repeated:
                self._refuse(pattern, name, list(gone.values()))
            found |= matched
        for unit in found.values():
            if kinds is not None and unit.kind not in kinds:
                raise SurgeryError(
                    f"{unit.name} is of the kind {unit.kind!r}, on which this edit does not act",
                    f"Name a unit of one of these kinds: {', '.join(kinds)}.",
                )
        return list(found.values())

    def _refuse(self, pattern: str, name: str, gone: Sequence[Unit]) -> None:
        whole = [unit for unit in self.lost.values() if unit.head is None and f"{name}.".startswith(f"{unit.name}.")]
        if whole:
            raise SurgeryError(
                f"{pattern!r} names {whole[0].name}, which was taken out of this model", "Name a unit that is left."
            )
        if gone:
            raise SurgeryError(f"{pattern!r} names a head that was cut from this model", "Name a head that is left.")
        raise SurgeryError(
            f"{pattern!r} matches no unit of this {self.family.name} model of {len(self.layers)} layers with "
            f"{self.total_heads} heads",
            nearest(name, [*self.units, *self.lost]),
        )

    def heads(self, pattern: str) -> dict[int, list[int]]:
        """Heads by layer: those named, and all that are left of layers and attention modules that are named.

        Returns:
            layer -> positions in the order of the tensors.

        Raises:
            SurgeryError: see `find`.
        """
        chosen: dict[int, list[int]] = {}
        there = self.attentions()
        found = self.find(pattern, ("head", "attention", "layer"))
        for unit in found:
            if unit.layer is None or unit.layer not in there:
                continue
            names = head_names(there[unit.layer], self.total_heads)
            wanted = range(len(names)) if unit.head is None else [names.index(unit.head)]
            chosen.setdefault(unit.layer, []).extend(k for k in wanted if k not in chosen.get(unit.layer, []))
        if found and not chosen:
            raise SurgeryError(f"{pattern!r} names layers without attention", "Name a layer that has attention.")
        return chosen

    def attention(self, layer: int) -> Any:
        """The attention module of a layer, from 1.

        Raises:
            SurgeryError: the layer, or its attention, was taken out.
        """
        found = attention_of(self.layers[layer - 1], self.family)
        if found is None:
            raise SurgeryError(
                f"Layer {layer} of this model has no attention any more", "Name a layer that has attention."
            )
        return found

    def attentions(self) -> dict[int, Any]:
        """The attention modules that there are, by layer."""
        found = {number: attention_of(layer, self.family) for number, layer in enumerate(self.layers, start=1)}
        return {number: attention for number, attention in found.items() if attention is not None}

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

    def keep_every_layer(self) -> None:
        """Turns LayerDrop off, where a layer needs what another one makes."""
        owners: tuple[Any, ...] = (self.encoder, self.config)
        for owner in owners:
            for name in ("layerdrop", "encoder_layerdrop"):
                if hasattr(owner, name):
                    setattr(owner, name, 0.0)

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


def _renamed(family: Family) -> dict[str, str]:
    """How branches are called, by the path of their module within a layer; feed-forwards of several modules keep theirs."""
    found = {family.attention: "attention", family.convolution: "convolution"}
    for k, modules in enumerate(family.feed_forwards, start=1):
        if len(modules) == 1:
            found[modules[0]] = "feed_forward" if len(family.feed_forwards) == 1 else f"feed_forward.{k}"
    return {path: name for path, name in found.items() if path is not None}


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
