"""What lies inside a branch, unit by unit, and narrowing branches: fewer rows of a feed-forward, fewer channels."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from otoscope.errors import SurgeryError
from otoscope.models.edits import ADAPTED
from otoscope.models.families import submodule
from otoscope.surgery.edit import Edit, registered
from otoscope.surgery.low_rank import linear_maps
from otoscope.surgery.units import Parts, Unit

KINDS = ("feed_forward", "convolution")
KEPT = "otoscope_kept"  # on a layer: branch -> numbers in the original of the inner units that are left
FIRST, DEPTHWISE, LAST = "pointwise_conv1", "depthwise_conv", "pointwise_conv2"  # what every family calls them
HALVES = 2  # of a gated linear unit: what is let through, and the gates

_SIZES = ("num_features", "num_channels")  # what norms call the number of their channels
_ADAPTER_IN, _ADAPTER_OUT = "lora_A.default.weight", "lora_B.default.weight"


@dataclass(frozen=True)
class Inner:
    """The units inside a branch, which can be taken out without a change of what enters and leaves it.

    Attributes:
        kept: numbers in the original of those that are left, ascending.
        axes: tensors of the branch that hold something for every one of them, by path within the encoder: the axis
            along which they lie, and how many times they lie there one after another.
    """

    kept: tuple[int, ...]
    axes: dict[str, tuple[int, int]]


def inner_units(parts: Parts, unit: Unit) -> Inner:
    """The rows of a feed-forward, or the channels of a convolution module.

    Row i of a feed-forward is row i of its first map with its bias, and column i of its second map, whose bias belongs
    to no row. Channel i of a convolution module is both rows of the first pointwise map that the gated linear unit
    makes it from, one in either half, its depthwise filter, its part of the norm and column i of the last pointwise
    map. Where the norm takes its statistics over groups of channels, unit i is the i-th channel of every group, so that
    the groups stay alike.

    Args:
        parts: the encoder.
        unit: a feed-forward or convolution branch.

    Raises:
        SurgeryError: the branch is not made of two maps, or of a gated convolution.
    """
    if unit.kind == "feed_forward":
        count, axes = _rows(parts, unit)
    else:
        count, axes = _channels(parts, unit)
    return Inner(_record(parts, unit).get(_branch(unit), tuple(range(count))), axes)


def _rows(parts: Parts, unit: Unit) -> tuple[int, dict[str, tuple[int, int]]]:
    maps: list[tuple[str, Any]] = [
        (f"{path}.{below}".rstrip("."), one)
        for path in unit.paths
        for below, one in linear_maps(submodule(parts.encoder, path))
    ]
    if len(maps) != 2 or maps[0][1].out_features != maps[1][1].in_features:
        raise SurgeryError(
            f"{unit.name} is not made of two linear maps one after the other, and has no rows to leave out",
            "Narrow the feed-forwards of other layers.",
        )
    (first, inward), (last, _) = maps
    tensors = ("weight", "bias", f"{ADAPTED}.weight", f"{ADAPTED}.bias")
    axes = {f"{first}.{name}": (0, 1) for name in (*tensors, _ADAPTER_OUT)}
    axes |= {f"{last}.{name}": (1, 1) for name in ("weight", f"{ADAPTED}.weight", _ADAPTER_IN)}
    return inward.out_features, {name: axis for name, axis in axes.items() if _tensor(parts, name) is not None}


def _channels(parts: Parts, unit: Unit) -> tuple[int, dict[str, tuple[int, int]]]:
    path = unit.paths[0]
    module: Any = submodule(parts.encoder, path)
    names = [name for name, _ in module.named_children()]
    if not all(isinstance(getattr(module, name, None), nn.Module) for name in (FIRST, DEPTHWISE, LAST)):
        raise SurgeryError(
            f"{unit.name} is no gated convolution: it has not {FIRST}, {DEPTHWISE} and {LAST}",
            "Narrow the convolution modules of other layers.",
        )
    within = names[names.index(FIRST) + 1 : names.index(LAST)]
    channels = len(getattr(module, DEPTHWISE).weight)
    groups = max((_norm_groups(getattr(module, name)) for name in within if name != DEPTHWISE), default=1)
    axes = {f"{path}.{FIRST}.{name}": (0, HALVES * groups) for name in ("weight", "bias")}
    for name in within:
        tensors = (*getattr(module, name).named_parameters(), *getattr(module, name).named_buffers())
        axes |= {f"{path}.{name}.{key}": (0, groups) for key, one in tensors if one.ndim and len(one) == channels}
    axes |= {f"{path}.{LAST}.weight": (1, groups)}
    return channels // groups, {name: axis for name, axis in axes.items() if _tensor(parts, name) is not None}


def _tensor(parts: Parts, path: str) -> torch.Tensor | None:
    """A parameter or buffer of the encoder, None where there is none."""
    owner, _, name = path.rpartition(".")
    module = submodule(parts.encoder, owner)
    return None if module is None else module._parameters.get(name, module._buffers.get(name))


def _norm_groups(module: Any) -> int:
    """Groups of channels that a norm takes its statistics over; of other modules, and of all channels, one."""
    return int(getattr(module, "num_groups", getattr(module, "groups", 1)))


def positions(count: int, kept: Iterable[int], blocks: int, each: int = 1) -> torch.Tensor:
    """Indices, along an axis, of units that lie there `blocks` times one after another.

    Args:
        count: units in all.
        kept: numbers of those that are asked for.
        blocks: how often all units lie along the axis.
        each: indices that a unit takes up each time.

    Returns:
        Indices, (blocks * len(kept) * each,).

    >>> positions(4, [0, 3], 2).tolist()
    [0, 3, 4, 7]
    """
    units = torch.tensor(list(kept), dtype=torch.long)
    starts = torch.arange(blocks)[:, None] * count + units
    return (starts[..., None] * each + torch.arange(each)).flatten()


@registered
@dataclass(frozen=True)
class Narrow(Edit):
    """Leaves only some of the rows of feed-forwards, or of the channels of convolution modules.

    The width of the residual stream stays, and so do the names of all tensors; see `inner_units` for what goes. Up to
    rounding the result is that of setting the columns of the branch's last map to zero for what is left out, with one
    exception: where a norm inside a convolution module takes statistics over the channels, these are then those of the
    channels that are left.

    Attributes:
        units: feed-forward or convolution branches.
        kept: numbers, in the original, of the rows or channels that stay; of those that an earlier edit left, which
            are all that can be named.
    """

    kind = "narrow"
    kept: Sequence[int] = ()

    def __post_init__(self) -> None:
        given: Sequence[Any] = self.kept if isinstance(self.kept, list | tuple) else [self.kept]  # from a file
        if any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in given):
            raise SurgeryError(f"{self.kept!r} are no numbers of rows or channels", "Give whole numbers from 0 on.")
        if not given or len(set(given)) < len(given):
            raise SurgeryError(
                f"{self.units!r} is to keep {'nothing' if not given else 'a row or channel twice'}",
                "Name one row or channel or more, each once. `Remove` takes whole branches out.",
            )
        object.__setattr__(self, "kept", tuple(sorted(given)))

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        for unit in parts.find(self.units, KINDS):
            inner = inner_units(parts, unit)
            places = {number: place for place, number in enumerate(inner.kept)}
            gone = [number for number in self.kept if number not in places]
            if gone and not parts.repeated:
                raise SurgeryError(
                    f"{unit.name} has no row or channel {gone[0]}; it has {len(inner.kept)}, "
                    f"from {inner.kept[0]} to {inner.kept[-1]}",
                    "Keep some of those that it has.",
                )
            left = [number for number in self.kept if number in places]
            if len(left) < len(inner.kept):
                _narrow(parts, inner, [places[number] for number in left])
                layer = parts.layers[(unit.layer or 0) - 1]
                setattr(layer, KEPT, _record(parts, unit) | {_branch(unit): tuple(left)})


def _narrow(parts: Parts, inner: Inner, left: list[int]) -> None:
    """Leaves only the units at these places."""
    for path, (axis, blocks) in inner.axes.items():
        tensor = _tensor(parts, path)
        assert tensor is not None
        index = positions(len(inner.kept), left, blocks).to(tensor.device)
        parts.replace(path, tensor.detach().index_select(axis, index))
    for path in dict.fromkeys(_owners(inner.axes)):
        _resize(submodule(parts.encoder, path), path.rpartition(".")[2])


def _owners(paths: Iterable[str]) -> Iterator[str]:
    """The modules that tensors belong to, from the inside out: an adapter, and the map that it stands beside."""
    for path in paths:
        owner = path.rpartition(".")[0]
        yield owner
        for inside in (f".{ADAPTED}", ".lora_A.default", ".lora_B.default"):
            if owner.endswith(inside):
                yield owner.removesuffix(inside)


def _resize(module: Any, name: str) -> None:
    """Tells a module how many units its tensors hold now."""
    if hasattr(module, "in_features"):
        module.out_features, module.in_features = module.weight.shape
    elif name in (FIRST, DEPTHWISE, LAST):
        if name == DEPTHWISE:
            module.groups = len(module.weight)
        if hasattr(module, "out_channels"):
            module.out_channels = len(module.weight)
            module.in_channels = module.weight.shape[1] * module.groups
    elif hasattr(module, "normalized_shape"):
        module.normalized_shape = tuple(module.weight.shape)
    for size in _SIZES:
        if hasattr(module, size):
            setattr(module, size, len(module.weight))


def _record(parts: Parts, unit: Unit) -> dict[str, tuple[int, ...]]:
    """What is left of the branches of a unit's layer, as far as they were narrowed."""
    return getattr(parts.layers[(unit.layer or 0) - 1], KEPT, {})


def _branch(unit: Unit) -> str:
    """A branch's name within its layer."""
    return unit.name.removeprefix(f"layer.{unit.layer}.")
